"""Optimistic versions: read, decide, write; what has moved in between is told with its difference, and nothing is sent."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel
from tests.contract.conftest import Calls, killed, kinds, ledger_states, until
from tests.contract.test_leases import take_away
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.effects.rows import desk, ledger
from surefoot.effects.states import State
from surefoot.effects.versions import CHANGED_CHARS_MAX, CHANGES_MAX, difference
from surefoot.journal import Kind, Record, insert_record
from surefoot.store import Tx


class Plan(BaseModel):
    text: str
    by: str = ""


@dataclass(frozen=True)
class Order:
    id: str
    status: str
    etag: int


class Shop:
    """A service whose orders others change; it compares versions where it is sent one."""

    def __init__(self) -> None:
        self.order = Order("7", "open", 1)
        self.sent: Calls = []
        self.is_down = False

    def change(self, status: str) -> None:
        self.order = replace(self.order, status=status, etag=self.order.etag + 1)

    def look(self) -> Order:
        if self.is_down:
            raise OSError("no route")
        return self.order


def tools(shop: Shop, version: Any = "etag", **options: Any) -> tuple[Any, Any]:
    @sf.versioned("order/{order_id}", version=version, name="get_order", **options)
    async def get_order(order_id: str) -> Order:
        return shop.look()

    @sf.effect(name="refund", key="refund:{order_id}", unchanged="order/{order_id}")
    async def refund(order_id: str) -> str:
        shop.sent.append(dict(sf.current_effect().versions))
        return "refunded"

    return get_order, refund


@pytest.mark.parametrize("version", ["etag", lambda order: order.etag, None])
async def test_an_effect_on_what_has_moved_is_stale_and_decided_again(app: sf.Surefoot, version: Any) -> None:
    """Catches an act on what was read long ago, a difference that is lost, and a key that is burnt by it."""
    shop = Shop()
    get_order, refund = tools(shop, version)

    @sf.durable
    async def support() -> list[Any]:
        first = await get_order("7")
        shop.change("shipped")
        stale = await refund.outcome("7")
        again = await refund.outcome("7")  # told of the difference, it decides the same
        return [first.status, stale.told, stale.reason, stale.detail["changes"], again.told]

    status, told, reason, changes, again = await (await app.start(support, id="s")).result(timeout_s=10)
    assert (status, told, again) == ("open", "stale", "done")
    assert "order/7 has changed since it was read" in reason
    assert "status was 'open', is 'shipped'" in reason
    assert {"path": "status", "read": "open", "now": "shipped"} in changes
    assert [list(one) for one in shop.sent] == [["order/7"]]
    assert version is None or shop.sent == [{"order/7": "2"}]
    assert ledger_states(app) == ["not_done", "done"]


async def test_what_was_never_read_is_stale_and_what_cannot_be_looked_at_is_not_sent(app: sf.Surefoot) -> None:
    """Catches an act of a model that has looked at nothing, and one that is let through because nobody can look."""
    shop = Shop()
    get_order, refund = tools(shop)

    @sf.durable
    async def support() -> list[Any]:
        unread = await refund.outcome("7")
        await get_order("7")
        shop.is_down = True
        blind = await refund.outcome("7")
        shop.is_down = False
        return [unread.told, unread.reason, blind.told, blind.reason, (await refund.outcome("7")).told]

    told = await (await app.start(support, id="s")).result(timeout_s=10)
    assert told[::2] == ["stale", "stale", "done"]
    assert told[1] == "order/7 was not read in this run: read it first, then decide"
    assert told[3] == "order/7 could not be looked at again, so nothing was sent: OSError: no route"


async def test_a_staleness_is_the_same_on_every_replay(app: sf.Surefoot) -> None:
    """Catches a replay that looks at the world instead of the journal, or forgets that it was told of a newer version."""
    shop = Shop()
    get_order, refund = tools(shop)
    tries: Calls = []

    @sf.durable
    async def support() -> list[Any]:
        tries.append(1)
        assert (await refund.outcome("7")).told == "stale"  # never read
        await get_order("7")
        if len(tries) == 1:
            shop.change("shipped")
        try:
            await refund("7")
        except sf.Stale as stale:
            said = [stale.reason, stale.difference]
        await sf.wait_signal("go")
        return [*said, await refund("7")]

    run = await app.start(support, id="s")
    await until(lambda: kinds(app, "s").count("not_done") == 2)
    app.worker.live[run.row].eviction.evict(app.worker.live[run.row].waits)
    await until(lambda: not app.worker.is_live(run.row))
    await run.signal("go", None)
    reason, detail, value = await run.result(timeout_s=10)
    assert (value, len(tries), len(shop.sent)) == ("refunded", 2, 1)
    assert detail["now"] == "2"
    assert "from version 1 to 2" in reason


@pytest.mark.usefixtures("quick_eviction")
async def test_what_could_not_be_looked_at_is_no_newer_version_for_a_replay(app: sf.Surefoot) -> None:
    """Catches a run that forgets on replay what it has read, because once nobody could look."""
    shop = Shop()
    get_order, refund = tools(shop)

    @sf.durable
    async def support() -> list[str]:
        await get_order("7")
        shop.is_down = True
        blind = await refund.outcome("7")
        shop.is_down = False
        await sf.wait_signal("go")
        return [blind.told, (await refund.outcome("7")).told]

    run = await app.start(support, id="s")
    await wait_state(run, "waiting", "signal")
    await until(lambda: not app.worker.is_live(run.row))
    await run.signal("go", None)
    assert await run.result(timeout_s=10) == ["stale", "done"]


async def test_a_late_look_is_no_contradiction_of_who_went_on(app: sf.Surefoot) -> None:
    """Catches an alarm about nothing: that one worker has sent nothing says nothing of what another has sent."""
    shop, looks = Shop(), Calls()

    def be_overtaken(tx: Tx) -> None:
        row = ledger.get(tx.connection, 1)
        assert row is not None
        theirs = ledger.take_over(tx, row, app.guard.duty.session.id + 1_000, app.store.clock.boot_ms())
        assert theirs is not None
        record = insert_record(tx, Record(None, 0, Kind.DONE, "", body=b'"by another"'))
        ledger.settle(tx, row.id, theirs.token, State.DONE, record)

    @sf.versioned("order/{order_id}", version="etag", name="get_order")
    async def get_order(order_id: str) -> Order:
        looks.append(order_id)
        if len(looks) == 2:
            shop.change("refunded")
            await app.store.commit(be_overtaken, label="test")
        return shop.look()

    _, refund = tools(shop)

    @sf.durable
    async def support() -> Any:
        await get_order("7")
        return (await refund.outcome("7")).value

    run = await app.start(support, id="s")
    assert await run.result(timeout_s=10) == "by another"
    (noted,) = app.store.read_now(partial(desk.evidence, effect=1))
    assert (noted.kind, noted.is_open, shop.sent) == ("late answer", False, [])


async def test_code_may_say_itself_that_something_is_stale(app: sf.Surefoot) -> None:
    """Catches a precondition that failed at the service and reaches the model as bare words, or as a doubt."""

    @sf.effect(key="put")
    async def put() -> None:
        raise sf.Stale(
            "order/7", read=Order("7", "open", 1), now=Order("7", "shipped", 2), read_version=1, now_version=2
        )

    outcome = await put.outcome()
    assert (outcome.told, ledger_states(app)) == ("stale", ["not_done"])
    assert outcome.detail["changes"][0] == {"path": "status", "read": "open", "now": "shipped"}
    with pytest.raises(sf.Stale, match="from version 1 to 2"):
        await put()


async def test_outside_runs_what_was_seen_can_be_checked(app: sf.Surefoot) -> None:
    """Catches an effect that relies on reads of nobody, and a look that finds nothing."""
    shop = Shop()
    get_order, refund = tools(shop)
    with pytest.raises(sf.BadEffect, match="this call is in no run"):
        await refund("7")
    with pytest.raises(sf.BadEffect, match="the name of a thing has 10006 characters"):
        await get_order("x" * 10_000)
    seen = await get_order.seen("7")
    assert (seen.version, seen.value) == ("1", shop.order)

    @sf.durable
    async def sees() -> None:
        await get_order.seen("7")

    with pytest.raises(sf.RunFailed, match="in a run its version is kept by the run"):
        await (await app.start(sees, id="s")).result(timeout_s=10)
    await seen.check()
    shop.change("shipped")
    with pytest.raises(sf.Stale, match="status was 'open', is 'shipped'"):
        await seen.check()


async def test_an_available_read_works_on_what_was_read_and_acts_on_what_is(app: sf.Surefoot) -> None:
    """Catches drafts that stand still while a service is down, and acts that rely on what is only remembered."""
    shop = Shop()
    get_order, refund = tools(shop, consistency="available")
    strict, _ = tools(shop)
    await get_order("7")
    shop.is_down = True
    with pytest.raises(OSError, match="no route"):
        await strict("7")

    @sf.durable
    async def support() -> list[Any]:
        order = await get_order("7")
        blind = await refund.outcome("7")
        shop.is_down = False
        shop.change("shipped")
        return [order.status, blind.told, (await refund.outcome("7")).told]

    assert await (await app.start(support, id="s")).result(timeout_s=10) == ["open", "stale", "stale"]
    assert (await get_order.seen("7")).is_remembered is False
    assert shop.sent == []


async def test_what_is_remembered_of_things_is_bounded(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a process that keeps all it has ever read, and one that forgets what it has read last."""
    monkeypatch.setattr("surefoot.effects.versions.REMEMBERED_MAX", 2)
    shop = Shop()
    get_order, _ = tools(shop, consistency="available")
    for order in ("7", "8", "7", "9"):
        await get_order(order)
    shop.is_down = True
    with pytest.raises(OSError, match="no route"):
        await get_order("8")
    assert [(await get_order.seen(order)).is_remembered for order in ("7", "9")] == [True, True]


