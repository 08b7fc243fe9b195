"""One execution of a run: its code is called, what it left running is ended, and what became of it is written.

call      -> how the code ended, or why it did not
close     -> acts in progress settle, the run's other tasks end
judge     -> what is to be written: an end, a wait, or that the run is free again
conclude  -> one transaction writes it, guarded by the run's epoch
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

import msgspec

from surefoot.effects import Guard, NothingRecorded
from surefoot.effects.rows import ledger
from surefoot.effects.states import State
from surefoot.journal import Kind, Record, Undecodable, insert_record
from surefoot.journal.records import Head
from surefoot.journal.texts import without_surrogates
from surefoot.leases import LeaseLost, Life, Session, Sessions
from surefoot.runs.durable import kind_of_run
from surefoot.runs.errors import GOING_DOWN, Blocked, Divergence, Suspend, name_of
from surefoot.runs.life import TAKEOVERS_MAX, RunState, WaitFor
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.waiting import Parking, Target
from surefoot.runs.rows import claims, queue, tables, waiters
from surefoot.store import Store, StoreError, Tx

UNWIND_S = 10.0
"""How long tasks of a run that has ended may take to unwind; what they ask for meanwhile is refused."""

CLOSE_S = 60.0
"""How long acts in progress in a run's other tasks may take once its main code has ended; then they are cancelled."""

_encode = msgspec.json.Encoder().encode


class Host(Protocol):
    """What an execution asks of the worker it belongs to."""

    store: Store
    sessions: Sessions
    guard: Guard
    is_stopping: bool

    @property
    def session(self) -> Session:
        """What it holds its runs by."""

    def tell(self, tx: Tx, target: Target, *, is_expected: bool = False) -> None:
        """Wake whoever waits for this, in the transaction that writes it."""


class _Ending(msgspec.Struct, frozen=True):
    """How a run ends."""

    state: RunState
    body: bytes
    reason: str


