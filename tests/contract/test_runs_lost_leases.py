"""Leases that are lost: the run goes on elsewhere, and what was lost writes nothing more."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from tests.contract.conftest import Calls, kinds, ledger_states, until
from tests.contract.test_runs import wait_state
from tests.contract.test_sessions import lock_files

import surefoot as sf
from surefoot.effects import Outcome, Pass
from surefoot.effects.live.case import Case, Claim
from surefoot.journal import current_frame
from surefoot.leases import LeaseLost
from surefoot.runs.life import TAKEOVERS_MAX
from surefoot.runs.live.run import LiveRun
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
        assert app.worker.guard.duty.session is app.worker.session
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


@pytest.mark.usefixtures("quick_eviction")
@pytest.mark.parametrize("is_recording", [True, False])
async def test_a_run_that_another_has_taken_is_written_by_that_one_only(
    app: sf.Surefoot, url: str, is_recording: bool
) -> None:
    """Catches a wait, or a record, of an execution whose run another worker holds by now."""
    executions: Calls = []

    @sf.step
    async def note() -> int:
        return len(executions)

    @sf.durable(name=f"taken {is_recording}")
    async def code() -> int:
        executions.append(1)
        if len(executions) == 1:
            await app.store.commit(take, label="test")
        if is_recording or len(executions) > 1:
            await note()
        return int(await sf.wait_signal("go"))

    async with sf.Surefoot(url, is_worker=False) as other:

        def take(tx: Tx) -> None:
            tx.execute("UPDATE runs SET epoch = epoch + 1, holder = ?", (other.worker.session.id,))
            tx.held.clear()

        run = await app.start(code, id="r")
        await until(lambda: bool(executions) and not app.worker.live)
        row = await run.look()
        assert (row.state.name, row.epoch, row.holder) == ("RUNNING", 2, other.worker.session.id)
        assert kinds(app, "r") == ["started"]
    await run.signal("go", 7)
    assert await run.result(timeout_s=10) == 7
    assert kinds(app, "r") == ["started", "decided", "signal", "ended"]


@pytest.mark.sqlite_only("moves the clocks of the host, and PostgreSQL has its own")
@pytest.mark.parametrize("is_worker", [False, True])
async def test_after_a_long_stop_effects_and_leases_outside_runs_go_on(url: str, is_worker: bool) -> None:
    """Catches a process that nobody's worker is in (a web server, a notebook on a laptop) and that can do nothing any more
    after it was stopped once; and a session for each of those who ask at the same time."""
    clock, acts = JumpingClock(), list[Any]()

    @sf.effect(key="{number}")
    async def act(number: int) -> int:
        acts.append(number)
        return number

    async with sf.Surefoot(url, clock=clock, is_worker=is_worker) as app:
        first = app.worker.session.id
        await act(0)
        clock.ahead_ms += 60_000
        assert await asyncio.gather(*(act(number) for number in range(1, 6))) == [1, 2, 3, 4, 5]
        assert app.worker.session.id == first + 1
        clock.ahead_ms += 60_000
        async with sf.lease("thing") as lease:
            assert lease.is_held
        assert app.worker.session.id == first + 2
        assert len(lock_files(url)) == 1, "those of the lost ones are given back"


async def test_what_was_claimed_before_a_long_stop_is_not_acted_on_after_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a claim of a session that has run out, and that others may have taken over, acted on because the process has
    a new one meanwhile; and a doubt about what nobody has sent."""
    clock, acts = JumpingClock(), list[Any]()

    @sf.effect(key="{name}")
    async def act(name: str) -> str:
        acts.append(name)
        return name

    async with sf.Surefoot(url, clock=clock, is_worker=False) as app:
        guard, is_claimed, may_go_on = app.worker.guard, asyncio.Event(), asyncio.Event()
        claim = guard.claim

        async def claim_and_stop(case: Case) -> Claim | Outcome:
            found = await claim(case)
            if case.request["name"] == "first":
                clock.ahead_ms += 60_000
                is_claimed.set()
                await may_go_on.wait()
            return found

        monkeypatch.setattr(guard, "claim", claim_and_stop)
        first = asyncio.create_task(act("first"))
        await is_claimed.wait()
        await act("second")
        assert guard.duty.session.may_act()
        may_go_on.set()
        with pytest.raises(LeaseLost, match="nothing was sent"):
            await first
        assert acts == ["second"]
        await app.store.barrier()
        assert ledger_states(app) == ["not_done", "done"]


async def test_a_worker_that_can_not_let_go_of_its_runs_is_not_waited_for_for_ever(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an effect outside runs that hangs because the code of a run does."""
    clock, may_end = JumpingClock(), asyncio.Event()
    monkeypatch.setattr("surefoot.leases.duty.NEW_SESSION_S", 0.2)

    @sf.durable
    async def clings() -> None:
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    @sf.effect(key="once")
    async def act() -> None: ...

    async with sf.Surefoot(url, clock=clock) as app:
        await app.start(clings, id="c")
        clock.ahead_ms += 60_000
        with pytest.raises(LeaseLost, match="nothing was sent"):
            await act()
        may_end.set()
        await act()
