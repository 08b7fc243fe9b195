"""A lease of a run: taking it and giving it back are steps.

    asked, not free   TIMER_SET, with when it gives up; the run waits for ("lease", number), in memory at first, then parked
    granted           DECIDED, in order after the row of the grant, which the run's step finds again after a crash between
    not free in time  DECIDED, with who held it
    given back        a step of its own, DECIDED in the transaction that gives it back

What holds: whoever executes the run holds it, without asking again; the block's end gives it back, but an eviction, which
also unwinds the code, does not.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import Context
from functools import partial
from typing import Any

import msgspec

from surefoot.coordination import tables
from surefoot.coordination.desk import LeaseDesk
from surefoot.coordination.held import HeldByRun
from surefoot.coordination.line import Granted, Standing, Wanted
from surefoot.coordination.tables import Owner
from surefoot.coordination.words import busy
from surefoot.effects import around
from surefoot.effects.classify import describe
from surefoot.journal import Kind, Record, insert_record
from surefoot.journal.records import Head
from surefoot.runs.life import WaitFor
from surefoot.runs.live.run import WAIT_IN_PLACE_S, LiveRun
from surefoot.runs.live.taken import LiveStep
from surefoot.runs.steps import meet_again_if_interrupted, ring
from surefoot.store import Tx

_encode, _decode = msgspec.json.encode, msgspec.json.decode


class RunLease:
    """One lease of one run."""

    def __init__(self, run: LiveRun, desk: LeaseDesk, wanted: Wanted, timeout_s: float | None, key: str | None) -> None:
        self._run = run
        self._desk = desk
        self._wanted = wanted
        self._timeout_s = timeout_s
        self._key = key
        self._step = ""
        self._outer = around.get()
        self.is_held = False

    async def enter(self) -> str:
        """Take it; return why it was not to be had, or nothing."""
        run, wanted = self._run, self._wanted
        step = run.open_step(f"{wanted.kind} {', '.join(wanted.resources)}", self._key)
        self._step = step.key
        try:
            reason = await self._recorded(step) if step.ended is not None else await self._ask(step)
        except BaseException as error:
            step.interrupt(describe(error))
            self._forget()
            raise
        finally:
            step.close()
        if not reason:
            self.is_held = True
            held = HeldByRun(self._desk, wanted, run.run, run.row.epoch, step.key)
            around.set((*self._outer, held))
        return reason

    async def _recorded(self, step: LiveStep) -> str:
        await meet_again_if_interrupted(self._run, step)
        record = step.ended
        assert record is not None, "called with an ended step"
        if record.kind is not Kind.DECIDED or record.body is None:
            step.raise_divergence(f"a {self._wanted.kind}", f"a {record.kind.name} of that name")
        found: dict[str, Any] = _decode(record.body)
        return str(found.get("busy", ""))

    async def _ask(self, step: LiveStep) -> str:
        """Ask until it is granted or the time is up; return why not."""
        run, clock = self._run, self._run.store.clock
        until_ms = step.opened.head.wake_at_ms or None if step.opened is not None else None
        since_ms = clock.wall_ms()
        while True:
            taken = await self._take(step)
            if isinstance(taken, Granted):
                return self._end(step, {"token": taken.token})
            if step.opened is None:
                until_ms = None if self._timeout_s is None else since_ms + int(self._timeout_s * 1_000)
                step.opened = step.draft(Kind.TIMER_SET, head=Head(name=self._wanted.words, wake_at_ms=until_ms or 0))
                step.record(step.opened, "lease")
            if until_ms is not None and clock.wall_ms() >= until_ms:
                waited_s = max(0.0, (clock.wall_ms() - since_ms) / 1_000) if self._timeout_s else 0.0
                run.append(self._give_back, "give back", 0)
                return self._end(step, {"busy": busy(self._wanted, taken.ahead, waited_s)})
            await self._wait(step, taken, until_ms)

    async def _take(self, step: LiveStep) -> Granted | Standing:
        run, boot_ms = self._run, self._run.store.clock.boot_ms()
        if run.is_simulated:  # nothing of it acts, so nothing is to be kept from it, or from others
            return Granted(0, 0)
        owner = Owner(run.worker.session.id, f"run {run.run_id}", run.run, run.row.epoch, step.key)

        def unit(tx: Tx) -> Granted | Standing:
            run.require(tx)
            mine = tables.of_step(tx.connection, run.run, step.key)
            if mine and mine[0].is_held:
                return Granted(mine[0].number, mine[0].token)
            if not mine and (kept := self._desk.kept(tx, self._wanted, owner)) is not None:
                return kept
            number = mine[0].number if mine else None
            return self._desk.take(tx, self._wanted, owner, number, boot_ms=boot_ms, until_boot_ms=None)

        return await step.commit(unit, "lease")

    async def _wait(self, step: LiveStep, standing: Standing, until_ms: int | None) -> None:
        run = self._run
        alarm = None
        if until_ms is not None:
            left_s = max(0.001, (until_ms - run.store.clock.wall_ms()) / 1_000)
            alarm = run.loop.call_later(min(left_s, 60.0), ring, run, step.key)
        reason = busy(self._wanted, standing.ahead, 0.0)
        # While it is in memory it looks as others do; the worker's own looks are for runs that wait for longer.
        comes = self._desk.comes(self._wanted, standing.number, WAIT_IN_PLACE_S)
        looking = run.loop.create_task(comes, name="surefoot-lease-turn", context=Context())
        looking.add_done_callback(partial(_looked, run, step.key))
        try:
            await run.wait(step.key, WaitFor.LEASE, reason, until_ms, ("lease", standing.number))
        finally:
            looking.cancel()
            if alarm is not None:
                alarm.cancel()

    def _end(self, step: LiveStep, found: dict[str, Any]) -> str:
        record = step.draft(Kind.DECIDED, head=Head(name=self._wanted.words), body=_encode(found))
        step.record(record, "lease")
        step.end(record)
        return str(found.get("busy", ""))

    def _forget(self) -> None:
        """The code has left while it asked: nothing is to stay in the line, unless it comes here again."""
        if self._run.stopped is None and self._step:
            self._run.append(self._give_back, "give back", 0)

    def _give_back(self, tx: Tx) -> None:
        self._run.require(tx)
        self._desk.give_back(tx, tables.of_step(tx.connection, self._run.run, self._step))

    def leave(self) -> None:
        """Give it back, unless the run is only being suspended: then it stays the run's."""
        run = self._run
        self.is_held = False
        around.set(self._outer)
        if run.stopped is not None:
            return
        try:
            step = run.open_step(f"give back {', '.join(self._wanted.resources)}", self._key)
        except BaseException:  # its deadline, a cancellation: the block is left all the same
            with contextlib.suppress(BaseException):
                self._forget()
            raise
        try:
            if step.ended is None:
                record = step.draft(Kind.DECIDED, head=Head(name=self._wanted.words), body=b"null")
                run.append(partial(self._give_back_and_record, record), "give back", 0)
                step.end(record)
        finally:
            step.close()

    def _give_back_and_record(self, record: Record, tx: Tx) -> None:
        self._give_back(tx)
        insert_record(tx, record)


def _looked(run: LiveRun, step: str, looking: asyncio.Task[None]) -> None:
    """Let the wait ask again; an error of the store reaches it there."""
    if not looking.cancelled():
        looking.exception()
        ring(run, step)
