"""When runs begin: limits per process, kind and key, priorities and delays; and that those who wait cost nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import apsw
import pytest
from tests.contract.conftest import killed, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.runs.life import SUSPECT_AFTER
from surefoot.runs.rows import queue
from surefoot.runs.rows.invariants import INVARIANTS
from surefoot.store import Tx
from surefoot.store.finding import broken


class Count:
    """How many are inside at a time."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.order: list[Any] = []

    async def inside(self, what: str, name: Any = None, *, at_least: int = 1) -> None:
        """Stay for a moment; the first until so many others have come, however slow the machine is."""
        self.now[what] += 1
        self.most[what] = max(self.most[what], self.now[what])
        self.order.append(name)
        await until(lambda: self.most[what] >= at_least)
        await asyncio.sleep(0.005)
        self.now[what] -= 1


async def ends(app: sf.Surefoot) -> list[Any]:
    """Wait for all runs, and return what they came to."""
    runs = [await app.run(row.run_id) for row in await app.runs(limit=10_000)]
    return [await run.result(timeout_s=30) for run in runs]


async def test_a_process_has_no_more_runs_than_it_may(url: str) -> None:
    """Catches memory that grows with the number of starts, all of which see the same free places."""
    count = Count()

    @sf.durable
    async def work(number: int) -> None:
        await count.inside("process", at_least=3)

    async with sf.Surefoot(url, concurrency=3) as app:
        await asyncio.gather(*(app.start(work, number, id=str(number)) for number in range(40)))
        await ends(app)
        assert app.worker.free == 3
    assert count.most["process"] == 3


async def test_a_kind_s_limit_holds_over_all_workers(url: str) -> None:
    """Catches a limit that each process counts for itself, one that starting goes past, and a kind that stands in the way
    of others."""
    count = Count()

    @sf.durable(concurrency=2)
    async def narrow(number: int) -> None:
        await count.inside("narrow", at_least=2)

    @sf.durable
    async def wide(number: int) -> None:
        await count.inside("wide", at_least=3)

    async with sf.Surefoot(url) as one, sf.Surefoot(url) as two:
        for number in range(20):
            for app in (one, two):
                await app.start(narrow, number, id=f"narrow {number}")
        await asyncio.gather(*(one.start(wide, number, id=f"wide {number}") for number in range(20)))
        await ends(one)
    assert count.most["narrow"] == 2
    assert count.most["wide"] > 2


@pytest.mark.usefixtures("quick_eviction")
async def test_a_run_that_waits_lets_another_of_its_kind_in(app: sf.Surefoot) -> None:
    """Catches a kind whose few places are all taken by runs that wait for people."""

    @sf.durable(concurrency=1)
    async def asks(number: int) -> Any:
        return await sf.wait_signal("answer")

    runs = [await app.start(asks, number, id=str(number)) for number in range(3)]
    for run in runs:
        await wait_state(run, "waiting", "signal")
    for number, run in enumerate(runs):
        await run.signal("answer", number)
    assert [await run.result(timeout_s=10) for run in runs] == [0, 1, 2]


async def test_runs_of_one_key_go_one_after_another_in_their_order(url: str) -> None:
    """Catches two runs of one order at a time, one that overtakes, and a lane that is never let go on."""
    count = Count()

    @sf.durable(concurrency_per_key=1)
    async def work(key: str, number: int) -> None:
        await count.inside(key, (key, number))

    async with sf.Surefoot(url) as one, sf.Surefoot(url) as two:
        for number in range(10):
            for key in "ab":
                await (one, two)[number % 2].start(work, key, number, id=f"{key}{number}", key=key)
        await ends(one)
        assert one.store.read_now(lambda c: list(broken(c, INVARIANTS))) == []
    assert dict(count.most) == {"a": 1, "b": 1}
    for key in "ab":
        assert [number for which, number in count.order if which == key] == list(range(10))


async def test_a_key_may_have_several_places(app: sf.Surefoot) -> None:
    """Catches a lane that lets in one at a time whatever its kind says."""
    count = Count()

    @sf.durable(concurrency_per_key=3)
    async def work(number: int) -> None:
        await count.inside("key", at_least=3)

    await asyncio.gather(*(app.start(work, number, id=str(number), key="k") for number in range(12)))
    await ends(app)
    assert count.most["key"] == 3


