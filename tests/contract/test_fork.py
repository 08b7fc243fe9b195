"""Forks: a journal up to a step, and then a life of its own; a simulated one can do nothing outside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.contract.conftest import Calls, killed, ledger_states, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.effects.rows.desk import list_effects
from surefoot.runs.durable import SIMULATED
from surefoot.runs.fork import plan
from surefoot.runs.rows.inbox import letters_of

log: Calls = []
choice = ["left"]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    choice[:] = ["left"]


@sf.step(name="fork decide")
async def decide() -> str:
    log.append("decide")
    return choice[0]


@sf.effect(key="fork:{way}", name="fork pay", in_doubt=sf.Resend())
async def pay(way: str) -> str:
    log.append(f"pay {way}")
    return f"paid {way}"


@sf.effect(name="fork mail", in_doubt=sf.Resend())
async def mail(way: str) -> str:
    log.append(f"mail {way}")
    return f"mailed {way} {len(log)}"


@sf.effect(name="fork stamp", in_doubt=sf.Transactional())
def stamp(way: str) -> str:
    log.append(f"stamp {way}")
    return "stamped"


@sf.durable(name="forked")
async def walk(first: str) -> list[str]:
    before = await mail(first)
    way = await decide()
    return [before, await pay(way), await mail(way), await sf.in_thread(lambda: "x")]


async def source(app: sf.Surefoot) -> sf.Run:
    run = await app.start(walk, "start", id="source")
    await run.result(timeout_s=5)
    log.clear()
    return run


def rows(app: sf.Surefoot) -> int:
    return len(app.store.read_now(list_effects))


async def test_a_simulated_fork_gives_what_is_recorded_of_the_same_effects(app: sf.Surefoot) -> None:
    """Catches a simulation that acts, claims, or invents."""
    run = await source(app)
    before = rows(app)
    fork = await run.fork("fork decide", id="same")
    assert await fork.result(timeout_s=5) == await run.result()
    assert (log, rows(app), fork.kind) == (["decide"], before, f"{SIMULATED}forked")


async def test_a_simulated_fork_stands_where_nothing_is_recorded(url: str) -> None:
    """Catches an effect that a simulation does because nobody has done it before; also when it is woken, or taken over."""
    async with sf.Surefoot(url) as app:
        run = await source(app)
        before = rows(app)
        choice[:] = ["right"]
        fork = await run.fork("fork decide", id="other")
        status = await wait_state(fork, "waiting", "blocked")
        assert 'would do fork pay({"way":"right"}), key fork:right' in status.reason
        await fork.wake()
        await until(lambda: app.store.read_now(lambda c: next(c.execute("SELECT epoch FROM runs WHERE id = ?",
                                                                        (fork.row,)))[0]) >= 3)  # fmt: skip
        await wait_state(fork, "waiting", "blocked")
        assert (log, rows(app)) == (["decide"], before)
    async with sf.Surefoot(url) as app:
        fork = await app.run("other")
        await fork.wake()
        await wait_state(fork, "waiting", "blocked")
        assert (log, rows(app)) == (["decide"], before)
        with pytest.raises(sf.SurefootError, match="simulated"):
            await fork.fork("fork decide", id="acting", act=True)
        await fork.cancel("seen enough")
        with pytest.raises(sf.RunCancelled):
            await fork.result(timeout_s=5)


async def test_a_fork_that_acts_is_a_run_like_any_other(app: sf.Surefoot) -> None:
    """Catches business keys that are done twice because a fork asks, and effects of a fork that nobody records."""
    run = await source(app)
    again = await run.done_after("fork decide")
    assert [(one.name, one.acts_again) for one in again] == [("fork pay", False), ("fork mail", True)]
    fork = await run.fork("fork decide", id="acting", act=True)
    first, paid, mailed, _ = await fork.result(timeout_s=5)
    assert (first, paid, mailed) == ("mailed start 1", "paid left", "mailed left 2")
    assert log == ["decide", "mail left"]
    choice[:] = ["right"]
    other = await (await run.fork("fork decide", id="acting too", act=True)).result(timeout_s=5)
    assert other[1] == "paid right"


async def test_events_of_the_source_are_told_before_a_fork_publishes_them_again(app: sf.Surefoot) -> None:
    """Catches a fork that makes all groups act a second time, without a word to who asks what it would do again."""
    topic: sf.Topic[str] = sf.Topic("forked-events", str)

    @sf.durable(name="fork publisher")
    async def publishes() -> list[str]:
        await decide()
        return [await topic.publish("own"), await topic.publish("named", id="shop/7")]

    run = await app.start(publishes, id="source")
    own, named = await run.result(timeout_s=5)
    again = await run.done_after("fork decide")
    assert [(one.name, one.key, one.acts_again) for one in again] == [
        ("forked-events", own, True),
        ("forked-events", named, False),
    ]
    assert await run.done_after("publish forked-events[shop%2F7]") == again[1:]
    fork = await run.fork("fork decide", id="fork", act=True)
    assert await fork.result(timeout_s=5) == [own.replace("source", "fork"), named]
    ids = app.store.read_now(lambda c: c.execute("SELECT event_id FROM events ORDER BY id").fetchall())
    assert [one for (one,) in ids] == [own, named, own.replace("source", "fork")]


async def test_the_same_fork_is_made_once(app: sf.Surefoot) -> None:
    """Catches a fork that is made anew by whoever asks again, or that takes another run's id, or gives its own away."""
    run = await source(app)
    fork = await run.fork("fork decide", id="f")
    assert (await run.fork("fork decide", id="f")).row == fork.row
    with pytest.raises(sf.RunConflict):
        await run.fork("fork pay", id="f")
    with pytest.raises(sf.RunConflict):
        await run.fork("fork decide", id="f", act=True)
    with pytest.raises(sf.RunConflict):
        await run.fork("fork decide", id="source")
    with pytest.raises(sf.RunConflict):
        await app.start(walk, "start", id="f")
    with pytest.raises(sf.UnknownKind):
        await app.start(fork.kind, "start", id="g")
    with pytest.raises(sf.SurefootError, match="no step 'nowhere'"):
        await run.fork("nowhere", id="h")
    with pytest.raises(sf.SurefootError, match="Surefoot's own"):
        sf.durable(name=f"{SIMULATED}x")(walk)


