"""Long runs: a workflow whose history has grown long is continued as a new one, with the messages so far.

Temporal says when (from some thousand events on); it is done between two decisions, when nothing is under way. What holds:
decisions and calls are numbered on, so that no step of the run has the name of an earlier one, and a call that repeats an
earlier one is known for that.
"""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import TypeAdapter
from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage
from pydantic_ai.usage import RunUsage
from temporalio import workflow

from surefoot.adapters.temporal import here
from surefoot.runs.live.strand import ToolCall

_messages: TypeAdapter[list[ModelMessage]] = TypeAdapter(list[ModelMessage])
_usage: TypeAdapter[RunUsage] = TypeAdapter(RunUsage)


class Carried(msgspec.Struct, frozen=True):
    """What one workflow of a run hands to the next.

    Attributes:
        messages: The whole conversation.
        usage: What was used so far.
        decisions: How many decisions were taken.
        made: The calls that were made, by tool and arguments.
        given: How many of the messages the run was given as its history.
    """

    messages: list[Any]
    usage: dict[str, Any]
    decisions: int
    made: list[tuple[str, bytes, list[ToolCall]]]
    given: int

    def history(self) -> list[ModelMessage]:
        """Return the conversation."""
        return _messages.validate_python(self.messages)

    def used(self) -> RunUsage:
        """Return the usage."""
        return _usage.validate_python(self.usage)


def continue_as_new(context: RunContext[Any]) -> None:
    """Continue a run of ours as a new workflow; called by Pydantic AI before a model request, when Temporal suggests it."""
    now = here.here.get()
    if now is None:
        return
    carried = Carried(
        messages=_messages.dump_python(context.messages, mode="json"),
        usage=_usage.dump_python(context.usage, mode="json"),
        decisions=now.conversation.decisions,
        made=now.conversation.calls_made(),
        given=now.given,
    )
    workflow.continue_as_new(args=[msgspec.json.encode(carried).decode()])


def loaded(data: str) -> Carried:
    """Return what an earlier workflow has handed on."""
    return msgspec.json.decode(data, type=Carried)
