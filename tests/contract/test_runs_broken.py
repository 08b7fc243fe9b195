"""Runs when things break: kills in the middle, cancellations, lost leases, wake-ups, records that can't be written or read.

Where a process must really die, another one is started and kills itself; all else happens in this one.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.effects import Pass, desk
from surefoot.effects.states import OPEN, State
from surefoot.journal import current_frame
from surefoot.leases import LeaseLost, Sessions
from surefoot.runs import tables
from surefoot.runs.desk import show, wake
from surefoot.runs.life import TAKEOVERS_MAX, RunState, WaitFor
from surefoot.runs.live import LiveRun
from surefoot.store import SystemClock, Tx

Calls = list[Any]


@dataclass
class Receipt:
    """What a service returns."""

    id: int


@pytest.fixture
def quick_eviction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs that wait leave memory soon."""
    monkeypatch.setattr("surefoot.runs.live.LiveRun.wait.__kwdefaults__", {"grace_s": 0.1}, raising=False)
    monkeypatch.setattr("surefoot.runs.live.QUIET_S", 0.1)


def killed(url: str, code: str) -> None:
    """Run `code` in a process of its own, with `app` open on the store; it must end itself by `die()`."""
    script = f"""
import asyncio, os
import surefoot as sf

def die():
    os._exit(9)

async def main():
    async with sf.Surefoot({url!r}) as app:
        await body(app)
        await asyncio.sleep(20)

{textwrap.dedent(code)}
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 9, ended.stderr


def ledger_states(app: sf.Surefoot) -> list[str]:
    """Return the states of all effects, oldest first."""
    return [one.state for one in reversed(app.store.read_now(desk.list_effects))]


def kinds(app: sf.Surefoot, run_id: str) -> list[str]:
    """Return the kinds of a run's records."""
    return [step.kind for step in app.store.read_now(lambda connection: show(connection, run_id)).steps]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.01)


# -- B1: no run ends while it owns an open effect ---------------------------------------------------------------------


async def test_a_failed_run_waits_for_the_acts_of_its_other_tasks(app: sf.Surefoot) -> None:
    """Catches an ending while a sibling task is in the middle of an act, whose outcome the run then never learns."""
    may_answer = asyncio.Event()

    @sf.effect
    async def slow() -> str:
        await may_answer.wait()
        return "ok"

    @sf.effect
    async def refused() -> None:
        raise sf.NotDone("closed")

    @sf.durable
    async def both() -> None:
        await asyncio.gather(slow(), refused())

    run = await app.start(both, id="g")
    await until(lambda: "not_done" in ledger_states(app))
    await asyncio.sleep(0.1)
    assert (await run.status()).state == "running"
    may_answer.set()
    with pytest.raises(sf.RunFailed, match="closed"):
        await run.result(timeout_s=5)
    assert sorted(ledger_states(app)) == ["done", "not_done"]
    assert kinds(app, "g")[-1] == "ended"
    assert "done" in kinds(app, "g")


async def test_a_task_that_takes_new_steps_after_the_end_is_refused(app: sf.Surefoot) -> None:
    """Catches an orphan task that acts for a run that has ended."""
    acts: Calls = []

    @sf.effect
    async def act(n: int) -> None:
        acts.append(n)
        await asyncio.sleep(0.05)

    async def on_and_on() -> None:
        for n in range(100):
            await act(n)

    tasks: Calls = []

    @sf.durable
    async def leaves() -> str:
        tasks.append(asyncio.create_task(on_and_on()))
        await asyncio.sleep(0.02)
        return "fine"

    assert await (await app.start(leaves, id="l")).result(timeout_s=5) == "fine"
    await asyncio.wait(tasks)
    assert acts == [0]
    assert ledger_states(app) == ["done"]


