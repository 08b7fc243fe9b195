"""Effects with resource=: nobody else acts on the resource from the claim until the outcome is known."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

import pytest
from tests.contract.conftest import Calls, held_up, killed, kinds, ledger_states, until
from tests.contract.test_leases import rows
from tests.contract.test_retention import is_sound

import surefoot as sf


def apart(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Begin a task that holds nothing of what the code around holds."""
    return asyncio.get_running_loop().create_task(work, context=Context())


class Shop:
    """A service that checks tokens: it refuses whoever comes with a lower one than it has seen."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.acting: set[str] = set()
        self.acts: Calls = []

    async def put(self, order: str, what: str, token: int) -> str:
        if token < self.seen.get(order, 0):
            raise sf.NotDone(f"token {token} is behind {self.seen[order]}")
        self.seen[order] = token
        assert order not in self.acting, "two at once"
        self.acting.add(order)
        await asyncio.sleep(0.002)
        self.acting.discard(order)
        self.acts.append((order, what))
        return what


@pytest.fixture
def shop() -> Shop:
    return Shop()


def refunds(shop: Shop, **options: Any) -> Any:
    @sf.effect(name="refund", key="refund:{order}:{n}", resource="order/{order}", **options)
    async def refund(order: str, n: int) -> str:
        return await shop.put(order, f"refund {n}", sf.current_effect().token)

    return refund


async def test_calls_on_one_resource_act_one_after_another(app: sf.Surefoot, shop: Shop) -> None:
    """Catches two acts on one resource at once, a token that falls, and a lease that stays after its effect."""
    refund = refunds(shop)

    @sf.durable
    async def support(n: int) -> str:
        said: str = await refund("7", n)
        return said

    runs = [await app.start(support, n, id=f"r{n}") for n in range(6)]
    await asyncio.gather(*(refund("7", n) for n in range(10, 16)), *(run.result(timeout_s=20) for run in runs))
    assert len(shop.acts) == 12
    await app.store.barrier()
    assert rows(app) == []


async def test_a_run_of_which_a_part_waits_is_sound(app: sf.Surefoot, shop: Shop) -> None:
    """Catches a run that doctor takes for damaged, and no backup takes, because one of its tasks waits for a resource while
    another goes on; and a record that comes behind one of a higher number, where whoever follows the run misses it."""
    refund, has_begun, may_end = refunds(shop), asyncio.Event(), asyncio.Event()

    @sf.effect(name="hold", resource="order/7")
    async def hold() -> None:
        has_begun.set()
        await may_end.wait()

    @sf.step
    async def beside(n: int) -> None:
        await until(lambda: len(rows(app)) == 2)  # the other task stands in line

    @sf.durable
    async def support() -> str:
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(refund("7", 1))
            for n in range(3):
                await beside(n)
        said: str = asked.result()
        return said

    holding = apart(hold())
    await has_begun.wait()
    run = await app.start(support, id="r")
    await until(lambda: kinds(app, "r").count("decided") == 3)
    is_sound(app)
    may_end.set()
    await holding
    assert await run.result(timeout_s=20) == "refund 1"
    numbers = app.store.read_now(
        lambda c: c.execute("SELECT seq FROM journal WHERE run = ? ORDER BY id", (run.row,)).fetchall()
    )
    assert numbers == sorted(numbers)


async def test_a_wait_ends_in_a_truth_that_a_model_can_read(app: sf.Surefoot, shop: Shop) -> None:
    """Catches a call that waits for ever, an exception in the place of an outcome, and a key that is burnt by it."""
    refund = refunds(shop, resource_timeout_s=0.1)

    @sf.durable
    async def support() -> list[str]:
        outcome = await refund.outcome("7", 1)
        await sf.wait_signal("free")
        again = await refund.outcome("7", 1)
        return [outcome.told, outcome.reason, again.told]

    async with sf.lease("order/7"):
        run = await app.start(support, id="s")
        await until(lambda: "not_done" in kinds(app, "s"))
        assert len(rows(app)) == 1
    app.worker.live[run.row].eviction.evict(app.worker.live[run.row].waits)
    await run.signal("free", None)
    told, reason, again = await run.result(timeout_s=10)
    assert (told, again) == ("not_done", "done")
    assert "order/7 was not free within 0.1 s; held: order/7 by" in reason


async def test_the_lease_of_the_code_around_serves_the_effects_inside(app: sf.Surefoot, shop: Shop) -> None:
    """Catches a deadlock of code with itself, and two tokens for one resource at one time."""
    refund = refunds(shop, resource_timeout_s=0)
    async with sf.lease("order/7", "order/8") as lease:
        await refund("7", 1)
        assert shop.seen["7"] == lease.token
        await refund("8", 1)
        await refund("9", 1)
        assert len(rows(app)) == 2
        assert shop.seen["9"] > lease.token


async def test_several_resources_of_one_effect_are_taken_together(app: sf.Surefoot) -> None:
    """Catches a deadlock of transfers in opposite directions, and half a grant."""
    balance, inside = {"a": 100, "b": 100, "c": 100}, set[str]()

    @sf.effect(resource=("account/{source}", "account/{target}"), resource_timeout_s=20)
    async def transfer(source: str, target: str, n: int) -> None:
        assert not {source, target} & inside
        inside.update({source, target})
        tokens = sf.current_effect().tokens
        assert tokens.keys() == {f"account/{source}", f"account/{target}"}
        assert sf.current_effect().token == tokens[f"account/{source}"]
        before = balance[source], balance[target]
        await asyncio.sleep(0.001)
        balance[source], balance[target] = before[0] - 1, before[1] + 1
        inside.difference_update({source, target})

    pairs = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "a")] * 5
    await asyncio.gather(*(transfer(*pair, n) for n, pair in enumerate(pairs)))
    assert sum(balance.values()) == 300
    assert balance == {"a": 105, "b": 95, "c": 100}
    await app.store.barrier()
    assert rows(app) == []


async def test_what_is_in_doubt_keeps_its_resource_until_it_is_known(app: sf.Surefoot) -> None:
    """Catches a second agent that acts where the first one's request may still land."""
    is_lost = True

    @sf.effect(key="refund:{n}", resource="order/7", resource_timeout_s=0.05)
    async def refund(n: int) -> int:
        if is_lost:
            raise OSError("connection reset")
        return n

    assert (await refund.outcome(1)).told == "unknown"
    is_lost = False
    second = await refund.outcome(2)
    assert second.told == "not_done"
    assert "held: order/7 by effect refund since" in second.reason
    (unknown,) = await app.unknowns()
    await app.resolve(unknown.id, is_done=True, by="anna", reason="it is in the shop's list", value=1)
    assert (await refund.outcome(2)).told == "done"


