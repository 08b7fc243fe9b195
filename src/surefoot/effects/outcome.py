"""What a caller learns of an effect: an outcome as a type, in words that can't be mistaken.

A timeout is never presented as a failure to try again; a second answer of a service ("already refunded") is never shown
as a failure at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Literal

import msgspec

from surefoot.effects.classify import NotDone
from surefoot.effects.gates import OwnGate
from surefoot.effects.versions import retold
from surefoot.journal.values import Forgotten
from surefoot.problem import SurefootError

Told = Literal["done", "not_done", "unknown", "repeated", "conflict", "denied", "stale"]

MEANING: dict[Told, str] = {
    "done": "This was done.",
    "not_done": "This was NOT done. Nothing has changed.",
    "unknown": "It is NOT KNOWN whether this was done. Do not try it again; somebody is finding out.",
    "repeated": "This had already been done before and was NOT done again. The first outcome is given.",
    "conflict": "This was NOT done: the same thing was asked before with different values. Both are given.",
    "denied": "This was NOT done: it is not allowed.",
    "stale": "This was NOT done: what was read before has changed since, or was not read. Look at it and decide again.",
}


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one call of an effect.

    Attributes:
        told: What the caller is told.
        value: The value, for done and repeated.
        reason: Why, for the others.
        effect: The effect's row in the ledger; 0 when nothing was claimed.
        detail: For a conflict, both calls; for repeated, what differs in free text; for stale, what has changed.
        is_forgotten: It is done, and retention has deleted what it came to; `reason` says when.
    """

    told: Told
    value: Any = None
    reason: str = ""
    effect: int = 0
    detail: Any = None
    is_forgotten: bool = False

    def unwrap(self) -> Any:
        """Return the value of an effect that is done, or raise what it is instead."""
        if self.is_forgotten:
            raise Forgotten(
                f"this had already been done and was NOT done again; {self.reason}",
                hint="catch sf.Forgotten, or call .outcome(...), where only that it is done matters",
            )
        if self.told in ("done", "repeated"):
            return self.value
        if self.told == "not_done":
            raise NotDone(self.reason)
        if self.told == "stale":
            raise retold(self.reason, self.detail)
        raise _ERRORS[self.told](self)


class EffectError(SurefootError):
    """An effect did not end as done. `outcome` has the facts."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{MEANING[outcome.told]} {outcome.reason}".strip(), hint=_HINTS.get(outcome.told, ""))
        self.outcome = outcome


class OutcomeUnknown(EffectError):
    """Nobody knows whether the effect happened. It keeps its key until evidence or a person ends the doubt."""


class KeyConflict(EffectError):
    """The key is taken by a call with other arguments. Nothing was done."""


class Denied(EffectError):
    """A gate refused. Nothing was done."""


_ERRORS: dict[str, type[EffectError]] = {"unknown": OutcomeUnknown, "conflict": KeyConflict, "denied": Denied}
_HINTS: dict[str, str] = {
    "unknown": "surefoot unknowns",
    "conflict": "use another key for another thing, or declare the differing parameter as free text with match=",
}


class Telling:
    """How outcomes are put for a model, and the effect that is being performed for it.

    A framework may lose patience with a tool call and tell the model that it timed out. The effect goes on in a task of its
    own, so that what the model is told in the end is what became of it. A framework known to wait needs no such task.

    Attributes:
        tell: Puts an outcome into words.
        timeout_s: The framework's patience in seconds; None: it is not known.
        is_patient: Whether the framework is known to wait until the effect has ended.
        approve: The gate before this call, in the place of the effect's own: the framework says that it needs approval.
        task: The task in which the effect goes on, if it has one.
    """

    def __init__(
        self,
        tell: Callable[[Outcome], Any],
        timeout_s: float | None = None,
        *,
        is_patient: bool = False,
        approve: OwnGate | None = None,
    ) -> None:
        self.tell = tell
        self.timeout_s = timeout_s
        self.is_patient = is_patient
        self.approve = approve
        self.task: asyncio.Task[Outcome] | None = None

    async def through(self, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Perform, in a task that outlives the caller's patience where that may end."""
        if self.is_patient:
            return await work
        self.task = asyncio.ensure_future(work)
        return await asyncio.shield(self.task)


told_to_model: ContextVar[Telling | None] = ContextVar("surefoot_told", default=None)
"""Set by an adapter around a tool call, so that the model reads a type in words and no exception; everybody else gets the
value or a named error."""