def test_a_difference_is_short_and_says_where() -> None:
    """Catches differences as long as the values, and places that can't be found."""
    read = {"a": 1, "b": {"c": [1, 2]}, "gone": True, "same": [1]}
    now = {"a": 2, "b": {"c": [1, 3, 4]}, "same": [1], "long": "x" * 1_000}
    found = difference(read, now)
    assert [one["path"] for one in found] == ["a", "b.c[1]", "b.c[2]", "gone", "long"]
    assert found[2] == {"path": "b.c[2]", "read": None, "now": 4}
    assert len(found[4]["now"]) < 400
    assert len(difference(list(range(100)), list(range(1, 101)))) == CHANGES_MAX
    assert difference(1, 1.0) != [], "another type is another value"
    assert difference("", "x" * CHANGED_CHARS_MAX)[0]["now"] == "x" * CHANGED_CHARS_MAX


def test_what_is_told_of_a_difference_is_what_is_known() -> None:
    """Catches a sentence as long as the value, one that hides how much more there is, and changes from what nobody
    knows."""
    stale = sf.Stale("order/7", read=dict.fromkeys("abcde", 1), now=dict.fromkeys("abcde", 2))
    assert (
        stale.reason == "order/7 has changed since it was read: a was 1, is 2; b was 1, is 2; c was 1, is 2; and 2 more"
    )
    for known in ({"read": {"a": 1}}, {"now": {"a": 1}}):
        stale = sf.Stale("order/7", **known)
        assert (stale.difference["changes"], stale.reason) == ([], "order/7 has changed since it was read")


