"""Leases of runs: taken and given back as steps, kept through evictions, crashes and takeovers, gone with the run."""

from __future__ import annotations

import asyncio
import random
import textwrap
from typing import Any

import pytest
from tests.contract.conftest import Calls, killed, kinds, until
from tests.contract.test_leases import rows

import surefoot as sf

KILLED = """
IS_DYING = True
SEEN = []

@sf.effect(key="put:{n}", resource="doc/{doc}")
async def put(n: int, doc: str) -> int:
    SEEN.append((n, sf.current_effect().token))
    return n

@sf.durable
async def edits(doc: str) -> list[int]:
    done = []
    async with sf.lease(f"doc/{doc}"):
        done.append(await put(1, doc))
        if IS_DYING:
            await asyncio.sleep(0.05)  # until what it did is on disk
            die()
        done.append(await put(2, doc))
    return done
"""


async def test_a_crash_leaves_the_lease_with_its_run_under_a_higher_token(url: str) -> None:
    """Catches a lease that falls free in the middle of a run's block, one that is taken anew on replay, and a token that
    the dead worker's late requests have, too."""
    killed(url, KILLED + textwrap.dedent("""
        async def body(app):
            await app.start(edits, "1", id="edit")
    """))  # fmt: skip
    names: dict[str, Any] = {"sf": sf, "asyncio": asyncio}
    exec(KILLED.replace("IS_DYING = True", "IS_DYING = False"), names)
    async with sf.Surefoot(url, is_worker=False) as app:
        (held,) = rows(app)
        with pytest.raises(sf.ResourceBusy, match="held: doc/1 by run edit since"):
            await sf.lease("doc/1", timeout=0).__aenter__()
    async with sf.Surefoot(url) as app:
        assert await (await app.run("edit")).result(timeout_s=10) == [1, 2]
        assert [n for n, _ in names["SEEN"]] == [2]
        assert names["SEEN"][0][1] % 2**40 > held.token
        assert rows(app) == []
        assert kinds(app, "edit").count("decided") == 2, "one step takes it, one gives it back"


