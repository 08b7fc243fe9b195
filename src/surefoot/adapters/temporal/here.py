"""Where an agent's run stands in its workflow: which decision it has taken, which calls that asked for.

Kept in a context variable of the workflow and told to each activity beside Pydantic AI's run context, so that an activity
knows its place in the run without asking anybody. What holds: everything here is a function of the workflow's history, so a
replay tells the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import msgspec
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart

from surefoot.adapters.pydantic_ai.conversations import Conversation
from surefoot.adapters.pydantic_ai.names import Names
from surefoot.adapters.pydantic_ai.requests import RequestDigests
from surefoot.runs.live.replay import step_key
from surefoot.runs.live.strand import ToolCall

FIELD = "surefoot"
"""The field of a serialized run context in which it travels."""


class Told(msgspec.Struct, frozen=True):
    """What an activity is told.

    Attributes:
        run: The run's row in our store.
        step: The decision that is taken, or that asked for the call.
        call: For a tool call, its place.
        tool: The name by which the model asked for the tool.
        is_gated: Whether the framework says that the call needs approval.
        is_again: Whether the call was made before, and had to wait.
    """

    run: int
    step: str
    call: ToolCall | None = None
    tool: str = ""
    is_gated: bool = False
    is_again: bool = False


class Here:
    """One run of an agent in its workflow.

    Args:
        run: The run's row.
        name: The agent's durable name.
        given: How many messages the run was given as its history.
    """

    def __init__(self, run: int, name: str, given: int) -> None:
        self.run = run
        self.given = given
        self.conversation = Conversation(Names(name))
        self._path = step_key("", name, None)
        self._digests = RequestDigests()
        self.step = self._path

    def decide(self) -> str:
        """Begin the next decision; return its step."""
        self.conversation.decisions += 1
        self.step = step_key(self._path, "decision", str(self.conversation.decisions))
        return self.step

    def note(self, response: ModelResponse, messages: Sequence[ModelMessage]) -> None:
        """Note what a decision came to, and what the model had in front of it."""
        parts = [_call(part) for part in response.parts if isinstance(part, ToolCallPart)]
        self.conversation.note(self.step, {"parts": parts}, lambda: self._digests.calls_seen(messages))

    def call(self, call_id: str, name: str) -> Told:
        """Return what the activity of a tool call is told."""
        conversation = self.conversation
        is_gated = call_id in conversation.gated
        tool = conversation.tool_name(call_id) or name
        return Told(self.run, self.step, conversation.call(call_id), tool, is_gated)


def _call(part: ToolCallPart) -> dict[str, Any]:
    return {"part_kind": "tool-call", "tool_call_id": part.tool_call_id, "tool_name": part.tool_name, "args": part.args}


here: ContextVar[Here | None] = ContextVar("surefoot_here", default=None)
"""The run that the workflow executes."""

calling: ContextVar[Told | None] = ContextVar("surefoot_calling", default=None)
"""The tool call that is being made."""


def told() -> dict[str, Any] | None:
    """Return what the activity that is being asked for is told; None where no run of ours asks."""
    found, now = calling.get(), here.get()
    if found is None and now is not None:
        found = Told(now.run, now.step)
    return None if found is None else msgspec.to_builtins(found)


def heard(context: object) -> Told | None:
    """Return what the workflow has told this activity; None if no run of ours has asked for it."""
    data = getattr(context, "__dict__", {}).get(FIELD)
    return None if data is None else msgspec.convert(data, Told)
