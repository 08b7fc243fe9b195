"""Retention: values go, keys stay, and nothing that goes on loses anything."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from tests.support.postgres import tables_of

import surefoot as sf
from surefoot.cli.checks import INVARIANTS
from surefoot.effects.rows import desk
from surefoot.journal.tables import BLOB_ABOVE
from surefoot.runs.rows import retention
from surefoot.runs.rows.retention import Retention, Swept
from surefoot.store import is_on_postgres
from surefoot.store.finding import broken

ACTS: list[str] = []


@sf.effect(key="pay:{order}", free_text=("words",))
async def pay(order: str, words: str = "", amount: int = 1) -> dict[str, str]:
    ACTS.append(order)
    return {"receipt": f"secret of {order}"}


@sf.effect(key="doubt:{order}")
async def doubt(order: str) -> str:
    raise TimeoutError("no answer")


@sf.step
async def think(size: int) -> str:
    return "x" * size


@sf.durable
async def old_shop(order: str, size: int = 10) -> dict[str, str]:
    await think(size)
    return await pay(order, f"secret words for {order}")


@sf.durable
async def asks_then_pays(order: str) -> dict[str, str]:
    first = await pay(order)
    await sf.wait_signal("go")
    return first


@sf.durable
async def old_parent(order: str, child_waits: bool) -> Any:
    if child_waits:
        return await sf.child(asks_then_pays, order)
    done = await sf.child(old_shop, order)
    await sf.wait_signal("go")
    return done


@sf.durable
async def old_doubts(order: str) -> str:
    return await doubt(order)


@pytest.fixture(autouse=True)
def fresh() -> None:
    ACTS.clear()


async def sweep(app: sf.Surefoot, **options: Any) -> Swept:
    """Sweep all that has ended by now."""
    before_ms = app.store.clock.wall_ms() + 1_000
    return await Retention(app.store, before_ms, **options).sweep()


def is_sound(app: sf.Surefoot) -> None:
    assert app.store.read_now(lambda c: [f for f in broken(c, INVARIANTS) if f.severity.value == "error"]) == []


def text_of(app: sf.Surefoot) -> str:
    """Return all that is readable in the store's tables."""

    def query(connection: Any) -> str:
        tables = tables_of(connection)
        return "".join(str(connection.execute(f"SELECT * FROM {name}").fetchall()) for name in tables)

    return app.store.read_now(query)


async def test_values_go_and_keys_stay(url: str) -> None:
    """Catches a value that outlives retention, a key that becomes free by it, and a file that doesn't shrink."""
    async with sf.Surefoot(url) as app:
        for n in range(5):
            await (await app.start(old_shop, f"A-{n}", 200_000, id=f"r{n}")).result()
        assert "secret" in text_of(app)
        dry = await sweep(app, is_dry=True)
        assert "secret" in text_of(app)
        swept = await sweep(app)
        assert (
            (swept.runs, swept.effects, swept.records)
            == (dry.runs, dry.effects, swept.records)
            == (5, 5, swept.records)
        )
        assert swept.records > 0
        if not is_on_postgres(url):  # there the server's vacuum makes room, when it likes
            assert swept.bytes_after < swept.bytes_before / 2
        assert "secret" not in text_of(app)
        is_sound(app)
        again = await sweep(app)
        assert replace(again, bytes_before=0, bytes_after=0) == Swept()
        views = app.store.read_now(desk.list_effects)
        assert [(view.key, view.state) for view in views] == [(f"pay:A-{n}", "done") for n in reversed(range(5))]


