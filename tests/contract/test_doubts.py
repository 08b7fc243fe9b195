"""Doubts, looked into: beside others who are at the same one, by code that answers wrongly, and by a sweep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.contract.conftest import Calls, kinds, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.effects import SPEC, registry
from surefoot.effects.live.case import Acting, Case
from surefoot.effects.live.guard import Guard
from surefoot.effects.live.perform import perform
from surefoot.effects.live.sweep import sweep
from surefoot.effects.rows import desk, ledger
from surefoot.effects.states import State
from surefoot.journal import Kind, Record, insert_record
from surefoot.leases import Holder, LeaseLost
from surefoot.store import StoreFailed, SystemClock, Tx


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass between two tries."""
    monkeypatch.setattr("surefoot.effects.doubt.backoff_ms", lambda _tries: 0)
    monkeypatch.setattr("surefoot.effects.live.resolve.backoff_ms", lambda _tries: 0)


def evidence(app: sf.Surefoot, effect: int = 1) -> list[tuple[str, Any]]:
    """Return what was learned of an effect."""
    return [(one.kind, one.body) for one in app.store.read_now(partial(desk.evidence, effect=effect))]


def _write(sql: str, parameters: tuple[int, ...], tx: Tx) -> None:
    tx.execute(sql, parameters)


# -- beside others -----------------------------------------------------------------------------------------------------


class Overtaken:
    """An effect whose claim is taken over by another session in the middle of its act, which then gives no answer."""

    def __init__(self, app: sf.Surefoot, other: sf.Surefoot) -> None:
        self.app, self.other = app, other
        self.acts = self.asks = 0
        self.looks: list[int] = []
        self.at_look: Callable[[], object] = lambda: None
        self._holder = app.guard.sessions.holder
        self.mail = sf.effect(name="mail", in_doubt=sf.Probe(self._ask, longest_life="1ms"))(self._mail)

    async def _mail(self) -> str:
        self.acts += 1
        await self.app.store.commit(self._be_taken_over, label="test")
        raise TimeoutError("no answer")

    def _be_taken_over(self, tx: Tx) -> None:
        row = ledger.get(tx.connection, 1)
        assert row is not None
        assert ledger.take_over(tx, row, self.other.guard.duty.session.id, None) is not None

    async def _ask(self) -> sf.Landed:
        self.asks += 1
        return sf.Landed("found")

    def look(self, connection: Any, session: int) -> Holder:
        """Judge a session, and count."""
        self.looks.append(session)
        judged = self._holder(connection, session)
        self.at_look()
        return judged

    def settle(self, tx: Tx) -> None:
        """Settle it, as the other session."""
        row = ledger.get(tx.connection, 1)
        assert row is not None
        record = insert_record(tx, Record(None, 0, Kind.DONE, "", body=msgspec.json.encode("theirs")))
        ledger.settle(tx, row.id, row.token, State.DONE, record)

    async def call(self) -> sf.Outcome:
        spec = getattr(self.mail, SPEC)
        return await perform(self.app.guard, spec, spec.bind((), {}), None)


@pytest.fixture
async def other(app: sf.Surefoot, url: str) -> Any:
    """Another app on the same store, with a session of its own, which lives."""
    async with sf.Surefoot(url, is_worker=False, name="other") as opened:
        yield opened