@pytest.mark.usefixtures("quick_eviction")
async def test_a_key_is_held_through_waits_and_what_is_sent_to_who_stands_behind_is_kept(app: sf.Surefoot) -> None:
    """Catches a run that is woken out of turn by a signal, and one that gives its place away while it waits."""

    @sf.durable(concurrency_per_key=1)
    async def asks(number: int) -> Any:
        return await sf.wait_signal("answer")

    first = await app.start(asks, 1, id="1", key="k")
    await wait_state(first, "waiting", "signal")
    second = await app.start(asks, 2, id="2", key="k")
    await second.signal("answer", "early")
    await second.wake()
    third = await app.start(asks, 3, id="3", key="k")
    await app.worker._look()
    assert [(await run.status()).state for run in (second, third)] == ["queued", "queued"]
    await first.signal("answer", "late")
    assert await first.result(timeout_s=10) == "late"
    assert await second.result(timeout_s=10) == "early"


async def test_who_is_cancelled_in_the_queue_ends_without_having_begun(app: sf.Surefoot) -> None:
    """Catches code that runs beside another of its key, because it was to be cancelled; and one that holds up the rest."""
    may_end, began = asyncio.Event(), list[Any]()

    @sf.durable(concurrency_per_key=1)
    async def work(number: int) -> int:
        began.append(number)
        await may_end.wait()
        return number

    runs = [await app.start(work, number, id=str(number), key="k") for number in range(3)]
    await until(lambda: began == [0])
    await runs[1].cancel("not needed")
    with pytest.raises(sf.RunCancelled, match="not needed"):
        await runs[1].result(timeout_s=5)
    assert (await runs[2].status()).state == "queued"
    may_end.set()
    assert await runs[2].result(timeout_s=5) == 2
    assert began == [0, 2]


async def test_a_killed_worker_leaves_its_lane_as_it_was(url: str) -> None:
    """Catches a second run of a key that begins because the first one's worker has died; and a lane that stands."""
    killed(
        url,
        """
        @sf.durable(concurrency_per_key=1)
        async def work(number: int) -> int:
            await both.wait()
            die()

        async def body(app):
            for number in (1, 2):
                await app.start(work, number, id=str(number), key="k")
            both.set()

        both = asyncio.Event()
        """,
    )
    order = list[Any]()

    @sf.durable(concurrency_per_key=1)
    async def work(number: int) -> int:
        order.append(number)
        return number

    async with sf.Surefoot(url) as app:
        assert sorted(await ends(app)) == [1, 2]
    assert order == [1, 2]


async def test_the_lowest_priority_is_taken_first(url: str) -> None:
    """Catches runs that are taken in the order of their start whatever they asked for."""
    order = list[Any]()

    @sf.durable
    async def work(name: str) -> None:
        order.append(name)

    async with sf.Surefoot(url, is_worker=False) as app:
        for name, priority in (("last", 5), ("b", 3), ("c", 3), ("first", 1)):
            await app.start(work, name, id=name, priority=priority)
    async with sf.Surefoot(url, concurrency=1) as app:
        await ends(app)
    assert order == ["first", "b", "c", "last"]


@sf.durable(concurrency=1)
async def single(number: int) -> int:
    """One of which one is executed at a time."""
    return number


async def test_a_suspect_takes_no_place_beyond_the_limits(url: str) -> None:
    """Catches a run on probation that is executed beside another of a kind that may have one, or in a full process; and one
    that is passed for ever by those that came later."""

    async with sf.Surefoot(url, is_worker=False) as app:
        for number in range(4):
            await app.start(single, number, id=str(number))

        def claimed(limit: int, most: int | None, tx: Tx) -> list[str]:
            tx.execute(f"UPDATE runs SET takeovers = {SUSPECT_AFTER} WHERE run_id IN ('1', '2')")
            rows = queue.claim_runs(tx, 1, {"single": most}, limit, may_try_suspect=True)
            tx.execute("UPDATE runs SET state = 1, holder = NULL WHERE state = 2")
            return [row.run_id for row in rows]

        async def found(limit: int, most: int | None) -> list[str]:
            return await app.store.commit(partial(claimed, limit, most), label="test")

        assert await found(9, 1) == ["0"]
        assert await found(2, None) == await found(9, 2) == ["0", "1"]
        assert await found(9, None) == ["0", "1", "3"]


