"""What is left of an agent's run when it has ended: its messages and its usage, as one record of the run.

The record is written with the run's end, so it is there when the result is. It holds the new messages only: those given as
history are part of the run's input.
"""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import TypeAdapter
from pydantic_ai import AgentRunResult
from pydantic_ai.messages import ModelMessage
from pydantic_ai.usage import RunUsage

from surefoot.adapters.pydantic_ai.payloads import PAYLOAD, read_back
from surefoot.journal import Kind, Record
from surefoot.journal.values import Unserializable, ValueTooLarge
from surefoot.problem import SurefootError
from surefoot.runs import take_step

RESULT = "result"
"""The step's name."""

MESSAGES: TypeAdapter[list[ModelMessage]] = TypeAdapter(list[ModelMessage])
_USAGE: TypeAdapter[RunUsage] = TypeAdapter(RunUsage)


class Transcript(msgspec.Struct, frozen=True):
    """What an agent's run came to, beside its output.

    Attributes:
        messages: The run's own messages, without the history it was given.
        usage: What it used in all, sub-agents that were given its usage included.
        conversation_id: The conversation it belongs to, where the framework knows one.
    """

    messages: list[ModelMessage]
    usage: RunUsage
    conversation_id: str | None


async def keep(result: AgentRunResult[Any]) -> None:
    """Record an agent run's messages and usage; messages that can't be kept are left out, and asking for them says so."""

    async def work() -> Any:
        return payload_of(result)

    await take_step(RESULT, None, PAYLOAD, work)


def payload_of(result: AgentRunResult[Any], given: int | None = None) -> dict[str, Any]:
    """Return an agent run's messages and usage as data.

    Args:
        result: What the framework gives.
        given: How many of all messages the run was given; None: the framework knows.
    """
    own = result.new_messages() if given is None else result.all_messages()[given:]
    kept = {
        "usage": _USAGE.dump_python(result.usage, mode="json"),
        "conversation_id": getattr(result, "conversation_id", None),
    }
    try:
        payload = {**kept, "messages": MESSAGES.dump_python(own, mode="json")}
        PAYLOAD.dump(payload)
    except (Unserializable, ValueTooLarge, ValueError, TypeError) as error:
        return {**kept, "messages": None, "reason": str(error)}
    return payload


def history(records: list[Record]) -> list[ModelMessage]:
    """Return the messages that a run was given as history."""
    started = next((one for one in records if one.kind is Kind.STARTED), None)
    given = None if started is None or started.body is None else PAYLOAD.load(started.body).get("message_history")
    return [] if given is None else MESSAGES.validate_python(given)


def read(run_id: str, records: list[Record]) -> Transcript:
    """Return a run's transcript from its records.

    Raises:
        SurefootError: It has none, or its messages could not be kept.
    """
    found = next((one for one in records if one.step == RESULT and one.kind is Kind.DECIDED), None)
    if found is None or found.body is None:
        raise SurefootError(
            f"run {run_id} has no messages on record",
            hint="only a run that an agent ended, in this version or a later one, has them",
        )
    payload = PAYLOAD.load(found.body)
    if payload["messages"] is None:
        raise SurefootError(f"run {run_id}: its messages could not be kept: {payload['reason']}")
    return Transcript(
        read_back("messages", list[ModelMessage], payload["messages"]),
        _USAGE.validate_python(payload["usage"]),
        payload["conversation_id"],
    )
