"""Digests of requests: the same question has the same digest, however it is computed; another question has another."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic_ai.messages import (
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.usage import RequestUsage

from surefoot.adapters.pydantic_ai.requests import _SKIPPED, RequestDigests, _facts

NO_TOOLS = SimpleNamespace(function_tools=[])

HISTORY: list[ModelMessage] = [
    ModelRequest(parts=[SystemPromptPart("100 % sure"), UserPromptPart("it's\nbroken")], instructions="be kind"),
    ModelResponse(parts=[TextPart("so"), ToolCallPart("refund", {"order": "A-1", "amount": 12.5}, "call-1")]),
    ModelRequest(parts=[ToolReturnPart("refund", {"receipt": [None, "r-1"]}, "call-1")]),
    ModelResponse(parts=[ThinkingPart("hm"), ToolCallPart("look", '{"at": 1}', "call-2")]),
    ModelRequest(parts=[ToolReturnPart("look", "seen", "call-2"), UserPromptPart(["see", ImageUrl("http://x/y.png")])]),
]


def digest(messages: list[ModelMessage], parameters: Any = NO_TOOLS, model: str = "m") -> str:
    """Return the digest of a request, computed from scratch."""
    return RequestDigests().digest(model, messages, parameters)


def test_a_growing_history_has_the_digest_it_has_from_scratch() -> None:
    """Catches a chain that depends on the requests before, which a replay after a crash doesn't see."""
    digests = RequestDigests()
    for length in range(1, len(HISTORY) + 1):
        assert digests.digest("m", HISTORY[:length], NO_TOOLS) == digest(HISTORY[:length])


def test_a_history_that_was_shortened_or_rewritten_has_its_own_digest() -> None:
    """Catches going on from the last request's chain when this request doesn't go on from it."""
    digests = RequestDigests()
    digests.digest("m", HISTORY, NO_TOOLS)
    shortened, rewritten = HISTORY[2:], [*HISTORY[:3], ModelResponse(parts=[TextPart("no")]), HISTORY[4]]
    assert digests.digest("m", shortened, NO_TOOLS) == digest(shortened) != digest(HISTORY)
    assert digests.digest("m", rewritten, NO_TOOLS) == digest(rewritten) != digest(HISTORY)


def test_times_usage_and_ids_are_no_part_of_the_question() -> None:
    """Catches a drift on every replay: these differ though nothing else does."""
    then = datetime(2020, 1, 1, tzinfo=UTC)
    one = ModelResponse(parts=[TextPart("so")])
    other = ModelResponse(
        parts=[TextPart("so")], usage=RequestUsage(input_tokens=9), timestamp=then, provider_response_id="r", run_id="x"
    )
    assert digest([one]) == digest([other])
    assert digest([ModelRequest(parts=[UserPromptPart("so", timestamp=then)])]) == digest(
        [ModelRequest(parts=[UserPromptPart("so")])]
    )


@pytest.mark.parametrize(
    "other",
    [
        [ModelRequest(parts=[UserPromptPart("what")], instructions="be brief")],
        [ModelRequest(parts=[SystemPromptPart("what")])],
        [ModelRequest(parts=[UserPromptPart("what?")])],
        [ModelRequest(parts=[UserPromptPart("what"), UserPromptPart("")])],
    ],
)
def test_another_question_has_another_digest(other: list[ModelMessage]) -> None:
    """Catches a digest that looks at less than the model does."""
    assert digest([ModelRequest(parts=[UserPromptPart("what")])]) != digest(other)


def test_model_and_tools_are_part_of_the_question() -> None:
    """Catches a replay with other tools or another model that goes unnoticed."""
    tools = SimpleNamespace(function_tools=[SimpleNamespace(name="refund", description="Refund an order.")])
    assert len({digest(HISTORY), digest(HISTORY, tools), digest(HISTORY, model="n")}) == 3


def test_a_part_is_described_by_the_same_text_for_ever() -> None:
    """Catches a faster description that differs: each run in progress would then note a drift at its next replay."""
    for message in HISTORY:
        for part in message.parts:
            names = [name for name in type(part).__dataclass_fields__ if name not in _SKIPPED]
            assert _facts(part) == repr([(name, getattr(part, name)) for name in names])
    assert _facts(object()) == "[]"


def test_calls_seen_are_those_with_an_answer_in_front_of_the_model() -> None:
    """Catches taking a call for answered because it was made: its repetition would act again."""
    digests = RequestDigests()
    assert digests.calls_seen(HISTORY[:2]) == frozenset()
    assert digests.calls_seen(HISTORY) == {"call-1", "call-2"}
    assert digests.calls_seen(HISTORY[3:]) == {"call-2"}