# -- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["write", "delete"])
async def test_a_saga_writes_no_document(app: sf.Surefoot, verb: str) -> None:
    """Catches a saga that is undone, and what it wrote for others to act on is not."""
    plan = sf.document("plan")

    @sf.durable
    async def in_saga() -> None:
        async with sf.saga("trip"):
            seen = await plan.read()
            await (plan.write("booked", seen) if verb == "write" else plan.delete(seen))

    with pytest.raises(sf.RunFailed, match="write it after the saga"):
        await (await app.start(in_saga, id="s")).result(timeout_s=10)
    assert app.store.read_now(lambda c: c.execute("SELECT name FROM documents").fetchall()) == []


async def test_of_two_writers_of_one_version_one_writes(app: sf.Surefoot) -> None:
    """Catches a lost update, and a difference that doesn't say what the other has written."""
    plan = sf.document("plan/7", Plan)
    empty = await plan.read()
    assert (empty.value, empty.version) == (None, "0")
    written = await plan.write(Plan(text="one"), empty)
    assert (await plan.read()).value == written.value == Plan(text="one")
    wrote = await asyncio.gather(
        *(plan.write(Plan(text=f"two, {n}", by=str(n)), written) for n in range(5)), return_exceptions=True
    )
    stale = [one for one in wrote if isinstance(one, sf.Stale)]
    assert len(stale) == 4
    now = await plan.read()
    assert now.version == "2"
    assert now.value is not None
    assert stale[0].difference["changes"][0] == {"path": "text", "read": "one", "now": now.value.text}
    await plan.delete(now)
    assert (await plan.read()).value is None
    with pytest.raises(sf.Stale):
        await plan.write(Plan(text="three"), empty)  # the document of version 0 was another life of it


