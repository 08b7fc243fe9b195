"""Children, few and many: their ends, their errors, their deadlines, and what becomes of them without their parent."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from tests.contract.conftest import Calls, kinds, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.journal.tables import BLOB_ABOVE, load_records
from surefoot.runs.rows.tables import find_run
from surefoot.runs.rows.waiters import MANY

executions: Calls = []
MANY_KIDS = 3 * MANY


@pytest.fixture(autouse=True)
def _fresh() -> None:
    executions.clear()


@sf.durable(name="one of many")
async def kid(number: int) -> int:
    await sf.wait_signal("go")
    return number


@sf.durable(name="small kid")
async def small_kid(number: int) -> int:
    return number


async def gathered(count: int) -> list[int]:
    return list(await asyncio.gather(*(sf.child(kid, number, key=str(number)) for number in range(count))))


async def as_they_come(count: int) -> list[int]:
    children = [sf.child(kid, number, key=str(number)) for number in range(count)]
    return sorted([await one for one in asyncio.as_completed(children)])


async def in_a_group(count: int) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sf.child(kid, number, key=str(number))) for number in range(count)]
    return [task.result() for task in tasks]


@pytest.mark.parametrize("how", [gathered, as_they_come, in_a_group], ids=lambda how: how.__name__)
async def test_a_parked_parent_of_many_is_woken_once_by_the_last(
    app: sf.Surefoot, quick_eviction: None, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    """Catches a parent that is replayed once for each child, or that sleeps on though all of them have ended."""
    monkeypatch.setattr("surefoot.runs.rows.waiters.TOGETHER_MS", 3_600_000)

    @sf.durable(name=f"of many {how.__name__}")
    async def parent() -> list[int]:
        executions.append(1)
        result: list[int] = await how(MANY_KIDS)
        return result

    run = await app.start(parent, id="p")
    await wait_state(run, "waiting", "child")
    for number in range(MANY_KIDS):
        child = await app.run(f"p/one of many[{number}]")
        await child.signal("go")
        await child.result(timeout_s=10)
    assert await run.result(timeout_s=10) == list(range(MANY_KIDS))
    assert executions == [1, 1]


async def test_a_parked_parent_hears_of_the_first_of_many(
    app: sf.Surefoot, quick_eviction: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a parent that handles children as they come, and hears of none before the last has ended."""
    monkeypatch.setattr("surefoot.runs.rows.waiters.TOGETHER_MS", 1)
    monkeypatch.setattr("surefoot.runs.rows.waiters.TOGETHER_SHARE", 1_000_000)

    @sf.durable(name="of the first of many")
    async def parent() -> int:
        children = [asyncio.ensure_future(sf.child(kid, number, key=str(number))) for number in range(MANY_KIDS)]
        done, _ = await asyncio.wait(children, return_when=asyncio.FIRST_COMPLETED)
        return int(done.pop().result())

    run = await app.start(parent, id="p")
    await wait_state(run, "waiting", "child")
    await (await app.run("p/one of many[7]")).signal("go")
    assert await run.result(timeout_s=10) == 7


async def test_a_failed_child_tells_its_error_the_same_way_on_replay(app: sf.Surefoot) -> None:
    """Catches an error that is told otherwise the second time, so that the code after it goes another way."""

    @sf.durable(name="failing kid")
    async def failing() -> None:
        raise KeyError("lost")

    @sf.durable(name="of a failing kid")
    async def parent() -> list[str]:
        told = []
        for run_id in (None, "taken"):
            try:
                await sf.child(failing, id=run_id)
            except sf.StepFailed as error:
                told.append(error.error_type)
        executions.append(told)
        await sf.wait_signal("go")
        return told

    await app.start(kid, 1, id="taken")
    run = await app.start(parent, id="p")
    await until(lambda: len(executions) == 1)
    await app.worker._halt(sf.Suspend("as at a restart"))
    await until(lambda: len(executions) == 2)
    await run.signal("go")
    assert await run.result(timeout_s=5) == ["KeyError", "surefoot.runs.errors.RunConflict"]
    assert executions[0] == executions[1]


