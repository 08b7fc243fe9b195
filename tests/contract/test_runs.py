"""Durable runs keep their promises: one test, one promise, each says what it would catch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.conftest import until

import surefoot as sf
from surefoot.journal import Undecodable
from surefoot.runs import BadRunId
from surefoot.runs.life import TABLE, RunEvent, RunState, next_state
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import _beside
from surefoot.runs.rows.desk import show
from surefoot.store import UnitFailed, is_on_postgres

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers  # type: ignore[import-not-found]  # that is the point

Calls = list[Any]


async def reopened(url: str, body: Any) -> Any:
    """Run `body(app)` in a fresh app on the same store, as a restarted process would."""
    async with sf.Surefoot(url) as app:
        return await body(app)


async def wait_state(run: sf.Run, state: str, waiting_for: str | None = None) -> sf.RunStatus:
    """Wait until a run is in a state."""
    async with asyncio.timeout(10):
        while True:
            status = await run.status()
            if status.state == state and (waiting_for is None or status.waiting_for == waiting_for):
                return status
            await asyncio.sleep(0.01)


async def test_same_id_is_the_same_run(app: sf.Surefoot) -> None:
    """Catches a second execution for a second start."""
    calls: Calls = []

    @sf.durable
    async def once(x: int) -> int:
        calls.append(x)
        return x + 1

    first = await app.start(once, 1, id="a")
    second = await app.start(once, 1, id="a")
    assert [await first.result(), await second.result()] == [2, 2]
    assert calls == [1]


async def test_same_id_with_another_input_is_a_conflict_that_shows_both(app: sf.Surefoot) -> None:
    """Catches serving one caller the result of another's input."""

    @sf.durable
    async def twin(x: int) -> int:
        return x

    await app.start(twin, 1, id="a")
    with pytest.raises(sf.RunConflict, match=r'"x":1.*"x":2'):
        await app.start(twin, 2, id="a")
    assert repr(await app.run("a")).startswith("<Run 'a' of ")


async def test_a_run_whose_starter_leaves_is_executed_all_the_same(app: sf.Surefoot) -> None:
    """Catches a run on disk as ours that nobody launched, whenever its starter was cancelled: it would run for ever."""

    @sf.durable
    async def kid(n: int) -> int:
        return n

    @sf.durable
    async def leaves(turns: int) -> str:
        await _left_after(turns, sf.child(kid, turns, id=f"child {turns}"))
        return "left"

    executed: Calls = []

    @sf.durable
    async def there(n: int) -> int:
        executed.append(n)
        await asyncio.sleep(0.05)
        return n

    for turns in range(8):
        await _left_after(turns, app.start(kid, turns, id=f"run {turns}"))
        known = await app.start(there, turns, id=f"there {turns}")
        await _left_after(turns, app.start(there, turns, id=f"there {turns}"))
        assert await known.result(timeout_s=5) == turns
        parent = await app.start(leaves, turns, id=f"parent {turns}")
        assert await parent.result(timeout_s=5) == "left"
    for run_id in [row.run_id for row in await app.runs(kind="kid")]:
        assert await (await app.run(run_id)).result(timeout_s=5) == int(run_id.split()[1])
    assert executed == list(range(8))
    assert {f"{what} {turns}" for what in ("run", "child") for turns in (1, 7)} <= {
        row.run_id for row in await app.runs(kind="kid")
    }