async def test_a_crash_writes_a_document_once(url: str) -> None:
    """Catches a write that a replay does again, or refuses because of what it has itself written."""
    code = """
    counter = sf.document("counter", int)

    @sf.durable
    async def counts() -> str:
        seen = await counter.read()
        seen = await counter.write((seen.value or 0) + 1, seen)
        if IS_DYING:
            die()
        seen = await counter.write(seen.value + 1, seen)
        return f"{seen.value} in version {seen.version}"
    """
    killed(url, "IS_DYING = True\n" + textwrap.dedent(code) + textwrap.dedent("""
        async def body(app):
            await app.start(counts, id="c")
    """))  # fmt: skip
    names: dict[str, Any] = {"sf": sf, "IS_DYING": False}
    exec(textwrap.dedent(code), names)
    async with sf.Surefoot(url) as app:
        assert await (await app.run("c")).result(timeout_s=10) == "2 in version 2"


async def test_a_stale_write_of_a_run_is_recorded_and_a_simulation_writes_nothing(app: sf.Surefoot) -> None:
    """Catches a replay that writes after all, and a fork that changes what is real."""
    note = sf.document("note", str)

    @sf.durable
    async def edits() -> str:
        seen = await note.read()
        await sf.wait_signal("go")
        try:
            await note.write("mine", seen)
        except sf.Stale as stale:
            seen = await note.read()
            await note.write(f"{seen.value}, mine", seen)
            return stale.reason
        return "written"

    run = await app.start(edits, id="e")
    await until(lambda: "decided" in kinds(app, "e"))
    await note.write("theirs", await note.read())
    app.worker.live[run.row].eviction.evict(app.worker.live[run.row].waits)
    await run.signal("go", None)
    assert "note has changed since it was read, from version 0 to 1" in await run.result(timeout_s=10)
    assert (await note.read()).value == "theirs, mine"
    fork = await run.fork(at="write note", id="f")
    assert await fork.result(timeout_s=10) == "written"
    assert (await note.read()).value == "theirs, mine"


async def test_a_worker_that_runs_out_during_the_last_look_sends_nothing(app: sf.Surefoot) -> None:
    """Catches an act of a worker that was stopped while it looked again, with others having taken its place."""
    shop, looks, acts = Shop(), list[int](), list[bool]()

    @sf.versioned("order/{order_id}", version="etag", name="get_order")
    async def get_order(order_id: str) -> Order:
        looks.append(len(looks))
        app.guard.duty.session.is_lost |= len(looks) == 2
        return shop.look()

    @sf.effect(name="refund", in_doubt=sf.Resend(key_ttl="1h"), unchanged="order/{order_id}")
    async def refund(order_id: str) -> str:
        acts.append(app.guard.duty.session.is_lost)
        return "refunded"

    @sf.durable
    async def support() -> str:
        await get_order("7")
        return await refund("7")

    assert await (await app.start(support, id="s")).result(timeout_s=30) == "refunded"
    assert acts == [False]


async def test_a_lost_lease_writes_no_document(app: sf.Surefoot) -> None:
    """Catches a write under a lease that another may have by now."""
    note = sf.document("note", str)

    async def work() -> None:
        async with sf.lease("note"):
            seen = await note.read()
            await take_away(app)
            await note.write("mine", seen)

    with pytest.raises(sf.LeaseLost):
        await work()
    assert (await note.read()).value is None