async def test_a_child_has_a_deadline_of_its_own(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches a child that waits for ever."""

    @sf.durable(name="of a late kid")
    async def parent() -> str:
        try:
            await sf.child(kid, 1, deadline_s=0.1)
        except sf.StepFailed as error:
            return error.error_type
        return "in time"

    assert (await (await app.start(parent, id="p")).result(timeout_s=10)).endswith("DeadlinePassed")


@pytest.mark.parametrize("when_left", ["cancel", "go_on"])
async def test_children_of_a_cancelled_parent(app: sf.Surefoot, quick_eviction: None, when_left: str) -> None:
    """Catches orphans that work on for nobody, and children that are stopped though they were to go on."""

    @sf.durable(name=f"left {when_left}")
    async def parent() -> None:
        await asyncio.gather(*(sf.child(kid, number, key=str(number), when_left=when_left) for number in range(3)))

    run = await app.start(parent, id="p")
    await wait_state(run, "waiting", "child")
    await run.cancel("enough")
    with pytest.raises(sf.RunCancelled):
        await run.result(timeout_s=10)
    for number in range(3):
        child = await app.run(f"p/one of many[{number}]")
        if when_left == "cancel":
            with pytest.raises(sf.RunCancelled, match="waits no more"):
                await child.result(timeout_s=10)
        else:
            await child.signal("go")
            assert await child.result(timeout_s=10) == number


async def test_children_nobody_waits_for_are_stopped_in_time(app: sf.Surefoot) -> None:
    """Catches children that outlive a time-out around them, or the end of a parent that failed beside them."""

    @sf.durable(name="leaves two")
    async def parent() -> None:
        try:
            async with asyncio.timeout(0.1):
                await sf.child(kid, 1, key="timed out")
        except TimeoutError:
            pass
        task = asyncio.create_task(sf.child(kid, 2, key="beside"))
        await until(lambda: kinds(app, "p").count("child") == 2)
        executions.append(task)
        raise ValueError("no")

    with pytest.raises(sf.RunFailed, match="ValueError: no"):
        await (await app.start(parent, id="p")).result(timeout_s=10)
    for key in ("timed out", "beside"):
        with pytest.raises(sf.RunCancelled, match="waits no more"):
            await (await app.run(f"p/one of many[{key}]")).result(timeout_s=10)


async def test_a_child_of_somebody_else_is_left_alone(app: sf.Surefoot) -> None:
    """Catches a run that is stopped because one of several that wait for it was cancelled."""

    @sf.durable(name="waits for another's")
    async def parent() -> Any:
        return await sf.child(kid, 7, id="shared")

    shared = await app.start(kid, 7, id="shared")
    run = await app.start(parent, id="p")
    await until(lambda: "child" in kinds(app, "p"))
    await run.cancel("enough")
    with pytest.raises(sf.RunCancelled):
        await run.result(timeout_s=10)
    await shared.signal("go")
    assert await shared.result(timeout_s=10) == 7


async def test_a_child_that_ended_before_is_not_waited_for(app: sf.Surefoot) -> None:
    """Catches a parent that waits for an end that was told before it asked, and a child of one id that is run twice."""

    @sf.durable(name="counted kid")
    async def counted(number: int) -> int:
        executions.append(number)
        return number

    @sf.durable(name="comes late")
    async def parent() -> int:
        return int(await sf.child(counted, 7, id="shared"))

    assert await (await app.start(counted, 7, id="shared")).result(timeout_s=5) == 7
    waits = 0

    def wait(*_: Any, **__: Any) -> None:
        nonlocal waits
        waits += 1

    app.worker.note_wait = wait  # type: ignore[method-assign]  # counts the waits of this worker's runs
    assert await (await app.start(parent, id="p")).result(timeout_s=5) == 7
    assert (executions, waits) == ([7], 0)


async def test_a_child_that_was_cancelled_is_told_as_that(app: sf.Surefoot) -> None:
    """Catches a cancelled child that looks like one that has returned None."""

    @sf.durable(name="of a cancelled kid")
    async def parent() -> list[str]:
        try:
            await sf.child(kid, 1)
        except sf.StepFailed as error:
            return [error.error_type, error.error]
        return []

    run = await app.start(parent, id="p")
    await until(lambda: "child" in kinds(app, "p"))
    await (await app.run("p/one of many")).cancel("enough", by="ann")
    kind, words = await run.result(timeout_s=5)
    assert kind == "cancelled"
    assert "cancelled by ann: enough" in words


async def test_a_child_that_was_asked_for_but_not_begun_is_begun_by_the_next_execution(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a parent that waits for ever for a child that its process did not come to start."""

    @sf.durable(name="begins no kid")
    async def parent() -> int:
        return int(await sf.child(small_kid, 3))

    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    async with sf.Surefoot(url) as app:
        with monkeypatch.context() as patched:
            patched.setattr("surefoot.runs.children.start_run", never)
            await app.start(parent, id="p")
            await until(lambda: "child" in kinds(app, "p"))
            await app.worker.stop()
        assert [row.run_id for row in await app.runs()] == ["p"]
    async with sf.Surefoot(url) as app:
        assert await (await app.run("p")).result(timeout_s=5) == 3
        assert kinds(app, "p").count("child") == 1


async def test_a_wish_for_the_left_child_that_means_nothing_is_refused(app: sf.Surefoot) -> None:
    """Catches a misspelt when_left that stops, or leaves, children against the code's will."""

    @sf.durable(name="misspells")
    async def parent() -> None:
        await sf.child(kid, 1, when_left="goon")

    with pytest.raises(sf.RunFailed, match="when_left='goon'"):
        await (await app.start(parent, id="p")).result(timeout_s=5)
    assert [row.run_id for row in await app.runs()] == ["p"]


async def test_a_large_result_is_kept_once(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches results that are written twice, and a parent that has them all in memory when it is replayed."""

    @sf.durable(name="large kid")
    async def large() -> str:
        return "x" * (BLOB_ABOVE + 1)

    @sf.durable(name="of a large kid")
    async def parent() -> int:
        length = len(await sf.child(large))
        await sf.wait_signal("go")
        return length

    run = await app.start(parent, id="p")
    await wait_state(run, "waiting", "signal")
    row = app.store.read_now(lambda connection: find_run(connection, "p"))
    assert row is not None
    records = app.store.read_now(lambda connection: load_records(connection, row.id))
    assert sum(len(record.body or b"") for record in records) < 100
    await run.signal("go")
    assert await run.result(timeout_s=10) == BLOB_ABOVE + 1


def _fan_out(steps: int, twice: int) -> int:
    command = [sys.executable, "-m", "tests.support.fan_out", str(steps), str(twice)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1_800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.split()[0])


def test_a_killed_fan_out_is_gone_on_with() -> None:
    """Catches a child that is lost, started twice, or acts twice, after a kill at a sample of places."""
    assert _fan_out(9, 0) >= 2


@pytest.mark.slow
def test_a_fan_out_survives_a_kill_anywhere_and_another_in_its_recovery() -> None:
    """Catches what only one place shows."""
    assert _fan_out(1, 4) > 50


@pytest.mark.slow
async def test_five_thousand_children(app: sf.Surefoot) -> None:
    """Catches a fan-out that needs more than room for its worker's runs, or that never comes to an end."""

    @sf.durable(name="of five thousand")
    async def parent(count: int) -> int:
        executions.append(1)
        return sum(await asyncio.gather(*(sf.child(small_kid, number, key=str(number)) for number in range(count))))

    run = await app.start(parent, 5_000, id="p")
    assert await run.result(timeout_s=300) == 5_000 * 4_999 // 2
    assert len(executions) <= 5