@pytest.fixture
def overtaken(app: sf.Surefoot, other: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> Overtaken:
    made = Overtaken(app, other)
    monkeypatch.setattr(app.guard.sessions, "holder", made.look)
    return made


@pytest.mark.usefixtures("quick_eviction")
@pytest.mark.parametrize("is_in_run", [False, True], ids=["alone", "in a run"])
async def test_who_was_overtaken_waits_for_what_the_other_finds_out(
    app: sf.Surefoot, overtaken: Overtaken, is_in_run: bool
) -> None:
    """Catches a question, or a send, beside another worker that is at the same doubt and lives, and a replay that can't
    follow what came after it."""

    @sf.step
    async def goes_on() -> None: ...

    @sf.durable
    async def mails() -> list[Any]:
        outcome = await overtaken.mail.outcome()
        await goes_on()
        await sf.wait_signal("go")
        return [outcome.told, outcome.value]

    run = await app.start(mails, id="m") if is_in_run else None
    calling = None if is_in_run else asyncio.ensure_future(overtaken.call())
    await until(lambda: len(overtaken.looks) >= 3)
    assert set(overtaken.looks) == {overtaken.other.guard.duty.session.id}
    await app.store.commit(overtaken.settle, label="test")
    if run is not None:
        await wait_state(run, "waiting", "signal")
        await until(lambda: not app.worker.is_live(run.row))
        await run.signal("go")
        assert await run.result(timeout_s=10) == ["done", "theirs"]
        assert kinds(app, "m") == ["started", "claimed", "done", "decided", "signal", "ended"]
    if calling is not None:
        outcome = await calling
        assert (outcome.told, outcome.value) == ("done", "theirs")
    assert (overtaken.acts, overtaken.asks) == (1, 0)


async def test_an_outcome_that_comes_as_the_patience_ends_is_told(
    app: sf.Surefoot, overtaken: Overtaken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a doubt that is told, and noted, of what is known."""
    monkeypatch.setattr("surefoot.effects.live.resolve.WAIT_S", 0.0)
    overtaken.at_look = lambda: app.store.writer.commit_blocking(overtaken.settle, label="test")
    outcome = await overtaken.call()
    assert (outcome.told, outcome.value) == ("done", "theirs")
    assert (overtaken.acts, overtaken.asks, len(overtaken.looks)) == (1, 0, 1)


async def test_who_was_overtaken_by_one_that_died_goes_on(overtaken: Overtaken) -> None:
    """Catches a doubt that waits for a worker which is gone."""
    calling = asyncio.ensure_future(overtaken.call())
    await until(lambda: len(overtaken.looks) >= 2)
    assert overtaken.asks == 0
    await overtaken.other.close()
    outcome = await calling
    assert (outcome.told, outcome.value) == ("done", "found")
    assert (overtaken.acts, overtaken.asks) == (1, 1)


async def test_who_was_overtaken_has_no_endless_patience(
    app: sf.Surefoot, overtaken: Overtaken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a caller that hangs because another worker hangs, a doubt that is taken from whoever lives, and one that is
    noted of a claim which is another's by now."""
    monkeypatch.setattr("surefoot.effects.live.resolve.WAIT_S", 0.0)
    outcome = await overtaken.call()
    assert (outcome.told, outcome.effect) == ("unknown", 1)
    assert outcome.reason == "TimeoutError: no answer; other has been at it for 0 s"
    row = app.store.read_now(partial(ledger.get, effect=1))
    assert row is not None
    assert (row.state, row.holder, row.token) == (State.CLAIMED, overtaken.other.guard.duty.session.id, 2)
    assert (overtaken.acts, overtaken.asks, len(overtaken.looks)) == (1, 0, 1)
    assert evidence(app) == []


async def test_a_caller_that_waits_for_another_has_no_endless_patience(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches callers that hang with the one that acts, and a second act when their patience is at its end."""
    monkeypatch.setattr("surefoot.effects.live.perform.WAIT_S", 0.02)
    has_begun, may_end, acts = asyncio.Event(), asyncio.Event(), Calls()

    @sf.effect(key="slow:{x}")
    async def slow(x: int) -> str:
        acts.append(x)
        has_begun.set()
        await may_end.wait()
        return "done at last"

    @sf.durable
    async def waits() -> str:
        return await slow(1)

    first = asyncio.ensure_future(slow.outcome(1))
    await has_begun.wait()
    outcome = await slow.outcome(1)
    assert (outcome.told, outcome.reason, outcome.effect) == ("unknown", "another caller still acts after 0 s", 1)
    run = await app.start(waits, id="w")
    status = await wait_state(run, "waiting", "doubt")
    assert status.reason == "doubt: effect slow:1: another caller still acts after 0 s"
    may_end.set()
    assert (await first).told == "done"
    assert await run.result(timeout_s=10) == "done at last"
    assert acts == [1]
    assert evidence(app) == []  # nobody was in doubt but those who waited


@pytest.mark.parametrize("is_alive", [True, False])
async def test_a_claim_of_another_process_is_waited_for_while_that_lives(
    app: sf.Surefoot, other: sf.Surefoot, monkeypatch: pytest.MonkeyPatch, is_alive: bool
) -> None:
    """Catches a question about an act that goes on elsewhere, and a wait for a process that is gone."""
    has_begun, may_end, acts, looks = asyncio.Event(), asyncio.Event(), Calls(), Calls()

    @sf.effect(key="far:{x}", in_doubt=sf.Probe(lambda x: sf.Landed("found"), longest_life="1ms"))
    async def act(x: int) -> str:
        acts.append(x)
        has_begun.set()
        await may_end.wait()
        return "done there"

    def look(connection: Any, session: int) -> Holder:
        looks.append(session)
        return holder(connection, session)

    spec = getattr(act, SPEC)
    there = asyncio.create_task(perform(other.guard, spec, spec.bind((1,), {}), None))
    await has_begun.wait()
    holder = app.guard.sessions.holder
    monkeypatch.setattr(app.guard.sessions, "holder", look)
    if not is_alive:
        monkeypatch.setattr("surefoot.effects.live.perform.WAIT_S", 0.0)
        gone = ("UPDATE ledger SET holder = ?, sender = ?", (other.guard.duty.session.id + 1_000,) * 2)
        await app.store.commit(lambda tx: tx.execute(*gone), label="test")
    here = asyncio.create_task(perform(app.guard, spec, spec.bind((1,), {}), None))
    if is_alive:
        await until(lambda: len(looks) >= 3)
        assert set(looks) == {other.guard.duty.session.id}
        may_end.set()
    outcome = await here
    assert (outcome.told, outcome.value) == (("repeated", "done there") if is_alive else ("done", "found"))
    assert acts == [1]
    may_end.set()
    await there
    assert [kind for kind, _ in evidence(app)] == ([] if is_alive else ["in doubt", "probe", "late answer"])


async def test_what_is_asked_about_and_sent_again_is_what_was_claimed(url: str) -> None:
    """Catches a question, or a second request under one key, in the words of another caller, and a fence that counts from
    the claim of a process that may have sent until it was seen to be gone."""
    sent, asked = Calls(), Calls()

    async def ask(x: int, words: str) -> sf.NotLanded:
        asked.append(words)
        return sf.NotLanded()

    @sf.effect(key="told:{x}", free_text=("words",), in_doubt=sf.Probe(ask, longest_life="1ms"))
    async def tell(x: int, words: str) -> str:
        sent.append(words)
        if len(sent) == 1:
            await asyncio.Event().wait()
        return words

    async with sf.Surefoot(url, is_worker=False) as left:
        session = left.guard.duty.session.id
    async with sf.Surefoot(url, is_worker=False) as app:
        first = asyncio.create_task(tell.outcome(1, "first words"))
        await until(lambda: bool(sent))
        await app.store.commit(
            partial(_write, "UPDATE ledger SET holder = ?, sender = ?", (session,) * 2), label="test"
        )
        app.guard.acting.clear()  # as if that had it, which is closed
        outcome = await tell.outcome(1, "other words")
        assert (outcome.told, outcome.value) == ("done", "first words")
        assert (sent, asked) == (["first words"] * 2, ["first words"])
        assert [kind for kind, _ in evidence(app)] == ["in doubt", "probe", "probe: not landed", "resend"]
        first.cancel()
        await asyncio.wait([first])


@pytest.mark.parametrize("is_noted", [False, True], ids=["before its doubt is noted", "in its fence"])
async def test_a_run_that_another_has_taken_ends_no_doubt_here(app: sf.Surefoot, is_noted: bool) -> None:
    """Catches a worker that asks, or sends again, for a run which is another's by now."""
    asks: list[str] = []

    def taken(tx: Tx) -> None:
        tx.execute("UPDATE runs SET epoch = epoch + 1, holder = ?", (app.guard.duty.session.id + 1_000,))

    async def ask() -> sf.Landed:
        asks.append(sf.current_effect().key)
        return sf.Landed("found")

    @sf.effect(in_doubt=sf.Probe(ask, longest_life=0.3))
    async def mail() -> str:
        if not is_noted:
            await app.store.commit(taken, label="test")
        raise TimeoutError

    @sf.durable
    async def mails() -> str:
        return await mail()

    run = await app.start(mails, id="m")
    if is_noted:
        await until(lambda: "unknown" in dict(evidence(app)))
        await app.store.commit(taken, label="test")
    first = next(iter(app.worker.live.values()))
    assert await run.result(timeout_s=10) == "found"  # by a takeover: the holder we named is dead
    assert asks == ["mail"]
    assert first not in app.worker.live.values()


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["and gets an answer", "and leaves"])
async def test_one_caller_looks_into_a_doubt_and_the_others_wait(app: sf.Surefoot, is_cancelled: bool) -> None:
    """Catches a question for each caller, and a doubt that nobody looks into because the one who did has left."""
    acts, asks, is_asked, may_answer = Calls(), Calls(), asyncio.Event(), asyncio.Event()

    async def ask(x: int) -> sf.Landed:
        asks.append(sf.current_effect().attempt)
        is_asked.set()
        await may_answer.wait()
        return sf.Landed("found")

    @sf.effect(key="mail:{x}", in_doubt=sf.Probe(ask, longest_life="1ms"))
    async def mail(x: int) -> str:
        acts.append(x)
        raise TimeoutError

    first = asyncio.create_task(mail.outcome(1))
    await is_asked.wait()
    others = [asyncio.create_task(mail.outcome(1)) for _ in range(3)]
    await until(lambda: len(app.guard.resolving[1]._waits) == 3)
    if is_cancelled:
        first.cancel()
        await asyncio.wait([first])
        await until(lambda: len(asks) == 2)
    assert asks == ([2, 3] if is_cancelled else [2])
    may_answer.set()
    outcomes = [await one for one in others]
    assert [(one.told, one.value) for one in outcomes] == [("done", "found")] * 3
    assert acts == [1]
    assert asks == ([2, 3] if is_cancelled else [2])
    assert (app.guard.resolving, app.guard.acting) == ({}, {})
    if is_cancelled:
        assert ("left to others", "whoever looked into it has left") in evidence(app)
    else:
        assert (await first).value == "found"


@pytest.mark.parametrize("is_long", [True, False])
async def test_a_long_fence_holds_no_worker(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch, is_long: bool) -> None:
    """Catches runs that fill the memory of their worker for hours because a straggler may be on its way."""
    acts, asks = Calls(), Calls()
    monkeypatch.setattr("surefoot.effects.live.resolve.SLEEP_MAX_MS", 10 if is_long else 1_000)

    async def ask() -> sf.Landed:
        asks.append(1)
        return sf.Landed("found")

    @sf.effect(key="fenced", in_doubt=sf.Probe(ask, longest_life=0.3))
    async def mail() -> str:
        acts.append(1)
        raise TimeoutError

    @sf.durable
    async def mails() -> str:
        return await mail()

    run = await app.start(mails, id="m")
    if is_long:
        status = await wait_state(run, "waiting", "doubt")
        assert status.reason == "doubt: effect fenced waits for its fence"
        assert (asks, app.guard.resolving) == ([], {})
    assert await run.result(timeout_s=10) == "found"
    assert (acts, asks) == ([1], [1])


class WallClock(SystemClock):
    """A clock on the wall that somebody sets forward."""

    ahead_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms


@pytest.mark.sqlite_only("moves the clocks of the host, and PostgreSQL has its own")
async def test_a_key_whose_age_the_clocks_do_not_agree_on_is_left_to_a_person(url: str) -> None:
    """Catches a second send under a key of which nobody knows whether the service still remembers it."""
    clock, sent = WallClock(), Calls()

    @sf.effect(in_doubt=sf.Resend(key_ttl="24h"))
    async def send() -> None:
        sent.append(1)
        clock.ahead_ms = 3_600_000
        raise TimeoutError

    async with sf.Surefoot(url, clock=clock):
        outcome = await send.outcome()
    assert (outcome.told, sent) == ("unknown", [1])
    assert "the clocks disagree about the age of the key" in outcome.reason


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "words"), [
    (True, "the probe returned bool, not sf.Landed, sf.NotLanded or sf.CannotTell"),
    (ValueError("bad gateway"), "ValueError: bad gateway"),
    (sf.CannotTell("the index lags"), "the index lags"),
    (None, "TimeoutError"),
])  # fmt: skip
@pytest.mark.usefixtures("at_once")
async def test_a_probe_that_does_not_answer_is_asked_again_and_then_left(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch, answer: Any, words: str
) -> None:
    """Catches an answer that is guessed, and a service that is asked for ever."""
    monkeypatch.setattr("surefoot.effects.doubt.ASKS_MAX", 2)
    monkeypatch.setattr("surefoot.effects.live.resolve.ASK_TIMEOUT_S", 0.01 if answer is None else 10.0)
    asks: list[int] = []

    async def ask() -> Any:
        asks.append(sf.current_effect().attempt)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return answer

    @sf.effect(in_doubt=sf.Probe(ask, longest_life="1ms"))
    async def mail() -> None:
        raise TimeoutError("no answer")

    outcome = await mail.outcome()
    assert outcome.told == "unknown"
    assert outcome.reason == "TimeoutError: no answer; the probe gave no answer 2 times"
    assert asks == [2, 3]  # each question has a token of its own
    assert [body for kind, body in evidence(app) if kind == "probe could not tell"] == [words] * 2


