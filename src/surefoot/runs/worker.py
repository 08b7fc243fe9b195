"""The worker: claims runs, executes their code, and writes what became of them.

    start        -> a new run, executed here at once if there is room
    look         -> every `POLL_S`, or when told: pending and due runs; runs of dead holders; letters for live runs
    execute      -> replay and go on; at the end one of: ended, parked, blocked, handed back, dropped (lease lost)

Claiming, taking over and ending are single transactions of `tables`; the worker only decides when.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from surefoot.effects import Guard, bound_guard, told_to_model
from surefoot.journal import Kind, Record, Undecodable, current_frame, insert_record
from surefoot.journal.records import Head
from surefoot.journal.tables import load_records_of
from surefoot.leases import LeaseLost, Life, Session, Sessions
from surefoot.runs import tables
from surefoot.runs.desk import wake
from surefoot.runs.durable import kind_of, known_kinds
from surefoot.runs.errors import Blocked, Divergence, Suspend
from surefoot.runs.life import SUSPECT_AFTER, TAKEOVERS_MAX, RunState, WaitFor
from surefoot.runs.live import LiveRun, Parking, Strand, _parent, _place, _strand
from surefoot.runs.replay import History, arrange
from surefoot.runs.tables import Letter, RunRow
from surefoot.store import Store, StoreError, Tx

POLL_S = 0.1
"""How often an idle worker looks for work of other processes' making; its own it is told of at once."""

LOOK_PAUSE_S = 0.005
"""Pause between two looks, so that a thousand runs that end one after another cause two hundred looks a second, not as
many as there are runs."""

LOOK_AGAIN_S = 5.0
"""How often a caller looks for the end of a run that is executed here: only a run that was taken from us ends unseen."""

ROOM = 2_000
"""Runs in memory at once, waiting ones included. About 60 KB each when small."""

CLAIM_MAX = 500
"""Runs claimed by one transaction, so that several workers share a backlog."""

STRANGE_AFTER_MS = 10_000
"""How long a run may be pending before a worker that doesn't know its kind says so."""

GRACE_S = 10.0
"""How long a graceful stop waits for acts in progress to get their answer before it hands runs back."""

_encode = msgspec.json.Encoder().encode


