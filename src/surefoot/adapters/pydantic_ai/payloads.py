"""What Pydantic AI gives us to record, and what it is encoded by: its own JSON form, once.

What holds: a tool's value that can't be recorded fails in the call that made it, naming the tool and the place in the
value; a recorded one that can't be read back is never taken for a mistake of the model: it blocks the run.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import msgspec
from pydantic import ValidationError
from pydantic_ai import ToolReturn, durable_exec
from pydantic_ai.durable_exec import JSON_CODEC, DurabilityCodec
from pydantic_ai.messages import ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_core import PydanticSerializationError

from surefoot.journal import Undecodable, codec_of, current_frame
from surefoot.journal.texts import without_surrogates
from surefoot.journal.values import NOT_JSON, Unserializable
from surefoot.runs.live.run import LiveRun

PAYLOAD = codec_of(object, "Pydantic AI")

_encode = msgspec.json.Encoder().encode

RETURNED = ("tool_return", "tool_content_result")
"""The kinds by which Pydantic AI marks the recorded value of a tool."""

_TOOL_RESULT = getattr(durable_exec, "CallToolResult", None)
"""The type of a tool's result or refusal; Pydantic AI did not tell it yet in 2.36, where each is encoded at once."""

_FILES = "content_file_digests"
"""Beside a value: which of its parts are files. Pydantic AI keeps it next to each tool's result."""


class Codec(DurabilityCodec):
    """Encodes what is to be recorded, as Pydantic AI does; a tool's result only when somebody records it.

    A declared tool records its own outcome and gives its caller the value as it will be read back. To encode and decode
    that once more would change nothing.
    """

    def dump(self, tp: Any, value: Any) -> Any:
        """See `DurabilityCodec.dump`."""
        if tp is _TOOL_RESULT:
            return Result(value)
        return JSON_CODEC.dump(tp, writable(value) if isinstance(value, ModelResponse) else value)

    def load(self, tp: Any, payload: Any) -> Any:
        """See `DurabilityCodec.load`; a payload that can't be read back blocks the run."""
        if isinstance(payload, Result):
            return payload.value
        return read_back("Pydantic AI", tp, payload)


def writable(response: ModelResponse) -> ModelResponse:
    """Return a model's answer as it is recorded: with ids, and with its half characters written out.

    A call that the service gave no id gets one of Pydantic AI's, by which it is told from all others. Half characters, as
    where a service has cut an emoji in two, have no form in UTF-8; and the answer is paid for.
    """
    response = copy.copy(response)
    response.parts = [_with_id(part) for part in response.parts]
    try:
        _encode(response.parts)
    except NOT_JSON:  # half characters, or what only Pydantic AI can write
        response.parts = [_writable_part(part) for part in response.parts]
    return response


def _with_id(part: Any) -> Any:
    if not isinstance(part, ToolCallPart) or part.tool_call_id:
        return part
    return replace(part, tool_call_id=ToolCallPart(part.tool_name).tool_call_id)


def _writable_part(part: Any) -> Any:
    fields = _written_out(vars(part))
    if fields == vars(part):
        return part
    written = copy.copy(part)
    vars(written).update(fields)
    return written


def _written_out(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, dict):
        return {_written_out(name): _written_out(item) for name, item in value.items()}
    return [_written_out(item) for item in value] if isinstance(value, list) else value


class Result(msgspec.Struct, frozen=True):
    """A tool's result or refusal in Pydantic AI's own type, not yet encoded."""

    value: Any


class Returned(msgspec.Struct, frozen=True):
    """What a tool returned, not yet encoded."""

    tool: str
    value: Any


def encoded(payload: object) -> Any:
    """Return the payload as data that can be recorded.

    Raises:
        Unserializable: It has no JSON form.
    """
    if isinstance(payload, Result):
        return JSON_CODEC.dump(_TOOL_RESULT, payload.value)
    return _dumped(payload.tool, payload.value) if isinstance(payload, Returned) else payload


def _dumped(tool: str, value: Any) -> dict[str, Any]:
    """Return a tool's value in the form in which Pydantic AI records it."""
    is_mapping_of_that_kind = isinstance(value, dict) and value.get("kind") == "tool-return"
    try:
        if isinstance(value, ToolReturn):
            return {"kind": "tool_return", "result": JSON_CODEC.dump(ToolReturn, value)}
        part = JSON_CODEC.dump(ToolReturnPart, ToolReturnPart(tool_name=tool, content=value, tool_call_id=""))
        payload = {"kind": RETURNED[is_mapping_of_that_kind], "result": part["content"]}
        if _FILES in part:
            payload[_FILES] = part[_FILES]
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise _unserializable(tool, value, error) from error
    return payload


def _unserializable(tool: str, value: Any, error: Exception) -> Unserializable:
    """Return the refusal of a tool's value, naming the first part of it that has no JSON form."""
    try:
        codec_of(object, f"tool {tool}").dump(value)
    except Unserializable as refusal:
        return Unserializable(refusal.message, hint="return JSON values, pydantic models or dataclasses from the tool")
    return Unserializable(f"tool {tool}: its value can't be kept in the journal: {error}")


def loaded(tool: str, payload: Any) -> Any:
    """Return what a tool returned, from its recorded form.

    Raises:
        Undecodable: It can't be read back.
    """
    result = payload["result"]
    if payload["kind"] == "tool_return" and isinstance(result, dict) and result.get("kind") == "tool-return":
        return read_back(f"tool {tool}", ToolReturn, result)
    if result is None or isinstance(result, str | int | float):
        return result
    part = {"tool_name": tool, "tool_call_id": "", "content": result, "part_kind": "tool-return"}
    if _FILES in payload:
        part[_FILES] = payload[_FILES]
    return read_back(f"tool {tool}", ToolReturnPart, part).content


def read_back(owner: str, tp: Any, payload: Any) -> Any:
    """Return a recorded value; one that can't be read is terminal for this code, and no mistake of the model.

    Raises:
        Undecodable: It doesn't fit its type any more. In a run, the run is blocked.
    """
    try:
        return JSON_CODEC.load(tp, payload)
    except ValidationError as error:
        refusal = Undecodable(
            f"{owner}: the recorded value can't be read back: {error}",
            hint="bring back the code, or the version of Pydantic AI, that wrote it; then wake the run",
        )
        run = current_frame.get()
        raise (run.stop(refusal) if isinstance(run, LiveRun) else refusal) from None
