"""A run that was told what has changed keeps the resource until it has decided again, and not for ever."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.contract.conftest import kinds, until
from tests.contract.test_leases import rows

import surefoot as sf


class Shop:
    """Orders that are read in a version, and changed under the token of whoever holds them."""

    def __init__(self) -> None:
        self.version = 1
        self.acts: list[str] = []
        self.tokens: list[int] = []
        self.decided: Counter[str] = Counter()

        @sf.versioned("order/{order}", version="version", name="look")
        async def look(order: str) -> dict[str, int]:
            return {"version": self.version}

        @sf.effect(name="change", unchanged="order/{order}", resource="order/{order}")
        async def change(order: str, who: str) -> None:
            self.version += 1
            self.acts.append(who)
            self.tokens.append(sf.current_effect().token)

        self.look, self.change = look, change

    async def update(self, who: str) -> None:
        """Read, decide, change, and again until it is done."""
        while True:
            await self.look("7")
            self.decided[who] += 1
            if (await self.change.outcome("7", who)).told == "done":
                return


@pytest.fixture
def shop() -> Shop:
    return Shop()


def waiting(app: sf.Surefoot) -> int:
    """Return how many wait."""
    return sum(not row.is_held for row in rows(app))


async def test_of_many_who_wait_each_decides_at_most_twice(app: sf.Surefoot, shop: Shop) -> None:
    """Catches agents that find the world changed each time their turn comes, because all others were let in between; and
    one that is let in before those who asked earlier."""

    @sf.durable
    async def agent(who: str) -> None:
        await shop.update(who)

    async with sf.lease("order/7"):
        runs = []
        for n in range(6):
            runs.append(await app.start(agent, f"a{n}", id=f"a{n}"))
            await until(lambda: waiting(app) == len(runs))
        shop.version += 1
    for run in runs:
        await run.result(timeout_s=20)
    assert shop.acts == [f"a{n}" for n in range(6)]
    assert set(shop.decided.values()) == {2}
    assert shop.tokens == sorted(set(shop.tokens))
    await app.store.barrier()
    assert rows(app) == []


async def test_it_is_kept_for_a_while_only(app: sf.Surefoot, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a resource that a run keeps which decides on nothing, or again and again on what changes each time."""

    seen: list[Any] = []

    @sf.durable
    async def agent() -> None:
        await shop.look("7")
        for _ in range(2):
            shop.version += 1
            assert (await shop.change.outcome("7", "agent")).told == "stale"
            await app.store.barrier()
            seen.append([(row.until_boot_ms, row.effect, row.holder) for row in rows(app)])
        await sf.wait_signal("go")

    run = await app.start(agent, id="a")
    await until(lambda: len(seen) == 2)
    assert seen[0] == seen[1]
    [(until_boot_ms, effect, holder)] = seen[0]
    assert (effect, holder) == (None, "run a, effect change")
    assert until_boot_ms > app.store.clock.boot_ms()
    monkeypatch.setattr("surefoot.coordination.gate.KEEP_MS", 1)
    await run.signal("go", None)
    await run.result(timeout_s=10)
    await app.start(agent, id="b")
    await until(lambda: len(seen) == 4)
    async with sf.lease("order/7", timeout=9):  # the other run waits, too, and no longer keeps it
        assert [row.run for row in rows(app)] == [None]
    assert seen[2][0][1:] == (None, "run b, effect change")


async def test_what_a_run_keeps_serves_its_own_lease(app: sf.Surefoot, shop: Shop) -> None:
    """Catches a run that waits for itself, and a bound that goes on after the run has taken a lease without any."""

    @sf.durable
    async def agent() -> str:
        await shop.look("7")
        shop.version += 1
        await shop.change.outcome("7", "agent")
        async with sf.lease("order/7", timeout=0):
            assert [row.until_boot_ms for row in rows(app)] == [None]
            await shop.look("7")
            return (await shop.change.outcome("7", "agent")).told

    assert await (await app.start(agent, id="a")).result(timeout_s=10) == "done"
    await app.store.barrier()
    assert rows(app) == []


async def test_a_run_that_decides_on_something_else_keeps_nothing(app: sf.Surefoot, shop: Shop) -> None:
    """Catches a circle: one that keeps a thing while it waits for another."""

    @sf.effect(resource="order/{order}", resource_timeout_s=20)
    async def other(order: str) -> str:
        return order

    @sf.durable
    async def agent() -> str:
        await shop.look("7")
        shop.version += 1
        assert (await shop.change.outcome("7", "agent")).told == "stale"
        return await other("8")

    async with sf.lease("order/8"):
        run = await app.start(agent, id="a")
        await until(lambda: waiting(app) == 1)
        assert [row.resource for row in rows(app)] == ["order/8", "order/8"]
    assert await run.result(timeout_s=10) == "8"


async def test_a_run_that_ends_keeps_nothing(app: sf.Surefoot, shop: Shop) -> None:
    """Catches a resource that nobody can have because a run that has ended was told that it changed."""

    @sf.durable
    async def agent() -> str:
        await shop.look("7")
        shop.version += 1
        return (await shop.change.outcome("7", "agent")).told

    assert await (await app.start(agent, id="a")).result(timeout_s=10) == "stale"
    async with sf.lease("order/7", timeout=0):
        assert len(rows(app)) == 1


async def test_what_was_not_read_is_not_kept(app: sf.Surefoot, shop: Shop) -> None:
    """Catches a resource kept for a run that was told nothing of what is."""

    @sf.durable
    async def agent() -> int:
        assert (await shop.change.outcome("7", "agent")).told == "stale"
        await app.store.barrier()
        return len(rows(app))

    assert await (await app.start(agent, id="a")).result(timeout_s=10) == 0
    assert "not_done" in kinds(app, "a")