async def test_runs_that_wait_for_room_are_not_taken_for_those_that_nobody_can_execute(url: str) -> None:
    """Catches workers of two services on one store: one at its limit, whose backlog the other blocks for not knowing its
    kind, again and again, in a transaction with each look."""

    async with sf.Surefoot(url, is_worker=False) as app:
        for number in range(4):
            await app.start(single, number, id=str(number))

        def unknown(kinds: list[str]) -> list[str]:
            return app.store.read_now(lambda connection: queue.unknown_kinds(connection, kinds))

        def claim(tx: Tx) -> list[str]:
            return [row.run_id for row in queue.claim_runs(tx, 1, {"single": 1}, 9, may_try_suspect=True)]

        assert (unknown(["other"]), unknown(["single"])) == (["single"], [])
        assert await app.store.commit(claim, label="test") == ["0"]
        assert unknown(["other"]) == []


async def test_a_delayed_run_begins_when_it_is_due(url: str) -> None:
    """Catches a delay that is slept in memory, that a signal cuts short, or that is forgotten with its process."""

    @sf.durable
    async def later(name: str) -> Any:
        return await sf.wait_signal("hint")

    begun = asyncio.get_running_loop().time()
    async with sf.Surefoot(url) as app:
        run = await app.start(later, "a", id="a", delay="1s")
        await run.signal("hint", "early")
        assert (await run.status()).state == "scheduled"
        moment = datetime.now(timezone(timedelta(hours=5))) + timedelta(seconds=0.1)
        assert (await (await app.start(later, "b", id="b", at=moment)).status()).state == "scheduled"
        past = await app.start(later, "c", id="c", at=moment - timedelta(days=1))
        assert (await past.status()).state != "scheduled"
        assert app.worker.live.keys() == {past.row}
    async with sf.Surefoot(url) as app:
        assert await (await app.run("a")).result(timeout_s=10) == "early"
        assert asyncio.get_running_loop().time() - begun >= 1.0
        await wait_state(await app.run("b"), "running", None)


async def test_a_delayed_run_takes_its_turn_when_it_is_due(app: sf.Surefoot) -> None:
    """Catches a delay that lets a run past the others of its key, or keeps a place for it meanwhile."""
    may_end, began = asyncio.Event(), list[Any]()

    @sf.durable(concurrency_per_key=1)
    async def work(name: str) -> None:
        began.append(name)
        await may_end.wait()

    late = await app.start(work, "late", id="late", key="k", delay=0.2)
    first = await app.start(work, "first", id="first", key="k")
    await wait_state(late, "queued", None)
    assert began == ["first"]
    may_end.set()
    await asyncio.gather(first.result(timeout_s=5), late.result(timeout_s=5))
    assert began == ["first", "late"]


async def test_a_delayed_run_can_be_cancelled_before(app: sf.Surefoot) -> None:
    """Catches a cancellation that waits for a year."""

    @sf.durable
    async def later() -> None:
        await sf.sleep(60)

    run = await app.start(later, id="r", delay="365d")
    await run.cancel("no more")
    with pytest.raises(sf.RunCancelled):
        await run.result(timeout_s=5)


async def test_what_says_when_is_no_part_of_the_input(app: sf.Surefoot) -> None:
    """Catches a second delivery that is a conflict because it comes with another priority."""

    @sf.durable(concurrency_per_key=1)
    async def work() -> int:
        return 1

    run = await app.start(work, id="r", key="a", priority=1)
    again = await app.start(work, id="r", key="b", priority=5, delay="1h")
    assert await again.result(timeout_s=5) == await run.result(timeout_s=5) == 1


@sf.durable
async def unlimited(key: str = "", number: int = 0) -> None:
    """Take what `start` takes."""


