"""Looking into a doubt on behalf of a step that records something else: nothing of it goes to the run's journal.

`effects.live.resolve` speaks to the run through a `Step`. Here what it has to tell is dropped, since the ledger has it,
and what it has to wait for parks the run, in the words of whoever needs to know.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NoReturn, TypeVar

from surefoot.journal import Kind, Record
from surefoot.journal.records import NO_HEAD, Head
from surefoot.journal.values import Value
from surefoot.runs.errors import Suspend
from surefoot.runs.life import WaitFor
from surefoot.store import Tx

if TYPE_CHECKING:
    from surefoot.runs.live.run import LiveRun

T = TypeVar("T")


class Looking:
    """See `journal.frame.Step`.

    Args:
        run: The run.
        step: The step that needs to know.
        why: What to say before the reason of a wait.
    """

    opened: Record | None = None
    ended: Record | None = None

    def __init__(self, run: LiveRun, step: str, why: str) -> None:
        self._run = run
        self.key = step
        self._why = why

    def draft(self, kind: Kind, *, head: Head = NO_HEAD, body: Value | None = None) -> Record:
        """Return a record beside the run."""
        return Record(None, 0, kind, "", head=head, body=body)

    def write(self, tx: Tx, record: Record) -> int:
        """Write nothing: the ledger points to what was found."""
        self._run.require(tx)
        return 0

    def is_held(self, tx: Tx) -> bool:
        """See `Step.is_held`."""
        return self._run.is_held(tx)

    def append(self, unit: Callable[[Tx], object], label: str, size: int) -> None:
        """See `Step.append`."""
        self._run.append(unit, label, size)

    def commit(self, unit: Callable[[Tx], T], label: str, size: int = 0, *, is_alone: bool = False) -> Awaitable[T]:
        """Never called: nothing is claimed here."""
        raise AssertionError(f"{label} beside a step")

    def refuse(self, error: BaseException) -> None:
        """Nothing: the run was told nothing that it could build on."""

    def end(self, record: Record) -> None:
        """Nothing: no step has ended."""

    def close(self) -> None:
        """Never called: no step was opened."""
        raise AssertionError("no step was opened")

    def interrupt(self, reason: str) -> None:
        """Never called: no step was opened."""
        raise AssertionError(f"no step was left: {reason}")

    def inside(self) -> AbstractContextManager[None]:
        """See `Step.inside`: what is sent again has no steps of its own here."""
        return nullcontext()

    def begin_anew(self) -> None:
        """Never called: nothing is claimed here."""

    def stop(self, error: BaseException) -> BaseException:
        """Never called: whoever asks stops the run."""
        raise AssertionError("no step is taken") from error

    def raise_divergence(self, asked: str, recorded: str) -> NoReturn:
        """Never called: nothing recorded is compared."""
        raise AssertionError(f"asked {asked}, recorded {recorded}")

    async def wait(self, wait_for: str, reason: str, target: tuple[str, int]) -> None:
        """Never called: no gate is asked, since nothing is claimed here."""
        raise AssertionError(f"waits for {wait_for}: {reason}")

    async def park(self, reason: str, wake_at_ms: int | None, effect: int) -> NoReturn:
        """See `Step.park`."""
        words = f"doubt: {self._why}{reason.removeprefix('doubt: ')}"
        waiting = self._run.waiting(self.key, WaitFor.DOUBT, words, wake_at_ms, ("effect", effect))
        await self._run.wait_for(waiting, grace_s=0.0)
        waiting.wake_at_ms = self._run.store.clock.wall_ms()
        self._run.eviction.evict([waiting])
        raise Suspend(reason)