async def _left_after(turns: int, work: Any) -> None:
    """Let a task run for so many turns of the loop, then cancel it."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def test_steps_are_not_executed_again_after_a_restart(url: str) -> None:
    """Catches a replay that asks the live function."""
    calls: Calls = []
    is_blocking = True

    @sf.step
    async def decide(i: int) -> str:
        calls.append(i)
        return os.urandom(4).hex()

    @sf.durable
    async def replayed() -> list[str]:
        made = [await decide(i) for i in range(3)]
        if is_blocking:
            await asyncio.Event().wait()
        return made

    async with sf.Surefoot(url) as app:
        run = await app.start(replayed, id="r")
        while len(calls) < 3:
            await asyncio.sleep(0.01)
        await app.store.barrier()
    is_blocking = False
    result = await reopened(url, lambda app: _result(app, "r"))
    assert len(result) == 3
    assert calls == [0, 1, 2]
    assert run.id == "r"


async def _result(app: sf.Surefoot, run_id: str) -> Any:
    run = await app.run(run_id)
    return await run.result(timeout_s=10)


async def test_what_is_no_run_is_said_to_be_none(app: sf.Surefoot) -> None:
    """Catches an error that tells of nothing for a misspelt id."""
    with pytest.raises(sf.RunNotFound, match="there is no run 'nobody'"):
        await app.run("nobody")
    with pytest.raises(sf.RunNotFound, match="there is no run 'nobody'"):
        app.store.read_now(lambda connection: show(connection, "nobody"))


@pytest.mark.parametrize("id", ["", 7, None, "ticket-\ud83d"])
async def test_an_id_that_is_none_is_refused_everywhere(app: sf.Surefoot, id: Any) -> None:
    """Catches a run, an undo, a fork or a child that nobody can name, and an error from deep inside the store."""

    @sf.durable
    async def parent() -> str:
        with pytest.raises(BadRunId):
            await sf.child(lonely, id=id)
        return "done"

    @sf.durable
    async def lonely() -> str:
        return "done"

    with pytest.raises(BadRunId, match="id="):
        await app.start(lonely, id=id)
    run = await app.start(parent if id is not None else lonely, id="one")  # None: the child's id is made of its place
    assert await run.result() == "done"
    with pytest.raises(BadRunId):
        await run.fork("none", id=id)
    if id is not None:
        with pytest.raises(BadRunId):
            await run.undo("a test", id=id)


async def test_a_failing_run_says_what_failed(app: sf.Surefoot) -> None:
    """Catches errors that are lost or come back as something else."""

    @sf.durable
    async def failing() -> None:
        raise ValueError("no such order")

    run = await app.start(failing, id="f")
    with pytest.raises(sf.RunFailed, match="ValueError: no such order") as caught:
        await run.result(timeout_s=5)
    assert caught.value.error_type == "ValueError"


async def test_a_step_that_raises_raises_the_same_on_replay(url: str) -> None:
    """Catches code that takes another way on replay because an error came back as another class."""
    calls: Calls = []
    is_blocking = True

    @sf.step
    async def fails() -> None:
        calls.append(1)
        raise KeyError("x")

    @sf.durable
    async def catches() -> str:
        try:
            await fails()
        except sf.StepFailed as error:
            if is_blocking:
                await asyncio.Event().wait()
            return error.error_type
        return "none"

    async with sf.Surefoot(url) as app:
        await app.start(catches, id="c")
        while not calls:
            await asyncio.sleep(0.01)
        await app.store.barrier()
    is_blocking = False
    assert await reopened(url, lambda app: _result(app, "c")) == "KeyError"
    assert calls == [1]


async def test_a_step_that_fails_inside_another_says_the_same_on_replay(url: str) -> None:
    """Catches a replay that names the step inside as the error, where the first execution named what that one raised."""
    told: list[tuple[str, str]] = []
    is_blocking = True

    @sf.step
    async def inner() -> None:
        raise KeyError("x")

    @sf.step
    async def outer() -> None:
        await inner()

    @sf.durable
    async def catches() -> None:
        try:
            await outer()
        except sf.StepFailed as error:
            told.append((error.error_type, str(error)))
            if is_blocking:
                await asyncio.Event().wait()

    async with sf.Surefoot(url) as app:
        await app.start(catches, id="c")
        while not told:
            await asyncio.sleep(0.01)
        await app.store.barrier()
    is_blocking = False
    await reopened(url, lambda app: _result(app, "c"))
    assert told == [("KeyError", "step outer failed: KeyError: 'x'")] * 2


async def test_what_a_step_did_beside_its_result_is_recorded_unless_it_is_taken_again(app: sf.Surefoot) -> None:
    """Catches usage that is counted twice because a step was blocked, and taken again, after it was recorded."""
    errors: list[Exception | None] = [None, ValueError("no"), Undecodable("no longer fits"), None]
    recorded: list[int] = []

    async def record() -> None:
        recorded.append(4 - len(errors))

    @sf.step
    async def work() -> None:
        if error := errors.pop(0):
            raise error

    @sf.durable
    async def works() -> str:
        for _ in range(3):
            token = _beside.set(record)
            try:
                await work()
            except sf.StepFailed:
                pass
            finally:
                _beside.reset(token)
        return "done"

    run = await app.start(works, id="w")
    assert "no longer fits" in (await wait_state(run, "waiting", "blocked")).reason
    assert recorded == [1, 2]
    await run.wake()
    assert await run.result(timeout_s=5) == "done"
    assert recorded == [1, 2, 4]


async def test_an_input_that_no_longer_fits_blocks_its_run(url: str) -> None:
    """Catches a run that fails for good because of a deploy, and one that is called with another's values."""

    async def takes_words(x: str) -> str:
        return x

    async with sf.Surefoot(url, is_worker=False) as app:
        await app.start(sf.durable(name="input changed")(takes_words), "seven", id="i")

    @sf.durable(name="input changed")
    async def takes_nothing() -> str:
        raise AssertionError

    async with sf.Surefoot(url) as app:
        run = await app.run("i")
        assert "has x, which it no longer takes" in (await wait_state(run, "waiting", "blocked")).reason

    @sf.durable(name="input changed")
    async def takes_number(x: int) -> str:
        raise AssertionError

    async with sf.Surefoot(url) as app:
        run = await app.run("i")
        await run.wake()
        async with asyncio.timeout(5):
            while "it takes int, and is given str" not in (await run.status()).reason:
                await asyncio.sleep(0.01)
        assert (await run.status()).waiting_for == "blocked"
    sf.durable(name="input changed")(takes_words)
    async with sf.Surefoot(url) as app:
        run = await app.run("i")
        await run.wake()
        assert await run.result(timeout_s=5) == "seven"