async def test_a_key_that_was_done_stays_done(url: str) -> None:
    """Catches an effect that acts again because its outcome was deleted, or a caller who gets None for a value."""
    async with sf.Surefoot(url) as app:
        run = await app.start(old_shop, "A-1", id="r1")
        await run.result()
        await sweep(app)
        outcome = await pay.outcome("A-1", "secret words for A-1")
        assert (outcome.told, outcome.value, outcome.is_forgotten) == ("repeated", None, True)
        assert "deleted by retention" in outcome.reason
        (view,) = app.store.read_now(desk.list_effects)
        done_at = datetime.fromtimestamp((view.settled_at_ms or 0) / 1_000, UTC).isoformat(timespec="seconds")
        assert f"it was done on {done_at}, and" in outcome.reason
        assert len(outcome.detail["digest"]) == 32
        with pytest.raises(sf.Forgotten, match="already been done"):
            await pay("A-1", "secret words for A-1")
        conflict = await pay.outcome("A-1", amount=2)
        assert conflict.told == "conflict"
        assert "deleted" in conflict.reason
        assert ACTS == ["A-1"]


async def test_an_ended_run_keeps_its_id_and_says_what_is_gone(url: str) -> None:
    """Catches an id that is free again, so that a late delivery of the same message does the work anew."""
    async with sf.Surefoot(url) as app:
        await (await app.start(old_shop, "A-1", id="r1")).result()
        await sweep(app)
        again = await app.start(old_shop, "A-1", id="r1")
        assert (await again.status()).state == "completed"
        with pytest.raises(sf.Forgotten, match="completed"):
            await again.result()
        with pytest.raises(sf.RunConflict, match="deleted by retention"):
            await app.start(old_shop, "A-2", id="r1")
        undo = await again.undo("because")
        with pytest.raises(sf.RunFailed, match="can't be undone"):
            await undo.result()
        assert ACTS == ["A-1"]


@pytest.mark.usefixtures("quick_eviction")
async def test_what_goes_on_loses_nothing(url: str) -> None:
    """Catches retention under an open run: its own records, its parent's, its child's, an outcome it has been given."""
    async with sf.Surefoot(url) as app:
        await (await app.start(old_shop, "shared", id="first")).result()
        repeats = await app.start(asks_then_pays, "shared", id="repeats")
        waits = await app.start(old_parent, "child done", False, id="parent of a child that is done")
        deep = await app.start(old_parent, "child waits", True, id="parent that waits")
        unknown = await app.start(old_doubts, "A-1", id="unknown")
        for run, wanted in ((repeats, "signal"), (waits, "signal"), (deep, "child"), (unknown, "doubt")):
            while (await run.status()).waiting_for != wanted:
                await asyncio.sleep(0.01)
        await sweep(app)
        is_sound(app)
        secret = {"receipt": "secret of shared"}
        await repeats.signal("go")
        await waits.signal("go")
        assert await repeats.result(timeout_s=20) == secret
        assert await waits.result(timeout_s=20) == {"receipt": "secret of child done"}
        child = next(run for run in await app.runs(state="waiting") if run.kind == "asks_then_pays")
        await (await app.run(child.run_id)).signal("go")
        assert await deep.result(timeout_s=20) == {"receipt": "secret of child waits"}
        (view,) = await app.unknowns()
        await app.resolve(view.id, is_done=True, by="me", reason="looked", value="fine")
        assert await unknown.result(timeout_s=20) == "fine"


@pytest.mark.usefixtures("quick_eviction")
async def test_what_descends_from_a_run_is_as_old_as_that(url: str) -> None:
    """Catches a saga, and an undo, that can't be ended because a child's child had ended long before its run."""

    async def take_back(order: str) -> None:
        ACTS.append(f"{order} is back")

    @sf.effect(key="deep:{order}", compensate=take_back, name="old deep buy")
    async def buy(order: str) -> None:
        ACTS.append(order)

    @sf.durable(name="old grandchild")
    async def grandchild(order: str) -> None:
        await buy(order)

    @sf.durable(name="old child")
    async def child(order: str) -> None:
        await sf.child(grandchild, order)

    @sf.durable(name="old grandparent")
    async def grandparent(order: str) -> None:
        async with sf.saga():
            await sf.child(child, order)
            if await sf.wait_signal("fail"):
                raise ValueError("it is all wrong")

    async with sf.Surefoot(url) as app:
        runs = [await app.start(grandparent, order, id=order) for order in ("A-1", "A-2")]
        for run in runs:
            while (await run.status()).waiting_for != "signal":
                await asyncio.sleep(0.01)
        assert (await sweep(app)).runs == 0
        children_ended_ms = app.store.clock.wall_ms()
        await runs[0].signal("fail", True)
        with pytest.raises(sf.RunFailed, match="all wrong"):
            await runs[0].result(timeout_s=20)
        await runs[1].signal("fail", False)
        await runs[1].result(timeout_s=20)
        await Retention(app.store, children_ended_ms + 1).sweep()
        await (await runs[1].undo("wrong after all")).result(timeout_s=20)
        assert sorted(ACTS) == ["A-1", "A-1 is back", "A-2", "A-2 is back"]