async def test_an_available_read_of_a_document_stands_in_for_the_store(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches drafts that wait for a store that is away, and a write that trusts what is only remembered."""
    note = sf.document("note", str)
    await note.write("one", await note.read())
    seen = await note.read()
    await note.write("two", seen)
    with monkeypatch.context() as patch:
        patch.setattr(app.store, "read", _is_away)
        with pytest.raises(sf.StoreError):
            await note.read()
        kept = await note.read(consistency="available")
        assert (kept.value, kept.is_remembered) == ("two", True)
        with pytest.raises(sf.StoreError):
            await sf.document("other").read(consistency="available")
    await note.write("three", await note.read())
    with pytest.raises(sf.Stale, match="it was 'two', is 'three'"):
        await note.write("four", kept)


async def _is_away(_query: object) -> None:
    raise sf.StoreError("the server is away")


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (lambda note, seen: note.write("x", None), "a write says what it was decided on"),
        (lambda note, seen: sf.document("other").write("x", seen), "a write says what it was decided on"),
        (lambda note, seen: note.write(None, seen), "None is no value"),
        (lambda note, seen: note.write(object(), seen), "object"),
        (lambda note, seen: note.read(consistency="eventual"), "consistency='eventual'"),
    ],
)
async def test_misuse_of_a_document_is_told(app: sf.Surefoot, misuse: Any, words: str) -> None:
    """Catches a write that was decided on nothing."""
    note = sf.document("note", str)
    with pytest.raises(sf.SurefootError, match=words):
        await misuse(note, await note.read())


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (sf.versioned("order/{x}"), "'x', which is no parameter"),
        (sf.versioned("a", consistency="some"), "consistency='some'"),  # type: ignore[arg-type]
        (sf.effect(unchanged="order/{x}"), "'x', which is no parameter"),
    ],
)
def test_a_declaration_that_means_nothing_is_refused(declare: Any, words: str) -> None:
    """Catches versions of nothing."""

    async def look(order_id: str) -> str:
        raise AssertionError

    with pytest.raises(sf.BadEffect, match=words):
        declare(look)
    with pytest.raises(sf.BadEffect, match="acts inside a commit, which can't wait for another look"):
        sf.effect(unchanged="order", in_doubt=sf.Transactional())(lambda: None)


async def test_a_value_without_its_version_is_an_error(app: sf.Surefoot) -> None:
    """Catches values that all have the version None, so that nothing is ever stale."""

    @sf.versioned("order", version="etag")
    async def look() -> dict[str, int]:
        return {"status": 1}

    with pytest.raises(sf.BadEffect, match="its version is None"):
        await look.seen()  # type: ignore[attr-defined]


async def test_what_is_sent_again_is_not_looked_at_again(app: sf.Surefoot) -> None:
    """Catches a resend that is given up because its own first send has changed what it relied on."""
    shop, sends = Shop(), list[int]()
    get_order, _ = tools(shop)

    @sf.effect(name="ship", key="ship:{order_id}", unchanged="order/{order_id}", in_doubt=sf.Resend())
    async def ship(order_id: str) -> str:
        sends.append(1)
        if len(sends) == 1:
            shop.change("shipped")
            raise TimeoutError
        return "shipped"

    @sf.durable
    async def support() -> str:
        await get_order("7")
        return str(await ship("7"))

    assert await (await app.start(support, id="s")).result(timeout_s=10) == "shipped"
    assert len(sends) == 2


async def test_an_effect_that_is_left_in_its_last_look_is_not_done(app: sf.Surefoot) -> None:
    """Catches a doubt, which a person would have to end, about what nobody has sent."""
    sent, looks = list[str](), list[str]()

    @sf.versioned("order/{order_id}", name="get slowly")
    async def get_order(order_id: str) -> str:
        looks.append(order_id)
        if len(looks) > 1:
            await asyncio.Event().wait()
        return "open"

    @sf.effect(name="refund slowly", key="refund:{order_id}", unchanged="order/{order_id}")
    async def refund(order_id: str) -> None:
        sent.append(order_id)

    @sf.durable
    async def leaves() -> None:
        await get_order("7")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await refund("7")

    await (await app.start(leaves, id="l")).result(timeout_s=10)
    assert (len(looks), sent, ledger_states(app), await app.unknowns()) == (2, [], ["not_done"], [])