class Execution:
    """One execution of a run, by whoever holds it."""

    def __init__(self, worker: Host, run: LiveRun) -> None:
        self._worker = worker
        self._run = run

    async def to_its_end(self) -> None:
        """Call the run's code, and write what became of the run; when a lease was lost, whoever holds the run goes on.

        Raises:
            StoreError: The store is gone.
        """
        try:
            await self._write_what_became(await self._call())
        except LeaseLost:  # maybe an effect's only: then the run is still ours
            await self._close(0.0)
            await self._hand_back()

    async def _write_what_became(self, verdict: Any) -> None:
        try:
            await self._conclude(await self._judge(verdict))
        except (LeaseLost, StoreError):
            raise
        except Exception as error:  # whatever can't be written: visible, not lost
            reason = f"its end can't be written: {name_of(error)}: {error}"
            await self._conclude(Parking(WaitFor.BLOCKED, reason, None))

    async def _hand_back(self) -> None:
        """Give up a run, if it is still ours, so that it is not left running with nobody in it."""
        run = self._run

        def unit(tx: Tx) -> None:
            if tables.is_held(tx, run.row.id, run.row.epoch):
                tables.hand_back_run(tx, run.row.id, is_counted=True)

        await self._worker.store.commit(unit, label="park")

    async def _judge(self, verdict: Any) -> Any:
        """Let nothing of the run go on, then say what is to be written about it."""
        run = self._run
        limit_s = 0.0 if self._worker.is_stopping else CLOSE_S
        if run.siblings or run.open_steps or (isinstance(verdict, _Ending) and run.history.left_over()):
            await self._close(limit_s)
        if not isinstance(verdict, _Ending):
            return verdict
        if run.stopped is not None:
            return self._suspended()
        left = run.history.left_over()
        if not left:
            return verdict
        ending = f"the end ({verdict.reason})" if verdict.reason else "the end"
        recorded = f"step {left[0]}" + (
            f" and {len(left) - 1} more, never asked for" if left[1:] else ", never asked for"
        )
        return Parking(WaitFor.BLOCKED, str(Divergence(run.run_id, left[0], ending, recorded)), None)

    async def _close(self, limit_s: float) -> None:
        """Wait for acts in progress in the run's other tasks: they settle by themselves. Then end these tasks.

        On replay a task may not have come to its first step when the main code ends; it is given the same time.
        """
        run = self._run
        clock = self._worker.store.clock
        until_s = clock.monotonic_s() + limit_s
        while (left_s := until_s - clock.monotonic_s()) > 0 and run.is_busy():
            run.closing.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await run.closing.wait()
        tasks = run.end_tasks()
        if tasks:
            await asyncio.wait(tasks, timeout=UNWIND_S)

    async def _call(self) -> Any:
        """Run the code; return what to write about the run."""
        run = self._run
        if run.row.takeovers >= TAKEOVERS_MAX:
            reason = f"taken over {run.row.takeovers} times without a new record"
            return Parking(WaitFor.BLOCKED, reason, None)
        try:
            kind = kind_of_run(run.row.kind)
            started = run.history.started
            try:
                args, kwargs = kind.load_input(started.body if started is not None and started.body else b"{}")
            except Undecodable as error:
                if kind.fails_unfit:
                    return _failed(error)
                raise
            if run.row.lane is not None and run.history.last_seq == 1 and run.cancels.pending:  # out of turn
                return self._cancelled_before()
            run.begin()
            run.check()
            value = await kind.function(*args, **kwargs)
            body = kind.result.dump(value)[0]
            return self._suspended() if run.stopped is not None else _Ending(RunState.COMPLETED, body, "")
        except Suspend:
            return self._suspended()
        except asyncio.CancelledError as error:
            return self._cancelled(error)
        except (Blocked, Undecodable) as error:
            return Parking(WaitFor.BLOCKED, str(error), None)
        except (LeaseLost, StoreError) as error:
            run.stop(error)
            raise
        except BaseException as error:
            if run.stopped is not None:
                return self._suspended()
            if isinstance(error, GOING_DOWN):
                raise
            return _failed(error)
        finally:
            run.finish()

    def _cancelled_before(self) -> _Ending:
        by = without_surrogates(self._run.cancels.pending[0].by)
        return _Ending(RunState.CANCELLED, _encode([by]), f"cancelled by {by}")

    def _suspended(self) -> Any:
        run = self._run
        if run.eviction.parking is not None:
            return run.eviction.parking
        stopped = run.stopped
        if isinstance(stopped, Blocked | Undecodable | NothingRecorded):
            return Parking(WaitFor.BLOCKED, str(stopped), None)
        if isinstance(stopped, LeaseLost | StoreError):
            raise stopped
        if stopped is not None and not isinstance(stopped, Suspend):
            return Parking(WaitFor.BLOCKED, f"a record was refused: {name_of(stopped)}: {stopped}", None)
        return None

    def _cancelled(self, error: asyncio.CancelledError) -> Any:
        run = self._run
        if run.stopped is not None:
            return self._suspended()
        if run.cancels.by:
            by = without_surrogates(run.cancels.by)
            return _Ending(RunState.CANCELLED, _encode([by]), f"cancelled by {by}")
        if self._worker.is_stopping or (run.task is not None and run.task.cancelling()):
            return None  # the loop is going down: hand the run back
        return _failed(error)  # the code's own: something it awaited was cancelled

    async def _conclude(self, verdict: Any) -> None:
        """Write the end, the wait, or that the run is free again."""
        run, worker = self._run, self._worker
        record = run.about_run(Kind.ENDED, head=Head(state=verdict.state.name.lower()), body=verdict.body) if isinstance(
            verdict, _Ending) else None  # fmt: skip

        def unit(tx: Tx) -> bool:
            if record is not None:
                run.require(tx)
            elif not tables.is_held(tx, run.row.id, run.row.epoch):
                raise LeaseLost(f"run {run.run_id}: another worker holds it", hint="the other worker goes on")
            if verdict is None:
                tables.hand_back_run(tx, run.row.id, is_counted=not worker.is_stopping)
            elif isinstance(verdict, Parking):
                self._park(tx, verdict)
            elif claims.has_open_effect(tx, run.row.id):
                self._park(tx, self._doubting(tx, verdict))
            else:
                self._write_end(tx, verdict, record)
                return True
            return False

        if await worker.store.commit(unit, label="end" if record is not None else "park"):
            run.ending = record

    def _park(self, tx: Tx, parking: Parking) -> None:
        run = self._run
        reason = without_surrogates(parking.reason)
        waiters.park_run(
            tx, run.row.id, parking.wait_for, reason, parking.wake_at_ms, run.last_letter, targets=parking.targets
        )

    def _doubting(self, tx: Tx, ending: _Ending) -> Parking:
        """Say why a run that owns open effects can't end yet; note those that nobody acts on as in doubt."""
        run, worker = self._run, self._worker
        open_effects = claims.open_effects(tx, run.row.id)
        for effect in open_effects:
            row = ledger.get(tx.connection, effect)
            if row is not None and row.state is State.CLAIMED and self._is_left(tx, row):
                claims.doubt_claim(
                    tx, row, worker.session.id, worker.store.clock.boot_ms(), f"run {run.run_id} has ended"
                )
        reason = f"ends as {ending.state.name.lower()} once its unknown effects are known"
        return Parking(WaitFor.DOUBT, reason, None, tuple(("effect", effect) for effect in open_effects))

    def _is_left(self, tx: Tx, row: ledger.Row) -> bool:
        worker = self._worker
        if row.id in worker.guard.acting or row.id in worker.guard.resolving:
            return False
        return (
            row.holder == worker.session.id or worker.sessions.holder(tx.connection, row.holder).life is not Life.ALIVE
        )

    def _write_end(self, tx: Tx, verdict: _Ending, record: Record | None) -> None:
        run = self._run
        assert record is not None, "an ending has a record"
        tables.end_run(tx, run.row.id, verdict.state, insert_record(tx, record), verdict.reason)
        if run.row.lane is not None:
            queue.next_in_lane(tx, run.row.lane, kind_of_run(run.row.kind).concurrency_per_key or 1)
        on_end, started = kind_of_run(run.row.kind).on_end, run.history.started
        if on_end is not None and started is not None:
            on_end(tx, started, run.row.id, verdict.state)
        self._worker.tell(tx, ("run", run.row.id), is_expected=run.row.parent is not None)


def _failed(error: BaseException) -> _Ending:
    name, text = name_of(error), without_surrogates(str(error))
    return _Ending(RunState.FAILED, _encode([name, text]), f"{name}: {text}")
