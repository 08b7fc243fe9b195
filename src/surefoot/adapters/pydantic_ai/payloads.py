"""What Pydantic AI gives us to record, and what it is encoded by: its own JSON form, once."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic_ai import durable_exec
from pydantic_ai.durable_exec import JSON_CODEC, DurabilityCodec

from surefoot.journal import codec_of

PAYLOAD = codec_of(object, "Pydantic AI")

RETURNED = ("tool_return", "tool_content_result")
"""The kinds by which Pydantic AI marks the recorded value of a tool."""

_TOOL_RESULT = getattr(durable_exec, "CallToolResult", None)
"""The type of a tool's result or refusal; Pydantic AI did not tell it yet in 2.36, where each is encoded at once."""


class Codec(DurabilityCodec):
    """Encodes what is to be recorded, as Pydantic AI does; a tool's result only when somebody records it.

    A declared tool records its own outcome and gives its caller the value as it will be read back. To encode and decode
    that once more would change nothing.
    """

    def dump(self, tp: Any, value: Any) -> Any:
        """See `DurabilityCodec.dump`."""
        return Result(value) if tp is _TOOL_RESULT else JSON_CODEC.dump(tp, value)

    def load(self, tp: Any, payload: Any) -> Any:
        """See `DurabilityCodec.load`."""
        return payload.value if isinstance(payload, Result) else JSON_CODEC.load(tp, payload)


class Result(msgspec.Struct, frozen=True):
    """A tool's result or refusal, not yet encoded."""

    value: Any


def encoded(payload: object) -> Any:
    """Return the payload as data that can be recorded."""
    return JSON_CODEC.dump(_TOOL_RESULT, payload.value) if isinstance(payload, Result) else payload
