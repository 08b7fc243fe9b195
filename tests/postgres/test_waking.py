"""Workers on PostgreSQL are told of what other processes leave for them, and one of them takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg
import pytest
from tests.support.postgres import Postgres, Proxy

import surefoot as sf
from surefoot.runs import hearing
from surefoot.runs.worker import PASS_S
from surefoot.store import Store
from surefoot.store.postgres import PostgresStore
from surefoot.store.postgres_listening import EVERYTHING, WORDS_BYTES_MAX, notice

LONG_S = 30.0


@sf.effect(name="wake pay", key="pay:{order}", approve=sf.Approve())
async def pay(order: str) -> str:
    return f"paid {order}"


@sf.effect(name="wake lose", key="lose:{order}")
async def lose(order: str) -> str:
    raise TimeoutError(order)


@sf.durable(name="wake plain")
async def plain(word: str) -> str:
    return word


@sf.durable(name="wake signal")
async def waiting() -> str:
    return str(await sf.wait_signal("go"))


@sf.durable(name="wake approval")
async def paying(order: str) -> str:
    return await pay(order)


@sf.durable(name="wake doubt")
async def losing(order: str) -> str:
    return await lose(order)


@sf.durable(name="wake parent")
async def parent(order: str) -> str:
    return str(await sf.child(waiting, id=f"{order}/child"))


@pytest.fixture
def _nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing happen but by being told."""
    monkeypatch.setattr(hearing, "HEARING_POLL_S", LONG_S)
    monkeypatch.setattr(hearing, "LOOK_AGAIN_S", LONG_S)
    monkeypatch.setattr("surefoot.runs.live.run.WAIT_IN_PLACE_S", 0.05)


