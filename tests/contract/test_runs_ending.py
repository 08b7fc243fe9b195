"""No run ends while it owns an open effect, and each end is written as what it is."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.contract.conftest import Calls, kinds, ledger_states, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.effects.live.case import Acting
from surefoot.effects.rows import desk
from surefoot.effects.states import OPEN, State
from surefoot.journal import current_frame
from surefoot.leases import Sessions
from surefoot.runs.live.run import LiveRun
from surefoot.runs.rows import claims
from surefoot.runs.rows.desk import wake
from surefoot.store import Tx


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
    monkeypatch.setattr("surefoot.runs.live.execution.CLOSE_S", 0.1)

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


async def test_an_end_that_cannot_be_written_blocks_the_run(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run in a hot loop, or lost, because its end can't be written."""
    starts: Calls = []

    @sf.durable
    async def ends() -> None:
        starts.append(1)

    def broken(*_arguments: Any) -> None:
        raise ValueError("no end")

    monkeypatch.setattr("surefoot.runs.rows.tables.end_run", broken)
    assert "no end" in (await wait_state(await app.start(ends, id="e"), "waiting", "blocked")).reason
    assert starts == [1]


async def test_an_end_whose_other_tasks_can_not_be_recorded_is_none(app: sf.Surefoot) -> None:
    """Catches a completed run whose last step was refused by the journal while it was waited for."""
    may_answer, acts = asyncio.Event(), list[int]()

    def refuse(_tx: Tx) -> None:
        raise ValueError("no room for this")

    @sf.step
    async def slow() -> None:
        acts.append(1)
        await may_answer.wait()
        frame = current_frame.get()
        assert isinstance(frame, LiveRun)
        frame.append(refuse, label="test", size=0)
        await app.store.barrier()

    tasks: Calls = []

    @sf.durable
    async def leaves() -> str:
        tasks.append(asyncio.create_task(slow()))
        await until(lambda: bool(acts))
        asyncio.get_running_loop().call_soon(may_answer.set)
        return "fine"

    run = await app.start(leaves, id="l")
    assert "no room for this" in (await wait_state(run, "waiting", "blocked")).reason
    assert "ended" not in kinds(app, "l")


async def test_a_run_whose_task_is_cancelled_from_outside_is_handed_back(app: sf.Surefoot) -> None:
    """Catches a run that fails, for good, because the event loop of its process was going down."""
    starts: Calls = []

    @sf.durable
    async def twice() -> int:
        starts.append(1)
        if len(starts) == 1:
            await asyncio.Event().wait()
        return len(starts)

    run = await app.start(twice, id="t")
    await until(lambda: len(starts) == 1)
    task = app.worker.live[run.row].task
    assert task is not None
    task.cancel()
    assert await run.result(timeout_s=5) == 2


@pytest.mark.parametrize(
    ("holder", "state"), [("ours", "unknown"), ("gone", "unknown"), ("alive", "claimed"), ("acting", "claimed")]
)
async def test_a_claim_that_nobody_acts_on_is_in_doubt_when_its_run_ends(
    app: sf.Surefoot, url: str, monkeypatch: pytest.MonkeyPatch, holder: str, state: str
) -> None:
    """Catches a claim that is left as if somebody acted on it, and one that is taken from somebody who does."""

    @sf.effect(when_unknown="tell_model")
    async def lost() -> None:
        raise OSError("lost")

    @sf.durable
    async def ends() -> str:
        return (await lost.outcome()).told

    open_effects = claims.open_effects

    async with sf.Surefoot(url, is_worker=False) as other:
        sessions = {"gone": 0, "alive": other.worker.session.id}

        def as_claimed(tx: Tx, run: int) -> list[int]:
            found = open_effects(tx, run)
            session = sessions.get(holder, app.worker.session.id)
            tx.execute("UPDATE ledger SET state = 2, holder = ?", (session,))
            tx.execute("DELETE FROM evidence")
            if holder == "acting":
                app.guard.acting[found[0]] = Acting()
            return found

        monkeypatch.setattr("surefoot.runs.rows.claims.open_effects", as_claimed)
        run = await app.start(ends, id="e")
        await wait_state(run, "waiting", "doubt")
        reasons = [one.body["reason"] for one in app.store.read_now(partial(desk.evidence, effect=1))]
        assert ledger_states(app) == [state]
        assert reasons == (["run e has ended"] if state == "unknown" else [])
        app.guard.acting.clear()


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
