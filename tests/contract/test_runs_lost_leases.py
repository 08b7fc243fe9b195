"""Leases that are lost: the run goes on elsewhere, and what was lost writes nothing more."""

from __future__ import annotations

from typing import Any

from tests.contract.conftest import Calls, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.effects import Pass
from surefoot.journal import current_frame
from surefoot.leases import LeaseLost
from surefoot.runs.life import TAKEOVERS_MAX
from surefoot.runs.live import LiveRun
from surefoot.store import SystemClock, Tx


class JumpingClock(SystemClock):
    """Clocks that can be moved on, as by a suspend of the machine."""

    ahead_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms

    def boot_ms(self) -> int:
        return super().boot_ms() + self.ahead_ms


async def test_a_process_that_lost_its_session_opens_another_and_goes_on(url: str) -> None:
    """Catches a process that stays alive without a lease: its runs running for ever with nobody in them."""
    clock = JumpingClock()

    @sf.effect
    async def act() -> str:
        return "acted"

    @sf.durable
    async def waits() -> str:
        await sf.wait_signal("go")
        return str(await act())

    async with sf.Surefoot(url, clock=clock) as app:
        run, first = await app.start(waits, id="w"), app.worker.session.id
        clock.ahead_ms = 60_000
        await until(lambda: app.worker.session.id != first)
        assert app.worker.guard.session is app.worker.session
        await run.signal("go")
        assert await run.result(timeout_s=5) == "acted"


async def test_a_run_started_as_the_session_runs_out_is_held_by_the_next(url: str) -> None:
    """Catches a run that is begun under a lease that others may take for dead."""
    clock, holders = JumpingClock(), []

    @sf.durable
    async def looks() -> None:
        frame = current_frame.get()
        assert isinstance(frame, LiveRun)
        holders.append(frame.row.holder)

    async with sf.Surefoot(url, clock=clock) as app:
        first = app.worker.session.id
        clock.ahead_ms = 60_000
        await (await app.start(looks, id="l")).result(timeout_s=5)
        assert holders == [app.worker.session.id] != [first]


async def test_a_lease_lost_between_claim_and_act_hands_the_run_back(url: str) -> None:
    """Catches a run that is dropped, still held, because the lease ran out in the middle of it."""
    clock = JumpingClock()

    class Suspend:
        name = "suspend"
        times = 0

        def admit(self, _tx: Tx, _request: Any) -> Pass:
            self.times += 1
            if self.times == 1:
                clock.ahead_ms = 60_000
            return Pass()

        def release(self, _tx: Tx, _request: Any) -> None: ...

    @sf.effect(in_doubt=sf.Resend())
    async def act() -> str:
        return "acted"

    @sf.durable
    async def acts() -> str:
        return str(await act())

    async with sf.Surefoot(url, clock=clock, gates=[Suspend()]) as app:
        assert await (await app.start(acts, id="a")).result(timeout_s=10) == "acted"


async def test_lease_lost_while_the_session_is_ours_frees_the_run(app: sf.Surefoot) -> None:
    """Catches a run left running with nobody in it after a LeaseLost that was not the session's."""
    starts: Calls = []

    @sf.durable
    async def loses() -> str:
        starts.append(1)
        if len(starts) == 1:
            raise LeaseLost("said somebody")
        return "second time"

    assert await (await app.start(loses, id="l")).result(timeout_s=5) == "second time"


async def test_handing_back_without_progress_ends_as_blocked(app: sf.Surefoot) -> None:
    """Catches a hot loop of executions that come to nothing."""
    starts: Calls = []

    @sf.durable
    async def comes_to_nothing() -> None:
        starts.append(1)
        raise LeaseLost("again")

    status = await wait_state(await app.start(comes_to_nothing, id="c"), "waiting", "blocked")
    assert "without a new record" in status.reason
    assert len(starts) <= TAKEOVERS_MAX + 1
