"""Events: published once, acted on once in each group, in order per key; and what becomes of those that can't be."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from tests.contract.conftest import killed, until
from tests.contract.test_queueing import Plans
from tests.contract.test_runs import wait_state
from tests.support.agents import said
from tests.support.groups import serve_only

import surefoot as sf
from surefoot.coordination.events import tables
from surefoot.coordination.events.groups import served
from surefoot.coordination.events.invariants import INVARIANTS
from surefoot.coordination.events.states import TABLE, State, acted_on, kind_name, run_id_of
from surefoot.store import Store, Tx, Unit
from surefoot.store.finding import Severity, broken
from surefoot.store.pace import politely


@dataclass
class Order:
    """What an event says."""

    number: str
    amount: int = 1


ORDERS: sf.Topic[Order] = sf.Topic("orders", Order)


def acted(group: str = "fraud", since: Any = "beginning", **options: Any) -> list[Any]:
    """Let a group act on orders; return what it has acted on."""
    seen: list[Any] = []

    @sf.on(ORDERS, group=group, since=since, **options)
    async def act(order: Order) -> None:
        seen.append(order.number)

    return seen


async def settled(app: sf.Surefoot, count: int) -> None:
    """Wait until so many runs are there and have ended."""

    def ended() -> bool:
        query = "SELECT count(*) FROM runs WHERE state > 3"
        return bool(app.store.read_now(lambda c: c.execute(query).fetchall()[0][0]) >= count)

    await until(ended)


def check(app: sf.Surefoot) -> None:
    """What always holds of the tables."""
    found = app.store.read_now(lambda c: list(broken(c, INVARIANTS)))
    assert [one for one in found if one.severity is Severity.ERROR] == []


async def test_each_group_acts_once_on_an_event_that_is_published_twice(app: sf.Surefoot) -> None:
    """Catches a second delivery of the same webhook that is acted on again, and a group that takes another's events."""
    fraud, mail = acted("fraud"), acted("mail")
    for _ in range(2):
        assert await ORDERS.publish(Order("A-1"), id="created A-1") == "created A-1"
    await ORDERS.publish(Order("A-2"))
    await settled(app, 4)
    assert sorted(fraud) == sorted(mail) == ["A-1", "A-2"]
    assert (await (await app.run("fraud/orders/created A-1")).status()).state == "completed"
    assert [(g.topic, g.group, g.behind, g.started, g.dead) for g in await app.groups()] == [
        ("orders", "fraud", 0, 0, 0), ("orders", "mail", 0, 0, 0),
    ]  # fmt: skip
    check(app)


async def test_an_id_that_says_something_else_is_a_conflict(app: sf.Surefoot) -> None:
    """Catches an event that is taken for another one, and lost."""
    await ORDERS.publish(Order("A-1"), id="e")
    for event, key in ((Order("A-2"), None), (Order("A-1"), "k")):
        with pytest.raises(sf.EventConflict, match="says something else, or has another key"):
            await ORDERS.publish(event, id="e", key=key)


async def test_events_of_a_key_are_acted_on_one_after_another_in_order(url: str) -> None:
    """Catches two runs of one order at a time, an overtaking one, and one key that holds up another."""
    now: Counter[str] = Counter()
    order: list[tuple[str, int]] = []

    @sf.on(ORDERS, group="fraud", since="beginning")
    async def act(event: Order, about: sf.Event) -> None:
        key = about.key or ""
        now[key] += 1
        assert now[key] == 1
        await asyncio.sleep(0.002)
        order.append((key, event.amount))
        now[key] -= 1

    async with sf.Surefoot(url) as app, sf.Surefoot(url):
        for number in range(20):
            for key in ("a", "b", "c"):
                await publish(app, Order(key, number), key=key)
        await settled(app, 60)
    for key in ("a", "b", "c"):
        assert [number for which, number in order if which == key] == list(range(20))


async def publish(app: sf.Surefoot, event: Order, **options: Any) -> str:
    """Publish in one of several open apps, as code in its runs does."""
    from surefoot.effects.binding import _open

    kept = list(_open)
    _open[:] = [app.guard]
    try:
        return await ORDERS.publish(event, **options)
    finally:
        _open[:] = kept


