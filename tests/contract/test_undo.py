"""Undoing a run: what it has done is compensated once, whoever asks, and nothing that is another's or not known."""

from __future__ import annotations

import asyncio

import pytest
from tests.contract.conftest import Calls, kinds, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.effects.rows import ledger
from surefoot.effects.rows.desk import list_effects
from surefoot.effects.rows.forgetting import forget
from surefoot.runs.durable import UNDO
from surefoot.store import Tx

log: Calls = []
gate: list[asyncio.Event] = []
"""What compensations wait for: open unless a test shuts it."""


@pytest.fixture(autouse=True)
def may_undo() -> asyncio.Event:
    log.clear()
    gate[:] = [asyncio.Event()]
    gate[0].set()
    return gate[0]


@sf.effect(in_doubt=sf.Resend(key_ttl="24h"), name="undo give back")
async def give_back(what: str) -> None:
    log.append(f"begin -{what}")
    await gate[0].wait()
    log.append(f"-{what}")


@sf.effect(key="undo:{what}", compensate=give_back, in_doubt=sf.Resend(key_ttl="24h"), name="undoable take")
async def take(what: str) -> str:
    log.append(f"+{what}")
    return what


@sf.effect(key="undo lost:{what}", compensate=give_back, name="undo lose")
async def lose(what: str) -> str:
    raise OSError("the answer was lost")


@sf.durable(name="undo kid")
async def kid(what: str) -> str:
    return str(await take(what))


@sf.durable(name="undo waiting kid")
async def waiting_kid() -> None:
    await sf.wait_signal("go")


@sf.durable(name="undo parent")
async def parent(child_id: str | None = None) -> str:
    await take("own")
    return str(await sf.child(kid, "kid's", id=child_id))


def undone() -> list[str]:
    return [words for words in log if words.startswith("-")]


async def test_a_child_of_another_is_not_undone(app: sf.Surefoot) -> None:
    """Catches an undo that takes back what another run has asked for too, and stands on."""
    await (await app.start(kid, "kid's", id="shared")).result(timeout_s=5)
    run = await app.start(parent, "shared", id="p")
    await run.result(timeout_s=5)
    assert await (await run.undo("wrong")).result(timeout_s=5) == ["undo:own"]
    assert undone() == ["-own"]


async def test_a_child_that_was_undone_is_not_undone_again(app: sf.Surefoot) -> None:
    """Catches an undo that starts another of the same child, or says that it undid what somebody else had."""
    run = await app.start(parent, id="p")
    await run.result(timeout_s=5)
    await (await (await app.run("p/undo kid")).undo("wrong child")).result(timeout_s=5)
    assert await (await run.undo("wrong")).result(timeout_s=5) == ["undo:own"]
    assert undone() == ["-kid's", "-own"]
    assert [row.run_id for row in await app.runs(kind=UNDO)] == ["p/undo", "p/undo kid/undo"]


async def test_a_child_that_is_being_undone_for_another_reason_is_waited_for(
    app: sf.Surefoot, may_undo: asyncio.Event
) -> None:
    """Catches an undo that fails with a conflict because the one of its child was begun in other words."""
    run = await app.start(parent, id="p")
    await run.result(timeout_s=5)
    may_undo.clear()
    first = await (await app.run("p/undo kid")).undo("wrong child")
    await until(lambda: "begin -kid's" in log)
    both = await run.undo("wrong")
    await until(lambda: "child" in kinds(app, "p/undo"))
    may_undo.set()
    assert await both.result(timeout_s=5) == ["run p/undo kid", "undo:own"]
    assert await first.result(timeout_s=5) == ["undo:kid's"]
    assert log == ["+own", "+kid's", "begin -kid's", "-kid's", "begin -own", "-own"]


async def test_what_retention_took_while_a_run_is_undone_is_said_to_be_gone(
    app: sf.Surefoot, may_undo: asyncio.Event
) -> None:
    """Catches a compensation that is called with nothing because its effect was forgotten after it was listed."""

    def forget_first(tx: Tx) -> None:
        row = ledger.get(tx.connection, 1)
        assert row is not None
        forget(tx, row)

    @sf.durable
    async def two() -> None:
        await take("first")
        await take("second")

    run = await app.start(two, id="t")
    await run.result(timeout_s=5)
    may_undo.clear()
    undo = await run.undo("wrong")
    await until(lambda: "begin -second" in log)
    await app.store.commit(forget_first, label="test")
    may_undo.set()
    with pytest.raises(sf.RunFailed, match=r"undo:first\) can't be undone any more"):
        await undo.result(timeout_s=5)
    assert undone() == ["-second"]


async def test_nothing_is_undone_while_something_of_the_run_is_open(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches an undo that takes back a part, and leaves what is known only later."""

    @sf.durable
    async def doubts() -> None:
        await take("one")
        await lose("two")

    @sf.durable
    async def leaves() -> None:
        await take("three")
        try:
            async with asyncio.timeout(0.05):
                await sf.child(waiting_kid, when_left="go_on")
        except TimeoutError:
            pass

    await wait_state(await app.start(doubts, id="d"), "waiting", "doubt")
    leaving = await app.start(leaves, id="l")
    await leaving.result(timeout_s=5)
    with pytest.raises(sf.RunFailed, match="run d has effects whose outcome is unknown"):
        await (await app.start(UNDO, "d", "wrong", id="u")).result(timeout_s=5)
    with pytest.raises(sf.RunFailed, match="run l has a child that still goes on: l/undo waiting kid"):
        await (await leaving.undo("wrong")).result(timeout_s=5)
    assert undone() == []
    await (await app.run("l/undo waiting kid")).signal("go")
    await (await app.run("l/undo waiting kid")).result(timeout_s=5)
    assert await (await leaving.undo("wrong")).result(timeout_s=5) == ["run l/undo waiting kid", "undo:three"]
    assert [one.state for one in app.store.read_now(list_effects) if one.key == "undo:one"] == ["done"]


async def test_nothing_is_undone_while_a_child_of_a_child_goes_on(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches an undo that takes back what the run itself did, and then stops at a child that can't be undone yet."""

    @sf.durable
    async def leaves() -> None:
        try:
            async with asyncio.timeout(0.05):
                await sf.child(waiting_kid, when_left="go_on")
        except TimeoutError:
            pass

    @sf.durable
    async def above() -> None:
        await sf.child(leaves)
        await take("above")

    run = await app.start(above, id="a")
    await run.result(timeout_s=5)
    with pytest.raises(sf.RunFailed, match=r"has a child that still goes on: .*/undo waiting kid"):
        await (await run.undo("wrong")).result(timeout_s=5)
    assert undone() == []


async def test_an_undo_of_no_run_fails_with_words(app: sf.Surefoot) -> None:
    """Catches an undo that completes though there was nothing to look at."""
    with pytest.raises(sf.RunFailed, match="there is no run 'nobody'"):
        await (await app.start(UNDO, "nobody", "wrong", id="u")).result(timeout_s=5)
