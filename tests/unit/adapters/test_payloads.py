"""What of a model's answer is changed before it is recorded."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_ai.messages import ModelResponse, ModelResponsePart, TextPart, ToolCallPart

from surefoot.adapters.pydantic_ai.payloads import writable

HALF = "\ud83d"


class Unwalked(dict[str, Any]):
    """Arguments that only an encoder may look into."""

    def items(self) -> Any:
        raise AssertionError("walked through")


def test_an_answer_that_can_be_encoded_is_not_walked_through() -> None:
    """Would catch decisions that cost more, the more their calls say, to find what one in a million has."""
    parts: list[ModelResponsePart] = [TextPart("so"), ToolCallPart("send", Unwalked(to="ann"), "call-1")]
    assert writable(ModelResponse(parts)).parts == parts


@pytest.mark.parametrize("beside", ["ann", 2**70, object()])
def test_half_characters_are_written_out_wherever_they_are(beside: Any) -> None:
    """Would catch halves that are overlooked because an encoder stumbled over something else before."""
    answer = ModelResponse([ToolCallPart("send", {"to": [beside, {f"a{HALF}": f"b{HALF}"}]}, f"call{HALF}")])
    (written,) = writable(answer).parts
    assert isinstance(written, ToolCallPart)
    assert written.args == {"to": [beside, {"a\\ud83d": "b\\ud83d"}]}
    assert written.tool_call_id == "call\\ud83d"
    assert answer.parts[0] is not written, "the service's answer is the model's own"


def test_calls_without_ids_are_told_from_all_others() -> None:
    """Would catch two calls of one answer that share a place in the run."""
    ids = ["", "send", ""]
    named = writable(ModelResponse([ToolCallPart("send", {}, one) for one in ids])).parts
    found = [part.tool_call_id for part in named if isinstance(part, ToolCallPart)]
    assert found[1] == "send"
    assert len(set(found) - {""}) == 3