async def test_a_group_s_limit_holds(app: sf.Surefoot) -> None:
    """Catches a burst of events that becomes a burst of agents."""
    now, most = [0], [0]

    @sf.on(ORDERS, group="fraud", since="beginning", concurrency=3)
    async def act(order: Order) -> None:
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0.005)
        now[0] -= 1

    await asyncio.gather(*(ORDERS.publish(Order(str(number))) for number in range(30)))
    await settled(app, 30)
    assert most[0] == 3


# -- publishing in runs -------------------------------------------------------------------------------------------------


async def test_a_run_that_is_killed_behind_its_event_publishes_it_once(url: str) -> None:
    """Catches a replay that publishes again, and an event that was published by a run which the store doesn't know of."""
    killed(
        url,
        """
        ORDERS = sf.Topic("orders")

        @sf.step
        async def think() -> int:
            return 1

        @sf.durable
        async def sells():
            await think()
            first = await ORDERS.publish({"number": "A-1"})
            second = await ORDERS.publish({"number": "A-2"}, key="k")
            die()

        async def body(app):
            await app.start(sells, id="sale")
        """,
    )

    @sf.step
    async def think() -> int:
        raise AssertionError("it is recorded")

    @sf.durable
    async def sells() -> list[str]:
        await think()
        topic: sf.Topic[Any] = sf.Topic("orders")
        return [await topic.publish({"number": "A-1"}), await topic.publish({"number": "A-2"}, key="k")]

    seen = acted()
    async with sf.Surefoot(url) as app:
        ids = await (await app.run("sale")).result(timeout_s=10)
        assert ids == ["sale/publish orders", "sale/publish orders[k]"]
        await settled(app, 3)
        assert sorted(seen) == ["A-1", "A-2"]
        check(app)


async def test_nothing_is_published_by_a_run_that_was_taken_away(app: sf.Surefoot) -> None:
    """Catches an event of a worker that was stopped and comes back: its run goes on elsewhere."""
    seen = acted()
    may_go = asyncio.Event()

    @sf.durable
    async def sells() -> None:
        await may_go.wait()
        await ORDERS.publish(Order("A-1"))

    run = await app.start(sells, id="sale")
    await until(lambda: bool(app.worker.live))

    def take_away(tx: Tx) -> None:
        tx.execute("UPDATE runs SET epoch = epoch + 1")
        tx.held.clear()

    await app.store.commit(take_away, label="test")
    may_go.set()
    await until(lambda: not app.worker.live)
    query = "SELECT count(*) FROM events"
    assert app.store.read_now(lambda c: c.execute(query).fetchall()[0][0]) == 0
    assert (await run.status()).state == "running"
    assert seen == []


async def test_another_event_at_the_place_of_a_recorded_one_is_a_divergence(
    app: sf.Surefoot, quick_eviction: None
) -> None:
    """Catches code that was changed under a run, and whose event is silently not the one that was published."""
    amount = [1]

    @sf.durable
    async def sells() -> None:
        await ORDERS.publish(Order("A-1", amount[0]))
        await sf.wait_signal("go")

    run = await app.start(sells, id="sale")
    await wait_state(run, "waiting", "signal")
    amount[0] = 2
    await run.signal("go")
    await wait_state(run, "waiting", "blocked")
    assert "says something else" in (await run.status()).reason
    amount[0] = 1
    await run.wake()
    await run.result(timeout_s=10)


