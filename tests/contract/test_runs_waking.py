"""Runs that wait are evicted, and woken by what they wait for, whoever settles it and whenever it comes."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from tests.contract.conftest import until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.effects.rows import desk
from surefoot.journal import Kind, Record, insert_record
from surefoot.leases import Sessions
from surefoot.runs.life import RunState, WaitFor
from surefoot.runs.rows import inbox, tables, waiters
from surefoot.runs.rows.desk import wake
from surefoot.runs.rows.inbox import Letter
from surefoot.store import Tx


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


async def test_waiting_for_another_process_keeps_no_trace_of_each_look(url: str) -> None:
    """Catches a process that only starts runs, and grows for as long as it waits for one."""

    @sf.durable
    async def waits() -> None:
        await sf.wait_signal("go")

    async with sf.Surefoot(url, is_worker=False) as app:
        run = await app.start(waits, id="w")
        both = asyncio.gather(run.result(timeout_s=0.2), run.result(timeout_s=0.5), return_exceptions=True)
        assert [type(error) for error in await both] == [TimeoutError, TimeoutError]
        assert not app.worker.hearing._waiting


async def test_a_target_that_settled_before_the_park_makes_the_run_pending_at_once(app: sf.Surefoot) -> None:
    """Catches the race between a settlement and the park it should have woken."""

    def unit(tx: Tx) -> tuple[int, int]:
        ended = tables.insert_run(tx, "ended", "none", b"", holder=None, parent=None, deadline_ms=None)
        tables.end_run(tx, ended, RunState.COMPLETED, 1, "")
        run = tables.insert_run(tx, "parks", "none", b"", holder=1, parent=None, deadline_ms=None)
        waiters.park_run(tx, run, WaitFor.CHILD, "child", None, 0, targets=[("run", ended)])
        return int(tables.get_run(tx.connection, run).state), ended

    state, _ = await app.store.commit(unit, label="test")
    assert state == RunState.PENDING


@pytest.mark.parametrize(
    ("children", "ended", "state", "is_woken_soon"),
    [
        (waiters.MANY - 1, 1, RunState.PENDING, False),
        (waiters.MANY, 0, RunState.WAITING, False),
        (waiters.MANY, 1, RunState.WAITING, True),
        (waiters.MANY, waiters.MANY, RunState.PENDING, False),
    ],
)
async def test_a_parent_of_many_that_is_parked_after_some_have_ended_hears_of_them_soon(
    app: sf.Surefoot, children: int, ended: int, state: RunState, is_woken_soon: bool
) -> None:
    """Catches a parent of many that is executed again at once for each end, or that hears of the first with the last."""

    def unit(tx: Tx) -> tables.RunRow:
        run = tables.insert_run(tx, "parks", "none", b"", holder=1, parent=None, deadline_ms=None)
        rows = [
            tables.insert_run(tx, f"child {number}", "none", b"", holder=None, parent=run, deadline_ms=None)
            for number in range(children)
        ]
        for row in rows[:ended]:
            tables.end_run(tx, row, RunState.COMPLETED, 1, "")
        waiters.park_run(tx, run, WaitFor.CHILD, "child", None, 0, targets=[("run", row) for row in rows])
        return tables.get_run(tx.connection, run)

    row = await app.store.commit(unit, label="test")
    assert (row.state, row.wake_at_ms is not None) == (state, is_woken_soon)


async def test_the_same_letter_twice_is_one(app: sf.Surefoot) -> None:
    """Catches a child that is cancelled once for each execution of its parent, and letters without a name that are lost."""

    def unit(tx: Tx) -> list[bool]:
        run = tables.insert_run(tx, "gets letters", "none", b"", holder=None, parent=None, deadline_ms=None)
        sent = [("go", "a"), ("go", "a"), ("go", "b"), ("on", "a"), ("go", None), ("go", None)]
        return [inbox.post(tx, run, name, None, sent_by="me", dedupe=dedupe) is not None for name, dedupe in sent]

    assert await app.store.commit(unit, label="test") == [True, False, True, True, True, True]


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


@pytest.mark.usefixtures("quick_eviction")
async def test_doubts_that_end_while_another_task_acts_are_looked_at_from_the_start(app: sf.Surefoot) -> None:
    """Catches a task that waits on for a doubt that has ended because its run stays in memory, two that suspend their run
    one after another, and a step that is recorded in a run that is being suspended."""
    may_answer, told, executions = asyncio.Event(), list[str](), list[int]()

    @sf.effect(key="lost:{what}")
    async def lost(what: str) -> str:
        raise OSError("lost")

    @sf.effect
    async def slow() -> str:
        told.append("slow")
        await may_answer.wait()
        return "slow"

    @sf.step
    async def stubborn() -> str:
        if len(executions) == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append("stubborn")
        return f"in execution {len(executions)}"

    @sf.durable
    async def beside() -> list[str]:
        executions.append(1)
        work: list[Any] = [lost.keyed("a")("a"), lost.keyed("b")("b"), slow(), stubborn()]
        tasks = [asyncio.create_task(one) for one in work]
        await asyncio.wait(tasks)
        return [task.result() for task in tasks]

    run = await app.start(beside, id="b")
    await until(lambda: len(app.worker.live[run.row].waits) == 2 and told == ["slow"])
    for effect in await app.unknowns():
        await app.store.commit(partial(settle, effect.id), label="test")
    await run.wake()  # tells both waits in one turn of the loop
    await until(lambda: told == ["slow", "stubborn"])
    assert app.worker.live[run.row].stopped is not None
    may_answer.set()
    assert await run.result(timeout_s=5) == ["saw it", "saw it", "slow", "in execution 2"]
    assert told == ["slow", "stubborn"]
    assert executions == [1, 1]


def settle(effect: int, tx: Tx) -> None:
    """Write an outcome, and tell nobody."""
    record = insert_record(tx, Record(None, 0, Kind.DONE, "", body=b'"saw it"'))
    tx.execute("UPDATE ledger SET state = 4, record = ? WHERE id = ?", (record, effect))


async def test_what_follows_an_unknown_that_was_told_follows_it_on_replay(app: sf.Surefoot) -> None:
    """Catches a run that is blocked because the step after an unknown is recorded as one in its place."""
    looks: list[int] = []

    @sf.effect(when_unknown="tell_model")
    async def act() -> None:
        raise TimeoutError

    @sf.step
    async def think() -> str:
        return "thought"

    @sf.durable
    async def goes_on() -> list[str]:
        looks.append(1)
        told = [(await act.outcome()).told, await think()]
        await sf.wait_signal("go")
        return told

    run = await app.start(goes_on, id="g")
    await until(lambda: len(app.worker.live[run.row].waits) == 1)
    app.worker.live[run.row].eviction.evict(app.worker.live[run.row].waits)
    await until(lambda: not app.worker.is_live(run.row))
    await run.signal("go")
    (doubt,) = await app.unknowns()
    await app.resolve(doubt.id, is_done=True, by="ann", reason="saw it")
    assert await run.result(timeout_s=10) == ["unknown", "thought"]
    assert len(looks) == 2


async def test_a_signal_that_comes_as_the_run_is_to_leave_memory_is_not_lost(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a run that waits for ever for what it was sent: told of it, evicted before its code could look, and not woken
    by a letter that it has seen."""

    @sf.durable
    async def waits() -> str:
        return str(await sf.wait_signal("go"))

    run = await app.start(waits, id="w")
    await until(lambda: len(app.worker.live[run.row].waits) == 1)
    live = app.worker.live[run.row]
    receive = live.receive

    def receive_as_its_time_is_up(letter: Letter) -> None:
        receive(letter)
        live.eviction.allow(live.waits[0])  # the timer of the same turn of the loop

    monkeypatch.setattr(live, "receive", receive_as_its_time_is_up)
    await run.signal("go", "now")
    assert await run.result(timeout_s=5) == "now"