@pytest.mark.usefixtures("at_once")
async def test_sends_have_an_end_even_where_a_probe_finds_nothing(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a service that is sent the same for ever because it loses each of them."""
    monkeypatch.setattr("surefoot.effects.rows.ledger.SENDS_MAX", 3)
    sent: list[int] = []

    @sf.effect(in_doubt=sf.Probe(sf.NotLanded, longest_life="1ms"))
    async def mail() -> None:
        sent.append(1)
        raise TimeoutError("no answer")

    outcome = await mail.outcome()
    assert (outcome.told, outcome.reason) == ("unknown", "TimeoutError: no answer; no answer after 3 sends")
    assert len(sent) == 3


@pytest.mark.parametrize(("found", "told", "reason"), [
    (True, "done", ""),
    (False, "unknown", "read back: the service holds something else than we set"),
    ("equal", "unknown", "read back: the service holds something else than we set"),
    (ValueError("bad gateway"), "unknown", "reading back failed: ValueError: bad gateway"),
    (None, "unknown", "reading back failed: TimeoutError"),
])  # fmt: skip
@pytest.mark.usefixtures("at_once")
async def test_only_what_was_read_back_as_equal_is_done(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch, found: Any, told: str, reason: str
) -> None:
    """Catches another writer's state that is taken for ours, a failed look that is taken for one, and a look that no
    evidence tells of."""
    monkeypatch.setattr("surefoot.effects.live.resolve.ASK_TIMEOUT_S", 0.01 if found is None else 10.0)
    sent: list[str] = []

    async def read_back(address: str) -> Any:
        assert address == "new"
        if found is None:
            await asyncio.Event().wait()
        if isinstance(found, Exception):
            raise found
        return found

    @sf.effect(in_doubt=sf.Overwrite(read_back=read_back))
    async def move(address: str, note: str) -> None:
        sent.append(address)
        raise TimeoutError if len(sent) == 1 else sf.PreconditionFailed("412")

    outcome = await move.outcome("new", "soon")
    assert (outcome.told, outcome.reason.rpartition("; ")[2]) == (told, reason)
    assert sent == ["new", "new"]
    assert [kind for kind, _ in evidence(app) if kind in ("resend", "read back")] == ["resend", "read back"]


# -- sweeps ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def doubt(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An effect in doubt, old enough for a sweep, whose class can find out; gives the rows that sweeps look into."""
    looked: list[int] = []

    async def note(_guard: Guard, case: Case) -> None:
        assert case.row is not None
        looked.append(case.row.id)

    @sf.effect(name="swept", key="swept", in_doubt=sf.Resend(key_ttl="1ms"))
    async def act() -> None:
        await asyncio.sleep(0.002)
        raise TimeoutError

    assert (await act.outcome()).told == "unknown"
    monkeypatch.setattr("surefoot.effects.live.sweep.IDLE_MS", -1_000)
    monkeypatch.setattr("surefoot.effects.live.sweep.resolve", note)
    return looked


async def test_a_sweep_leaves_to_others_what_they_are_at(
    app: sf.Surefoot, doubt: list[int], other: sf.Surefoot
) -> None:
    """Catches a sweep beside an act, beside a question, or beside another process that has taken the doubt on."""
    for busy in (app.guard.acting, app.guard.resolving):
        busy[1] = Acting()
        assert (await sweep(app.guard), doubt) == (0, [])
        del busy[1]
    holder = ("UPDATE ledger SET holder = ?", (other.guard.duty.session.id,))
    await app.store.commit(lambda tx: tx.execute(*holder), label="test")
    assert (await sweep(app.guard), doubt) == (0, [])
    await other.close()
    assert (await sweep(app.guard), doubt) == (0, [1])


async def test_a_sweep_leaves_a_doubt_to_its_own_caller_for_a_while(
    app: sf.Surefoot, doubt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a sweep that is quicker than whoever has the doubt, and one that waits for an earlier boot of the machine."""
    monkeypatch.setattr("surefoot.effects.live.sweep.IDLE_MS", 1_000_000)
    now_boot_ms = app.store.clock.boot_ms()
    for sent_boot_ms, looked in ((now_boot_ms, []), (now_boot_ms - 2_000_000, [1]), (now_boot_ms + 2_000_000, [1, 1])):
        await app.store.commit(partial(_write, "UPDATE ledger SET sent_boot_ms = ?", (sent_boot_ms,)), label="test")
        await sweep(app.guard)
        assert doubt == looked


async def test_a_sweep_waits_for_no_fence(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches doubts that wait for hours behind the fence of another, and a ledger that grows with each look."""
    monkeypatch.setattr("surefoot.effects.live.sweep.IDLE_MS", -1_000)
    has_begun = asyncio.Event()

    async def act() -> str:
        has_begun.set()
        await asyncio.Event().wait()
        return "never"

    mail = sf.effect(name="fenced", key="fenced", in_doubt=sf.Probe(sf.Landed, longest_life="1h"))(act)
    calling = asyncio.create_task(mail.outcome())
    await has_begun.wait()
    calling.cancel()
    await asyncio.wait([calling])
    await app.store.barrier()
    before = evidence(app), app.store.read_now(partial(ledger.get, effect=1))
    async with asyncio.timeout(10):
        assert await sweep(app.guard) == 0
    assert (evidence(app), app.store.read_now(partial(ledger.get, effect=1))) == before
    sf.effect(name="fenced", key="fenced", in_doubt=sf.Probe(sf.Landed, longest_life="1ms"))(act)
    await sweep(app.guard)
    assert [one.state for one in app.store.read_now(desk.list_effects)] == ["done"]


async def test_a_sweep_leaves_alone_what_nobody_here_can_end(
    app: sf.Surefoot, doubt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a sweep that fails, or guesses, at an effect whose code is elsewhere or needs a person."""
    declared = registry.spec_of("swept")
    monkeypatch.delitem(registry._known, "swept")
    assert (await sweep(app.guard), doubt) == (0, [])
    sf.effect(name="swept", key="swept")(declared.function)
    assert (await sweep(app.guard), doubt) == (0, [])
    registry.register(declared)
    assert (await sweep(app.guard), doubt) == (0, [1])


@pytest.mark.parametrize(("error", "is_raised", "is_told"), [
    (LeaseLost("lost"), False, False), (StoreFailed("disk gone"), True, False), (ValueError("broken"), False, True),
])  # fmt: skip
async def test_what_stops_a_sweep(
    app: sf.Surefoot,
    doubt: list[int],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    is_raised: bool,
    is_told: bool,
) -> None:
    """Catches a broken store that a sweep complains of and goes on, and a lost lease that alarms somebody."""

    async def fails(_guard: Guard, _case: Case) -> None:
        raise error

    monkeypatch.setattr("surefoot.effects.live.sweep.resolve", fails)
    said: list[tuple[str, Exception]] = []
    raised = None
    try:
        assert await sweep(app.guard, complain=lambda *words: said.append(words)) == 0
    except StoreFailed as stopped:
        raised = stopped
    assert (raised is error) == is_raised
    assert said == ([("looking into the doubt of swept failed", error)] if is_told else [])
    if is_told:
        with pytest.raises(ValueError, match="broken"):
            await sweep(app.guard)