async def test_refusals_and_conflicts_are_simulated_too(app: sf.Surefoot) -> None:
    """Catches a simulation that turns a refusal into a success, or serves another call's outcome."""

    @sf.effect(key="fork no:{way}", in_doubt=sf.Resend())
    async def refuse(way: str, amount: int) -> str:
        raise sf.NotDone("closed")

    @sf.effect(key="fork yes:{way}", in_doubt=sf.Resend())
    async def agree(way: str, amount: int) -> str:
        log.append("agree")
        return "yes"

    @sf.durable(name="forked refusals")
    async def code() -> list[str]:
        await decide()
        told = [(await refuse.outcome("a", 1)).told, (await agree.outcome("a", 1)).told]
        return [*told, (await agree.outcome("a", 2)).told, (await stamp.outcome("a")).told]

    run = await app.start(code, id="r")
    assert await run.result(timeout_s=5) == ["not_done", "done", "conflict", "done"]
    before = ledger_states(app)
    fork = await run.fork("fork decide", id="f")
    assert await fork.result(timeout_s=5) == ["not_done", "repeated", "conflict", "repeated"]
    assert (ledger_states(app), log.count("agree"), log.count("stamp a")) == (before, 1, 1)


async def test_children_of_a_simulated_run_are_simulated(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches a child that acts for a parent that must not, or that takes the id of a real run."""

    @sf.durable(name="forked kid")
    async def kid(way: str) -> str:
        return str(await pay(way))

    @sf.durable(name="forked parent")
    async def parent() -> list[str]:
        way = await decide()
        return [await sf.child(kid, way), await sf.child(kid, way, id=f"business {way}")]

    run = await app.start(parent, id="p")
    assert await run.result(timeout_s=10) == ["paid left", "paid left"]
    log.clear()
    same = await run.fork("fork decide", id="same")
    assert await same.result(timeout_s=10) == ["paid left", "paid left"]
    choice[:] = ["right"]
    other = await run.fork("fork decide", id="other")
    await wait_state(other, "waiting", "child")
    child = await app.run("other/forked kid")
    assert "would do fork pay" in (await wait_state(child, "waiting", "blocked")).reason
    assert (child.kind, log) == (f"{SIMULATED}forked kid", ["decide", "decide"])
    with pytest.raises(sf.RunNotFound):
        await app.run("business right")


async def test_a_simulated_run_does_not_act_after_a_kill(url: str) -> None:
    """Catches a takeover that forgets that the run only simulates."""
    killed(
        url,
        """
        @sf.effect(name="fork mail", in_doubt=sf.Resend())
        async def mail(way: str) -> str:
            return "mailed"

        @sf.step(name="fork decide")
        async def decide() -> str:
            if armed:
                die()
            return "left"

        armed = []

        @sf.durable(name="forked and killed")
        async def code() -> None:
            await mail("a")
            await decide()
            await mail("b")
            await mail("c" if armed else "b")

        async def body(app):
            run = await app.start(code, id="r")
            await run.result()
            armed.append(1)
            await run.fork("fork decide", id="f")
        """,
    )

    @sf.durable(name="forked and killed")
    async def code() -> None:
        await mail("a")
        await decide()
        await mail("b")
        await mail("c")

    async with sf.Surefoot(url) as app:
        fork = await app.run("f")
        assert 'fork mail({"way":"c"})' in (await wait_state(fork, "waiting", "blocked")).reason
        assert (log, rows(app)) == (["decide"], 3)


async def test_parallel_steps_and_signals_go_with_a_fork(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches a cut through parallel tasks that diverges, and a simulation that waits for what its source was told."""

    @sf.durable(name="forked side by side")
    async def code() -> Any:
        async def branch(name: str) -> str:
            async with sf.branch(name):
                await mail(name)
                return str(await mail(f"{name} again"))

        both = await asyncio.gather(branch("a"), branch("b"))
        await decide()
        return [*both, await sf.wait_signal("go", timeout="1h"), await decide()]

    run = await app.start(code, id="r")
    await run.signal("go", "told")
    result = await run.result(timeout_s=5)
    fork = await run.fork("fork decide", id="f")
    assert await fork.result(timeout_s=5) == result
    inside = await run.fork("b/fork mail#2", id="inside")
    assert await inside.result(timeout_s=5) == result
    acting = await run.fork("fork decide", id="acting", act=True)
    await wait_state(acting, "waiting", "signal")  # what a person told the source was told to the source


async def test_a_fork_undoes_no_saga_that_its_source_began(app: sf.Surefoot) -> None:
    """Catches a fork whose saga is undone in part, as if that were all."""

    @sf.effect(in_doubt=sf.Resend())
    async def back(way: str) -> None:
        log.append(f"back {way}")

    @sf.effect(compensate=back, in_doubt=sf.Resend(), name="fork lend")
    async def lend(way: str) -> str:
        return way

    @sf.durable(name="forked saga")
    async def code() -> str:
        async with sf.saga("s"):
            await lend("a")
            if await decide() == "right":
                raise ValueError("wrong way")
        return "fine"

    run = await app.start(code, id="r")
    await run.result(timeout_s=5)
    choice[:] = ["right"]
    acting = await run.fork("s/fork decide", id="acting", act=True)
    assert "begun by run r" in (await wait_state(acting, "waiting", "blocked")).reason
    simulated = await run.fork("s/fork decide", id="simulated")
    with pytest.raises(sf.RunFailed, match="wrong way"):
        await simulated.result(timeout_s=5)
    assert "back a" not in log


async def test_a_fork_undoes_its_own_part_of_a_saga_of_which_its_source_had_done_nothing(app: sf.Surefoot) -> None:
    """Catches a fork that is blocked for what its source did beside the saga, or only thought of inside."""

    @sf.effect(in_doubt=sf.Resend())
    async def back(way: str) -> None:
        log.append(f"back {way}")

    @sf.effect(compensate=back, in_doubt=sf.Resend(), name="fork lend again")
    async def lend(way: str) -> str:
        log.append(f"lend {way}")
        return way

    @sf.durable(name="forked saga of its own")
    async def code() -> str:
        await pay("before")
        async with sf.saga("s"):
            way = await decide()
            await lend(way)
            if await decide() == "right":
                raise ValueError("wrong way")
        return "fine"

    run = await app.start(code, id="r")
    await run.result(timeout_s=5)
    choice[:] = ["right"]
    acting = await run.fork("s/fork lend again", id="acting", act=True)
    with pytest.raises(sf.RunFailed, match="wrong way"):
        await acting.result(timeout_s=5)
    assert log == ["pay before", "decide", "lend left", "decide", "lend left", "decide", "back left"]


async def test_a_simulation_gets_the_signals_that_its_source_took_after_the_cut(app: sf.Surefoot) -> None:
    """Catches a signal that is taken twice, and a wake-up of the source that wakes the fork."""

    @sf.durable(name="forked between two signals")
    async def code() -> list[Any]:
        first = await sf.wait_signal("go")
        await decide()
        return [first, await sf.wait_signal("go")]

    run = await app.start(code, id="r")
    await run.wake()
    await run.signal("go", 1)
    await run.signal("go", 2)
    assert await run.result(timeout_s=5) == [1, 2]
    fork = await run.fork("fork decide", id="f")
    assert await fork.result(timeout_s=5) == [1, 2]
    letters = app.store.read_now(lambda connection: letters_of(connection, [fork.row]))
    assert [(letter.name, letter.payload) for letter in letters] == [("go", b"2")]


async def test_there_is_no_fork_of_no_run(app: sf.Surefoot) -> None:
    """Catches an error that tells of nothing for a misspelt run."""
    with pytest.raises(sf.RunNotFound, match="there is no run 'nobody'"):
        app.store.read_now(lambda connection: plan(connection, "nobody", 1))
