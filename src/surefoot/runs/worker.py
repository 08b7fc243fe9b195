"""The worker: finds the runs that this process is to execute, and tells them what others have done for them.

start        -> a new run, executed here at once if there is room
look         -> now and then, or when told: pending and due runs; runs of dead holders; letters for live runs (`glance`)
claim        -> in turns with other workers, in one transaction (`claiming`)
launch       -> a claimed run is executed (`execution`) until it ends, waits, or is given back
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

from surefoot.effects import Guard, SimulatedGuard, around, bound_guard, told_to_model
from surefoot.effects.live.sweep import sweep
from surefoot.journal import Record, current_frame
from surefoot.leases import LeaseLost, Session, Sessions
from surefoot.runs.claiming import Claiming
from surefoot.runs.durable import executable_kinds
from surefoot.runs.errors import Suspend
from surefoot.runs.escalating import Escalating, Hook
from surefoot.runs.glance import Glance, glance
from surefoot.runs.hearing import Hearing
from surefoot.runs.life import SUSPECT_AFTER
from surefoot.runs.live.execution import Execution
from surefoot.runs.live.replay import History
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import Strand, _parent, _place, _strand
from surefoot.runs.live.waiting import Target, Waiting
from surefoot.runs.rows import waiters
from surefoot.runs.rows.desk import wake
from surefoot.runs.rows.inbox import Letter
from surefoot.runs.rows.tables import RunRow
from surefoot.store import Store, StoreError, Tx
from surefoot.store.connection import Connection

PASS_S, PASSES_MAX = 0.02, 5
"""How soon to look again when another worker is about to take the work that was seen, and how often before taking it all
the same: that worker may have been stopped."""

APART = 0.2
"""By how much of that workers differ: so they don't look in step, and the first that sees something new has taken it when
the others look."""

GOLDEN = 0.618_033_988_749_895
"""Multiples of it, without their whole part, lie as far from each other as can be (Weyl; Knuth, TAOCP 3, 6.4)."""

LOOK_PAUSE_S = 0.005
"""Pause between two looks, so that a thousand runs that end one after another cause two hundred looks a second, not as
many as there are runs."""

LOOK_AGAIN_S = 5.0
"""How often a caller looks for the end of a run that is executed here: only a run that was taken from us ends unseen."""

ROOM = 2_000
"""Runs in memory at once, waiting ones included. About 60 KB each when small."""

SWEEP_S = 0.25
"""How often waits in memory are checked against what other processes have settled, and other holders' claims."""

DOUBTS_S = 10.0
"""How often doubts that nobody asks about any more are looked into."""

UNKNOWN_S = 10.0
"""How long nobody may seem to know a kind before its runs say so: in a deploy its workers are gone for a moment."""

GRACE_S = 10.0
"""How long a graceful stop waits for acts in progress to get their answer before it hands runs back."""

GRACE_NOTICE_S = 1.0
"""After so much of it the stop says what it waits for: whoever has pressed Ctrl-C sees no reason else."""

_logger = logging.getLogger("surefoot")


class Source(Protocol):
    """Where runs come from besides `start`: events, for one. Every worker asks, so a source gives a run to one of them."""

    def has_new(self, connection: Connection) -> bool:
        """Whether `feed` would start a run; asked in each look, off the loop."""

    def feed(self, tx: Tx) -> object:
        """Start runs, some at a time, in the transaction in which the worker then takes what it has room for."""