async def test_a_conflict_in_a_run_is_the_same_on_replay(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches a run that takes another way on replay, because its error was another one then."""
    await ORDERS.publish(Order("A-1"), id="e")
    seen = []

    @sf.durable
    async def sells() -> str:
        try:
            await ORDERS.publish(Order("A-2"), id="e")
        except sf.StepFailed as error:
            seen.append((error.error_type, error.error))
        await sf.wait_signal("go")
        return "done"

    run = await app.start(sells, id="sale")
    await wait_state(run, "waiting", "signal")
    await run.signal("go")
    assert await run.result(timeout_s=10) == "done"
    assert len(seen) == 2
    assert len(set(seen)) == 1
    assert seen[0][0] == "EventConflict"


async def test_parallel_tasks_publish_under_their_ids_and_keys(app: sf.Surefoot) -> None:
    """Catches events of parallel tasks that change places on replay."""

    @sf.durable
    async def sells() -> list[str]:
        return sorted(await asyncio.gather(*(ORDERS.publish(Order(str(n)), key=f"k{n}", id=f"e{n}") for n in range(5))))

    assert await (await app.start(sells, id="s")).result(timeout_s=10) == [f"e{n}" for n in range(5)]

    @sf.durable
    async def unclear() -> None:
        await asyncio.gather(*(ORDERS.publish(Order(str(n))) for n in range(2)))

    with pytest.raises(sf.RunFailed, match="two tasks ask for step 'publish orders'"):
        await (await app.start(unclear, id="u")).result(timeout_s=10)


async def test_a_saga_publishes_nothing_and_a_simulation_neither(app: sf.Surefoot) -> None:
    """Catches an event that tells of something which is undone, or which never happened."""

    @sf.durable
    async def in_saga() -> None:
        async with sf.saga("trip"):
            await ORDERS.publish(Order("A-1"))

    with pytest.raises(sf.RunFailed, match="publish it after the saga"):
        await (await app.start(in_saga, id="s")).result(timeout_s=10)

    @sf.durable
    async def sells() -> str:
        await sf.now()
        return await ORDERS.publish(Order("A-1"), id="e")

    run = await app.start(sells, id="r")
    await run.result(timeout_s=10)
    await app.store.commit(lambda tx: tx.execute("DELETE FROM events"), label="test")
    fork = await run.fork(2, id="f")
    assert await fork.result(timeout_s=10) == "e"
    assert app.store.read_now(lambda c: c.execute("SELECT id FROM events").fetchall()) == []


async def test_outside_any_store_nothing_is_published() -> None:
    """Catches an event that goes nowhere without a word."""
    with pytest.raises(sf.NoStore, match="topic orders: no store is configured"):
        await ORDERS.publish(Order("A-1"))


# -- groups -------------------------------------------------------------------------------------------------------------


async def test_a_new_group_begins_where_it_says(url: str) -> None:
    """Catches a group that acts on what is long past, or misses what was published before it was deployed."""
    async with sf.Surefoot(url, is_worker=False):
        await ORDERS.publish(Order("old"))
    late, early = acted("late", since="now"), acted("early", since="beginning")
    async with sf.Surefoot(url) as app:
        await ORDERS.publish(Order("new"))
        await settled(app, 3)
    assert (late, early) == (["new"], ["old", "new"])


async def test_a_group_that_is_declared_before_publishing_misses_nothing(url: str) -> None:
    """Catches a group `since="now"` that begins when a worker first looks, behind what was published meanwhile."""
    async with sf.Surefoot(url, is_worker=False):
        seen = acted("late", since="now")
        await ORDERS.publish(Order("A-1"))
    async with sf.Surefoot(url) as app:
        await settled(app, 1)
    assert seen == ["A-1"]


async def test_a_worker_without_the_group_leaves_its_events(url: str) -> None:
    """Catches events that pass a group because a worker that doesn't serve it was quicker."""
    acted("fraud")
    async with sf.Surefoot(url):
        pass
    kept = dict(served())
    serve_only()
    async with sf.Surefoot(url) as app:
        await ORDERS.publish(Order("A-1"))
        await app.worker._look()
        assert [(g.behind, g.started) for g in await app.groups()] == [(1, 0)]
        serve_only(kept)
        await settled(app, 1)


@pytest.mark.parametrize(("limit", "value"), [("BYTES_AT_ONCE", 1), ("EVENTS_AT_ONCE", 3), ("AHEAD", 2)])
async def test_what_one_transaction_does_not_bring_the_next_one_does(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """Catches a group whose place passes events that it was not brought, because there were too many, or too large."""
    monkeypatch.setattr(f"surefoot.coordination.events.dispatch.{limit}", value)
    await asyncio.gather(*(ORDERS.publish(Order(str(number)), key=f"k{number % 3}") for number in range(20)))
    fraud, mail = acted("fraud"), acted("mail")
    await settled(app, 40)
    assert sorted(map(int, fraud)) == sorted(map(int, mail)) == list(range(20))
    check(app)


@pytest.mark.one_worker("the others bring events too")
async def test_groups_take_turns(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a group whose backlog keeps all others from their events."""
    monkeypatch.setattr("surefoot.coordination.events.dispatch.EVENTS_AT_ONCE", 1)
    for number in range(5):
        await ORDERS.publish(Order(str(number)))
    await app.worker.stop()
    acted("fraud"), acted("mail")
    (dispatcher,) = app.worker.sources
    for _ in range(4):
        await app.store.commit(dispatcher.feed, label="test")
    assert [group.behind for group in await app.groups()] == [3, 3]
    app.worker.is_stopping = False
    await app.worker.start()


@pytest.mark.sqlite_only("its plans are SQLite's")
async def test_no_look_walks_over_events_that_were_brought(app: sf.Surefoot, tmp_path: Path) -> None:
    """Catches a question without an index, which would take longer with each event that was ever published."""
    acted("fraud"), acted("mail")
    await ORDERS.publish(Order("A-1"))
    await settled(app, 2)
    seen: Any = Plans(apsw.Connection(str(tmp_path / "agents.db")))
    assert tables.groups_with_news(seen) == []
    assert tables.events_after(seen, "orders", 0, 9)
    assert tables.to_bring_again(seen, 1, 9) == []
    assert [plan for plan in seen.plans if plan.startswith("SCAN") and plan != "SCAN g"] == []


# -- dead letters -------------------------------------------------------------------------------------------------------


async def test_a_dead_letter_says_why_and_can_be_delivered_again(app: sf.Surefoot) -> None:
    """Catches a failed event that nobody hears of, one that stops its key, and one that can't be mended."""
    is_mended, seen = [False], []

    @sf.on(ORDERS, group="fraud", since="beginning")
    async def act(order: Order) -> None:
        if order.number == "bad" and not is_mended[0]:
            raise ValueError("no such customer")
        seen.append(order.number)

    await ORDERS.publish(Order("bad"), key="k", id="e")
    await ORDERS.publish(Order("good"), key="k")
    await settled(app, 2)
    assert seen == ["good"], "the next of its key goes on"
    (letter,) = await app.dead_letters()
    assert (letter.id, letter.key, letter.group, letter.reason) == ("e", "k", "fraud", "ValueError: no such customer")
    assert (letter.value, letter.run_id) == ({"number": "bad", "amount": 1}, "fraud/orders/e")
    for group, event in (("fraud", 99), ("mail", letter.event)):
        with pytest.raises(sf.LetterNotFound):
            await app.redeliver(event, group=group, by="ann", reason="mended")
    await app.redeliver(letter.event, group="fraud", by="ann", reason="not mended yet")
    await settled(app, 3)
    (letter,) = await app.dead_letters(group="fraud")
    assert (letter.attempt, letter.run_id) == (2, "fraud#2/orders/e")
    is_mended[0] = True
    await app.redeliver(letter.event, group="fraud", by="ann", reason="mended")
    with pytest.raises(sf.LetterNotFound):
        await app.redeliver(letter.event, group="fraud", by="bob", reason="me too")
    await settled(app, 4)
    assert seen == ["good", "bad"]
    assert await app.dead_letters() == []
    check(app)


async def test_what_does_not_fit_is_a_dead_letter(app: sf.Surefoot) -> None:
    """Catches a payload of an older or a hostile publisher that blocks the group, or stops its worker."""
    seen = acted()
    loose: sf.Topic[Any] = sf.Topic("orders")
    for number, payload in enumerate(("text", None, {"numbr": 1}, [1], {"number": "x" * 100_000})):
        await loose.publish(payload, id=str(number))
    await settled(app, 5)
    letters = await app.dead_letters()
    assert [letter.id for letter in letters] == ["0", "1", "2", "3"]
    assert all("order" in letter.reason for letter in letters)
    assert len(seen) == 1
    await app.discard(letters[0].event, group="fraud", by="ann", reason="spam")
    assert len(await app.dead_letters()) == 3


async def test_a_cancelled_delivery_is_a_dead_letter_also_before_its_turn(app: sf.Surefoot) -> None:
    """Catches an event that a person has stopped, and that nobody can find again."""
    may_end = asyncio.Event()

    @sf.on(ORDERS, group="fraud", since="beginning")
    async def act(order: Order) -> None:
        await may_end.wait()

    for number in range(3):
        await ORDERS.publish(Order(str(number)), key="k", id=str(number))
    await until(lambda: len(app.store.read_now(lambda c: c.execute("SELECT id FROM runs").fetchall())) == 3)
    await (await app.run("fraud/orders/1")).cancel("not this one")
    await settled(app, 1)
    may_end.set()
    await settled(app, 3)
    assert [(letter.id, letter.reason) for letter in await app.dead_letters()] == [
        ("1", "cancelled by api: not this one")
    ]


async def test_a_run_that_stands_in_the_way_makes_a_dead_letter(app: sf.Surefoot) -> None:
    """Catches an event that is taken for acted on because somebody has started a run of its id by hand."""

    @sf.durable
    async def by_hand() -> None:
        """Do nothing."""

    await app.start(by_hand, id="fraud/orders/e")
    seen = acted()
    await ORDERS.publish(Order("A-1"), id="e")
    async with asyncio.timeout(10):
        while not (letters := await app.dead_letters()):
            await asyncio.sleep(0.01)
    assert (letters[0].reason, letters[0].run_id) == ("the id of its run belongs to another run", None)
    await app.redeliver(letters[0].event, group="fraud", by="ann", reason="anew")
    await settled(app, 2)
    assert seen == ["A-1"]


async def test_a_fork_of_a_delivery_is_no_delivery(app: sf.Surefoot) -> None:
    """Catches a copy of a run that closes the dead letter of its original."""

    @sf.on(ORDERS, group="fraud", since="beginning")
    async def act(order: Order) -> None:
        await sf.now()
        await sf.now()
        if is_broken[0]:
            raise ValueError("broken")

    is_broken = [True]
    await ORDERS.publish(Order("A-1"), id="e")
    await settled(app, 1)
    is_broken[0] = False
    for number, is_acting in enumerate((True, False)):
        fork = await (await app.run("fraud/orders/e")).fork(3, id=f"fork {number}", act=is_acting)
        await fork.result(timeout_s=10)
    assert len(await app.dead_letters()) == 1


# -- limits of what is declared and published ---------------------------------------------------------------------------


def test_names_that_ids_are_made_of_can_t_be_mistaken() -> None:
    """Catches two events whose runs have one id, by names with the characters that divide them."""
    for name in ("", "a/b", "a#2", "a b", "ä", "-a", "x" * 65, "a\n", 7):
        with pytest.raises(sf.SurefootError, match="topic"):
            sf.Topic(name)  # type: ignore[arg-type]  # that is what is refused
        with pytest.raises(sf.SurefootError, match="group"):
            sf.on(ORDERS, group=name, since="now")  # type: ignore[arg-type]
    parts = ("a", "b", "a.b", "2", "#2", "a/b", "a#2/b")
    named = parts[:4]
    ids = [run_id_of(t, g, e, n) for t in named for g in named for e in parts for n in (1, 2)]
    assert len(set(ids)) == len(ids)
    for t, g, e, n in itertools.product(named, named, parts, (1, 2)):
        assert acted_on(kind_name(t, g), run_id_of(t, g, e, n)) == (t, e)
        assert acted_on("work", run_id_of(t, g, e, n)) is None


def test_a_function_that_can_t_take_an_event_is_refused() -> None:
    """Catches a group whose every event is a dead letter, because of its declaration."""

    async def none() -> None: ...
    async def three(a: Any, b: Any, c: Any) -> None: ...
    async def named(*, order: Order) -> None: ...
    async def many(*orders: Order) -> None: ...

    for function in (none, three, named, many):
        with pytest.raises(sf.SurefootError, match="acts on events of orders"):
            sf.on(ORDERS, group="g", since="now")(function)
    with pytest.raises(sf.SurefootError, match="since='never'"):
        sf.on(ORDERS, group="g", since="never")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("event", "options", "said"),
    [
        ({"number": 1}, {}, "orders"),
        ("text", {}, "orders"),
        (Order("a"), {"key": ""}, "key=''"),
        (Order("a"), {"key": "x" * 513}, "513"),
        (Order("a"), {"key": "half \ud83d"}, "a text of 1 to 512"),
        (Order("a"), {"id": ""}, "id=''"),
        (Order("a"), {"id": 7}, "id=7"),
        (Order("a"), {"id": "x" * 513}, "1 to 512"),
        (Order("a"), {"id": "half \ud83d"}, "1 to 512"),
    ],
)
async def test_what_can_t_be_published_is_refused(app: sf.Surefoot, event: Any, options: Any, said: str) -> None:
    """Catches an event that no group could take, or none could be asked for again."""
    with pytest.raises(sf.SurefootError) as refused:
        await ORDERS.publish(event, **options)
    assert said in str(refused.value)


def test_the_life_of_a_delivery_has_no_dead_end_but_its_ends() -> None:
    """Catches a state from which nothing leads on, other than done and discarded."""
    assert {state for state, ways in TABLE.items() if not ways} == {State.DONE, State.DISCARDED}
    assert TABLE.keys() == set(State)


async def test_an_agent_acts_on_events(app: sf.Surefoot) -> None:
    """Catches an agent that is asked about another event than the one it was brought, or on no durable run."""
    asked: list[str] = []

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(said(messages[-1]))
        return ModelResponse(parts=[TextPart("seen")])

    clerk = app.agent(Agent(FunctionModel(answer), name="event clerk"))
    clerk.on(ORDERS, group="clerks", since="beginning", prompt=lambda order: f"look at {order.number}")
    await ORDERS.publish(Order("A-1"), id="e")
    await settled(app, 1)
    assert await (await app.run("clerks/orders/e")).result(timeout_s=10) == "seen"
    assert asked == ["user-prompt: look at A-1"]


async def test_what_an_event_says_is_encrypted_and_written_anew(url: str) -> None:
    """Catches a payload that lies open beside its encrypted run, or that is lost when an old key is thrown away."""
    seen = acted()
    old, new = bytes(range(32)), bytes(range(32, 64))
    async with sf.Surefoot(url, is_worker=False, codec=sf.Encrypted({"old": old})):
        await ORDERS.publish(Order("4000-1234-5678"), id="e")
    both = sf.Encrypted({"new": new, "old": old})
    async with sf.Surefoot(url, is_worker=False, codec=both) as app:
        await app.rotate_keys()
        bodies = app.store.read_now(lambda c: c.execute("SELECT body FROM journal").fetchall())
        assert all(b"4000-1234-5678" not in bytes(body) for (body,) in bodies)
    async with sf.Surefoot(url, codec=sf.Encrypted({"new": new})) as app:
        await settled(app, 1)
        assert seen == ["4000-1234-5678"]


# -- kills and retention ------------------------------------------------------------------------------------------------


async def test_an_event_under_a_key_that_is_not_here_waits_for_a_worker_that_has_it(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches an event that stops every worker without its key, one that such a worker takes for nothing, and one whose
    worker writes without end because of it."""
    old, new = os.urandom(32), os.urandom(32)
    async with sf.Surefoot(url, codec=sf.Encrypted({"new": new, "old": old}), is_worker=False):
        await ORDERS.publish(Order("A-1"))
    seen, mail = acted("fraud"), acted("mail", since="now")
    async with sf.Surefoot(url, codec=sf.Encrypted({"old": old})) as app:
        await ORDERS.publish(Order("A-2"))
        await settled(app, 1)
        assert [(one.group, one.behind, one.started) for one in await app.groups()] == [("fraud", 2, 0), ("mail", 0, 0)]
        (dispatcher,) = app.worker.sources
        assert not app.store.read_now(dispatcher.has_new)
        assert (mail, seen) == (["A-2"], [])
    assert "waits for a worker that can read event 1" in caplog.text
    async with sf.Surefoot(url, codec=sf.Encrypted({"new": new, "old": old})) as app:
        await settled(app, 3)
        check(app)
    assert sorted(seen) == ["A-1", "A-2"]


async def test_a_redelivered_event_under_a_key_that_is_not_here_holds_up_nothing(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a dead letter that stops its whole group in every worker without its key, once it is redelivered."""
    seen = list[str]()

    @sf.on(ORDERS, group="fraud", since="beginning")
    async def act(order: Order) -> None:
        if order.number == "A-1" and not seen:
            raise ValueError("not yet")
        seen.append(order.number)

    old, new = os.urandom(32), os.urandom(32)
    both = sf.Encrypted({"new": new, "old": old})
    async with sf.Surefoot(url, codec=both) as app:
        await ORDERS.publish(Order("A-1"))
        await settled(app, 1)
    async with sf.Surefoot(url, codec=both, is_worker=False) as app:
        await app.redeliver(1, group="fraud", by="ann", reason="mended")
    async with sf.Surefoot(url, codec=sf.Encrypted({"old": old})) as app:
        await ORDERS.publish(Order("A-2"))
        await settled(app, 2)
        (letter,) = await app.dead_letters()
        assert (letter.attempt, letter.run_id) == (2, None)
        assert "is encrypted under key 'new', and the keys here are old" in letter.reason
        (dispatcher,) = app.worker.sources
        assert not app.store.read_now(dispatcher.has_new)
        assert seen == ["A-2"]
        check(app)
    assert (
        "redelivered event 1 is a dead letter again: a value at journal:1 is encrypted under key 'new'" in caplog.text
    )
    async with sf.Surefoot(url, codec=both) as app:
        await app.redeliver(1, group="fraud", by="ann", reason="this worker has the key")
        await settled(app, 3)
        check(app)
    assert seen == ["A-2", "A-1"]


async def test_what_can_t_be_read_is_a_dead_letter_and_is_listed_without_its_key(url: str) -> None:
    """Catches a damaged event that stops every worker, or holds up its group; and a list that fails for one entry."""
    seen = acted("fraud")
    keys = sf.Encrypted({"old": os.urandom(32)})
    async with sf.Surefoot(url, codec=keys, is_worker=False) as app:
        for number in ("A-1", "A-2"):
            await ORDERS.publish(Order(number))
        swapped = "UPDATE journal SET body = (SELECT body FROM journal WHERE id = 2) WHERE id = 1"
        await app.store.commit(lambda tx: tx.execute(swapped), label="test")
    async with sf.Surefoot(url, codec=keys) as app:
        await settled(app, 1)
        (letter,) = await app.dead_letters()
        assert (letter.event, letter.run_id, letter.value) == (1, None, None)
        assert "can't be decrypted" in letter.reason
        check(app)
    async with sf.Surefoot(url) as app:
        (letter,) = await app.dead_letters()
        assert "is encrypted" in letter.reason
    assert seen == ["A-2"]


async def test_a_kill_in_the_middle_of_a_delivery_is_taken_up_by_the_next_worker(url: str) -> None:
    """Catches an event that is lost with the worker that had it, or that is acted on as another run."""
    killed(
        url,
        """
        ORDERS = sf.Topic("orders")

        @sf.on(ORDERS, group="fraud", since="beginning")
        async def act(order):
            die()

        async def body(app):
            for number in range(5):
                await ORDERS.publish({"number": str(number)}, key="k")
        """,
    )
    seen = acted()
    async with sf.Surefoot(url) as app:
        for number in range(5, 8):
            await ORDERS.publish(Order(str(number)), key="k")
        await settled(app, 4)
        async with asyncio.timeout(10):
            while any(group.behind or group.started for group in await app.groups()):
                await asyncio.sleep(0.01)
        check(app)
    assert seen == sorted(seen)
    assert seen[-3:] == ["5", "6", "7"]


async def test_retention_takes_nothing_from_a_group_that_begins_meanwhile(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches events that are deleted because nobody had yet to come to them when they were looked for."""
    await ORDERS.publish(Order("old"), id="old")
    await ORDERS.publish(Order("newer"), id="newer")  # the newest record of the journal is never deleted

    async def with_a_new_group(store: Store, unit: Unit[int], *, label: str) -> int:
        await store.commit(
            partial(tables.ensure_group, topic="orders", group="late", is_from_beginning=True), label="test"
        )
        return await politely(store, unit, label=label)

    monkeypatch.setattr("surefoot.coordination.events.retention.politely", with_a_new_group)
    await asyncio.sleep(0.01)
    assert (await app.gc(0.001)).events == 0
    assert (
        len(await app.store.commit(partial(tables.events_after, topic="orders", place=0, limit=9), label="test")) == 2
    )


async def test_retention_keeps_what_somebody_has_yet_to_act_on(url: str) -> None:
    """Catches an event that is deleted before its group came to it, or while it is a dead letter; and an id that is free
    again."""

    @sf.on(ORDERS, group="fraud", since="beginning")
    async def act(order: Order) -> None:
        if order.number == "bad":
            raise ValueError("bad")

    async with sf.Surefoot(url) as app:
        for number in ("good", "bad"):
            await ORDERS.publish(Order(number), id=number)
        await settled(app, 2)
        await app.store.commit(
            lambda tx: tx.execute(
                "INSERT INTO event_groups (topic, name, began_after, place, at_ms) VALUES ('orders', 'away', 0, 0, 0)"
            ),
            label="test",
        )
        await asyncio.sleep(0.01)
        assert (await app.gc(0.001)).events == 0, "a group that no code serves here has yet to come to them"
        dropped = await app.drop_group("away", topic="orders", by="ann", reason="its code is gone")
        assert (dropped.group, dropped.behind) == ("away", 2)
        assert (await app.gc(0.001, is_dry_run=True)).events == 1
        assert (await app.gc(0.001)).events == 1
        assert (await app.gc(0.001)).events == 0
        (letter,) = await app.dead_letters()
        assert (letter.value, letter.reason) == ({"number": "bad", "amount": 1}, "ValueError: bad")
        assert (await app.gc(0.001)).runs == 0, "the run says why"
        await ORDERS.publish(Order("good"), id="good")
        with pytest.raises(sf.EventConflict):
            await ORDERS.publish(Order("other"), id="good")
        await app.worker._look()
        assert len(await app.runs()) == 2, "it is not acted on anew"
        check(app)
        late = acted("late")
        await settled(app, 3)
        assert late == ["bad"], "what says nothing any more is passed over"
        await app.discard(letter.event, group="fraud", by="ann", reason="it is bad")
        await asyncio.sleep(0.01)
        assert (await app.gc(0.001)).runs == 2, "the one of the group that came late, and now that of the letter"


async def test_a_group_that_nobody_serves_can_be_dropped(url: str) -> None:
    """Catches a group that is dropped under its own code, one of another topic that goes with it, and one that acts anew
    on what it had acted on when its code comes back."""
    seen = acted()
    async with sf.Surefoot(url) as app:
        await ORDERS.publish(Order("a"), id="a")
        await settled(app, 1)
        with pytest.raises(sf.GroupServed):
            await app.drop_group("fraud", topic="orders", by="ann", reason="it is gone")
        serve_only()
        for topic, group in (("orders", "mail"), ("parcels", "fraud")):
            with pytest.raises(sf.GroupNotFound):
                await app.drop_group(group, topic=topic, by="ann", reason="it is gone")
        await app.drop_group("fraud", topic="orders", by="ann", reason="it is gone")
        assert await app.groups() == []
        check(app)
    again = acted()
    async with sf.Surefoot(url) as app:
        await ORDERS.publish(Order("b"), id="b")
        await settled(app, 2)
        assert (seen, again) == (["a"], ["b"])
        assert [letter.id for letter in await app.dead_letters()] == ["a"]
        check(app)


DROPPED = """
import asyncio, os, sys
import surefoot as sf
from surefoot.coordination.events import letters
letters.DELIVERIES_AT_ONCE, left = 2, int(sys.argv[2])

async def main():
    global left
    async with sf.Surefoot(sys.argv[1], is_worker=False) as app:
        commit = app.store.commit

        async def counted(*args, **options):
            global left
            left -= options["label"] == "drop group"
            if left < 0:
                os.kill(os.getpid(), 9)
            return await commit(*args, **options)

        app.store.commit = counted
        await app.drop_group("fraud", topic="orders", by="ann", reason="it is gone")

asyncio.run(main())
"""


async def test_a_drop_that_is_killed_halfway_goes_on_when_it_is_called_again(url: str) -> None:
    """Catches a group that is dropped in one transaction, for which all writers stand still; and one that is half there,
    which doctor calls damage, or which a second drop can't end."""
    acted("fraud")
    mail = acted("mail")
    async with sf.Surefoot(url) as app:
        for number in range(6):
            await ORDERS.publish(Order(str(number)))
        await settled(app, 12)
    serve_only()
    left = []
    for allowed in (
        0,
        1,
        2,
        2,
        9,
    ):  # transactions: the first says who drops it, and each other one takes two deliveries
        ended = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", DROPPED, url, str(allowed)], check=False, timeout=60
        )
        assert ended.returncode == (0 if allowed == 9 else -signal.SIGKILL)
        async with sf.Surefoot(url, is_worker=False) as app:
            check(app)
            left += app.store.read_now(lambda c: c.execute("SELECT count(*) FROM deliveries").fetchall()[0])
            assert [one.group for one in await app.groups()] == (["mail"] if allowed == 9 else ["fraud", "mail"])
    assert (left, len(mail)) == ([12, 12, 10, 8, 6], 6)


async def test_a_group_that_is_dropped_under_its_workers_begins_anew_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches workers that serve a group which is not there any more, and miss what is published until something else
    happens to write it anew."""
    seen = list[str]()

    @sf.on(ORDERS, group="fraud", since="now")
    async def act(order: Order) -> None:
        seen.append(order.number)

    async with sf.Surefoot(url) as app:
        await ORDERS.publish(Order("a"), id="a")
        await settled(app, 1)
        with monkeypatch.context() as elsewhere:  # by a process that has not its code
            elsewhere.setattr("surefoot.coordination.events.letters.served", dict)
            await app.drop_group("fraud", topic="orders", by="ann", reason="a mistake")
        async with asyncio.timeout(10):
            while not await app.groups():
                await asyncio.sleep(0.01)
        await ORDERS.publish(Order("b"), id="b")
        await settled(app, 2)
        assert seen == ["a", "b"]
        check(app)
