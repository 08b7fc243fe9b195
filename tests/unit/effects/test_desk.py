"""What people see of effects, and when their word is taken."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

import surefoot as sf
from surefoot.effects.rows import desk, ledger
from surefoot.effects.rows.desk import DoubtView
from surefoot.effects.rows.ledger import call_of
from surefoot.effects.states import State
from surefoot.people import trail
from surefoot.store import Tx


@sf.effect(name="desk act", key="desk:{x}")
async def act(x: int) -> int:
    if x >= 100:
        raise TimeoutError("no answer")
    return x


@sf.effect(name="desk probed", key="probed:{x}", in_doubt=sf.Resend(key_ttl="1ms"))
async def probed(x: int) -> int:
    await asyncio.sleep(0.002)
    raise TimeoutError("no answer")


@sf.durable(name="desk run")
async def acting(x: int) -> int:
    return await act(x)


def listed(app: sf.Surefoot, **filters: Any) -> list[tuple[str, str]]:
    """Return keys and states of what is listed."""
    return [(one.key, one.state) for one in app.store.read_now(partial(desk.list_effects, **filters))]


async def test_effects_are_listed_newest_first_by_run_and_by_state(app: sf.Surefoot) -> None:
    """Catches a filter that is forgotten beside another, and a list that ends with what is old."""
    for x in (1, 100, 2):
        await act.outcome(x)
    run = await app.start(acting, 3, id="r")
    assert await run.result(timeout_s=10) == 3
    done = [("desk:3", "done"), ("desk:2", "done"), ("desk:1", "done")]
    assert listed(app) == [done[0], done[1], ("desk:100", "unknown"), done[2]]
    assert listed(app, state=State.DONE) == done
    assert listed(app, run=run.row) == listed(app, run=run.row, state=State.DONE) == done[:1]
    assert listed(app, run=run.row, state=State.UNKNOWN) == listed(app, run=run.row + 1) == []
    assert listed(app, limit=2) == done[:2]


async def test_a_view_says_what_is_known_and_no_more(app: sf.Surefoot) -> None:
    """Catches an effect that is settled before it is, and a value that belongs to no outcome."""
    await act.outcome(1)
    await act.outcome(100)
    doubtful, known = app.store.read_now(desk.list_effects)
    assert (doubtful.value, doubtful.reason, doubtful.settled_at_ms) == (None, "", None)
    assert (known.value, known.reason, known.arguments, known.doubt) == (1, "", {"x": 1}, "ask a person")
    assert known.settled_at_ms is not None
    assert (known.generation, known.token, known.run, known.scope) == (1, 1, None, "app")


@pytest.mark.parametrize(("deadline_ms", "is_escalated", "overdue"), [
    (10, False, [False, True, True]), (10, True, [True] * 3), (None, False, [False] * 3), (None, True, [True] * 3),
])  # fmt: skip
def test_a_doubt_is_overdue_from_its_deadline_on(
    deadline_ms: int | None, is_escalated: bool, overdue: list[bool]
) -> None:
    """Catches a deadline that passes a moment late, and an escalation that is taken back by a clock."""
    view = DoubtView(1, deadline_ms, is_escalated)
    assert [view.is_overdue(now_ms) for now_ms in (9, 10, 11)] == overdue


async def test_since_when_an_effect_is_unknown(app: sf.Surefoot) -> None:
    """Catches a deadline that counts from a later look, or that lies on what no person need end."""

    def doubts(tx: Tx) -> list[DoubtView]:
        rows = [ledger.get(tx.connection, effect) for effect in (1, 2, 3)]
        return [desk.doubt_of(tx.connection, row, call_of(tx.connection, row)) for row in rows if row is not None]

    def later(tx: Tx) -> None:
        tx.execute("UPDATE evidence SET at_ms = 5000 WHERE effect = 1")
        tx.execute("INSERT INTO evidence (effect, at_ms, kind, who) VALUES (1, 9000, 'in doubt', 'w')")
        tx.execute("DELETE FROM evidence WHERE effect = 2")
        tx.execute("UPDATE journal SET at_ms = 7000 WHERE id = (SELECT claim FROM ledger WHERE id = 2)")

    for outcome in (act.outcome(100), probed.outcome(1), act.outcome(1)):
        await outcome
    await app.store.commit(later, label="test")
    person, machine, known = await app.store.commit(doubts, label="test")
    assert person == DoubtView(5_000, 5_000 + 86_400_000, is_escalated=False)
    assert machine == DoubtView(7_000, None, is_escalated=False)
    assert known == DoubtView(None, None, is_escalated=False)


async def test_as_many_open_effects_as_are_read_and_one_more(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a limit by which the last session that somebody needs is forgotten."""
    monkeypatch.setattr("surefoot.effects.rows.desk.OPEN_EFFECTS_MAX", 2)
    ours = app.guard.duty.session.id
    await act.outcome(1)
    assert app.store.read_now(desk.sessions_in_use) == set()
    for x in (100, 101):
        await act.outcome(x)
    assert app.store.read_now(desk.sessions_in_use) == {ours}
    await app.store.commit(
        lambda tx: tx.execute("UPDATE ledger SET holder = 70, sender = 71 WHERE id = 2"), label="test"
    )
    assert app.store.read_now(desk.sessions_in_use) == {ours, 70, 71}
    await act.outcome(102)
    assert app.store.read_now(desk.sessions_in_use) is None


@pytest.mark.parametrize(("is_done", "is_fence_passed", "said"), [
    (True, False, "done: saw it"),
    (True, True, "done, and vouches that the fence has passed: saw it"),
    (False, True, "not done, and vouches that the fence has passed: saw it"),
    (False, False, None),
])  # fmt: skip
async def test_whose_word_is_taken_while_the_sender_lives(
    app: sf.Surefoot, is_done: bool, is_fence_passed: bool, said: str | None
) -> None:
    """Catches "not done" while a request may be on its way, and a word of which nobody can say who gave it, and on what."""
    await act.outcome(100)
    answer = app.resolve(1, is_done=is_done, by="ann", reason="saw it", value=7, is_fence_passed=is_fence_passed)
    if said is None:
        with pytest.raises(desk.CannotResolve, match="which may have sent it, still lives"):
            await answer
        assert listed(app) == [("desk:100", "unknown")]
        assert app.store.read_now(trail.entries) == []
        return
    view = await answer
    assert (view.state, view.value, view.reason) == (
        ("done", 7, "ann: saw it") if is_done else ("not_done", None, "ann: saw it")
    )
    assert [(one.act, one.who, one.reason) for one in app.store.read_now(trail.entries)] == [("resolve", "ann", said)]
    told = app.store.read_now(partial(desk.evidence, effect=1))[-1]
    assert (told.kind, told.who, told.body) == (f"resolved as {view.state}", "ann", "saw it")