class Worker:
    """Executes the runs of one process."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        guard: Guard,
        *,
        room: int = ROOM,
        on_escalation: Hook | None = None,
    ) -> None:
        self.store = store
        self.sessions = sessions
        self.guard = guard
        self.simulated = SimulatedGuard.like(guard)
        self.room = room
        self.escalating = Escalating(guard, on_escalation, _complain)
        self.live: dict[int, LiveRun] = {}
        self.sources: list[Source] = []
        self.is_executing = False
        self._promised = 0
        self._wake = asyncio.Event()
        self.hearing = Hearing(store, self.nudge)
        self._passes = 0
        self.claiming = Claiming(self)
        self._next_due_ms: int | None = None
        self._last_letter = 0
        self._unknown: dict[str, float] = {}  # since when every look has found that nobody knows this kind
        self._looking: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._swept_to = 0
        self.is_stopping = False
        self.handed_back: dict[int, str] = {}
        self._waited: dict[Target, int] = {}
        self._told: set[Target] = set()
        self._swept_s = self._doubts_s = store.clock.monotonic_s()
        self.failure: BaseException | None = None
        guard.on_settled = self._tell_settled
        guard.wake = wake
        guard.duty.nudge = self.nudge
        guard.duty.is_tended = lambda: self.is_executing

    @property
    def session(self) -> Session:
        """What this process holds its runs by: a new one, once it has run out."""
        return self.guard.duty.session

    # -- service ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to look for runs."""
        self.is_executing = True
        self._last_letter = self.store.read_now(_last_letter)
        self.hearing.begin()
        self._looking = asyncio.create_task(self._look_forever(), name="surefoot-worker")

    async def stop(self) -> None:
        """Take no more runs, let acts in progress end, hand the rest back."""
        self.is_stopping = True
        self.is_executing = False
        self._wake.set()
        for task in (self._looking, self._sweeping):
            if task is not None:
                if task is self._sweeping:
                    task.cancel()
                await asyncio.wait([task])
        notice_s = min(GRACE_NOTICE_S, GRACE_S)
        if not await self._acts_ended(notice_s):
            _logger.warning(
                "closing: acts in progress (%d) have %g s to get their answer; what has none then is unknown",
                len(self.guard.acting), GRACE_S,
            )  # fmt: skip
            await self._acts_ended(GRACE_S - notice_s)
        await self._halt(Suspend("handed back"))

    async def _acts_ended(self, limit_s: float) -> bool:
        clock = self.store.clock
        until_s = clock.monotonic_s() + limit_s
        while self.guard.acting and (left_s := until_s - clock.monotonic_s()) > 0:
            await asyncio.wait([asyncio.create_task(a.wait()) for a in self.guard.acting.values()], timeout=left_s)
        return not self.guard.acting

    async def _halt(self, why: BaseException) -> None:
        """Unwind all runs, acts in progress included, and return when each is written as what it then is."""
        runs = [run for run in self.live.values() if run.task is not None]
        self.handed_back = {run.row.id: run.run_id for run in runs}
        for run in runs:
            run.eviction.parking = None
            run.stop(why)
            run.interrupt(is_final=True)
        await asyncio.gather(*(run.task for run in runs if run.task), return_exceptions=True)

    def nudge(self) -> None:
        """Look for work now; from any loop."""
        if self._looking is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody looks any more
                self._looking.get_loop().call_soon_threadsafe(self._wake.set)

    async def _look_forever(self) -> None:
        try:
            while not self.is_stopping:
                await self._look()
                await asyncio.sleep(LOOK_PAUSE_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rest_s()):
                        await self._wake.wait()
                self._wake.clear()
        except Exception as error:  # the store is gone, or a mistake of ours: no run of this process goes on unseen
            self._fail(error)

    def _rest_s(self) -> float:
        """Return how long nothing needs to be looked for, unless somebody says so."""
        if self._passes:
            return PASS_S
        rest_s = self.hearing.rest_s(is_waiting=bool(self._waited)) * pace_of(self.session.id)
        if self._next_due_ms is None:
            return rest_s
        return min(rest_s, max(0, self._next_due_ms - self.store.clock.wall_ms()) / 1_000)

    def _fail(self, error: Exception) -> None:
        """Stop executing, and say so to whoever waits for a run of this process."""
        self.failure, self.is_executing = error, False
        if not isinstance(error, StoreError):  # those reach every caller by themselves
            _complain("this worker has stopped", error)
        for run in list(self.live.values()):
            run.stop(error)
            run.interrupt()
        self.hearing.wake()

    async def _look(self) -> None:
        if not self.session.may_act():
            await self._begin_anew()
        now_s = self.store.clock.monotonic_s()
        if is_sweep := now_s - self._swept_s >= SWEEP_S:
            self._swept_s = now_s
        told, self._told = self._told, set()
        targets = [*told, *(waiting.target for waiting in self._waits() if waiting.target)] if is_sweep else [*told]
        long_unknown = [kind for kind, since_s in self._unknown.items() if now_s - since_s >= UNKNOWN_S]
        seen = await self.store.read(partial(glance, self, targets, self._last_letter, long_unknown, is_sweep))
        self._unknown = {kind: self._unknown.get(kind, now_s) for kind in seen.unknown}
        if not is_sweep and (early := (told - seen.settled) & self._waited.keys()):
            self._told |= early  # told before the transaction was committed; the next sweep asks for all anyway
            self._wake.set()
        if seen.letters:
            self._deliver(seen.letters)
        if seen.settled:
            self._resume_waits(seen.settled)
        for run in seen.overdue:
            if run in self.live:
                self.live[run].deadline.expire()
        self._next_due_ms = seen.next_due_ms
        await self._take_turns(seen)
        if not self.hearing.is_hearing:
            self.hearing.wake()
        if now_s - self._doubts_s >= DOUBTS_S and (self._sweeping is None or self._sweeping.done()):
            self._doubts_s = now_s
            self._sweeping = asyncio.create_task(self._sweep(), name="surefoot-doubts")

    async def _take_turns(self, seen: Glance) -> None:
        """Claim what was seen, unless another worker is about to: else all that are idle would, for one new run."""
        if not seen.has_work:
            self._passes = 0
            return
        if not seen.may_take and self._passes < PASSES_MAX:
            self._passes += 1
            return
        self._passes = 0
        try:
            self._passes = int(await self.claiming.claim(seen))
            if seen.has_new:
                self._wake.set()  # there may be more than was brought in at once
        finally:
            if seen.may_take:
                await self.store.read(self.store.has_taken)

    async def _sweep(self) -> None:
        for look in (self.escalating.look, self._sweep_doubts):
            try:
                await look()
            except StoreError:  # every caller of the store is told
                return
            except Exception as error:
                _complain("looking into doubts failed", error)

    async def _sweep_doubts(self) -> None:
        self._swept_to = await sweep(self.guard, self._swept_to, _complain)

    async def _begin_anew(self) -> None:
        """Go on after the session has run out: all that it held may be another's by now, so nothing of it is touched."""
        await self._halt(
            LeaseLost(f"the lease of {self.session.name} has run out", hint="another worker goes on with its runs")
        )
        await self.guard.duty.begin_anew()

    def _waits(self) -> Iterator[Waiting]:
        return (waiting for run in self.live.values() for waiting in run.waits)

    def _resume_waits(self, settled: set[Target]) -> None:
        for waiting in list(self._waits()):
            if waiting.target in settled and not waiting.future.done():
                waiting.future.set_result(None)

    def _tell_settled(self, tx: Tx, effect: int) -> None:
        self.tell(tx, ("effect", effect))

    def tell(self, tx: Tx, target: Target, *, is_expected: bool = False) -> None:
        """Wake whoever waits for this: parked runs in this transaction, those in memory once it is committed."""
        waiters.wake_waiters(tx, *target, is_expected=is_expected)
        if target in self._waited and self._looking is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits in memory any more
                self._looking.get_loop().call_soon_threadsafe(self._note_told, target)

    def _note_told(self, target: Target) -> None:
        self._told.add(target)
        self._wake.set()

    def note_wait(self, target: Target | None, change: int) -> None:
        """Count the waits in memory for a target, so that the writer tells us of those only."""
        if target is None:
            return
        count = self._waited.get(target, 0) + change
        if count > 0:
            self._waited[target] = count
        else:
            self._waited.pop(target, None)

    def _deliver(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            self._last_letter = max(self._last_letter, letter.id)
            run = self.live.get(letter.run)
            if run is not None:
                run.receive(letter)

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
        bound_guard.set(self.simulated if run.is_simulated else self.guard)
        _strand.set(Strand(asyncio.current_task(), 0, is_fork=False))  # the root: tasks the code starts fork off it
        _parent.set("")
        _place.set(None)
        told_to_model.set(None)
        around.set(())  # whoever started the run may hold something: that is not the run's
        try:
            await Execution(self, run).to_its_end()
        except StoreError as error:
            self.failure = error
        finally:
            run.stop(Suspend("this execution has ended"))
            makes_room = self.free <= 0 or run.row.takeovers >= SUSPECT_AFTER or self._lets_others_in(run)
            self.live.pop(run.row.id, None)
            self.hearing.wake()
            if makes_room or run.ending is None:
                self._wake.set()

    def _lets_others_in(self, run: LiveRun) -> bool:
        """Whether others may have waited for this run: for its turn, or because its kind was at its limit."""
        return run.row.lane is not None or executable_kinds().get(run.row.kind) is not None

    @property
    def free(self) -> int:
        """How many more runs this process may have in memory."""
        return self.room - len(self.live) - self._promised

    def take_place(self) -> bool:
        """Promise a place to a run that is being started; False where there is none, and any worker may have the run."""
        if not self.may_execute or self.free <= 0:
            return False
        self._promised += 1
        return True

    def give_place_back(self) -> None:
        """End a promise: the run has its place, or needs none."""
        self._promised -= 1

    @property
    def may_execute(self) -> bool:
        """Whether a run may begin here: what is begun under a session that has run out would be another's at once."""
        return self.is_executing and self.session.may_act()

    # -- waiting for ends --------------------------------------------------------------------------------------------

    def is_live(self, run: int) -> bool:
        """Whether this process executes the run right now."""
        return run in self.live

    def is_executed(self, run: int) -> bool:
        """Whether the run's code is executed here right now."""
        live = self.live.get(run)
        return live is not None and live.task is not None

    async def end_here(self, run: int) -> Record | None:
        """Return the end of a run that is executed here once it has come to it, or None: then look for it."""
        live = self.live.get(run)
        if live is None or live.task is None:
            return None
        await asyncio.wait([live.task], timeout=LOOK_AGAIN_S)
        return live.ending


def pace_of(session: int) -> float:
    """Return how long a worker rests between two looks, from 1 - `APART` to 1 + `APART`: far from those who came before."""
    return 1 - APART + 2 * APART * (session * GOLDEN % 1)


def _last_letter(connection: Connection) -> int:
    row = next(connection.execute("SELECT max(id) FROM inbox"))
    return int(row[0] or 0)


def _complain(message: str, error: Exception) -> None:
    """Say aloud what nobody waits for: asyncio's handler logs it as an error."""
    asyncio.get_running_loop().call_exception_handler({"message": f"surefoot: {message}", "exception": error})
