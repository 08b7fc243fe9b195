"""Steps that are interrupted: every asked step ends in exactly one record, and a replay goes the same way."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any

import pytest
from tests.contract.conftest import kinds, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.runs.rows.desk import show


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
    await until(lambda: run.row not in app.worker.live)  # a child that was left is stopping by itself
    await run.signal("go")
    assert await run.result(timeout_s=5) == "end"
    steps = app.store.read_now(lambda connection: show(connection, "r")).steps
    ends = [step.step for step in steps if step.kind in ("decided", "interrupted", "expired", "signal", "read")]
    assert len(ends) == len(set(ends)), "a step ends once"


@pytest.mark.usefixtures("quick_eviction")
@pytest.mark.parametrize("in_doubt", [sf.AskPerson(), sf.Transactional()], ids=lambda one: str(one.name))
async def test_a_step_left_while_its_outcome_was_written_has_one_outcome(
    app: sf.Surefoot, in_doubt: sf.AskPerson | sf.Transactional
) -> None:
    """Catches two outcomes of one step, and a replay that gives the code what it did not wait for the first time."""

    @sf.effect(key="pay:{order}", in_doubt=in_doubt)
    def pay(order: str) -> str:
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

    await pay.outcome("X")
    run = await app.start(impatient, id="i")
    await wait_state(run, "waiting", "signal")
    await run.signal("go")
    assert await run.result(timeout_s=5) == "CancelledError"
    steps = app.store.read_now(lambda connection: show(connection, "i")).steps
    assert [step.kind for step in steps if step.step == "pay"] == ["repeated"]
    assert "interrupted" in kinds(app, "i")


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
async def test_a_replay_that_never_comes_to_its_place_is_cancelled_all_the_same(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a run that nobody can stop because its new code hangs before what it had done."""
    monkeypatch.setattr("surefoot.runs.live.cancelling.WAIT_S", 0.05)
    has_changed, hits = False, list[str]()

    @sf.durable
    async def hangs() -> None:
        if has_changed:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                hits.append("while it hung")
        await note("one")
        try:
            await sf.wait_signal("go")
        except asyncio.CancelledError:
            hits.append("while it waited")
            raise

    run = await app.start(hangs, id="h")
    await wait_state(run, "waiting", "signal")
    has_changed = True
    await run.cancel("enough")
    await until(lambda: hits == ["while it hung"])
    await run.signal("go")
    assert await run.result(timeout_s=5) is None


async def test_a_cancellation_hits_once(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches clean-up that is cancelled by the clock that was set for the cancellation it cleans up after."""
    monkeypatch.setattr("surefoot.runs.live.cancelling.WAIT_S", 0.02)
    hits: list[str] = []

    @sf.durable
    async def cleans_up() -> None:
        for where in ("first", "second"):
            try:
                await asyncio.sleep(60 if where == "first" else 0.1)
            except asyncio.CancelledError:
                hits.append(where)

    run = await app.start(cleans_up, id="c")
    await until(lambda: run.row in app.worker.live)
    await run.cancel("enough")
    await run.result(timeout_s=5)
    assert hits == ["first"]


@pytest.mark.usefixtures("quick_eviction")
async def test_a_cancelled_run_that_stands_within_a_step_is_cancelled(app: sf.Surefoot) -> None:
    """Catches a cancellation of ours that is taken for an error of the step whose code it goes through."""

    @sf.step
    async def outer() -> None:
        await note("inner")
        await sf.wait_signal("go")

    @sf.durable
    async def stands() -> str:
        try:
            await outer()
        except sf.StepFailed:
            return "went on"
        return "end"

    run = await app.start(stands, id="s")
    await wait_state(run, "waiting", "signal")
    await until(lambda: run.row not in app.worker.live)
    await run.cancel("enough")
    with pytest.raises(sf.RunCancelled):
        await run.result(timeout_s=5)


async def _cancelled_itself() -> int:
    gone = asyncio.ensure_future(asyncio.sleep(60))
    gone.cancel()
    await gone
    return 1


def _cancelled_in_its_thread() -> int:
    raise concurrent.futures.CancelledError


OF_ITS_OWN: dict[str, tuple[Any, str]] = {
    "step": (sf.step(name="own step")(_cancelled_itself), "StepFailed"),
    "read": (sf.read(name="own read")(_cancelled_itself), "NotDone"),
    "effect": (sf.effect(name="own effect")(_cancelled_itself), "done"),
    "effect in a thread": (sf.effect(name="own act")(_cancelled_in_its_thread), "done"),
}


@pytest.mark.usefixtures("quick_eviction")
@pytest.mark.parametrize("what", OF_ITS_OWN)
async def test_a_cancellation_that_nobody_has_asked_for_is_an_error_like_any_other(url: str, what: str) -> None:
    """Catches a replay that waits for ever for its task to be cancelled, which was a library's doing and not ours."""
    call, expected = OF_ITS_OWN[what]

    @sf.durable(name=f"own {what}")
    async def asks() -> str:
        try:
            told: str = (await call.outcome()).told if what.startswith("effect") else await call()
        except Exception as error:
            told = type(error).__name__
        await sf.wait_signal("go")
        return told

    async with sf.Surefoot(url) as app:
        run = await app.start(asks, id="r")
        if what.startswith("effect"):
            await wait_state(run, "waiting", "doubt")
            (doubt,) = await app.unknowns()
            assert "CancelledItself" in (await run.status()).reason
            await app.resolve(doubt.id, is_done=True, by="ann", reason="saw it", value=1)
        await wait_state(run, "waiting", "signal")
    async with sf.Surefoot(url) as app:
        run = await app.run("r")
        await run.signal("go")
        assert await run.result(timeout_s=10) == expected
