"""The local model with its real weights: what a Pydantic AI agent can rely on, whatever the model makes of it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, NativeOutput, PromptedOutput
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import ModelAPIError, UnexpectedModelBehavior, UserError
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from surefoot.models.completion import Sampling
from surefoot.models.conversation import RESULT_CHARS
from surefoot.models.engine import Engine
from surefoot.models.filling import fill_in
from surefoot.models.grammar import lark
from surefoot.models.local import LocalModel, _answer, _wish
from surefoot.models.schema import bounded

LOOK = ToolDefinition(
    name="lookup_order",
    description="Look up an order: its price and status.",
    parameters_json_schema={
        "type": "object",
        "properties": {"order_id": {"type": "string"}},
        "required": ["order_id"],
    },
)
REFUND = ToolDefinition(
    name="refund",
    description="Pay money back for an order.",
    parameters_json_schema={
        "type": "object",
        "properties": {"order_id": {"type": "string"}, "amount": {"type": "number"}, "reason": {"type": "string"}},
        "required": ["order_id", "amount", "reason"],
    },
)
TOOLS = ModelRequestParameters(function_tools=[LOOK, REFUND])

pytestmark = pytest.mark.slow


@pytest.fixture
def model(engine: Engine, real_weights: Path) -> LocalModel:
    made = LocalModel(real_weights)
    assert made.engine is engine
    return made


def asking(text: str = "Order A-4411 arrived broken, refund it.") -> list[Any]:
    return [ModelRequest([UserPromptPart(text)], instructions="You are a support clerk.")]


async def answers(model: LocalModel, seeds: range, **settings: Any) -> list[str]:
    """What each seed leads to, as text."""
    said = []
    for seed in seeds:
        merged = {"seed": seed, **settings}
        response = await model.request(asking(), ModelSettings(**merged), TOOLS)  # type: ignore[typeddict-item]  # from a dict
        (part,) = response.parts
        said.append(part.args_as_json_str() if isinstance(part, ToolCallPart) else str(part))
    return said


async def test_an_agent_looks_up_acts_and_answers(model: LocalModel) -> None:
    """Catches a clerk that can't do the simplest ticket."""
    done: list[tuple[Any, ...]] = []
    agent = Agent(model, instructions="You are a support clerk.")

    @agent.tool_plain
    def lookup_order(order_id: str) -> dict[str, str]:
        """Look up an order: its price and status."""
        done.append(("look", order_id))
        return {"order_id": order_id, "price": "42.50", "status": "delivered"}

    @agent.tool_plain
    def refund(order_id: str, amount: Decimal, reason: str) -> str:
        """Pay money back for an order."""
        done.append(("refund", order_id, amount))
        return "refunded"

    result = await agent.run("Order A-4411 arrived broken, refund it.", model_settings={"temperature": 0})
    assert done == [("look", "A-4411"), ("refund", "A-4411", Decimal("42.5"))]
    assert result.output
    assert result.usage.input_tokens > result.usage.output_tokens > 10
    first = result.all_messages()[1]
    assert isinstance(first, ModelResponse)
    assert (first.model_name, first.provider_name, first.finish_reason) == ("smollm2-135m", "local", "tool_call")
    assert first.provider_details is not None
    assert set(first.provider_details["choice"]) == {"lookup_order", "refund", "finish"}


async def test_the_seed_decides(model: LocalModel) -> None:
    """Catches seeds that all say the same, and a seed that is not used. What is cached may change last digits."""
    hot = await answers(model, range(4), temperature=1.5)
    again = await answers(model, range(4), temperature=1.5)
    assert len(set(hot)) > 1
    assert sum(one == other for one, other in zip(hot, again, strict=True)) >= 2


async def test_structured_output_always_validates(model: LocalModel) -> None:
    """Catches a grammar that lets through what Pydantic refuses; each way Pydantic AI asks for structure."""

    class Verdict(BaseModel):
        order_id: str
        urgent: bool
        kind: Literal["refund", "question"]
        score: int | None = None

    kinds: list[Any] = [Verdict, NativeOutput(Verdict), PromptedOutput(Verdict)]
    for kind in kinds:
        agent: Agent[None, Verdict] = Agent(model, output_type=kind, retries=0)
        result = await agent.run("Order A-4411 arrived broken, refund it.", model_settings={"seed": 1})
        assert result.output.order_id == "A-4411"


async def test_a_retry_is_answered_with_another_try(model: LocalModel) -> None:
    """Catches a model that can't be asked again, and an error it isn't shown."""
    agent = Agent(model, output_type=int, retries=3)
    asked: list[int] = []

    @agent.output_validator
    def only_at_the_third_try(value: int) -> int:
        asked.append(value)
        if len(asked) < 3:
            raise ModelRetry("Too small.")
        return value

    await agent.run("How many legs has a dog?", model_settings={"seed": 4})
    assert len(asked) == 3


async def test_without_tools_it_chats(model: LocalModel) -> None:
    """Catches a plain agent that is shown a list of no tools; the history is part of the chat."""
    agent = Agent(model, instructions="Answer in one word.")
    first = await agent.run("Say hello.", model_settings={"seed": 1, "max_tokens": 12})
    again = await agent.run(
        "And in French?", message_history=first.all_messages(), model_settings={"seed": 1, "max_tokens": 12}
    )
    assert first.output
    assert again.usage.input_tokens > first.usage.input_tokens
    stopped = await agent.run("Count: 1, 2, 3", model_settings={"seed": 1, "stop_sequences": [" "]})
    assert " " not in stopped.output