@sf.durable(concurrency_per_key=1)
async def limited(number: int = 0) -> None:
    """Have lanes."""


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (limited, {"priority": 0}, "priority=0"),
        (limited, {"priority": True}, "priority=True"),
        (limited, {"priority": "high"}, "priority='high'"),
        (limited, {"key": ""}, "key=''"),
        (limited, {"key": 7}, "key=7"),
        (limited, {"key": "x" * 513}, "key=a text of 513 characters"),
        (limited, {"key": "half \ud83d"}, "a text of 1 to 512"),
        (limited, {"at": datetime(2030, 1, 1)}, "has no time zone"),
        (limited, {"at": datetime(2030, 1, 1), "delay": 1}, "both given"),
        (limited, {"delay": "soon"}, "soon"),
        (unlimited, {"key": "k"}, "has a parameter 'key'"),
    ],
)
async def test_a_start_that_can_t_be_meant_is_refused(
    app: sf.Surefoot, function: Any, options: dict[str, Any], said: str
) -> None:
    """Catches a priority, a key or a time that is taken for something else than was meant."""
    with pytest.raises(sf.SurefootError, match=said.replace("(", "[(]")):
        await app.start(function, id="r", **options)
    with pytest.raises(sf.SurefootError, match="no limit per key"):
        await app.start(unlimited, "an argument", id="r", key="k")
    assert await app.runs() == []


@pytest.mark.parametrize("limit", [0, -1, True, "3", 2.5])
def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    """Catches a limit of nothing, which would hold up its kind for ever."""
    for option in ("concurrency", "concurrency_per_key"):
        with pytest.raises(sf.SurefootError, match=option):
            sf.durable(**{option: limit})(limited)
    with pytest.raises(sf.SurefootError, match="concurrency"):
        sf.Surefoot("sqlite:///x.db", concurrency=limit)


class Plans:
    """A connection that shows how each of its queries is answered."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.plans: list[str] = []
        self.now_ms = 2**41

    @property
    def connection(self) -> Plans:
        return self

    def execute(self, sql: str, bindings: Any = ()) -> Any:
        if not sql.startswith("UPDATE runs SET state = ?"):
            self.plans += [str(row[3]) for row in self.real.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
        return self.real.execute(sql, bindings)

    def changes(self) -> int:
        return int(self.real.changes())

    def ring(self, word: str) -> None:
        """Nobody listens."""

    def row(self, sql: str, bindings: Any = ()) -> Any:
        return next(iter(self.execute(sql, bindings).fetchall()), None)


@pytest.mark.sqlite_only("its plans are SQLite's")
def test_no_look_and_no_claim_walks_over_runs_that_may_not_begin(url: str, tmp_path: Any) -> None:
    """Catches a question without an index: with a million runs it would be asked for seconds, ten times a second."""

    async def make() -> None:
        async with sf.Surefoot(url, is_worker=False) as app:
            for number in range(3):
                await app.start(limited, number, id=f"l{number}", key="k")
                await app.start(unlimited, "k", number, id=f"u{number}", delay=60)

    asyncio.run(make())
    seen: Any = Plans(apsw.Connection(str(tmp_path / "agents.db")))
    limits = {"limited": 2, "unlimited": None, "unknown": None}
    with seen.real:
        assert queue.has_due(seen, limits, seen.now_ms)
        assert queue.unknown_kinds(seen, ["limited"]) == ["unlimited"]
        assert queue.of_unknown_kinds(seen, ["unlimited"], seen.now_ms) == [2, 4, 6], "of another kind, and due"
        queue.take_up_due(seen, list(limits), {})
        assert queue._has_place(seen, "limited\nk", 1) is False
        queue.next_in_lane(seen, "limited\nk", 1)
        assert not queue.may_begin(seen, "limited", 1)
        assert len(queue._first(seen, {"limited": 2, "unlimited": 9}, 9, "runs", "takeovers < 3")) == 4
        assert queue._first(seen, {"limited": 1}, 1, "runs INDEXED BY runs_suspect", "takeovers >= 3") == []
    searches = [plan for plan in seen.plans if plan.startswith("S") and "runs" in plan]
    assert searches
    assert [plan for plan in searches if not plan.startswith("SEARCH")] == []
    for index, by in (
        ("runs_timed", "(kind=? AND state=? AND wake_at_ms>? AND wake_at_ms<?)"),
        ("runs_suspect", "(kind=?)"),
    ):
        assert any(index in plan and by in plan for plan in searches), index  # no run of another kind is looked at
