"""What the rooms below `runs` see of a run in progress: a place to take the next step, and to record it.

`effects` works without `runs`; inside a run it finds the run's `Frame` in a context variable and journals through it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol, TypeVar

from surefoot.journal.records import Head, Kind, Record
from surefoot.journal.values import Value
from surefoot.store.tx import Tx

T = TypeVar("T")


class Step(Protocol):
    """One step of a run: its identity, what the journal already holds of it, and how to add to that.

    Attributes:
        key: The step's identity in the run: path, name, occurrence.
        opened: The recorded beginning (a claim), or None.
        ended: The recorded outcome, or None.
    """

    key: str
    opened: Record | None
    ended: Record | None

    def draft(self, kind: Kind, *, head: Head = ..., body: Value | None = None) -> Record:
        """Return the next record of this step, numbered. It is written in the order it was drafted, or not at all."""

    def write(self, tx: Tx, record: Record) -> int:
        """Write a drafted record, if this process still holds the run; return its row.

        Raises:
            LeaseLost: It doesn't. Nothing was written.
        """

    def is_held(self, tx: Tx) -> bool:
        """Whether this process still holds the run, checked in the transaction that relies on it."""

    def append(self, unit: Callable[[Tx], object], label: str, size: int) -> None:
        """Record in order without waiting; a refusal stops the run."""

    def commit(self, unit: Callable[[Tx], T], label: str, size: int = 0, *, is_alone: bool = False) -> Awaitable[T]:
        """Record in order and return the unit's result once it is on disk; see `Store.commit`."""

    def refuse(self, error: BaseException) -> None:
        """Note, in the writer, that what the task was told of this step is not recorded: nothing after it will be."""

    def end(self, record: Record) -> None:
        """Note that the step has its outcome: the task has now seen it."""

    def close(self) -> None:
        """Note that nobody works on the step any more, whether it ended or not."""

    def begin_anew(self) -> None:
        """Meet the run's deadline, as at the step's beginning: what it waited for has come to nothing."""

    def stop(self, error: BaseException) -> BaseException:
        """Stop the run, which can't record any more; return what unwinds its code."""

    def raise_divergence(self, asked: str, recorded: str) -> NoReturn:
        """Stop the run: this step was recorded differently."""

    def interrupt(self, reason: str) -> None:
        """Record that the step was left without an outcome, if it was: every asked step ends in exactly one record."""

    def inside(self) -> AbstractContextManager[None]:
        """Count the steps taken inside as this step's own."""

    async def wait(self, wait_for: str, reason: str, target: tuple[str, int]) -> None:
        """Return once the target (a row, as ("approval", 7)) may be over; unless other tasks go on, the run is suspended
        until then.

        Args:
            wait_for: What for, as a run's state says it.
            reason: The same in words.
            target: The row whose end wakes it.
        """

    async def park(self, reason: str, wake_at_ms: int | None, effect: int) -> NoReturn:
        """Suspend the run until the effect (a row of the ledger) is settled, somebody wakes it, or at `wake_at_ms`."""


class Place(Protocol):
    """A tool call of a model: where a step is asked for by a decision."""

    @property
    def path(self) -> str:
        """The path its steps stand under."""

    @property
    def twin(self) -> str | None:
        """The path of an earlier identical call whose outcome the deciding model had not in front of it."""

    @property
    def previous(self) -> str | None:
        """The path of the latest earlier identical call, seen or not."""

    @property
    def times(self) -> int:
        """How many identical calls came before this one."""


class Frame(Protocol):
    """A run in progress.

    Attributes:
        run: The run's row.
        run_id: Its business id.
        unknown_steps: The identities whose callers were told that the outcome is unknown.
        seen: What it has read last of versioned things, by their names (see `effects.versions`).
        same_as: For a step that shares the identity of an earlier one, that identity.
        sagas: How many sagas are open in it.
        source: The run it was forked from; empty for none.
        is_one_step: Whether it is one step of a run that another engine keeps: what is computed inside is not recorded.
    """

    run: int
    run_id: str
    unknown_steps: set[str]
    seen: dict[str, Any]
    same_as: dict[str, str]
    sagas: int
    source: str
    is_one_step: bool

    def refuse_in_saga(self, name: str) -> None:
        """Raise if an effect that nothing undoes is asked for inside a saga."""

    def adopted(self) -> AbstractContextManager[None]:
        """Take the steps inside as those of the task that called, though another task takes them on its behalf."""

    def stand_alone(self) -> None:
        """Give the asking task an order of its own, if it has none, before another task takes steps on its behalf."""

    @property
    def place(self) -> Place | None:
        """The decision that asks, when the step is a tool call of a model."""

    def open_step(self, name: str, key: str | None) -> Step:
        """Return the next step of the asking task.

        Args:
            name: The step's name.
            key: The caller's own distinction between steps of one name, or None to count.

        Raises:
            AmbiguousStep: Two tasks ask for the same name under one parent and gave no key.
            Divergence: The journal has another step at this place.
        """


current_frame: ContextVar[Frame | None] = ContextVar("surefoot_frame", default=None)