async def test_an_act_that_never_answers_is_cancelled_and_keeps_the_run_in_doubt(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a run that waits for ever for a task its code has left, and one that ends over an open claim."""
    monkeypatch.setattr("surefoot.runs.worker.CLOSE_S", 0.1)

    @sf.effect
    async def stuck() -> None:
        await asyncio.Event().wait()

    tasks: Calls = []

    @sf.durable
    async def leaves() -> str:
        tasks.append(asyncio.create_task(stuck()))
        await asyncio.sleep(0.02)
        return "fine"

    run = await app.start(leaves, id="l")
    assert "ends as completed once" in (await wait_state(run, "waiting", "doubt")).reason
    effect = app.store.read_now(desk.list_effects)[0]
    assert effect.state == "unknown"
    await desk.resolve_by_person(
        app.store, Sessions(app.store), effect.id, is_done=True, who="ann", reason="saw it", wake=wake,
        is_fence_passed=True,
    )  # fmt: skip
    assert await run.result(timeout_s=5) == "fine"


async def test_claims_of_a_killed_process_are_listed_as_in_doubt(url: str) -> None:
    """Catches open claims, in runs or outside, that nobody acts on and nobody is shown."""
    killed(
        url,
        """
        @sf.effect
        async def pay(order: str) -> None:
            if order == "B":
                die()
            await asyncio.sleep(20)

        @sf.durable
        async def cancelled_later() -> None:
            await pay("A")

        async def body(app):
            await app.start(cancelled_later, id="j")
            await asyncio.sleep(0.1)
            await pay("B")
        """,
    )
    async with sf.Surefoot(url) as app:
        await until(lambda: ledger_states(app) == ["unknown", "unknown"])
        for effect in (1, 2):
            found = app.store.read_now(partial(desk.evidence, effect=effect))
            assert [one.kind for one in found][:1] == ["in doubt"]


async def test_a_run_cancelled_after_a_kill_runs_up_to_where_it_is_hit(url: str) -> None:
    """Catches a cancellation that ends a run at its start, over an open claim and without its clean-up."""
    killed(
        url,
        """
        @sf.effect
        async def pay() -> None:
            die()

        @sf.durable
        async def paying() -> None:
            await pay()

        async def body(app):
            await app.start(paying, id="p")
        """,
    )
    cleaned: Calls = []

    @sf.effect
    async def pay() -> None:
        raise AssertionError("nothing is sent again")

    @sf.step
    async def clean_up() -> None:
        cleaned.append(1)

    @sf.durable
    async def paying() -> None:
        try:
            await pay()
        finally:
            await clean_up()

    async with sf.Surefoot(url, is_worker=False) as app:
        await (await app.run("p")).cancel("stop it")
    async with sf.Surefoot(url) as app:
        run = await app.run("p")
        assert "ends as cancelled once" in (await wait_state(run, "waiting", "doubt")).reason
        assert ledger_states(app) == ["unknown"]
        await desk.resolve_by_person(
            app.store, Sessions(app.store), 1, is_done=True, who="ann", reason="saw it", wake=wake
        )
        with pytest.raises(sf.RunCancelled, match="stop it"):
            await run.result(timeout_s=5)
    assert cleaned == [1]


async def test_clean_up_after_a_cancellation_survives_a_kill(url: str) -> None:
    """Catches clean-up that is forgotten because the replay is cancelled before it comes to it."""
    killed(
        url,
        """
        @sf.step
        async def work() -> None: pass

        @sf.step
        async def undo() -> None:
            die()

        @sf.durable
        async def cleans() -> None:
            await work()
            try:
                await asyncio.sleep(60)
            finally:
                await undo()

        async def body(app):
            run = await app.start(cleans, id="c")
            await asyncio.sleep(0.1)
            await run.cancel("enough")
        """,
    )
    undone: Calls = []

    @sf.step
    async def work() -> None:
        raise AssertionError("recorded")

    @sf.step
    async def undo() -> None:
        undone.append(1)

    @sf.durable
    async def cleans() -> None:
        await work()
        try:
            await asyncio.sleep(60)
        finally:
            await undo()

    async with sf.Surefoot(url) as app:
        with pytest.raises(sf.RunCancelled, match="enough"):
            await (await app.run("c")).result(timeout_s=5)
    assert undone == [1]


# -- B2: durability of a run is a prefix ------------------------------------------------------------------------------


async def test_after_a_refused_record_nothing_of_the_run_is_recorded(app: sf.Surefoot) -> None:
    """Catches a completed run, an output, that stands on a record that was never written."""

    @sf.step
    async def after() -> int:
        return 1

    def refuse(_tx: Tx) -> None:
        raise ValueError("no room for this")

    @sf.durable
    async def hollow() -> int:
        frame = current_frame.get()
        assert isinstance(frame, LiveRun)
        frame.append(refuse, "test", 0)
        return int(await after())

    status = await wait_state(await app.start(hollow, id="h"), "waiting", "blocked")
    assert "no room for this" in status.reason
    assert kinds(app, "h") == ["started"]


async def test_a_refused_record_spares_what_came_before_and_other_runs(app: sf.Surefoot) -> None:
    """Catches poison that reaches back, or across runs."""

    @sf.step
    async def before() -> int:
        return 1

    def refuse(_tx: Tx) -> None:
        raise ValueError("no")

    @sf.durable
    async def hollow() -> None:
        frame = current_frame.get()
        assert isinstance(frame, LiveRun)
        await before()
        frame.append(refuse, "test", 0)

    @sf.durable
    async def sound() -> int:
        return int(await before())

    hollow_run, sound_run = await asyncio.gather(app.start(hollow, id="h"), app.start(sound, id="s"))
    await wait_state(hollow_run, "waiting", "blocked")
    assert await sound_run.result(timeout_s=5) == 1
    assert kinds(app, "h") == ["started", "decided"]


# -- C1: leases -------------------------------------------------------------------------------------------------------


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


# -- C2, C7: wake-ups -------------------------------------------------------------------------------------------------


async def test_every_run_parked_for_an_effect_is_woken_by_its_outcome(app: sf.Surefoot) -> None:
    """Catches a second run on the same key that sleeps for ever."""

    @sf.effect(key="pay:{order}")
    async def pay(order: str) -> str:
        raise RuntimeError("reset")

    @sf.durable
    async def pays(_who: int) -> str:
        return str(await pay("X"))

    runs = [await app.start(pays, n, id=f"p{n}") for n in range(3)]
    for run in runs:
        await wait_state(run, "waiting", "doubt")
    await desk.resolve_by_person(
        app.store, Sessions(app.store), 1, is_done=True, who="ann", reason="saw it", value="paid", wake=wake
    )
    assert [await run.result(timeout_s=5) for run in runs] == ["paid"] * 3
    left = app.store.read_now(lambda connection: next(connection.execute("SELECT count(*) FROM waiters"))[0])
    assert left == 0


async def test_a_late_answer_wakes_the_parked_run(app: sf.Surefoot) -> None:
    """Catches a settlement outside the run's code that wakes nobody."""

    @sf.effect(timeout_s=0.05)
    def legacy() -> str:
        import time

        time.sleep(0.5)
        return "late"

    @sf.durable
    async def calls() -> str:
        return str(await sf.in_thread(legacy))

    run = await app.start(calls, id="l")
    await wait_state(run, "waiting", "doubt")
    assert await run.result(timeout_s=5) == "late"


@pytest.mark.usefixtures("quick_eviction")
async def test_all_parents_of_a_child_are_woken_by_its_end(app: sf.Surefoot) -> None:
    """Catches a parent that did not start the child itself, and so is not told."""

    @sf.durable
    async def kid() -> int:
        await sf.wait_signal("go")
        return 7

    @sf.durable
    async def parent(_n: int) -> int:
        return int(await sf.child(kid, id="kid"))

    child = await app.start(kid, id="kid")
    parents = [await app.start(parent, n, id=f"p{n}") for n in range(3)]
    for run in parents[:2]:
        await wait_state(run, "waiting", "child")
    await child.signal("go")
    assert [await run.result(timeout_s=5) for run in parents] == [7, 7, 7]


async def test_a_wait_in_memory_is_told_of_an_end_at_once(app: sf.Surefoot) -> None:
    """Catches a parent that hears of its child's end only when it is evicted, 5 s later."""

    @sf.durable
    async def kid() -> int:
        await sf.wait_signal("go")
        return 7

    @sf.durable
    async def parent() -> int:
        return int(await sf.child(kid, id="kid"))

    child, run = await app.start(kid, id="kid"), await app.start(parent, id="p")
    await until(lambda: any(live.waits for live in app.worker.live.values() if live.run_id == "p"))
    await child.signal("go")
    assert await run.result(timeout_s=2) == 7


async def test_a_target_that_settled_before_the_park_makes_the_run_pending_at_once(app: sf.Surefoot) -> None:
    """Catches the race between a settlement and the park it should have woken."""

    def unit(tx: Tx) -> tuple[int, int]:
        ended = tables.insert_run(tx, "ended", "none", b"", holder=None, parent=None, deadline_ms=None)
        tables.end_run(tx, ended, RunState.COMPLETED, 1, "")
        run = tables.insert_run(tx, "parks", "none", b"", holder=1, parent=None, deadline_ms=None)
        tables.park_run(tx, run, WaitFor.CHILD, "child", None, 0, targets=[("run", ended)])
        return int(tables.get_run(tx.connection, run).state), ended

    state, _ = await app.store.commit(unit, label="test")
    assert state == RunState.PENDING


# -- C3, C4: what can't be read or written ----------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_eviction")
async def test_a_record_nobody_can_read_blocks_its_run_only(app: sf.Surefoot) -> None:
    """Catches one bad record that ends the work of the whole process in silence."""

    @sf.step
    async def one() -> int:
        return 1

    @sf.durable
    async def waits() -> str:
        await one()
        await sf.wait_signal("go")
        return "fine"

    bad, good = await app.start(waits, id="bad"), await app.start(waits, id="good")
    for run in (bad, good):
        await wait_state(run, "waiting", "signal")
    await app.store.commit(
        lambda tx: tx.execute("UPDATE journal SET kind = 99 WHERE kind = 2 AND run = ?", (bad.row,)), label="test"
    )
    await asyncio.gather(bad.signal("go"), good.signal("go"))
    assert await good.result(timeout_s=5) == "fine"
    assert "can't be read" in (await wait_state(bad, "waiting", "blocked")).reason
    await app.store.commit(lambda tx: tx.execute("UPDATE journal SET kind = 2 WHERE kind = 99", ()), label="test")
    await bad.wake()
    assert await bad.result(timeout_s=5) == "fine"


async def test_a_mistake_in_the_worker_is_told_to_who_waits(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a worker that is dead while everybody waits for it."""

    @sf.durable
    async def waits() -> None:
        await sf.wait_signal("go")

    complaints: Calls = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context["message"]))
    run = await app.start(waits, id="w")

    def broken(_connection: Any) -> list[int]:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr("surefoot.runs.tables.run_holders", broken)
    with pytest.raises(KeyError, match="a mistake of ours"):
        await run.result(timeout_s=5)
    assert any("worker has stopped" in message for message in complaints)


async def test_errors_whose_text_is_no_utf8_are_recorded(app: sf.Surefoot) -> None:
    """Catches a run that can't end because of an odd file name in an error."""
    odd = os.fsdecode(b"r\xff.pdf")
    reads: Calls = []

    @sf.read
    async def opens() -> None:
        reads.append(1)
        raise ValueError(f"no such file: {odd}")

    @sf.step
    async def steps() -> None:
        raise ValueError(odd)

    @sf.durable
    async def fails(how: str) -> None:
        if how == "read":
            await opens()
        if how == "step":
            await steps()
        raise ValueError(odd)

    for how in ("read", "step", "itself"):
        with pytest.raises(sf.RunFailed, match=r"r\\udcff.pdf"):
            await (await app.start(fails, how, id=how)).result(timeout_s=5)
    assert reads == [1]


async def test_steps_whose_names_are_no_utf8_are_recorded(app: sf.Surefoot) -> None:
    """Catches a key from an odd file name that refuses every later record."""
    odd = os.fsdecode(b"r\xff.pdf")

    @sf.step
    async def one() -> int:
        return 1

    @sf.durable
    async def keyed() -> int:
        return int(await one.keyed(odd)())

    assert await (await app.start(keyed, id="k")).result(timeout_s=5) == 1


async def test_an_end_that_cannot_be_written_blocks_the_run(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run in a hot loop, or lost, because its end can't be written."""
    starts: Calls = []

    @sf.durable
    async def ends() -> None:
        starts.append(1)

    def broken(*_arguments: Any) -> None:
        raise ValueError("no end")

    monkeypatch.setattr("surefoot.runs.tables.end_run", broken)
    assert "no end" in (await wait_state(await app.start(ends, id="e"), "waiting", "blocked")).reason
    assert starts == [1]


async def test_a_cancellation_of_the_codes_own_is_a_failure(app: sf.Surefoot) -> None:
    """Catches a run that is handed back, executed, handed back, and so on, thousands of times a second."""
    starts: Calls = []

    @sf.durable
    async def cancels() -> None:
        starts.append(1)
        task = asyncio.create_task(asyncio.sleep(1))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(sf.RunFailed, match="CancelledError"):
        await (await app.start(cancels, id="c")).result(timeout_s=5)
    assert starts == [1]


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


# -- C6, C8: eviction -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_eviction")
async def test_a_letter_that_comes_while_the_run_unwinds_is_not_lost(app: sf.Surefoot) -> None:
    """Catches a signal that an evicted run has seen and its successor has not."""
    is_unwinding = asyncio.Event()

    @sf.durable
    async def slow_to_leave() -> str:
        try:
            return str(await sf.wait_signal("go"))
        finally:
            is_unwinding.set()
            await asyncio.sleep(0.3)

    run = await app.start(slow_to_leave, id="s")
    await is_unwinding.wait()
    await run.signal("go", "now")
    assert await run.result(timeout_s=5) == "now"


@pytest.mark.usefixtures("quick_eviction")
async def test_eviction_unwinds_the_main_code_too(app: sf.Surefoot) -> None:
    """Catches a run whose waiting task was unwound while its main code hangs on."""

    @sf.durable
    async def pumps() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def pump() -> None:
            while True:
                queue.put_nowait(await sf.wait_signal("n", int))

        task = asyncio.create_task(pump())
        got = [await queue.get() for _ in range(2)]
        task.cancel()
        return got

    run = await app.start(pumps, id="p")
    await wait_state(run, "waiting", "signal")
    for n in (1, 2):
        await run.signal("n", n)
    assert await run.result(timeout_s=5) == [1, 2]


@pytest.mark.usefixtures("quick_eviction")
async def test_the_deadline_of_an_evicted_run_fires(app: sf.Surefoot) -> None:
    """Catches a deadline that is kept by the memory of a process only."""

    @sf.durable
    async def late() -> str:
        try:
            await sf.wait_signal("never")
        except sf.DeadlinePassed:
            return "too late"
        return "?"

    run = await app.start(late, id="l", deadline_s=0.6)
    await wait_state(run, "waiting", "signal")
    assert await run.result(timeout_s=5) == "too late"


# -- D: every asked step ends in exactly one record -------------------------------------------------------------------


@sf.step(name="broken note")
async def note(what: str) -> str:
    return what


@sf.read(name="broken slow read")
async def slow_read() -> int:
    await asyncio.sleep(5)
    return 1


@sf.step(name="broken slow step")
async def slow_step() -> int:
    await asyncio.sleep(5)
    return 1


async def _timeout_around(what: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(0.02):
            await what()
    except TimeoutError:
        await note("timed out")
    await sf.wait_signal("go")


@sf.durable(name="broken read")
async def around_a_read() -> str:
    await _timeout_around(slow_read)
    return "end"


@sf.durable(name="broken step")
async def around_a_step() -> str:
    await _timeout_around(slow_step)
    return "end"


@sf.durable(name="broken timer")
async def around_a_timer() -> str:
    await _timeout_around(lambda: sf.sleep(60))
    return "end"


@sf.durable(name="broken signal")
async def around_a_signal() -> str:
    await _timeout_around(lambda: sf.wait_signal("never"))
    return "end"


@sf.durable(name="broken child")
async def around_a_child() -> str:
    await _timeout_around(lambda: sf.child(sleeps_long))
    return "end"


@sf.durable(name="broken sleeper")
async def sleeps_long() -> None:
    await sf.sleep(60)


@sf.durable(name="broken group")
async def in_a_group() -> str:
    async def fails() -> None:
        await note.keyed("x")("x")
        raise ValueError("x")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(slow_read())
    except* ValueError:
        await note("caught")
    await sf.wait_signal("go")
    return "end"


@sf.durable(name="broken deadline")
async def past_a_deadline() -> str:
    try:
        await sf.sleep(60)
    except sf.DeadlinePassed:
        await note("too late")
    await sf.wait_signal("go")
    return "end"


@pytest.mark.usefixtures("quick_eviction")
@pytest.mark.parametrize(
    "code",
    [around_a_read, around_a_step, around_a_timer, around_a_signal, around_a_child, in_a_group, past_a_deadline],
    ids=lambda code: str(code.__name__),
)
async def test_what_was_interrupted_goes_the_same_way_on_replay(app: sf.Surefoot, code: Any) -> None:
    """Catches a false divergence after timeouts, cancellations and deadlines, with the same code."""
    run = await app.start(code, id="r", deadline_s=0.2 if code is past_a_deadline else None)
    await wait_state(run, "waiting", "signal")
    assert not app.worker.live
    await run.signal("go")
    assert await run.result(timeout_s=5) == "end"
    steps = app.store.read_now(lambda connection: show(connection, "r")).steps
    ends = [step.step for step in steps if step.kind in ("decided", "interrupted", "expired", "signal", "read")]
    assert len(ends) == len(set(ends)), "a step ends once"


@pytest.mark.usefixtures("quick_eviction")
async def test_a_step_left_while_its_outcome_was_written_has_one_outcome(app: sf.Surefoot) -> None:
    """Catches two outcomes of one step, and a replay that gives the code what it did not wait for the first time."""

    @sf.effect(key="pay:{order}")
    async def pay(order: str) -> str:
        return order

    @sf.durable
    async def impatient() -> str:
        task = asyncio.create_task(pay.outcome("X"))
        await asyncio.sleep(0)  # it asks the store now, which answers "repeated"
        task.cancel()
        (told,) = await asyncio.gather(task, return_exceptions=True)
        await note(type(told).__name__)
        await sf.wait_signal("go")
        return type(told).__name__

    await pay("X")
    run = await app.start(impatient, id="i")
    await wait_state(run, "waiting", "signal")
    await run.signal("go")
    assert await run.result(timeout_s=5) == "CancelledError"
    steps = app.store.read_now(lambda connection: show(connection, "i")).steps
    assert [step.kind for step in steps if step.step == "pay"] == ["repeated"]
    assert "interrupted" in kinds(app, "i")


@pytest.mark.usefixtures("quick_eviction")
async def test_a_signal_that_does_not_fit_is_skipped(app: sf.Surefoot) -> None:
    """Catches one bad payload that blocks a run for good."""

    @sf.durable
    async def reads() -> list[Any]:
        number = await sf.wait_signal("n", int)
        return [number, (await sf.wait_signal("r", Receipt)).id]

    run = await app.start(reads, id="r")
    await wait_state(run, "waiting", "signal")
    for payload in ("text", 5):
        await run.signal("n", payload)
    await run.signal("r", {"no": "fit"})
    await run.signal("r", {"id": 6})
    assert await run.result(timeout_s=5) == [5, 6]


@pytest.mark.usefixtures("quick_eviction")
async def test_an_error_on_replay_over_recorded_steps_is_blocked_not_failed(app: sf.Surefoot) -> None:
    """Catches a bad deployment that fails sound runs for good."""
    is_broken = False

    @sf.durable
    async def deployed() -> str:
        await note("one")
        if is_broken:
            raise NameError("a typo")
        await note("two")
        await sf.wait_signal("go")
        return "end"

    run = await app.start(deployed, id="d")
    await wait_state(run, "waiting", "signal")
    is_broken = True
    await run.signal("go")
    assert "a typo" in (await wait_state(run, "waiting", "blocked")).reason
    is_broken = False
    await run.wake()
    assert await run.result(timeout_s=5) == "end"


@pytest.mark.usefixtures("quick_eviction")
async def test_a_value_that_no_longer_fits_blocks_though_the_code_catches_everything(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a run that takes a decoding error for an answer, and goes on or fails."""
    from surefoot.journal import codec_of
    from surefoot.runs import take_step

    kept: Calls = [object]

    async def value() -> dict[str, str]:
        return {"no": "fit"}

    @sf.durable
    async def catches() -> str:
        try:
            await take_step("value", None, codec_of(kept[0], "value"), value)
        except Exception:
            return "swallowed"
        await sf.wait_signal("go")
        return "end"

    run = await app.start(catches, id="c")
    await wait_state(run, "waiting", "signal")
    kept[0] = Receipt
    await run.signal("go")
    assert "no longer fits" in (await wait_state(run, "waiting", "blocked")).reason
    kept[0] = object
    await run.wake()
    assert await run.result(timeout_s=5) == "end"


# -- E ----------------------------------------------------------------------------------------------------------------


async def test_a_task_that_comes_late_on_replay_is_waited_for(url: str) -> None:
    """Catches a false divergence when gather raises at once on replay, before its other task has asked for its step."""
    code = """
        @sf.effect
        async def late() -> str:
            return "ok"

        @sf.step
        async def fails() -> None:
            await asyncio.sleep(0.4)
            raise ValueError("no")

        async def comes_late() -> None:
            await asyncio.sleep(0.2)
            await late()
            await asyncio.sleep(20 if IS_DYING else 0)

        @sf.durable
        async def gathers() -> None:
            try:
                await asyncio.gather(fails(), comes_late())
            except sf.StepFailed:
                await asyncio.sleep(0.05)
                if IS_DYING:
                    die()
                raise
    """
    killed(url, "IS_DYING = True\n" + textwrap.dedent(code) + textwrap.dedent("""
        async def body(app):
            await app.start(gathers, id="g")
    """))  # fmt: skip
    names: dict[str, Any] = {"sf": sf, "asyncio": asyncio, "IS_DYING": False}
    exec(textwrap.dedent(code), names)
    async with sf.Surefoot(url) as app:
        with pytest.raises(sf.RunFailed, match="no"):
            await (await app.run("g")).result(timeout_s=5)
        assert ledger_states(app) == ["done"]


async def test_undo_can_be_tried_again_after_it_failed(app: sf.Surefoot) -> None:
    """Catches "undo again" that returns the failed undo for ever."""
    is_down = True

    async def take_back(outcome: str) -> None:
        if is_down:
            raise sf.NotDone("the service is down")

    @sf.effect(key="buy", compensate=take_back)
    async def buy() -> str:
        return "bought"

    @sf.durable
    async def buys() -> str:
        return str(await buy())

    run = await app.start(buys, id="b")
    await run.result(timeout_s=5)
    with pytest.raises(sf.RunFailed):
        await (await run.undo("wrong item")).result(timeout_s=5)
    is_down = False
    again = await run.undo("wrong item")
    await again.result(timeout_s=5)
    assert (await run.undo("wrong item")).id == again.id
    assert ledger_states(app)[0] == "compensated"


async def test_no_row_is_open_after_all_this(url: str, tmp_path: Path) -> None:
    """Catches a state that means "open" but is not looked for when a run ends."""
    assert {State.CLAIMED, State.UNKNOWN} == OPEN
    assert all(state <= 3 for state in OPEN)
    assert all(state > 3 for state in set(State) - OPEN)