async def test_a_step_outside_a_run_is_an_ordinary_function(app: sf.Surefoot) -> None:
    """Catches a function that can be used, and tested, only in a run; and one that seems to record, and does not."""

    @sf.step
    async def double(x: int) -> int:
        return 2 * x

    assert await double(4) == await double.keyed("a")(4) == 8
    for outside in (sf.now(), sf.sleep(0), sf.child(double), sf.wait_signal("go")):
        with pytest.raises(sf.SurefootError, match="called outside a run"):
            await outside
    with pytest.raises(sf.SurefootError, match="branch side was called outside a run"):
        async with sf.branch("side"):
            pass


async def test_a_step_whose_result_only_type_checkers_know_is_kept_as_json(app: sf.Surefoot) -> None:
    """Catches a module that can't be imported because of an import under TYPE_CHECKING."""

    @sf.step
    async def annotated() -> OnlyForTypeCheckers:
        return {"a": [1]}

    @sf.durable
    async def keeps() -> Any:
        return await annotated()

    assert await (await app.start(keeps, id="k")).result(timeout_s=5) == {"a": [1]}


async def test_a_step_waits_for_a_disk_that_lags_behind(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a loop of quick steps that fills the memory faster than the disk takes it."""
    waits: Calls = []
    barrier = app.store.barrier

    async def counted() -> None:
        waits.append(1)
        await barrier()

    @sf.step
    async def quick() -> int:
        return len(waits)

    @sf.durable
    async def steps() -> list[int]:
        with monkeypatch.context() as patched:
            patched.setattr(app.store, "barrier", counted)
            before = await quick()
            patched.setattr(type(app.store.writer), "has_room", False)
            during = await quick()
        return [before, during, await quick()]

    assert await (await app.start(steps, id="s")).result(timeout_s=5) == [0, 0, 1]


async def test_timers_of_parallel_tasks_ring_each_at_its_own_time(app: sf.Surefoot) -> None:
    """Catches a timer that ends the wait of another task."""
    ended: Calls = []

    @sf.durable
    async def timers() -> None:
        async def wait(name: str, seconds: float) -> None:
            await sf.sleep(seconds, key=name)
            ended.append(name)

        async def never() -> None:
            await sf.wait_signal("never")
            ended.append("never")

        task = asyncio.create_task(never())
        await asyncio.gather(wait("late", 0.1), wait("early", 0.01))
        task.cancel()

    await (await app.start(timers, id="t")).result(timeout_s=5)
    assert ended == ["early", "late"]


@pytest.mark.usefixtures("quick_eviction")
async def test_a_step_in_the_place_of_a_timer_is_a_divergence(app: sf.Surefoot) -> None:
    """Catches new code that fails a sound run because what is recorded under the step's name is something else."""
    is_changed = False

    @sf.step(name="sleep")
    async def think() -> int:
        return 1

    @sf.durable
    async def changing() -> str:
        await (think() if is_changed else sf.sleep(0.001))
        await sf.wait_signal("go")
        return "end"

    run = await app.start(changing, id="c")
    await wait_state(run, "waiting", "signal")
    is_changed = True
    await run.signal("go")
    reason = (await wait_state(run, "waiting", "blocked")).reason
    assert "the code asked for a decision sleep, the journal holds a TIMER_FIRED of that name" in reason
    is_changed = False
    await run.wake()
    assert await run.result(timeout_s=5) == "end"


@pytest.mark.usefixtures("quick_eviction")
async def test_a_step_that_moved_to_another_task_is_a_divergence(app: sf.Surefoot) -> None:
    """Catches new code whose tasks share out the recorded steps in another way, and so in another order."""
    is_changed = False

    @sf.step
    async def one(what: str) -> str:
        return what

    @sf.durable
    async def changing() -> str:
        async def aside() -> None:
            await one.keyed("aside")("aside")
            if is_changed:
                await one.keyed("main")("main")

        await asyncio.create_task(aside())
        if not is_changed:
            await one.keyed("main")("main")
        await sf.wait_signal("go")
        return "end"

    run = await app.start(changing, id="c")
    await wait_state(run, "waiting", "signal")
    is_changed = True
    await run.signal("go")
    reason = (await wait_state(run, "waiting", "blocked")).reason
    assert "step one[main] here, the journal holds it elsewhere" in reason
    is_changed = False
    await run.wake()
    assert await run.result(timeout_s=5) == "end"


@pytest.mark.usefixtures("quick_eviction")
@pytest.mark.parametrize("recorded_by", ["this version", "an earlier one"])
@pytest.mark.parametrize("is_thread_first", [True, False])
async def test_a_task_whose_effect_runs_in_a_thread_has_an_order_of_its_own(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch, recorded_by: str, is_thread_first: bool
) -> None:
    """Catches a false divergence where a thread is slower, or quicker, on replay than the code beside it."""
    acts, executions, may_act = list[int](), list[int](), threading.Event()

    @sf.effect(key="in a thread")
    def legacy() -> str:
        acts.append(1)
        return "done"

    def call() -> str:
        may_act.wait(10)
        return str(legacy())

    @sf.step
    async def note(what: str) -> str:
        return what

    @sf.durable
    async def beside() -> str:
        executions.append(1)
        task = asyncio.create_task(sf.in_thread(call))
        await asyncio.sleep(0)
        if len(executions) > 1 and is_thread_first and recorded_by == "this version":
            await note("beside it")
            may_act.set()
        elif is_thread_first:
            may_act.set()
            await until(task.done)
            await note("beside it")
        else:
            await note("beside it")
            may_act.set()
        told = await task
        await sf.wait_signal("go")
        return str(told)

    with monkeypatch.context() as earlier:
        if recorded_by == "an earlier one":
            earlier.setattr(LiveRun, "stand_alone", lambda _run: None)
        run = await app.start(beside, id="b")
        await wait_state(run, "waiting", "signal")
    may_act.clear()
    await run.signal("go")
    assert await run.result(timeout_s=5) == "done"
    assert (acts, executions) == ([1], [1, 1])


async def test_a_task_goes_on_while_a_thread_takes_a_step_for_it(app: sf.Surefoot) -> None:
    """Catches a step of the task's own that is refused or counted as the thread's, while that is in the middle of it."""
    may_end, acts = threading.Event(), list[int]()

    @sf.effect(key="for another")
    def legacy() -> str:
        acts.append(1)
        may_end.wait(10)
        return "done"

    @sf.step
    async def note(what: str) -> str:
        return what

    @sf.durable
    async def beside() -> list[str]:
        task = asyncio.create_task(asyncio.to_thread(legacy))
        await until(lambda: bool(acts))
        noted = await note("beside it")
        may_end.set()
        return [noted, await task]

    assert await (await app.start(beside, id="b")).result(timeout_s=5) == ["beside it", "done"]


async def test_parallel_steps_of_one_name_need_a_key(app: sf.Surefoot) -> None:
    """Catches identities by order of encounter, which parallel tasks would swap."""

    @sf.step
    async def look(x: int) -> int:
        return x

    @sf.durable
    async def clash() -> None:
        await asyncio.gather(look(1), look(2))

    @sf.durable
    async def keyed() -> list[int]:
        return list(await asyncio.gather(look.keyed("a")(1), look.keyed("b")(2)))

    with pytest.raises(sf.RunFailed, match="AmbiguousStep"):
        await (await app.start(clash, id="clash")).result(timeout_s=5)
    assert await (await app.start(keyed, id="keyed")).result(timeout_s=5) == [1, 2]


async def test_branches_tell_tasks_apart(app: sf.Surefoot) -> None:
    """Catches branches that share one count."""

    @sf.step
    async def look(x: int) -> int:
        return x

    async def side(name: str, x: int) -> int:
        async with sf.branch(name):
            return int(await look(x)) + int(await look(x))

    @sf.durable
    async def branches() -> list[int]:
        return list(await asyncio.gather(side("left", 1), side("right", 2)))

    assert await (await app.start(branches, id="b")).result(timeout_s=5) == [2, 4]


async def test_changed_code_is_blocked_and_goes_on_after_a_rollback(url: str) -> None:
    """Catches a new step that is slipped into an old journal, and a blocked run that can't be saved."""
    is_changed, is_blocking = False, True

    @sf.step
    async def one() -> int:
        return 1

    @sf.step
    async def other() -> int:
        return 2

    @sf.durable
    async def changing() -> int:
        value = await (other() if is_changed else one())
        if is_blocking:
            await asyncio.Event().wait()
        return int(value)

    async with sf.Surefoot(url) as app:
        await app.start(changing, id="d")
        await asyncio.sleep(0.05)
        await app.store.barrier()
    is_changed, is_blocking = True, False
    async with sf.Surefoot(url) as app:
        run = await app.run("d")
        status = await wait_state(run, "waiting", "blocked")
        assert "step other" in status.reason
        assert "step one" in status.reason
        is_changed = False
        await run.wake()
        assert await run.result(timeout_s=5) == 1


async def test_code_that_stops_short_of_its_journal_is_blocked(url: str) -> None:
    """Catches a completion that forgets recorded steps."""
    is_short, is_blocking = False, True

    @sf.step
    async def one() -> int:
        return 1

    @sf.durable
    async def shortened() -> int:
        if not is_short:
            await one()
        if is_blocking:
            await asyncio.Event().wait()
        return 0

    async with sf.Surefoot(url) as app:
        await app.start(shortened, id="s")
        await asyncio.sleep(0.05)
        await app.store.barrier()
    is_short, is_blocking = True, False
    async with sf.Surefoot(url) as app:
        status = await wait_state(await app.run("s"), "waiting", "blocked")
    assert "never asked for" in status.reason


async def test_an_app_closes_while_a_run_waits_for_tasks_that_may_come_late(url: str) -> None:
    """Catches a close that waits a minute for a run that has ended but for a forked task's step nobody asks for."""
    is_short, is_blocking, ends = False, True, asyncio.Event()

    @sf.step
    async def one() -> int:
        return 1

    @sf.durable
    async def shortened() -> None:
        if not is_short:
            await asyncio.create_task(one())
        if is_blocking:
            await asyncio.Event().wait()
        ends.set()

    async with sf.Surefoot(url) as app:
        await app.start(shortened, id="s")
        await asyncio.sleep(0.05)
        await app.store.barrier()
    is_short, is_blocking = True, False
    async with asyncio.timeout(20):
        async with sf.Surefoot(url):
            await ends.wait()
            await asyncio.sleep(0.05)  # it waits now
    async with sf.Surefoot(url, is_worker=False) as app:
        assert (await (await app.run("s")).status()).state == "pending"


async def test_other_arguments_of_a_recorded_effect_are_a_divergence(url: str) -> None:
    """Catches an effect that is served to other arguments, or sent again with them."""
    amount, acts, is_blocking = 1, [], True

    @sf.effect
    async def pay(amount: int) -> int:
        acts.append(amount)
        if is_blocking:
            await asyncio.Event().wait()
        return amount

    @sf.durable
    async def paying() -> int:
        return int(await pay(amount))

    async with sf.Surefoot(url) as app:
        await app.start(paying, id="p")
        while not acts:
            await asyncio.sleep(0.01)
        for live in app.worker.live.values():  # the process "dies" in the act: nothing of it is settled
            live.stop(sf.Suspend("killed"))
            assert live.task is not None
            live.task.cancel()
    amount, is_blocking = 2, False
    async with sf.Surefoot(url) as app:
        status = await wait_state(await app.run("p"), "waiting", "blocked")
    assert 'pay({"amount":2})' in status.reason
    assert 'pay({"amount":1})' in status.reason
    assert acts == [1]


async def test_other_arguments_of_a_recorded_read_are_a_divergence(url: str) -> None:
    """Catches an answer that is given to another question."""
    asked, questions, is_past = 1, Calls(), asyncio.Event()

    @sf.read
    async def look_up(x: int) -> int:
        questions.append(x)
        return x

    @sf.durable
    async def looks_up() -> None:
        await look_up(asked)
        is_past.set()
        await asyncio.Event().wait()

    async with sf.Surefoot(url) as app:
        await app.start(looks_up, id="l")
        await is_past.wait()
    asked = 2
    async with sf.Surefoot(url) as app:
        status = await wait_state(await app.run("l"), "waiting", "blocked")
    assert 'asked for look_up({"x":2}), the journal holds look_up({"x":1})' in status.reason
    assert questions == [1]


async def _refuse(x: float) -> float:
    raise sf.NotDone("closed")


async def _give(x: float) -> float:
    return x


@pytest.mark.parametrize(("was", "now", "words"), [  # "sleep" is what timers are called
    (sf.step(name="sleep")(_give), sf.effect(name="sleep"), "an effect sleep, the journal holds a DECIDED"),
    (sf.read(name="sleep")(_give), sf.effect(name="sleep"), "an effect sleep, the journal holds a READ"),
    (sf.sleep, sf.effect(name="sleep"), "an effect sleep, the journal holds a TIMER_SET"),
    (sf.sleep, sf.step(name="sleep"), "a decision sleep, the journal holds a TIMER_FIRED"),
    (sf.effect(name="sleep")(_refuse), sf.step(name="sleep"), "a decision sleep, the journal holds a NOT_DONE"),
])  # fmt: skip
async def test_what_was_another_kind_of_step_is_a_divergence(url: str, was: Any, now: Any, words: str) -> None:
    """Catches a run that fails, for ever, because a step was declared anew while it was under way."""
    acts: Calls = []

    async def act(x: float) -> float:
        acts.append(x)
        return x

    called, is_past = was, asyncio.Event()

    @sf.durable
    async def changes() -> None:
        with contextlib.suppress(sf.NotDone):
            await called(0.001)
        is_past.set()
        await asyncio.Event().wait()

    async with sf.Surefoot(url) as app:
        await app.start(changes, id="c")
        await is_past.wait()
    called = now(act)
    async with sf.Surefoot(url) as app:
        status = await wait_state(await app.run("c"), "waiting", "blocked")
    assert words in status.reason
    assert acts == []


async def test_timers_survive_a_restart_and_do_not_start_anew(url: str) -> None:
    """Catches a timer that is lost, or counted from the restart."""
    times: Calls = []

    @sf.durable
    async def sleeper() -> str:
        await sf.sleep(1.0)
        times.append(1)
        return "awake"

    async with sf.Surefoot(url) as app:
        await app.start(sleeper, id="t")
        await app.store.barrier()
    await asyncio.sleep(1.05)

    async def body(app: sf.Surefoot) -> Any:
        run = await app.run("t")
        async with asyncio.timeout(0.9):
            return await run.result()

    assert await reopened(url, body) == "awake"
    assert times == [1]


async def test_a_long_wait_leaves_memory_and_wakes(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches waits that hold memory, and evicted runs that nobody wakes."""
    starts: Calls = []
    monkeypatch.setattr("surefoot.runs.live.run.LiveRun.wait.__kwdefaults__", {"grace_s": 0.02}, raising=False)

    @sf.durable
    async def waits() -> str:
        starts.append(1)
        payload = await sf.wait_signal("go", str)
        return str(payload)

    run = await app.start(waits, id="w")
    await wait_state(run, "waiting", "signal")
    await until(lambda: not app.worker.live)
    await run.signal("go", "now")
    assert await run.result(timeout_s=5) == "now"
    assert len(starts) == 2


async def test_a_signal_that_comes_first_is_kept(app: sf.Surefoot) -> None:
    """Catches signals lost because nobody waited yet, and the same signal read twice."""

    @sf.durable
    async def reads() -> list[Any]:
        await sf.sleep(0.05)
        return [await sf.wait_signal("n", int), await sf.wait_signal("n", int), await sf.wait_signal("n", timeout=0.05)]

    run = await app.start(reads, id="s")
    assert await run.signal("n", 1, dedupe="1")
    assert not await run.signal("n", 1, dedupe="1")
    await run.signal("n", 2)
    assert await run.result(timeout_s=5) == [1, 2, None]


async def test_child_runs_return_their_results_and_failures(app: sf.Surefoot) -> None:
    """Catches a parent that waits for ever, or takes a failure for a result."""

    @sf.durable
    async def small(x: int) -> int:
        if x < 0:
            raise ValueError("negative")
        return x * 2

    @sf.durable
    async def parent() -> list[Any]:
        results = await asyncio.gather(*(sf.child(small, i, key=str(i)) for i in range(3)))
        try:
            await sf.child(small, -1)
        except sf.StepFailed as error:
            return [*results, error.error_type]
        return results

    assert await (await app.start(parent, id="p")).result(timeout_s=10) == [0, 2, 4, "ValueError"]
    assert (await (await app.run("p/small[1]")).status()).state == "completed"


async def test_cancel_stops_the_code_and_is_final(app: sf.Surefoot) -> None:
    """Catches a cancelled run that goes on."""
    ended: Calls = []

    @sf.durable
    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    run = await app.start(long, id="c")
    await run.cancel("not needed", by="test")
    with pytest.raises(sf.RunCancelled, match="not needed"):
        await run.result(timeout_s=5)
    assert ended == [1]


async def test_a_deadline_is_raised_once_and_can_be_finished_in_order(url: str) -> None:
    """Catches deadlines that never come, come at every step, or come elsewhere on replay."""

    @sf.step
    async def clean_up() -> str:
        return "cleaned"

    @sf.durable
    async def late() -> str:
        try:
            await sf.wait_signal("never")
        except sf.DeadlinePassed:
            return str(await clean_up())
        return "no deadline"

    async with sf.Surefoot(url) as app:
        run = await app.start(late, id="l", deadline_s=0.2)
        assert await run.result(timeout_s=5) == "cleaned"


async def test_chance_and_time_are_the_same_on_replay(url: str) -> None:
    """Catches live randomness in a replay."""
    seen: Calls = []
    is_blocking = True

    @sf.durable
    async def chancy() -> list[str]:
        drawn = [str(await sf.random()), str(await sf.uuid()), str(await sf.now())]
        seen.append(drawn)
        if is_blocking:
            await asyncio.Event().wait()
        return drawn

    async with sf.Surefoot(url) as app:
        await app.start(chancy, id="x")
        while not seen:
            await asyncio.sleep(0.01)
        await app.store.barrier()
    is_blocking = False
    assert await reopened(url, lambda app: _result(app, "x")) == seen[0]


async def test_an_unserializable_result_ends_the_step_with_the_path(app: sf.Surefoot) -> None:
    """Catches hangs and silent changes of values."""

    @sf.step
    async def bad() -> Any:
        return {"when": [timedelta(1)]}

    @sf.durable
    async def keeps() -> Any:
        return await bad()

    with pytest.raises(sf.RunFailed, match=r"\$\.when\[0\] \(timedelta\)"):
        await (await app.start(keeps, id="u")).result(timeout_s=5)


@pytest.mark.usefixtures("quick_eviction")
async def test_suspension_is_not_swallowed_by_except_exception(app: sf.Surefoot) -> None:
    """Catches user code that catches our control flow and goes on acting."""
    acts: Calls = []

    @sf.step
    async def act() -> None:
        acts.append(1)

    @sf.durable
    async def stubborn() -> str:
        try:
            await sf.wait_signal("go")
        except Exception:  # what a careless tool does
            await act()
        return "ok"

    run = await app.start(stubborn, id="s")
    await wait_state(run, "waiting", "signal")
    await run.signal("go")
    assert await run.result(timeout_s=5) == "ok"
    assert acts == []


def test_the_life_table_leads_out_of_every_state_but_the_ends() -> None:
    """Catches a state that nothing leaves, or an end that something leaves."""
    for state in RunState:
        ways = [next_state(state, event) for event in RunEvent if next_state(state, event)]
        assert bool(ways) == (state < RunState.COMPLETED)
        assert set(TABLE[state]) <= set(RunEvent)


async def test_an_id_that_is_too_long_for_the_server_hurts_nobody_else(app: sf.Surefoot) -> None:
    """Catches a store that is given up, with all runs of its process, over one text that doesn't fit into an index."""
    long = random.Random(1).randbytes(5_000).hex()

    @sf.durable
    async def child(word: str) -> str:
        return word

    @sf.durable
    async def parent() -> str:
        return str(await sf.child(child, "fine", id=f"{long}, too"))

    is_limited = is_on_postgres(app.url)
    with pytest.raises(UnitFailed, match="index row") if is_limited else contextlib.nullcontext():
        assert await (await app.start(child, "fine", id=long)).result(timeout_s=10) == "fine"
    run = await app.start(parent, id="parent")
    with pytest.raises(sf.RunFailed, match="index row") if is_limited else contextlib.nullcontext():
        assert await run.result(timeout_s=10) == "fine"
    assert await (await app.start(child, "and now", id="short")).result(timeout_s=10) == "and now"
