"""The local model as a Pydantic AI model: a small, erratic clerk that runs anywhere and needs no account.

Owns: one request, from messages to a response. What always holds: tool calls and structured answers parse, because they
are generated inside the grammar of their schema (unless `max_tokens` cuts them, which is reported as `length`, as
providers do); one response holds one call or one answer; the event loop is never blocked, and a cancelled request stops
at the next token. The same seed and messages give the same response in a fresh process, and nearly always in a warm one:
a cached prompt may change the last digits of a probability (45 of 48 responses were the same). Another seed may give
another response.

The model is SmolLM2-135M-Instruct: it errs often, which is what it is for. Settings it follows: `max_tokens`,
`temperature`, `top_p`, `top_k`, `seed`, `stop_sequences` (free text only), `timeout`, `tool_choice`; others are ignored.
Text is cut to the limits in `conversation`; what still does not fit the context is `ModelContextWindowExceededError`.
Usage: the longest prompt of the request, and the tokens of the choice and the answer.
"""

import asyncio
import importlib.util
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic_ai import exceptions
from pydantic_ai.messages import FinishReason, ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from surefoot.models import weights as cached_weights
from surefoot.models.choice import drawn, probabilities
from surefoot.models.clerk import MODEL_NAME, SYSTEM, TIMEOUT_S, ClerkModel, api_error
from surefoot.models.completion import ContextExceeded, Sampling
from surefoot.models.conversation import Conversation, read
from surefoot.models.engine import Engine, Session, shared_engine
from surefoot.models.errors import MissingExtra, WeightsMissing
from surefoot.models.filling import Filled, fill_in
from surefoot.models.grammar import grounded, lark_quoted
from surefoot.models.prompt import Action, chat_prompt, choice_prompt, form_prompt, known_text, offered, reply_prompt

TEMPERATURE = 0.7
INPUT_COOLING = 0.5
"""Inputs are drawn at this share of the temperature: a choice may be odd, but an order number is copied or wrong."""
INPUT_TOKENS = 768  # far above what the bounds of a schema allow
CHAT_TOKENS = 200
REPLY_CHARS = 120


@dataclass(frozen=True, slots=True)
class _Wish:
    """One request, ready for the model's thread."""

    conversation: Conversation
    actions: tuple[Action, ...]
    sampling: Sampling
    max_tokens: int | None
    stop: tuple[str, ...]