class Worker:
    """Executes the runs of one process."""

    def __init__(self, store: Store, sessions: Sessions, session: Session, guard: Guard, *, room: int = ROOM) -> None:
        self.store = store
        self.sessions = sessions
        self.session = session
        self.guard = guard
        self.room = room
        self.live: dict[int, LiveRun] = {}
        self.is_executing = False
        self._wake = asyncio.Event()
        self._ended: dict[int, list[asyncio.Future[None]]] = {}
        self._last_letter = 0
        self._looking: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.failure: BaseException | None = None

    # -- service ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look for runs."""
        self.is_executing = True
        self._last_letter = self.store.read_now(_last_letter)
        self._looking = asyncio.create_task(self._look_forever(), name="surefoot-worker")
        self.guard.on_settled = lambda tx, effect: tables.wake_waiters(tx, "effect", effect)
        self.guard.wake = wake

    async def stop(self) -> None:
        """Take no more runs, let acts in progress end, hand the rest back."""
        self._is_stopping = True
        self.is_executing = False
        self._wake.set()
        if self._looking is not None:
            await self._looking
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self.guard.acting:
                    await asyncio.wait([asyncio.create_task(a.wait()) for a in self.guard.acting.values()])
        runs = [run for run in self.live.values() if run.task is not None]
        for run in runs:
            run.parking = None
            run.stop(Suspend("handed back"))
            run._interrupt()
            if run.task is not None:
                run.task.cancel("surefoot: handed back")
        await asyncio.gather(*(run.task for run in runs if run.task), return_exceptions=True)

    def nudge(self) -> None:
        """Look for work now."""
        self._wake.set()

    async def _look_forever(self) -> None:
        try:
            while not self._is_stopping:
                await self._look()
                await asyncio.sleep(LOOK_PAUSE_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()
                self._wake.clear()
        except StoreError as error:
            self.failure = error
            for run in list(self.live.values()):
                run.stop(error)
                run._interrupt()
            self._wake_waiters()

    async def _look(self) -> None:
        seen = await self.store.read(self._glance)
        if seen.letters:
            self._deliver(seen.letters)
        for run in seen.overdue:
            if run in self.live:
                self.live[run].expire()
        if seen.dead or seen.strange or (seen.has_due and len(self.live) < self.room):
            await self._claim(seen)
        self._wake_waiters()

    def _glance(self, connection: apsw.Connection) -> Glance:
        """Look, without writing, whether there is anything to do; runs on the reader."""
        now_ms, kinds = self.store.clock.wall_ms(), known_kinds()
        holders = [holder for holder in tables.dead_holders(connection) if holder != self.session.id]
        return Glance(
            has_due=tables.has_due(connection, kinds, now_ms),
            dead=[one for one in holders if self.sessions.holder(connection, one).life is not Life.ALIVE],
            strange=tables.unknown_kinds(connection, kinds, now_ms - STRANGE_AFTER_MS),
            letters=tables.letters_since(connection, self._last_letter),
            overdue=[
                run.row.id
                for run in list(self.live.values())
                if run.row.deadline_ms is not None and run.row.deadline_ms <= now_ms
            ],
        )

    def _deliver(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            self._last_letter = max(self._last_letter, letter.id)
            run = self.live.get(letter.run)
            if run is not None:
                run.receive(letter)

    async def _claim(self, seen: Glance) -> None:
        kinds, session, room = known_kinds(), self.session.id, min(CLAIM_MAX, self.room - len(self.live))
        may_try_suspect = not any(run.row.takeovers >= SUSPECT_AFTER for run in self.live.values())

        def unit(tx: Tx) -> list[RunRow]:
            for holder in seen.dead:
                tables.take_over_runs(tx, holder)
            for run in seen.strange:
                tables.block_unknown(tx, run, kinds)
            return tables.claim_runs(tx, session, kinds, room, may_try_suspect=may_try_suspect)

        rows = await self.store.commit(unit, label="take")
        if rows:
            await self._resume(rows)
            self._wake.set()  # there may be more than one claim's worth

    async def _resume(self, rows: Sequence[RunRow]) -> None:
        """Load the journals of many runs with one query, and go on with each."""
        ids = [row.id for row in rows]
        records, letters = await self.store.read(
            lambda connection: (load_records_of(connection, ids), tables.letters_of(connection, ids))
        )
        for row in rows:
            own = [letter for letter in letters if letter.run == row.id] if letters else []
            self.launch(row, arrange(records[row.id]), own)

    # -- executing -------------------------------------------------------------------------------------------------

    def launch(self, row: RunRow, history: History, letters: Sequence[Letter]) -> LiveRun:
        """Execute a run this process has just claimed."""
        run = LiveRun(self.store, self, row, history, letters)
        self.live[row.id] = run
        context = contextvars.copy_context()
        run.task = asyncio.get_running_loop().create_task(self._execute(run), name=f"run {row.run_id}", context=context)
        return run

    async def _execute(self, run: LiveRun) -> None:
        current_frame.set(run)
        bound_guard.set(self.guard)
        _strand.set(Strand(asyncio.current_task(), 0, is_fork=False))  # the root: tasks the code starts fork off it
        _parent.set("")
        _place.set(None)
        told_to_model.set(None)
        try:
            await self._conclude(run, await self._call(run))
        except (LeaseLost, StoreError) as error:
            if isinstance(error, StoreError):
                self.failure = error
        finally:
            self.live.pop(run.row.id, None)
            self._wake_waiters()
            self._wake.set()

    async def _call(self, run: LiveRun) -> Any:
        """Run the code; return what to write about the run."""
        if run.row.takeovers >= TAKEOVERS_MAX:
            reason = f"taken over {run.row.takeovers} times without a new record"
            return Parking(WaitFor.BLOCKED, reason, None)
        try:
            kind = kind_of(run.row.kind)
            started = run.history.started
            args, kwargs = kind.load_input(started.body if started is not None and started.body else b"{}")
            if run.is_cancelling:
                return _Ending(RunState.CANCELLED, _encode([run.cancelled_by]), f"cancelled by {run.cancelled_by}")
            value = await kind.function(*args, **kwargs)
            return self._finished(run, kind.result.dump(value)[0])
        except Suspend:
            return self._suspended(run)
        except asyncio.CancelledError:
            return self._cancelled(run)
        except (Blocked, Undecodable) as error:
            return Parking(WaitFor.BLOCKED, str(error), None)
        except (LeaseLost, StoreError) as error:
            run.stop(error)
            raise
        except BaseException as error:
            if run.stopped is not None:
                return self._suspended(run)
            if isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
                raise
            return _Ending(RunState.FAILED, _encode([_name_of(error), str(error)]), f"{_name_of(error)}: {error}")

    def _finished(self, run: LiveRun, body: bytes) -> Any:
        if run.stopped is not None:
            return self._suspended(run)
        left = run.history.left_over()
        if left:
            error = Divergence(
                run.run_id, left[0], "the end", f"step {left[0]} and {len(left) - 1} more, never asked for"
            )
            return Parking(WaitFor.BLOCKED, str(error), None)
        return _Ending(RunState.COMPLETED, body, "")

    def _suspended(self, run: LiveRun) -> Any:
        if run.parking is not None:
            return run.parking
        stopped = run.stopped
        if isinstance(stopped, Blocked | Undecodable):
            return Parking(WaitFor.BLOCKED, str(stopped), None)
        if isinstance(stopped, LeaseLost | StoreError):
            raise stopped
        return None

    def _cancelled(self, run: LiveRun) -> Any:
        if run.stopped is not None:
            return self._suspended(run)
        if run.is_cancelling:
            return _Ending(RunState.CANCELLED, _encode([run.cancelled_by]), f"cancelled by {run.cancelled_by}")
        return None  # the loop is going down: hand the run back

    async def _conclude(self, run: LiveRun, verdict: Any) -> None:
        """Write the end, the wait, or that the run is free again."""
        record = run.about_run(Kind.ENDED, head=Head(state=verdict.state.name.lower()), body=verdict.body) if isinstance(
            verdict, _Ending) else None  # fmt: skip
        parent = run.row.parent

        def unit(tx: Tx) -> None:
            run.require(tx)
            if verdict is None:
                tables.hand_back_run(tx, run.row.id)
            elif isinstance(verdict, Parking):
                tables.park_run(tx, run.row.id, verdict.wait_for, verdict.reason, verdict.wake_at_ms, run.last_letter)
            elif tables.has_open_effect(tx, run.row.id):
                reason = f"ends as {verdict.state.name.lower()} once its unknown effects are known"
                tables.park_run(tx, run.row.id, WaitFor.DOUBT, reason, None, run.last_letter)
            else:
                self._write_end(tx, run, verdict, record)
                if parent is not None:
                    tables.post(tx, parent, tables.WAKE, None, sent_by=f"child {run.run_id}")

        await self.store.commit(unit, label="end" if record is not None else "park")

    def _write_end(self, tx: Tx, run: LiveRun, verdict: _Ending, record: Record | None) -> None:
        assert record is not None, "an ending has a record"
        tables.end_run(tx, run.row.id, verdict.state, insert_record(tx, record), verdict.reason)

    # -- waiting for ends --------------------------------------------------------------------------------------------

    def is_live(self, run: int) -> bool:
        """Whether this process executes the run right now."""
        return run in self.live

    async def wait_change(self, run: int) -> None:
        """Return when something may have changed about a run; the caller looks for itself, and waits again."""
        live = self.live.get(run)
        if live is not None and live.task is not None:
            await asyncio.wait([live.task], timeout=LOOK_AGAIN_S)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.setdefault(run, []).append(future)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await future

    def _wake_waiters(self) -> None:
        waiting, self._ended = self._ended, {}
        for futures in waiting.values():
            for future in futures:
                if not future.done():
                    future.set_result(None)


class Glance(msgspec.Struct, frozen=True):
    """What a look at the store showed."""

    has_due: bool
    dead: list[int]
    strange: list[int]
    letters: list[Letter]
    overdue: list[int]


class _Ending(msgspec.Struct, frozen=True):
    """How a run ends."""

    state: RunState
    body: bytes
    reason: str


def _last_letter(connection: apsw.Connection) -> int:
    row = next(connection.execute("SELECT max(id) FROM inbox"))
    return int(row[0] or 0)


def _name_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
