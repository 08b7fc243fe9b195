"""Leases outside runs: one holder at a time, in the order of asking, within the bound, and gone with its process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.contract.conftest import Calls, killed, until

import surefoot as sf
from surefoot.coordination import tables
from surefoot.coordination.invariants import INVARIANTS
from surefoot.effects import bound_guard
from surefoot.store import Tx
from surefoot.store.connection import Connection


def rows(app: sf.Surefoot) -> list[tables.Row]:
    """Return all that hold or wait, and check what always holds of them."""
    assert app.store.read_now(_broken) == []
    return app.store.read_now(tables.everything)


def _broken(connection: Connection) -> list[str]:
    return [one.holds for one in INVARIANTS if connection.execute(one.broken_by).fetchall()]


async def take_away(app: sf.Surefoot) -> None:
    """Do what another process does when this one was stopped for too long."""

    def unit(tx: Tx) -> None:
        for row in tables.everything(tx.connection):
            tables.delete(tx, row.id)

    await app.store.commit(unit, label="take away")


async def test_a_resource_has_one_holder_and_those_who_wait_come_in_the_order_of_asking(url: str) -> None:
    """Catches two holders at once, somebody who is passed by, and a token that doesn't grow."""
    said: Calls = []
    async with sf.Surefoot(url, name="a") as app, sf.Surefoot(url, name="b", is_worker=False) as other:
        apps, all_ask = [app, other], asyncio.Event()

        async def hold(number: int) -> None:
            token = bound_guard.set(apps[number % 2].guard)
            try:
                async with sf.lease("order/7") as lease:
                    said.append((number, lease.token))
                    await all_ask.wait()
                    await asyncio.sleep(0.002)
                    said.append((number, lease.token))
            finally:
                bound_guard.reset(token)

        tasks = []
        for number in range(8):
            tasks.append(asyncio.create_task(hold(number)))
            await until(lambda count=number + 1: len(rows(app)) == count)  # type: ignore[misc]
        all_ask.set()
        await asyncio.gather(*tasks)
        assert said[::2] == said[1::2], "nobody comes between a holder's entering and leaving"
        assert [number for number, _ in said[::2]] == list(range(8))
        assert [token for _, token in said[::2]] == sorted({token for _, token in said})
        assert rows(app) == []


WORDS = r"order/7 was not free within 0\.[0-9] s; held: order/7 by .+ since "


async def test_a_wait_ends_at_its_bound_and_says_who_holds_it(app: sf.Surefoot) -> None:
    """Catches waits without end, refusals without a name, and those who stand in line after they have left."""
    async with sf.lease("order/7"):
        for timeout in (0, "150ms"):
            with pytest.raises(sf.ResourceBusy, match=WORDS):
                await asyncio.create_task(_hold_once("order/7", timeout))
        await app.store.barrier()
        assert len(rows(app)) == 1
    assert rows(app) == []


async def test_several_resources_are_taken_together_whatever_their_order(app: sf.Surefoot) -> None:
    """Catches a deadlock of two that take the same two in opposite order, and half a grant."""
    inside: set[str] = set()

    async def work(*names: str) -> None:
        for _ in range(20):
            async with sf.lease(*names, timeout=10) as lease:
                assert not inside & set(names)
                inside.update(names)
                await asyncio.sleep(0)
                inside.difference_update(names)
                assert lease.resources == tuple(sorted(set(names)))

    await asyncio.gather(work("a", "b"), work("b", "a"), work("b", "c", "b"), work("c", "a"), work("b"))
    assert rows(app) == []


async def test_who_is_cancelled_while_waiting_leaves_the_line(app: sf.Surefoot) -> None:
    """Catches a place in the line that nobody stands at, which would hold up all behind it."""
    async with sf.lease("order/7"):
        waits = [asyncio.create_task(_hold_once("order/7")) for _ in range(5)]
        await until(lambda: len(rows(app)) == 6)
        for one in waits[:4]:
            one.cancel()
    assert await asyncio.gather(*waits, return_exceptions=True) == [*[_Cancelled()] * 4, True]
    await app.store.barrier()
    assert rows(app) == []


class _Cancelled:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, asyncio.CancelledError)

    __hash__ = None  # type: ignore[assignment]


async def _hold_once(name: str, timeout: float | str = 30) -> bool:
    async with sf.lease(name, timeout=timeout) as lease:
        return lease.is_held


async def test_a_dead_process_holds_nothing(url: str) -> None:
    """Catches a lease that outlives its process, and those behind it who wait for nobody."""
    killed(url, """
        async def body(app):
            async with sf.lease("order/7", "order/8"):
                die()
    """)  # fmt: skip
    async with sf.Surefoot(url) as app:
        async with sf.lease("order/8", timeout=0) as lease:
            assert lease.token % 2**40 > 1, "its token is above the dead one's"
        await until(lambda: rows(app) == [])  # what nobody asks for is swept up


async def test_a_lost_lease_stops_what_was_to_be_done_under_it(app: sf.Surefoot) -> None:
    """Catches an effect that is sent, or claimed, after another may hold what it relies on."""
    acts: Calls = []

    @sf.effect(key="pay:{x}")
    async def pay(x: int) -> None:
        acts.append(x)

    async def work(last: int) -> None:
        async with sf.lease("order/7"):
            await pay(1)
            await take_away(app)
            if last:
                await pay(last)

    for last in (2, 0):  # one that does nothing more is told, too
        with pytest.raises(sf.LeaseLost, match="order/7: this lease is lost"):
            await work(last)
    assert acts == [1]
    await pay(2)
    assert acts == [1, 2]