class LocalModel(ClerkModel):
    """SmolLM2-135M in this process.

    Cheap to make: the weights are loaded at the first request, once per process.

    Args:
        weights: A GGUF file of SmolLM2-Instruct; None: the pulled one.
        threads: Threads for reading prompts; None: up to 4, as many as there are cores.
        settings: Defaults for every request.

    Raises:
        WeightsMissing: Nothing was pulled yet.
        MissingExtra: xllamacpp is not installed.
    """

    def __init__(
        self, weights: Path | None = None, *, threads: int | None = None, settings: ModelSettings | None = None
    ) -> None:
        super().__init__(settings=settings)
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingExtra("xllamacpp")
        found = weights or cached_weights.find()
        if found is None or not found.is_file():
            where = weights or cached_weights.cache_dir() / cached_weights.FILE_NAME
            raise WeightsMissing(f"no weights at {where}", hint="surefoot model pull   (93 MB, once)")
        self.engine = shared_engine(found, threads)

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Answer: one tool call, or the final answer.

        Raises:
            ModelContextWindowExceededError: The tools and texts do not fit the context (in older versions of Pydantic AI
                its base, `ModelAPIError`).
            ModelTimeoutError: The `timeout` setting passed, waiting for other requests included (likewise).
        """
        settings, parameters = self.prepare_request(model_settings, model_request_parameters)
        wish = _wish(messages, settings or ModelSettings(), parameters)
        limit_s = _timeout_s(settings)
        try:
            async with asyncio.timeout(limit_s):
                return await self.engine.run(lambda session: _answer(session, self.engine, wish))
        except TimeoutError as error:
            raise api_error("ModelTimeoutError", f"no answer within {limit_s:g} s") from error
        except ContextExceeded as error:
            raise api_error("ModelContextWindowExceededError", f"{error}; offer fewer tools") from error


def _timeout_s(settings: ModelSettings | None) -> float:
    wanted = (settings or {}).get("timeout")
    return float(wanted) if isinstance(wanted, int | float) else TIMEOUT_S


def _wish(messages: Sequence[ModelMessage], settings: ModelSettings, parameters: ModelRequestParameters) -> _Wish:
    actions = offered(parameters, settings.get("tool_choice"))
    if not actions:
        raise exceptions.UserError("the request allows neither a tool call nor an answer")
    seed = settings.get("seed")
    sampling = Sampling(
        temperature=settings.get("temperature", TEMPERATURE),
        top_p=settings.get("top_p", 0.95),
        top_k=settings.get("top_k", 40),
        seed=secrets.randbits(31) if seed is None else seed % 2**31,
    )
    stop = tuple(settings.get("stop_sequences") or ())
    return _Wish(read(messages, parameters), actions, sampling, settings.get("max_tokens"), stop)


def _answer(session: Session, engine: Engine, wish: _Wish) -> ModelResponse:
    """Do one request; runs on the model's thread."""
    if len(wish.actions) == 1 and wish.actions[0].is_reply:
        return _chat(session, wish)
    prompt = choice_prompt(wish.conversation, wish.actions)
    chances = {wish.actions[0].shown: 1.0}
    if len(wish.actions) > 1:
        chances = probabilities(session, engine, wish.conversation, wish.actions, wish.sampling.temperature)
    name = drawn(chances, wish.sampling.seed, prompt)
    action = next(action for action in wish.actions if action.shown == name)
    done = _reply(session, wish, prompt, action) if action.is_reply else _filled_in(session, wish, action)
    part = TextPart(done.text) if action.tool is None else ToolCallPart(action.tool, done.text)
    details = {"seed": wish.sampling.seed, "choice": {each: round(chance, 3) for each, chance in chances.items()}}
    return _response(session, part, details, is_cut=done.is_cut)


def _filled_in(session: Session, wish: _Wish, action: Action) -> Filled:
    text = known_text(wish.conversation)
    schema = grounded(action.schema, text)
    limit = wish.max_tokens or INPUT_TOKENS
    return fill_in(session, form_prompt(text, action), schema, _cooled(wish.sampling), limit)


def _reply(session: Session, wish: _Wish, prompt: str, action: Action) -> Filled:
    done = session.complete(
        reply_prompt(prompt, action),
        max_tokens=wish.max_tokens or CHAT_TOKENS,
        grammar=lark_quoted(1, REPLY_CHARS),
        sampling=_cooled(wish.sampling),
        stop=('"', *wish.stop),
    )
    return Filled(done.text.strip(), done.is_cut)


def _cooled(sampling: Sampling) -> Sampling:
    return replace(sampling, temperature=sampling.temperature * INPUT_COOLING)


def _chat(session: Session, wish: _Wish) -> ModelResponse:
    limit = wish.max_tokens or CHAT_TOKENS
    prompt = chat_prompt(wish.conversation)
    done = session.complete(prompt, max_tokens=limit, sampling=wish.sampling, stop=("<|im_end|>", *wish.stop))
    return _response(session, TextPart(done.text.strip()), {"seed": wish.sampling.seed}, is_cut=done.is_cut)


def _response(
    session: Session, part: TextPart | ToolCallPart, details: dict[str, Any], *, is_cut: bool
) -> ModelResponse:
    reason: FinishReason = "length" if is_cut else "tool_call" if isinstance(part, ToolCallPart) else "stop"
    return ModelResponse(
        parts=[part],
        usage=RequestUsage(input_tokens=session.prompt_tokens, output_tokens=session.tokens),
        model_name=MODEL_NAME,
        provider_name=SYSTEM,
        provider_details=details,
        finish_reason=reason,
    )