async def test_an_evicted_run_keeps_what_it_holds(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches a lease that is given back by the unwinding of an eviction, and one that is never given back."""

    @sf.durable
    async def waits() -> str:
        async with sf.lease("doc/1"):
            said: str = await sf.wait_signal("go")
        return said

    run = await app.start(waits, id="w")
    await until(lambda: not app.worker.is_live(run.row) and len(rows(app)) == 1)
    with pytest.raises(sf.ResourceBusy, match="by run w since"):
        await sf.lease("doc/1", timeout=0).__aenter__()
    await run.signal("go", "now")
    assert await run.result(timeout_s=10) == "now"
    async with sf.lease("doc/1", timeout=0):
        pass


async def test_as_many_and_as_long_names_as_there_may_be_are_held(app: sf.Surefoot, quick_eviction: None) -> None:
    """Would catch a limit of a database's index that a run meets as an error of ours, asking or waiting."""
    draw = random.Random(1)
    names = ["".join(chr(draw.randrange(0x4E00, 0x9FA5)) for _ in range(512)) for _ in range(16)]

    @sf.durable
    async def edits() -> str:
        async with sf.lease(*names, timeout="1h"):
            said: str = await sf.wait_signal("go")
        return said

    async with sf.lease(names[0]):
        run = await app.start(edits, id="long")
        await until(lambda: len(rows(app)) == 17)
    await until(lambda: not app.worker.is_live(run.row) and all(row.is_held for row in rows(app)))
    await run.signal("go", "now")
    assert await run.result(timeout_s=10) == "now"
    assert rows(app) == []


async def test_runs_that_wait_are_parked_and_come_in_the_order_of_asking(
    app: sf.Surefoot, quick_eviction: None
) -> None:
    """Catches a run that stays in memory while it waits, one that nobody wakes, and a herd that wakes for one place."""
    order: Calls = []

    @sf.durable
    async def edits(number: int) -> None:
        async with sf.lease("doc/1", timeout="1h"):
            order.append(number)

    async with sf.lease("doc/1"):
        runs = []
        for number in range(5):
            runs.append(await app.start(edits, number, id=f"r{number}"))
            await until(lambda count=number + 2: len(rows(app)) == count)  # type: ignore[misc]
        await until(lambda: not any(app.worker.is_live(run.row) for run in runs))
        status = await runs[0].status()
        assert (status.state, status.waiting_for) == ("waiting", "lease")
        assert "doc/1" in status.reason
    for run in runs:
        await run.result(timeout_s=10)
    assert order == list(range(5))
    epochs = app.store.read_now(lambda connection: connection.execute("SELECT epoch FROM runs ORDER BY id").fetchall())
    assert [epoch for (epoch,) in epochs] == [epochs[0][0]] * 5, "each was woken once"


async def test_a_run_that_waited_too_long_goes_on_without(app: sf.Surefoot) -> None:
    """Catches an outcome of waiting that a replay sees differently, and a place in the line that stays."""
    tries: Calls = []

    @sf.durable
    async def tries_it() -> str:
        tries.append(1)
        try:
            async with sf.lease("doc/1", timeout=0.1):
                return "held"
        except sf.ResourceBusy as busy:
            said = busy.message
        await sf.wait_signal("go")
        return said

    async with sf.lease("doc/1"):
        run = await app.start(tries_it, id="t")
        await until(lambda: kinds(app, "t")[-1:] == ["decided"])
        assert len(rows(app)) == 1
    app.worker.live[run.row].eviction.evict(app.worker.live[run.row].waits)
    await until(lambda: not app.worker.is_live(run.row))
    await run.signal("go", None)
    assert "doc/1 was not free within" in await run.result(timeout_s=10)
    assert len(tries) == 2


async def test_a_run_that_ends_in_any_way_leaves_nothing_behind(app: sf.Surefoot) -> None:
    """Catches a resource that is held by a run that is no more."""

    @sf.durable
    async def fails() -> None:
        async with sf.lease("a"):
            raise ValueError("no")

    @sf.durable
    async def waits() -> None:
        async with sf.lease("b"):
            await sf.wait_signal("never")

    @sf.durable
    async def hurries() -> None:
        async with sf.lease("c"):
            await sf.sleep(60)

    with pytest.raises(sf.RunFailed):
        await (await app.start(fails, id="f")).result(timeout_s=10)
    run = await app.start(waits, id="w")
    await until(lambda: "decided" in kinds(app, "w"))
    await run.cancel("enough", by="anna")
    with pytest.raises(sf.RunCancelled):
        await run.result(timeout_s=10)
    late = await app.start(hurries, id="h", deadline_s=0.3)
    with pytest.raises(sf.RunFailed, match="deadline"):
        await late.result(timeout_s=10)
    await app.store.barrier()
    assert rows(app) == []


async def test_a_deadline_that_passes_in_the_block_gives_it_back(app: sf.Surefoot) -> None:
    """Catches a lease that stays because the step that gives it back is the one that the deadline stops."""

    @sf.durable
    async def is_late() -> str:
        try:
            async with sf.lease("a"):
                await asyncio.sleep(0.4)
        except sf.DeadlinePassed:
            await sf.wait_signal("go")
        return "late"

    run = await app.start(is_late, id="l", deadline_s=0.2)
    await until(lambda: "expired" in kinds(app, "l"))
    await app.store.barrier()
    assert rows(app) == []
    app.worker.live[run.row].eviction.evict(app.worker.live[run.row].waits)
    await run.signal("go", None)
    assert await run.result(timeout_s=10) == "late"


async def test_tasks_of_a_run_are_told_apart(app: sf.Surefoot) -> None:
    """Catches two tasks of one run that both believe to hold the same thing."""
    inside: Calls = []

    @sf.durable
    async def both() -> None:
        async def one(key: str) -> None:
            async with sf.lease("a", key=key):
                inside.append(key)
                await asyncio.sleep(0.01)
                inside.append(key)

        await asyncio.gather(one("x"), one("y"))

    await (await app.start(both, id="b")).result(timeout_s=10)
    assert inside[0] == inside[1]
    assert inside[2] == inside[3]


async def test_in_a_run_ttl_and_token_mean_nothing_and_say_so(app: sf.Surefoot) -> None:
    """Catches a token in an argument of an effect: it would differ after a takeover, and block the run."""

    @sf.durable
    async def asks() -> list[str]:
        said = []
        try:
            async with sf.lease("a", ttl=3):
                pass
        except sf.BadResource as error:
            said.append(error.message)
        async with sf.lease("a") as lease:
            assert lease.is_held
            try:
                said.append(str(lease.token))
            except sf.BadResource as error:
                said.append(error.message)
        assert not lease.is_held
        return said

    said = await (await app.start(asks, id="a")).result(timeout_s=10)
    assert "ttl= means nothing in a run" in said[0]
    assert "a lease has no one token" in said[1]


async def test_a_simulated_run_takes_nothing_from_anybody(app: sf.Surefoot) -> None:
    """Catches a simulation that waits for, or holds up, what is real."""

    @sf.durable
    async def edits() -> str:
        async with sf.lease("doc/1"):
            return "edited"

    run = await app.start(edits, id="e")
    await run.result(timeout_s=10)
    async with sf.lease("doc/1"):
        fork = await run.fork(at=2, id="f")
        assert await fork.result(timeout_s=10) == "edited"
        assert len(rows(app)) == 1


async def test_a_fork_that_acts_takes_for_itself_what_its_source_held(app: sf.Surefoot) -> None:
    """Catches a fork that acts in the middle of a block under a lease of somebody else, or stands there for ever."""
    tokens: Calls = []

    @sf.effect(once_for="run", key="put:{n}")
    async def put(n: int) -> int:
        tokens.append(sf.current_effect().tokens["doc/1"])
        return n

    @sf.durable
    async def edits() -> int:
        async with sf.lease("doc/1"):
            return await put(1)

    run = await app.start(edits, id="e")
    await run.result(timeout_s=10)
    async with sf.lease("doc/1") as lease:
        tokens.append(lease.token)
        fork = await run.fork(at=3, id="f", act=True)
        await until(lambda: len(rows(app)) == 2)
    assert await fork.result(timeout_s=10) == 1
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 3
    await app.store.barrier()
    assert rows(app) == []


async def test_what_the_starter_holds_is_not_the_runs(app: sf.Surefoot) -> None:
    """Catches a run whose effects rely on a lease of whoever started it, which ends before they do."""
    tokens: Calls = []

    @sf.effect(key="put")
    async def put() -> None:
        tokens.append(dict(sf.current_effect().tokens))

    @sf.durable
    async def edits() -> None:
        await put()

    async with sf.lease("doc/1"):
        await (await app.start(edits, id="e")).result(timeout_s=10)
    assert tokens == [{}]