async def test_a_lease_that_runs_out_between_claim_and_act_is_known_not_to_have_acted(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a send after the lease ran out, and a doubt about what was never sent."""
    acts: Calls = []

    @sf.effect(key="pay:{x}")
    async def pay(x: int) -> None:
        acts.append(x)

    async with sf.lease("order/7"):
        with monkeypatch.context() as patch:
            patch.setattr("surefoot.coordination.held.rules.may_act", lambda **_: False)
            with pytest.raises(sf.LeaseLost):
                await pay(1)
        assert (acts, await app.unknowns()) == ([], [])
        await pay(1)
    assert acts == [1]


async def test_the_block_of_a_lost_lease_is_cancelled(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a leader that goes on leading for ever after its term is over."""

    async def lead() -> None:
        async with sf.elect("nightly", ttl=1) as term:
            assert term.is_held
            monkeypatch.setattr("surefoot.coordination.held.rules.may_act", lambda **_: False)
            await asyncio.sleep(20)

    async def is_timed_out() -> None:
        async with asyncio.timeout(0.05), sf.lease("order/8", ttl=10):
            await asyncio.sleep(20)

    with pytest.raises(sf.LeaseLost, match="election nightly"):
        await lead()
    monkeypatch.undo()
    with pytest.raises(TimeoutError):  # a cancellation by somebody else stays one
        await is_timed_out()


async def test_a_short_lease_is_renewed_in_time(app: sf.Surefoot) -> None:
    """Catches a lease that runs out under a process that runs: its session is renewed less often than it needs."""
    async with sf.lease("order/7", ttl=1) as lease:
        for _ in range(3):
            renewed = app.worker.session.renewed_boot_ms
            await until(lambda seen=renewed: app.worker.session.renewed_boot_ms > seen)  # type: ignore[misc]
            lease.check()
    with pytest.raises(sf.LeaseLost):
        lease.check()


async def test_a_semaphore_has_so_many_places(app: sf.Surefoot) -> None:
    """Catches one place too many, and one too few."""
    inside: list[int] = []
    most = []

    async def work(number: int) -> None:
        async with sf.semaphore("crm", limit=3):
            inside.append(number)
            most.append(len(inside))
            await asyncio.sleep(0.01)
            inside.remove(number)

    await asyncio.gather(*map(work, range(12)))
    assert max(most) == 3
    assert rows(app) == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (sf.lease, "no resource was named"),
        (lambda: sf.lease(""), "'' names no resource"),
        (lambda: sf.lease("a\nb"), r"'a\\nb' names no resource"),
        (lambda: sf.lease("x" * 513), "a name of 513 characters"),
        (lambda: sf.lease(7), "7 names no resource"),  # type: ignore[arg-type]  # as code without types would
        (lambda: sf.lease(*map(str, range(17))), "17 resources at once"),
        (lambda: sf.lease("a", ttl="500ms"), r"ttl=0\.5 s"),
        (lambda: sf.lease("a", ttl=11), "ttl=11 s"),
        (lambda: sf.lease("a", timeout=-1), "longer than nothing"),
        (lambda: sf.semaphore("crm", limit=0), "limit=0"),
        (lambda: sf.semaphore("crm", limit=True), "limit=True"),
        (lambda: sf.semaphore("crm", limit=2**70), "limit=1180591620717411303424"),
    ],
)
def test_what_means_nothing_is_refused_at_once(make: Any, words: str) -> None:
    """Catches names and times that fail only in production."""
    with pytest.raises(sf.SurefootError, match=words):
        make()


async def test_a_lease_is_entered_once(app: sf.Surefoot) -> None:
    """Catches one object that two tasks enter, of which the second would give back the first one's lease."""
    lease = sf.lease("order/7")
    with pytest.raises(sf.LeaseLost, match="is not held"):
        _ = lease.token
    async with lease:
        pass
    with pytest.raises(sf.BadResource, match="was entered before"):
        await lease.__aenter__()


async def test_code_that_would_wait_for_itself_is_told_at_once(app: sf.Surefoot) -> None:
    """Catches a nested lease of one thing, which stands still until its bound, and one of a task that really can wait."""

    @sf.durable
    async def nests() -> str:
        async with sf.lease("a"):
            try:
                async with sf.lease("b", "a"):
                    raise AssertionError
            except sf.BadResource as error:
                return error.message

    assert "the code around this holds it already" in await (await app.start(nests, id="n")).result(timeout_s=10)
    async with sf.lease("a"):
        with pytest.raises(sf.BadResource, match="would wait for itself"):
            await sf.lease("a").__aenter__()
        beside = asyncio.create_task(_hold_once("a"))
        await until(lambda: len(rows(app)) == 2)
    assert await beside


async def test_kinds_of_one_name_are_apart(app: sf.Surefoot) -> None:
    """Catches an election that a lease of the same name holds up."""
    async with sf.lease("x"), sf.elect("x", timeout=0), sf.semaphore("x", limit=1, timeout=0):
        assert sorted(row.kind for row in rows(app)) == ["election", "lease", "semaphore"]