@pytest.mark.usefixtures("quick_eviction")
async def test_what_is_being_undone_is_kept_whole(url: str) -> None:
    """Catches a compensation that is called without what it needs, for the run or for one of its children."""

    async def take_back(order: str, outcome: str) -> None:
        if order == "child":
            raise TimeoutError("no answer")
        ACTS.append(f"{outcome} of {order} is back")

    @sf.effect(key="buy:{order}", compensate=take_back, name="old buy")
    async def buy(order: str) -> str:
        return "the secret item"

    @sf.durable(name="old buyer")
    async def buyer(order: str) -> str:
        return str(await buy(order))

    @sf.durable(name="old buyers")
    async def buyers() -> str:
        await buy("parent")
        return str(await sf.child(buyer, "child", id="its child"))

    async with sf.Surefoot(url) as app:
        bought = await app.start(buyers, id="bought")
        await bought.result()
        await (await app.start(buyer, "other", id="other")).result()
        undo = await bought.undo("wrong")
        while not await app.unknowns():
            await asyncio.sleep(0.01)
        while (await undo.status()).waiting_for != "child":
            await asyncio.sleep(0.01)
        swept = await sweep(app)
        assert (swept.runs, swept.effects) == (1, 1)
        (view,) = await app.unknowns()
        await app.resolve(view.id, is_done=True, by="me", reason="looked")
        assert await undo.result(timeout_s=20) == ["run its child", "buy:parent"]
        assert ACTS == ["the secret item of parent is back"]
        assert (await sweep(app)).runs == 4
        is_sound(app)


class UndoneBeside(Retention):
    """Retention beside which the undo of a run begins, right before one of its transactions."""

    def __init__(self, app: sf.Surefoot, run: sf.Run, left: int) -> None:
        super().__init__(app.store, app.store.clock.wall_ms() + 1_000)
        self.app, self.run, self.left = app, run, left
        self.undo: asyncio.Task[Any] | None = None

    async def _do(self, unit: Any) -> Swept:
        if self.left == 0:
            self.undo = asyncio.create_task((await self.run.undo("wrong")).result(timeout_s=20))
            while not self.undo.done() and not self.app.guard.acting:
                await asyncio.sleep(0.001)
        self.left -= 1
        return await super()._do(unit)


