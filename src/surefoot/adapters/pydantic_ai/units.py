"""What the code of one tool call or output function does to its agent's run beside giving a result.

    usage      added by sub-agents to `ctx.usage`: each unit has an object of its own, and its sum is recorded
    messages   queued with `ctx.enqueue`: recorded, and queued again on replay
    deps       changed in place: can't be kept, and is warned about, once for each tool
    cancel     refused: it would not happen again on replay

What holds: a replay, which doesn't run the code, leaves the agent's run as the first execution did.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai import RunContext
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelMessage
from pydantic_ai.usage import RunUsage
from pydantic_core import to_json

from surefoot.adapters.pydantic_ai.payloads import PAYLOAD
from surefoot.journal import Kind
from surefoot.runs import take_step
from surefoot.runs.live.replay import step_key
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import _beside, _parent

BESIDE = "beside"
"""Where a payload keeps what its unit did beside its result; also the step's name where the result has its own record."""

UNWATCHED = "dependencies that can't be watched"
"""In place of the name of a unit that has changed its dependencies: they are too large, or can't be written down."""

DEPS_BYTES_MAX = 64 * 1024
"""Dependencies above this are not watched for changes: to write them down at every call would cost more than it finds."""

_usage_of: TypeAdapter[RunUsage] = TypeAdapter(RunUsage)
_messages_of: TypeAdapter[list[ModelMessage]] = TypeAdapter(list[ModelMessage])


class DepsChanged(UserWarning):
    """A tool has changed its dependencies in place: after a crash, a replay doesn't."""


class _UnitContext(RunContext[Any]):
    """A run context for the code of a unit."""

    def cancel(self) -> None:
        """Refuse: the unit's record is used on replay, and would cancel nothing."""
        raise UserError(
            "ctx.cancel() inside a tool of a durable run would not happen again on replay. Cancel the run instead: "
            "await run.cancel(reason), or `surefoot cancel`"
        )


class Unit:
    """One execution of a tool's or an output function's code, and what it does beside its result."""

    def __init__(self, run: LiveRun, name: str, context: RunContext[Any]) -> None:
        self.run = run
        self._name = name
        self._real = context
        self._seen: set[str | bytes] = run.notes.setdefault(DepsChanged, set())  # type: ignore[assignment]  # ours alone
        self.context = copy.copy(context)
        self.context.__class__ = _UnitContext
        self._usage = copy_of(context.usage)
        self.context.usage = copy_of(context.usage)
        self.context.pending_messages = [] if context.pending_messages is not None else None
        self._deps = self._written_deps()

    def _written_deps(self) -> bytes | None:
        if self._real.deps is None or UNWATCHED in self._seen:
            return None
        try:
            written = to_json(self._real.deps, fallback=lambda part: type(part).__qualname__)
        except Exception:  # whatever can't be written can't be watched
            written = b""
        if not written or len(written) > DEPS_BYTES_MAX:
            self._seen.add(UNWATCHED)
            return None
        return written

    def did(self) -> dict[str, Any] | None:
        """Return what the code has done beside its result, or None; called once it has ended."""
        self._warn_of_deps()
        return done_beside(self.context, self._usage, 0)

    def redo(self, done: Mapping[str, Any] | None) -> None:
        """Do to the agent's run what is recorded of the unit."""
        redo(self._real, done)

    def _warn_of_deps(self) -> None:
        after = self._written_deps()
        if after is None or self._deps is None or after == self._deps or after in self._seen:
            return  # a call beside this one, which sees the same change, is not to blame
        self._seen.add(after)
        if self._name in self._seen:
            return
        self._seen.add(self._name)
        warnings.warn(
            f"{self._name} has changed its dependencies (ctx.deps) in place. After a crash a replay uses its recorded "
            "result and doesn't change them: return what is to be kept, or put it into a store of your own",
            DepsChanged,
            stacklevel=2,
        )


def done_beside(context: RunContext[Any], usage: RunUsage, queued: int) -> dict[str, Any] | None:
    """Return what has been added to a context's usage and queue since they were these, or None."""
    found: dict[str, Any] = {}
    if vars(context.usage) != vars(usage):
        found["usage"] = _usage_of.dump_python(context.usage - usage, mode="json", exclude_defaults=True)
    if context.pending_messages and len(context.pending_messages) > queued:
        found["enqueued"] = [
            {"messages": _messages_of.dump_python(list(one.messages), mode="json"), "priority": one.priority}
            for one in context.pending_messages[queued:]
        ]
    return found or None


def redo(context: RunContext[Any], done: Mapping[str, Any] | None) -> None:
    """Add to a context's usage and queue what is recorded of a unit."""
    if not done:
        return
    if "usage" in done:
        context.usage.incr(_usage_of.validate_python(done["usage"]))
    for one in done.get("enqueued", ()):
        context.enqueue(*_messages_of.validate_python(one["messages"]), priority=one["priority"])


async def call_step(unit: Unit, title: str, body: Callable[[], Awaitable[object]]) -> object:
    """Call a tool that is a step, and return its payload.

    What it does beside its result is recorded inside of the step: who dies after that takes the step again, and finds it.
    """
    inside = step_key(step_key(_parent.get(), title, None), BESIDE, None)
    is_live = False

    async def record() -> None:
        nonlocal is_live
        is_live = True
        await redo_or_take(unit)

    token = _beside.set(record)
    try:
        payload = await body()
    finally:
        _beside.reset(token)
        recorded = unit.run.history.steps.get(inside)
        ended = None if is_live or recorded is None else recorded.ended
        if ended is not None and ended.kind is Kind.DECIDED:  # also of a step that has failed
            unit.redo(PAYLOAD.load(ended.body or b"null"))
    if not is_live and recorded is None:  # it did nothing, or an earlier version has recorded it after the step
        await redo_or_take(unit)
    return payload


async def redo_or_take(unit: Unit) -> None:
    """Record what a unit did beside its result in a step of its own, where the result has a record of its own.

    After the result's record, a process that dies between the two loses what was done beside.
    """
    did = unit.did()
    if did is None and step_key(_parent.get(), BESIDE, None) not in unit.run.history.steps:
        return

    async def work() -> Any:
        return did

    unit.redo(await take_step(BESIDE, None, PAYLOAD, work))


def copy_of(usage: RunUsage) -> RunUsage:
    """Return a copy that shares nothing with it."""
    mine = copy.copy(usage)
    mine.details = dict(usage.details)
    return mine
