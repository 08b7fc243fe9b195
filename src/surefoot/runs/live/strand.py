"""Where the code of a run stands: in which task, under which parent, in which tool call of a model.

Context variables, so that tasks the code starts inherit their place; a task that inherits a strand forks off it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import msgspec

from surefoot.journal import Place
from surefoot.runs.live.replay import step_key


class Strand:
    """One task of a run: the record it has seen last, under each parent it is in."""

    __slots__ = ("after", "is_fork", "is_lent", "task")

    def __init__(self, task: asyncio.Task[Any] | None, after: int, *, is_fork: bool) -> None:
        self.task = task
        self.is_lent = False
        self.after = after
        self.is_fork = is_fork


_strand: ContextVar[Strand | None] = ContextVar("surefoot_strand", default=None)
_parent: ContextVar[str] = ContextVar("surefoot_parent", default="")
_saga: ContextVar[str] = ContextVar("surefoot_saga", default="")
"""The path of the innermost saga whose steps these are; empty outside, and while it compensates."""

_beside: ContextVar[Callable[[], Awaitable[None]] | None] = ContextVar("surefoot_beside", default=None)
"""Records what the code of the next function with `@step` has done beside its result; called inside of the step."""

_place: ContextVar[Place | None] = ContextVar("surefoot_place", default=None)


@contextmanager
def lent() -> Iterator[None]:
    """Let the present task speak for the one whose strand it has inherited. One helper at a time does; a second one beside
    it counts for itself."""
    strand, task = _strand.get(), asyncio.current_task()
    assert strand is not None, "it comes with the frame"
    if strand.task is task or strand.is_lent:
        yield
        return
    lender, strand.task, strand.is_lent = strand.task, task, True
    try:
        yield
    finally:
        strand.task, strand.is_lent = lender, False


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call of a model. See `journal.frame.Place`.

    Attributes:
        decision: The step of the decision that asked for it.
        call_id: The call's id in that decision.
    """

    decision: str
    call_id: str
    twin: str | None = None
    previous: str | None = None
    times: int = 0

    @property
    def path(self) -> str:
        """Return the path its steps stand under: the same on every replay, whatever the order of parallel calls."""
        return step_key(self.decision, self.call_id, None)