@pytest.mark.parametrize("moment", range(5))
async def test_an_undo_that_begins_beside_retention_is_whole_or_refused(
    url: str, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Catches an undo that has undone one part when it finds that the other went after it had begun, or before."""
    may_undo = asyncio.Event()

    async def take_back(order: str) -> None:
        await may_undo.wait()
        ACTS.append(f"{order} is back")

    @sf.effect(key="beside:{order}", compensate=take_back, name="old beside")
    async def buy(order: str) -> None: ...

    @sf.durable(name="old beside buyer")
    async def buyer(order: str) -> None:
        await buy(order)

    @sf.durable(name="old beside buyers")
    async def buyers() -> None:
        await sf.child(buyer, "child")
        await buy("parent")

    monkeypatch.setattr(retention, "EFFECTS_AT_ONCE", 1)
    monkeypatch.setattr(retention, "RECORDS_AT_ONCE", 1)
    async with sf.Surefoot(url) as app:
        run = await app.start(buyers, id="bought")
        await run.result(timeout_s=20)
        beside = UndoneBeside(app, run, moment)
        await beside.sweep()
        may_undo.set()
        assert beside.undo is not None, "retention has no such transaction"
        await asyncio.wait([beside.undo])
        outcome = beside.undo.exception() or beside.undo.result()
        if moment == 0:
            assert outcome == ["beside:parent", "run bought/old beside buyer"]
            assert ACTS == ["parent is back", "child is back"]
        else:
            assert "can't be undone any more" in str(outcome)
            assert ACTS == []
        is_sound(app)


@pytest.mark.parametrize("what", ["its effects", "its records"])
async def test_a_run_that_retention_has_begun_with_is_not_undone_or_forked_in_part(url: str, what: str) -> None:
    """Catches an undo that completes, and has undone nothing, because what it is made of went before the run's end did."""

    @sf.effect(key="half:{order}", compensate=sf.nothing_to_undo, name="old half")
    async def half(order: str) -> str:
        return order

    @sf.durable(name="old halves")
    async def halves(is_acting: bool) -> None:
        await think(1)
        if is_acting:
            await half("A-1")

    async with sf.Surefoot(url) as app:
        run = await app.start(halves, what == "its effects", id="r1")
        await run.result()
        await (await run.undo("just in time", id="before")).result(timeout_s=5)
        begun = Retention(app.store, app.store.clock.wall_ms() + 1_000)
        if what == "its effects":
            await begun._sweep_effects()
        else:
            await begun._do(partial(begun._delete_some, run.row))
        with pytest.raises(sf.RunFailed, match="can't be undone any more"):
            await (await run.undo("because")).result(timeout_s=5)
        with pytest.raises(sf.SurefootError, match="can't be forked any more"):
            await run.fork("think", id="fork")
        await sweep(app)
        is_sound(app)


async def test_a_run_stays_for_as_long_as_a_child_that_it_left_goes_on(url: str) -> None:
    """Catches a child whose parent is gone, of which nobody can say any more why it was started."""

    @sf.durable(name="old leaver")
    async def leaves() -> None:
        try:
            async with asyncio.timeout(0.05):
                await sf.child(asks_then_pays, "A-1", id="goes on", when_left="go_on")
        except TimeoutError:
            pass

    async with sf.Surefoot(url) as app:
        await (await app.start(leaves, id="left")).result()
        assert (await sweep(app)).runs == 0
        child = await app.run("goes on")
        await child.signal("go")
        await child.result(timeout_s=20)
        told: list[Swept] = []
        swept = await sweep(app, tell=told.append)
        assert (swept.runs, swept.effects) == (2, 1)
        assert (told[-1].runs, told[-1].effects, told[-1].records) == (2, 1, swept.records)


async def test_what_a_person_has_decided_stays(url: str) -> None:
    """Catches an audit trail that ends where retention begins."""
    async with sf.Surefoot(url) as app:
        run = await app.start(old_doubts, "A-1", id="r1")
        while not await app.unknowns():
            await asyncio.sleep(0.01)
        (view,) = await app.unknowns()
        await app.resolve(view.id, is_done=True, by="Ada", reason="saw it in the books", value="fine")
        await run.result()
        await sweep(app)
        kept = app.store.read_now(lambda c: desk.evidence(c, view.id))
        assert [(one.kind, one.who, one.body) for one in kept] == [("resolved as done", "Ada", "saw it in the books")]


async def test_contradictions_are_kept_whole(url: str) -> None:
    """Catches a contradiction whose two sides can't be compared any more."""
    async with sf.Surefoot(url) as app:
        await (await app.start(old_shop, "A-1", id="r1")).result()
        await app.store.commit(
            lambda tx: (
                tx.execute("INSERT INTO evidence (effect, at_ms, kind, who, is_open) VALUES (1, 0, 'late', 'w', 1)")
                and None
            ),
            label="test",
        )
        assert (await sweep(app)).effects == 0
        assert "secret" in text_of(app)


async def test_a_claim_that_has_lost_its_call_hinders_no_other(url: str) -> None:
    """Catches one damaged record by which nothing is ever forgotten any more, and one that is shown as something else."""
    async with sf.Surefoot(url) as app:
        for order in ("A-1", "A-2"):
            await (await app.start(old_shop, order, id=order)).result()
        await app.store.commit(
            lambda tx: tx.execute("UPDATE journal SET body = NULL WHERE id = (SELECT min(claim) FROM ledger)"),
            label="test",
        )
        with pytest.raises(sf.SurefootError, match="effect 1: its claim has no body\n  hint: surefoot effects --id 1"):
            app.store.read_now(desk.list_effects)
        assert (await sweep(app)).effects == 2
        assert "secret" not in text_of(app)


async def test_outcomes_of_one_run_in_the_journal_of_another(url: str) -> None:
    """Catches an outcome that goes with the run which found it out, though the run it belongs to stays."""
    async with sf.Surefoot(url) as app:
        await (await app.start(old_shop, "A-1", id="old")).result()
        run = await app.start(asks_then_pays, "A-2", id="open")
        while len(ACTS) < 2:
            await asyncio.sleep(0.01)
        # as if "old" had resolved a doubt of "open": the outcome's record is one of old's
        await app.store.commit(
            lambda tx: (
                tx.execute("UPDATE journal SET run = 1, seq = 90 WHERE id = (SELECT max(record) FROM ledger)") and None
            ),
            label="test",
        )
        await sweep(app)
        outcome = await pay.outcome("A-2")
        assert outcome.value == {"receipt": "secret of A-2"}
        await run.cancel("enough")
        is_sound(app)


@sf.durable(name="old large")
async def large() -> str:
    return "x" * (BLOB_ABOVE + 1)


@sf.durable(name="old reader")
async def reader() -> int:
    found = await sf.child(large, id="large")
    await sf.wait_signal("go")
    return len(found)


@pytest.mark.usefixtures("quick_eviction")
@pytest.mark.parametrize("which", ["another's", "its source's", "meanwhile"])
async def test_the_large_result_of_a_run_that_is_no_child_of_its_reader(url: str, which: str) -> None:
    """Catches a large result that goes under the open run whose journal points to it, which would read it as None: of a run
    that another had started, of a child of the run that it was forked from, or pointed to since retention has begun."""

    async with sf.Surefoot(url) as app:
        begun = Retention(app.store, app.store.clock.wall_ms() + 60_000)
        if which == "its source's":
            source = await app.start(reader, id="source")
            await source.signal("go")
            await source.result()
            run = await source.fork("signal go", id="reader", act=True)
        else:
            old = await app.start(large, id="large")
            await old.result()
            await app.store.read(begun._look)
            assert await app.store.read(lambda connection: begun._run_may_go(connection, old.row))
            run = await app.start(reader, id="reader")
        while (await run.status()).waiting_for != "signal":
            await asyncio.sleep(0.01)
        await (begun._sweep_runs() if which == "meanwhile" else sweep(app))
        is_sound(app)
        await run.signal("go")
        assert await run.result(timeout_s=20) == BLOB_ABOVE + 1


@pytest.mark.usefixtures("quick_eviction")
async def test_a_large_result_that_is_gone_all_the_same_blocks_its_reader(url: str) -> None:
    """Catches code that goes on with None in place of what an earlier Surefoot's retention has deleted."""

    async with sf.Surefoot(url) as app:
        old, run = await app.start(large, id="large"), await app.start(reader, id="reader")
        while (await run.status()).waiting_for != "signal":
            await asyncio.sleep(0.01)
        await app.store.commit(partial(retention._end_without_value, old.row), label="test")
        await run.signal("go")
        while (await run.status()).waiting_for != "blocked":
            await asyncio.sleep(0.01)
        assert "what large came to was deleted by retention" in (await run.status()).reason


async def test_workers_are_not_hurt(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a sweep that holds the writer: runs beside it end while it goes on, in small transactions."""
    monkeypatch.setattr(retention, "EFFECTS_AT_ONCE", 3)
    monkeypatch.setattr(retention, "RECORDS_AT_ONCE", 2)
    async with sf.Surefoot(url) as app:
        for n in range(10):
            await (await app.start(old_shop, f"old {n}", id=f"old {n}")).result()
        before_ms = app.store.clock.wall_ms() + 1
        sweeping = asyncio.create_task(Retention(app.store, before_ms).sweep())
        new = [await app.start(old_shop, f"new {n}", id=f"new {n}") for n in range(20)]
        results = [await run.result() for run in new]
        assert [one["receipt"] for one in results] == [f"secret of new {n}" for n in range(20)]
        assert (await sweeping).runs == 10
        is_sound(app)


KILLED = """
import asyncio, os, sys
import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.runs.rows import retention
from surefoot.runs.rows.retention import Retention
from surefoot.store import Store, open_store
retention.EFFECTS_AT_ONCE, retention.RECORDS_AT_ONCE = 2, 2
store, left = open_store(sys.argv[1], MIGRATIONS), int(sys.argv[2])
commit = store.commit
async def counted(*args, **options):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    return await commit(*args, **options)
store.commit = counted
asyncio.run(Retention(store, 2**60).sweep())
store.close()
"""


async def test_killed_anywhere_it_goes_on(url: str) -> None:
    """Catches a store between two states of retention that the next sweep, or a reader, can't work with."""
    async with sf.Surefoot(url) as app:
        for n in range(3):
            await (await app.start(old_shop, f"A-{n}", id=f"r{n}")).result()
    kills = 0
    for at in range(0, 100, 3):
        ended = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", KILLED, url, str(at)], check=False, timeout=60
        )
        assert ended.returncode in (0, -signal.SIGKILL)
        async with sf.Surefoot(url, is_worker=False) as app:
            is_sound(app)
            outcome = await pay.outcome("A-2", "secret words for A-2")
            assert outcome.told == "repeated"
        if ended.returncode == 0:
            break
        kills += 1
    assert kills > 0
    async with sf.Surefoot(url, is_worker=False) as app:
        assert "secret" not in text_of(app)
        assert (await sweep(app)).runs == 0


async def test_an_app_keeps_values_for_as_long_as_it_says(url: str) -> None:
    """Catches a policy that is declared and never carried out."""
    async with sf.Surefoot(url) as app:
        await (await app.start(old_shop, "A-1", id="r1")).result()
    async with sf.Surefoot(url, keep_for="1ms") as app:
        async with asyncio.timeout(20):
            while "secret" in text_of(app):
                await asyncio.sleep(0.02)
    with pytest.raises(sf.SurefootError, match="duration"):
        sf.Surefoot(url, keep_for="soon")


@sf.effect(key="ask:{order}", approve=sf.Approve())
async def asked(order: str, words: str) -> str:
    return f"secret of {order}"


@sf.durable
async def old_asking(order: str) -> str:
    return await asked(order, "secret words")


async def test_what_people_were_asked_goes_too(url: str) -> None:
    """Catches arguments that stay in an old question, and a question whose record is gone under it."""
    async with sf.Surefoot(url) as app:
        run = await app.start(old_asking, "A-1", id="r1")
        async with asyncio.timeout(20):
            while not await app.approvals():
                await asyncio.sleep(0.01)
        (question,) = await app.approvals()
        await sweep(app)  # open: nothing goes
        await app.approve(question.id, by="Ada", reason="she may")
        assert await run.result(timeout_s=20) == "secret of A-1"
        assert (await sweep(app)).runs == 1
        assert "secret" not in text_of(app)
        is_sound(app)
        rows = app.store.read_now(
            lambda c: c.execute("SELECT j.id FROM approvals a JOIN journal j ON j.id = a.record").fetchall()
        )
        assert len(rows) == 1
        assert "she may" in text_of(app)


async def test_a_forgotten_run_is_not_forked(url: str) -> None:
    """Catches a fork that begins with nothing because the source's steps are gone."""
    async with sf.Surefoot(url) as app:
        await (await app.start(old_shop, "A-1", id="r1")).result()
        await sweep(app)
        with pytest.raises(sf.SurefootError, match="deleted its steps"):
            await (await app.run("r1")).fork(1, id="fork")