async def test_a_token_limit_is_reported_as_providers_do(model: LocalModel) -> None:
    """Catches a half-written call that is taken for a whole one."""
    response = await model.request(asking(), {"max_tokens": 2, "tool_choice": ["refund"], "seed": 1}, TOOLS)
    assert response.finish_reason == "length"
    agent = Agent(model, output_type=list[str], retries=0)
    with pytest.raises(UnexpectedModelBehavior):
        await agent.run("Name ten towns.", model_settings={"max_tokens": 2})


async def test_the_choice_of_tools_is_obeyed(model: LocalModel) -> None:
    """Catches a tool that is called against the caller's word."""
    for seed in range(3):
        forced = await model.request(asking(), {"tool_choice": ["refund"], "seed": seed}, TOOLS)
        assert isinstance(forced.parts[0], ToolCallPart)
        assert forced.parts[0].tool_name == "refund"
        barred = await model.request(asking(), {"tool_choice": "none", "seed": seed}, TOOLS)
        assert isinstance(barred.parts[0], TextPart)
    with pytest.raises(UserError, match="neither a tool call nor an answer"):
        await model.request(asking(), {"tool_choice": ["unknown"]}, TOOLS)


async def test_it_can_be_streamed_in_one_piece(model: LocalModel) -> None:
    """Catches an agent whose event handler needs a stream."""
    async with Agent(model).run_stream("Say hello.", model_settings={"seed": 1, "max_tokens": 8}) as stream:
        pieces = [text async for text in stream.stream_text()]
    assert pieces[-1]


async def test_a_cancelled_request_frees_the_model_at_once(model: LocalModel) -> None:
    """Catches a model that talks on to nobody, and one that is wedged afterwards."""
    loop = asyncio.get_running_loop()
    long: Callable[[], Awaitable[Any]] = lambda: model_request(  # noqa: E731  one expression, used twice
        model, asking("Tell me a long story."), model_settings={"max_tokens": 1500, "temperature": 1.0}
    )
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await long()
    begun = loop.time()
    await model_request(model, asking("Hi."), model_settings={"max_tokens": 1})
    assert loop.time() - begun < 5  # fifteen hundred tokens take twenty seconds
    with pytest.raises(ModelAPIError, match=r"no answer within 0\.2 s"):
        await model_request(model, asking("Tell me a long story."), model_settings={"max_tokens": 1500, "timeout": 0.2})


async def test_what_is_too_long_is_cut_or_refused_by_name(model: LocalModel) -> None:
    """Catches an empty answer to a prompt that did not fit."""
    long = asking("word " * 20_000)
    assert (await model.request(long, {"max_tokens": 3}, ModelRequestParameters())).parts
    crowd = [ToolDefinition(name=f"tool_{n}", description="word " * 40) for n in range(150)]
    with pytest.raises(ModelAPIError, match="offer fewer tools"):
        await model.request(asking(), None, ModelRequestParameters(function_tools=crowd))
    assert RESULT_CHARS < 1000


SCHEMAS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "string", "pattern": r"^[A-Z]-\d{4}$"},
    {"type": "string", "pattern": r"^(?!x)(a)\1"},
    *(
        {"type": "string", "format": form}
        for form in ("date", "date-time", "time", "email", "uuid", "ipv4", "hostname")
    ),
    {"type": "number", "exclusiveMinimum": 0, "maximum": 5},
    {"type": "number"},
    {"type": "integer", "multipleOf": 5},
    {"enum": ["ab", "ac", 3, None]},
    {"type": "array", "items": {"type": "string", "maxLength": 8}, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "integer"}]},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "object", "properties": {"é": {"type": "boolean"}, "b": {"type": "null"}}, "required": ["é"]},
    {"anyOf": [{"type": "object", "properties": {"x": {"type": "integer"}}}, {"type": "null"}]},
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:50])
async def test_the_decoder_knows_our_words(engine: Engine, schema: dict[str, Any]) -> None:
    """Catches a keyword that switches the grammar off: hot, the model would then write prose.

    Alone, and as a tool's argument.
    """
    hot = Sampling(temperature=1.5, seed=3)

    def write(session: Any) -> tuple[str, str]:
        alone = session.complete("JSON:", max_tokens=200, grammar=lark(bounded(schema)), sampling=hot).text
        call: dict[str, Any] = {"type": "object", "properties": {"a": schema, "z": schema}, "required": ["a", "z"]}
        return alone, fill_in(session, "Form: f\n", call, hot, 400).text

    alone, call = await engine.run(write)
    json.loads(alone)
    assert list(json.loads(call)) == ["a", "z"]


async def test_most_decisions_on_plain_tickets_are_sensible(model: LocalModel) -> None:
    """Catches a change of wording that makes the clerk useless: what it does first, and with which order number."""
    tickets = {
        "A-4411": "Order A-4411 arrived broken, refund it.",
        "B-1207": "Where is my order B-1207? It should have come last week.",
        "C-3390": "I was charged twice for order C-3390, please give me my money back.",
        "D-5562": "Please send me the invoice of order D-5562 again.",
    }
    sensible = right_order = calls = 0
    for order_id, text in tickets.items():
        for seed in range(5):
            wish = _wish(asking(text), ModelSettings(seed=seed), TOOLS)
            (part,) = (await model.engine.run(lambda s, wish=wish: _answer(s, model.engine, wish))).parts  # type: ignore[misc]
            if isinstance(part, ToolCallPart):
                calls += 1
                sensible += part.tool_name == "lookup_order" or (part.tool_name == "refund" and order_id[0] in "AC")
                right_order += json.loads(str(part.args))["order_id"] == order_id
    assert sensible >= 15
    assert right_order == calls