async def test_who_takes_an_effect_over_has_a_higher_token(url: str) -> None:
    """Catches a late request of a dead worker that the service can't tell from its successor's."""
    code = """
    SEEN = []

    @sf.effect(key="put:{n}", resource="doc/{n}", in_doubt=sf.Resend("24h"))
    async def put(n: int) -> int:
        SEEN.append(sf.current_effect().token)
        if IS_DYING:
            print(SEEN, flush=True)
            die()
        return n

    @sf.durable
    async def edits() -> int:
        return await put(1)
    """
    killed(url, "IS_DYING = True\n" + textwrap.dedent(code) + textwrap.dedent("""
        async def body(app):
            await app.start(edits, id="e")
    """))  # fmt: skip
    names: dict[str, Any] = {"sf": sf, "IS_DYING": False}
    exec(textwrap.dedent(code), names)
    async with sf.Surefoot(url, is_worker=False) as app:
        (held,) = rows(app)
    async with sf.Surefoot(url) as app:
        assert await (await app.run("e")).result(timeout_s=10) == 1
        (token,) = names["SEEN"]
        assert token % 2**40 > held.token
        await app.store.barrier()
        assert rows(app) == []


async def test_a_call_that_is_cancelled_while_it_waits_leaves_the_line(app: sf.Surefoot, shop: Shop) -> None:
    """Catches a place in the line that nobody stands at, and a claim of a call that has left."""
    refund = refunds(shop)
    async with sf.lease("order/7"):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(apart(refund("7", 1)), 0.1)
        await app.store.barrier()
        assert len(rows(app)) == 1
    assert ledger_states(app) == []


async def test_a_call_that_is_cancelled_while_its_claim_is_written_leaves_the_line(
    app: sf.Surefoot, shop: Shop
) -> None:
    """Catches a place in the line that is taken by a commit whose caller has left already."""
    refund = refunds(shop)
    async with sf.lease("order/7"):
        await held_up(app, apart(refund("7", 1)))
        assert len(rows(app)) == 1
    assert ledger_states(app) == []


async def test_two_callers_of_one_key_share_the_wait(app: sf.Surefoot, shop: Shop) -> None:
    """Catches a second caller of a key that takes the first one's place in the line away when it leaves."""
    refund = refunds(shop)
    async with sf.lease("order/7"):
        first = apart(refund("7", 1))
        await until(lambda: len(rows(app)) == 2)
        second = apart(refund("7", 1))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.wait([second])
    assert await first == "refund 1"
    await app.store.barrier()
    assert rows(app) == []


async def test_a_transactional_effect_holds_its_resource_in_its_commit(app: sf.Surefoot) -> None:
    """Catches an act inside a commit that overtakes somebody who holds its resource."""

    @sf.effect(key="count:{n}", resource="counter", resource_timeout_s=0, in_doubt=sf.Transactional())
    def count(n: int) -> int:
        return sf.current_effect().token

    async with sf.lease("counter"):
        pass
    async with sf.lease("counter") as lease:
        assert await sf.in_thread(count, 1) == lease.token
    await count.outcome(2)
    assert rows(app) == []


async def test_a_resource_that_means_nothing_is_refused(app: sf.Surefoot) -> None:
    """Catches a declaration whose resource is nothing, so that all calls, or none, exclude each other."""
    with pytest.raises(sf.BadEffect, match="names 'x', which is no parameter"):
        sf.effect(resource="order/{x}")(_nothing)
    with pytest.raises(sf.BadEffect, match="resource_timeout_s=-1"):
        sf.effect(resource="a", resource_timeout_s=-1)(_nothing)

    @sf.effect(resource="order/{order}")
    async def refund(order: str) -> None:
        raise AssertionError

    with pytest.raises(sf.BadEffect, match="is empty"):
        await refund("")
    app.guard.holding = None
    with pytest.raises(sf.BadEffect, match="holds order/7 while it acts, and this store leases nothing"):
        await refund("7")


async def _nothing() -> None:
    raise AssertionError