async def until(is_so: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for a condition, for less time than a look would take."""
    async with asyncio.timeout(LONG_S / 2):
        while True:
            found = is_so()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(url: str, *, workers: int = 1) -> AsyncIterator[tuple[sf.Surefoot, list[sf.Surefoot]]]:
    """Open a process that only writes, and workers that hear it and have nothing to do."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(sf.Surefoot(url, name=f"w{n}")) for n in range(workers)]
        client = await stack.enter_async_context(sf.Surefoot(url, name="client", is_worker=False))
        await until(lambda: all(one.store.is_hearing for one in found))
        await asyncio.sleep(3 * PASS_S)  # the first look of each is over
        yield client, found


async def state(run: sf.Run) -> str:
    return (await run.status()).state


@pytest.mark.usefixtures("_nobody_looks")
async def test_what_others_leave_to_do_is_told(url: str) -> None:
    """Catches a start, a signal, a child's end, an approval, a settlement or an end that is only found by looking."""
    async with opened(url) as (client, _):
        assert await (await client.start(plain, "a", id="start")).result(timeout_s=LONG_S / 2) == "a"
        runs = {
            kind: await client.start(*given, id=kind)
            for kind, given in {
                "signal": (waiting,), "child": (parent, "p"), "approval": (paying, "A"), "doubt": (losing, "B"),
            }.items()
        }  # fmt: skip
        for run in runs.values():
            await until(lambda run=run: _is_parked(run))  # type: ignore[misc]  # bound here
        await runs["signal"].signal("go", "now")
        await (await client.run("p/child")).signal("go", "born")
        (asked,) = await client.approvals()
        await client.approve(asked.id, by="anna", reason="seen")
        (doubt,) = await client.unknowns()
        await client.resolve(doubt.id, is_done=True, by="anna", reason="seen", value="found", is_fence_passed=True)
        ends = {kind: await run.result(timeout_s=LONG_S / 2) for kind, run in runs.items()}
        assert ends == {"signal": "now", "child": "born", "approval": "paid A", "doubt": "found"}


async def _is_parked(run: sf.Run) -> bool:
    return (await state(run)) == "waiting"


@pytest.mark.usefixtures("_nobody_looks")
async def test_an_end_that_comes_between_a_look_and_the_wait_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a caller who is told of the end before he listens, and waits for his next look."""
    async with opened(url) as (client, (worker,)):
        await (await client.start(plain, "a", id="a")).result(timeout_s=LONG_S / 2)
        await until(lambda: client.store.is_hearing)
        run = await client.start(waiting, id="w")
        await until(lambda: _is_parked(run))
        read, looks = client.store.read, list[object]()

        async def read_and_be_late(query: Any) -> Any:
            looks.append(await read(query))
            if len(looks) == 1:
                await run.signal("go", "now")
                assert await (await worker.run("w")).result(timeout_s=LONG_S / 2) == "now"
                await asyncio.sleep(0.2)  # the notice has come
            return looks[-1]

        monkeypatch.setattr(client.store, "read", read_and_be_late)
        assert await run.result(timeout_s=LONG_S / 2) == "now"
        assert looks[0] is None


@pytest.mark.usefixtures("_nobody_looks")
async def test_a_timer_is_kept_by_whoever_has_seen_it(url: str) -> None:
    """Catches a run that is due and waits for the next look, since nobody rings for time."""

    @sf.durable(name="wake timer")
    async def sleeping() -> str:
        await sf.sleep(0.5)
        return "awake"

    async with opened(url) as (client, _):
        assert await (await client.start(sleeping, id="t")).result(timeout_s=LONG_S / 2) == "awake"


@pytest.mark.usefixtures("_nobody_looks")
async def test_a_listener_whose_way_broke_looks_and_listens_again(url: str, proxy: Proxy, postgres: Postgres) -> None:
    """Catches a worker that is deaf after its connection broke, and what was rung for meanwhile and is never found."""
    async with opened(proxy.url(url)) as (_, (worker,)), sf.Surefoot(url, is_worker=False) as client:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            lost = connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            ).fetchall()
        assert lost
        for n in range(3):
            run = await client.start(plain, str(n), id=f"r{n}")
            assert await run.result(timeout_s=LONG_S / 2) == str(n)
        await until(lambda: worker.store.is_hearing)


async def test_without_being_told_work_is_found_by_looking(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches notices taken for the fact: each of them is lost here."""
    monkeypatch.setattr("surefoot.store.postgres_desk._NOTIFY", "SELECT $1::text, $2::text")
    async with opened(url) as (client, _):
        assert await (await client.start(plain, "a", id="r")).result(timeout_s=LONG_S) == "a"


def claims_of(store: Store) -> list[str]:
    """Note from now on which transactions a store's process asks for."""
    labels: list[str] = []
    commit = store.commit

    def noting(unit: Any, *, label: str, **given: Any) -> Any:
        labels.append(label)
        return commit(unit, label=label, **given)

    store.commit = noting
    return labels


@pytest.mark.usefixtures("_nobody_looks")
async def test_of_many_idle_workers_one_takes_a_new_run(url: str) -> None:
    """Catches a herd: each of them taking a turn for one run."""
    async with opened(url, workers=6) as (client, workers):
        labels = [claims_of(one.store) for one in workers]
        for n in range(20):
            assert await (await client.start(plain, "a", id=f"r{n}")).result(timeout_s=LONG_S / 2) == "a"
        takes = sum(each.count("take") for each in labels)
        assert 20 <= takes < 40, labels  # one look may be late: the run is claimed by then, but not the lock


@pytest.mark.usefixtures("_nobody_looks")
async def test_whoever_is_stopped_while_it_takes_holds_up_nobody(url: str) -> None:
    """Catches work that waits for a worker that was elected to take it, and stands still."""
    async with opened(url) as (client, (worker,)):
        stopped = client.store
        assert isinstance(stopped, PostgresStore)
        assert stopped.read_now(stopped.may_take)
        assert not worker.store.read_now(worker.store.may_take)
        assert await (await client.start(plain, "a", id="r")).result(timeout_s=LONG_S / 2) == "a"


@pytest.mark.usefixtures("_nobody_looks")
async def test_a_backlog_is_shared_oldest_first(url: str) -> None:
    """Catches one worker that takes all there is while others are idle, and runs that wait behind newer ones."""
    began: list[str] = []

    @sf.durable(name="wake backlog")
    async def counted(n: int) -> None:
        began.append(str(n))
        await sf.wait_signal("go")

    async with opened(url, workers=3) as (client, workers):
        await asyncio.gather(*(client.start(counted, n, id=f"r{n}") for n in range(300)))
        await until(lambda: len(began) == 300)
        shares = [len(one.worker.live) for one in workers]
        assert sorted(shares)[1] > 0, shares
        assert set(began[:20]) <= {str(n) for n in range(50)}, began


def test_a_notice_is_no_longer_than_the_server_takes() -> None:
    """Catches a transaction that fails because a thousand runs ended in it."""
    assert notice("w", ["work", "17"]) == "w 17 work"
    assert notice("w", [str(n) for n in range(3_000)]) == f"w {EVERYTHING}"
    assert len(notice("w", [str(n) for n in range(1_000)])) <= WORDS_BYTES_MAX
