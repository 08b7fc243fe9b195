"""Declarations that mean nothing are refused where they are written, and effects where nothing could record them."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import surefoot as sf
from surefoot.effects import binding
from surefoot.effects.doubt import duration_ms
from surefoot.effects.keys import KEY_CHARS_MAX, fingerprint, identify
from surefoot.effects.live.case import Acting
from surefoot.effects.live.guard import Guard
from surefoot.effects.registry import spec_of
from surefoot.effects.rows import desk, ledger
from surefoot.effects.spec import EffectSpec
from surefoot.effects.states import State
from surefoot.people import trail
from surefoot.store import Tx

if TYPE_CHECKING:
    OnlyForCheckers = dict[str, int]


async def refund(order: str, amount: int = 1) -> str:
    return order


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": "refund:{order:>5}"}, "formats {order}"),
        ({"key": "refund:{order!r}"}, "formats {order}"),
        ({"key": "refund:{order}{amount}"}, "nothing between {order} and {amount}"),
        ({"key": "refund:{nobody}"}, "names 'nobody', which is no parameter"),
        ({"key": "refund:{order.id}"}, "reaches into 'order'"),
        ({"key": "refund:{order[0]}"}, "reaches into 'order'"),
        ({"match": ("nobody",)}, "'nobody' is no parameter"),
        ({"free_text": ("nobody",)}, "'nobody' is no parameter"),
        ({"key": "refund:{order}", "occurrence": "nobody"}, "'nobody'"),
        ({"when_unknown": "guess"}, "when_unknown='guess'"),
        ({"once_for": "ever"}, "once_for='ever'"),
        ({"timeout_s": 0}, "timeout_s=0"),
        ({"timeout_s": -1.0}, "timeout_s=-1.0"),
        ({"in_doubt": sf.Transactional()}, "can't be async"),
    ],
)
def test_a_declaration_that_means_nothing_is_refused(options: dict[str, Any], words: str) -> None:
    """Would catch a mistake of a declaration that is found by the first customer instead of at import."""
    with pytest.raises(sf.BadEffect) as raised:
        sf.effect(name="refused", **options)(refund)
    assert words in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("text", "found"),
    [("300ms", 300), ("1.5s", 1_500), (" 2 m ", 120_000), ("15min", 900_000), ("24h", 86_400_000), ("7d", 604_800_000),
     (2, 2_000), (0.25, 250)],
)  # fmt: skip
def test_a_duration_is_read_with_its_unit(text: str | float, found: int) -> None:
    """Would catch a fence of minutes that is taken for seconds."""
    assert duration_ms(text) == found


@pytest.mark.parametrize(
    "text", ["", "soon", "5", "5 weeks", "-1s", "0s", 0, -3, "1e3s", "0.0001ms", float("nan"), "9" * 30 + "d"]
)
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    """Would catch a fence of nothing, or one that no calendar holds."""
    with pytest.raises(sf.SurefootError):
        duration_ms(text)


@pytest.mark.parametrize("key", ["", "k" * (KEY_CHARS_MAX + 1)])
def test_a_key_has_an_end_and_a_beginning(key: str) -> None:
    """Would catch an identity of nothing, which all effects would share, and one that no index holds."""
    with pytest.raises(sf.BadEffect, match="its key is"):
        identify("app", "refund", key, fingerprint(b"{}"))
    assert identify("app", "refund", "k" * KEY_CHARS_MAX, fingerprint(b"{}")).key


def test_what_stands_for_a_call_is_the_same_in_every_version() -> None:
    """Would catch keys that are free again, or in conflict with themselves, after an upgrade: both are on disk."""
    spec = EffectSpec(refund, key="refund:{order}:{amount}")
    one = spec.identity(spec.bind(("A-1", 2), {}), None, "")
    assert (one.scope, one.name, one.key) == ("app", "refund", "refund:A-1:2")
    assert one.digest.hex() == "1889623ec70bdc6cd7a307633d62a919"
    assert one.fingerprint.hex() == "15d1fc9528d886734e0d9bd4cbe79abb"


def test_equal_amounts_make_one_key() -> None:
    """Would catch a second payment because somebody has written the same amount with other zeros."""

    async def pay(order: str, amount: Decimal) -> None: ...

    spec = EffectSpec(pay, key="pay:{order}:{amount}")
    keys = {spec.identity(spec.bind(("A%1:", Decimal(text)), {}), None, "").key for text in ("1.5", "1.50")}
    assert keys == {"pay:A%251%3A:1.5"}


def test_outside_of_effects_there_is_no_current_one() -> None:
    """Would catch a key that is made up where nothing was claimed."""
    with pytest.raises(sf.SurefootError, match=r"current_effect\(\) was called outside an effect"):
        sf.current_effect()


async def test_an_effect_without_a_transaction_has_none(app: sf.Surefoot) -> None:
    """Would catch a statement that is executed beside the claim, where a crash could part the two."""
    seen: list[str] = []

    @sf.effect(name="has no transaction")
    async def act() -> None:
        for ask in (lambda: sf.current_effect().execute("SELECT 1"), lambda: sf.current_effect().receipt(print, 1)):
            with pytest.raises(sf.SurefootError) as raised:
                ask()
            seen.append(raised.value.message)

    await act()
    assert seen == ["effect has no transaction has no transaction", "effect has no transaction leaves no receipts"]


async def test_an_asynchronous_driver_is_not_taken_for_a_synchronous_one(app: sf.Surefoot, tmp_path: Path) -> None:
    """Would catch a receipt that was never awaited, and so never written, behind an effect that is called done."""

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "books.db")

    receipts = sf.Receipts(connect, paramstyle="qmark")
    with closing(connect()) as db, db:
        db.execute(receipts.ddl)
    seen: list[str] = []

    async def execute(_sql: str, _parameters: Any) -> None:
        raise AssertionError("nobody awaits it")

    def begin(_sql: str, _parameters: Any) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    @sf.effect(name="awaits nothing", in_doubt=sf.Transactional(receipts=receipts))
    async def act() -> None:
        for asynchronous in (execute, begin):
            with pytest.raises(sf.SurefootError, match="this execute is asynchronous") as raised:
                sf.current_effect().receipt(asynchronous, 1)
            seen.append(raised.value.hint or "")

    with pytest.raises(sf.Unserializable):
        await act()
    assert seen == ["await sf.current_effect().receipt_async(execute, value)"] * 2


async def test_without_a_store_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an act that nobody has claimed."""
    monkeypatch.setattr(binding, "_open", [])
    monkeypatch.setattr(binding, "_opener", [])
    acts: list[int] = []

    @sf.effect(name="acts nowhere")
    async def act() -> None:
        acts.append(1)

    with pytest.raises(sf.NoStore, match="no store is configured, so nothing was done"):
        await act()
    assert acts == []


async def test_with_two_stores_open_nothing_is_guessed(app: sf.Surefoot, tmp_path: Path) -> None:
    """Would catch a claim in the store that happens to be first, while the other one has the key."""
    acts: list[int] = []

    @sf.effect(name="acts in one of two")
    async def act() -> None:
        acts.append(1)

    async with sf.Surefoot(f"sqlite:///{tmp_path}/other.db"):
        with pytest.raises(sf.NoStore, match=r"several apps are open .*other\.db"):
            await act()
    assert acts == []
    await act()
    assert acts == [1]


async def test_a_configured_store_is_opened_by_the_first_effect(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an effect that has no store though one was configured, and a second opening of it."""
    monkeypatch.setattr(binding, "_open", [])
    monkeypatch.setattr(binding, "_opener", [])
    acts: list[int] = []

    @sf.effect(name="acts where configured", key="acts:{x}")
    async def act(x: int) -> None:
        acts.append(x)

    with pytest.raises(sf.SurefootError, match=r"'agents\.db' is not a database URL"):
        sf.configure("agents.db")  # told where it is said, not in a handler's first call
    sf.configure("sqlite:///nowhere/replaced.db")
    sf.configure(url)
    try:
        assert [(await act.outcome(1)).told for _ in range(2)] == ["done", "repeated"]
        (guard,) = binding._open
        assert str(guard.store.path) == url.removeprefix("sqlite:///")
    finally:
        for guard in binding._open:
            guard.duty.session.close()
            guard.store.close()
    assert acts == [1]


async def test_what_is_configured_is_not_opened_beside_an_open_app(
    app: sf.Surefoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch an effect that is refused because the store that is configured was opened beside the one in use."""
    monkeypatch.setattr(binding, "_opener", [])

    @sf.effect(name="acts in the open app")
    async def act() -> None: ...

    sf.configure(f"sqlite:///{tmp_path}/configured.db")
    assert (await act.outcome()).told == "done"
    assert not (tmp_path / "configured.db").exists()


async def test_who_comes_while_the_configured_app_is_opened_learns_what_came_of_it() -> None:
    """Would catch an effect that acts in an app that could not be opened, and a failure that is for ever."""
    opened: list[str] = []

    class Opens:
        async def open(self) -> None:
            await asyncio.sleep(0.01)
            opened.append("tried")
            if len(opened) == 1:
                raise sf.StoreError("no route")

    opener: Any = binding._Opener(Opens)
    both = await asyncio.gather(opener(), opener(), return_exceptions=True)
    assert [str(error) for error in both] == ["no route", "no route"]
    await asyncio.gather(opener(), opener())
    assert opened == ["tried", "tried"]
    await opener.anew()()
    assert len(opened) == 3


def test_what_was_open_before_a_fork_gives_way(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a process that asks which of two apps is meant, though one of them is its parent's."""
    parents, own = app.guard, Guard(app.store, app.guard.sessions, app.guard.duty.session, 1)
    monkeypatch.setattr(binding, "_open", [parents])
    monkeypatch.setattr(binding, "_inherited", [])
    monkeypatch.setattr(binding, "_opener", [])
    binding._after_fork()
    binding.add_open(own)
    assert (binding._open, binding._inherited) == ([own], [])
    binding.remove_open(parents)  # closed by the code that the fork goes on with
    assert binding._open == [own]
    binding.remove_open(own)
    assert binding._open == []


def test_an_effect_that_was_never_declared_is_named() -> None:
    """Would catch an undo that is sent to something else, or to nothing."""
    with pytest.raises(sf.BadEffect, match="no effect is called 'never declared'"):
        spec_of("never declared")
    with pytest.raises(sf.BadEffect, match="no effect is called 'undo never declared'"):
        spec_of("undo never declared")


def test_what_undoes_an_effect_is_found_by_its_own_name() -> None:
    """Would catch a compensation that is a plain function and can't be found again after a restart."""

    async def back(order: str) -> None: ...

    sf.effect(name="goes there", compensate=back)(refund)
    assert spec_of("undo goes there").function is back
    declared = sf.effect(name="comes back")(back)
    sf.effect(name="goes far", compensate=declared)(refund)
    assert spec_of("undo goes far").name == "comes back"


async def test_a_person_can_end_only_what_is_in_doubt(app: sf.Surefoot) -> None:
    """Would catch a word over an effect that is not there, or that is known, or by nobody."""

    @sf.effect(name="is known")
    async def act() -> int:
        return 1

    await act()
    (known,) = app.store.read_now(desk.list_effects)
    for effect, by, reason, words in (
        (known.id, " ", "looked", "a resolution names who decided"),
        (known.id, "ann", "", "a resolution names who decided"),
        (known.id + 7, "ann", "looked", f"there is no effect {known.id + 7}"),
        (known.id, "ann", "looked", "is not in doubt: it is done"),
    ):
        with pytest.raises(desk.CannotResolve, match=words):
            await app.resolve(effect, is_done=True, by=by, reason=reason)
    assert app.store.read_now(desk.list_effects)[0].state == State.DONE.name.lower()


async def test_only_what_is_done_can_have_been_undone(app: sf.Surefoot) -> None:
    """Would catch a key that is freed by nobody, for nothing, or while nobody knows what became of it."""

    @sf.effect(name="is undone", key="undone:{x}")
    async def act(x: int) -> int:
        if x == 2:
            raise TimeoutError
        if x == 3:
            raise sf.NotDone("closed")
        return x

    assert [(await act.outcome(x)).told for x in (1, 2, 3)] == ["done", "unknown", "not_done"]
    for effect, by, reason, words in (
        (1, " ", "called", "this names who undid it and how they know"),
        (1, "ann", "\t", "this names who undid it and how they know"),
        (4, "ann", "called", "there is no effect 4"),
        (2, "ann", "called", "effect 2 is unknown: only what is done can have been undone"),
        (3, "ann", "called", "effect 3 is not done: only what is done can have been undone"),
    ):
        with pytest.raises(desk.CannotResolve, match=words) as raised:
            await app.undone(effect, by=by, reason=reason)
        assert raised.value.hint
    assert (await app.undone(1, by="ann", reason="called them")).state == "compensated"
    with pytest.raises(desk.CannotResolve, match="effect 1 is compensated"):
        await app.undone(1, by="ann", reason="called them again")
    assert (await act.outcome(1)).told == "done"
    (entry,) = app.store.read_now(trail.entries)
    assert (entry.act, entry.who, entry.target, entry.reason) == (
        "undo", "ann", "effect 1", "undone by hand: called them"
    )  # fmt: skip


async def test_a_contradiction_is_closed_by_a_person_and_not_erased(app: sf.Surefoot) -> None:
    """Would catch a contradiction that stays open for ever, one that is closed by nobody, or for another effect."""

    @sf.effect(name="contradicts", key="contradicts:{x}")
    async def act(x: int) -> int:
        return x

    def contradict(tx: Tx) -> None:
        for effect in (1, 1, 2):
            ledger.add_evidence(tx, effect, "late answer", "w", {"found": "not_done"}, is_open=True)

    for x in (1, 2):
        await act(x)
    await app.store.commit(contradict, label="test")
    view = await app.resolve(1, is_done=True, by="ann", reason="they sent a receipt")
    assert (view.id, view.state, view.value) == (1, "done", 1)
    left = app.store.read_now(desk.evidence)
    assert [(one.effect, one.is_open) for one in left] == [(2, True)]
    told = app.store.read_now(lambda connection: desk.evidence(connection, 1))
    assert [(one.kind, one.who, one.is_open) for one in told] == [
        ("late answer", "w", False), ("late answer", "w", False), ("contradiction closed", "ann", False)
    ]  # fmt: skip
    (entry,) = app.store.read_now(trail.entries)
    assert (entry.act, entry.who, entry.target) == ("resolve", "ann", "effect 1")
    assert entry.reason == "contradiction closed: they sent a receipt"
    with pytest.raises(desk.CannotResolve, match="is not in doubt: it is done"):
        await app.resolve(1, is_done=True, by="ann", reason="again")


async def test_a_call_is_the_same_however_it_is_written(app: sf.Surefoot) -> None:
    """Would catch a conflict between two writings of one call, and a resend that calls otherwise than the first send."""
    sent: list[Any] = []

    @sf.effect(name="is written", key="written:{a}", in_doubt=sf.Resend())
    async def act(a: int, b: int = 2) -> None:
        sent.append((a, b))

    told = [
        (await call).told
        for call in (
            act.outcome(1),
            act.outcome(1, 2),
            act.outcome(1, b=2),
            act.outcome(b=2, a=1),
            act.outcome(a=1, b=2),
        )
    ]
    assert (told, sent) == (["done", *["repeated"] * 4], [(1, 2)])
    with pytest.raises(TypeError, match="too many positional arguments"):
        await act(1, 2, 3)  # type: ignore[call-arg]  # the mistake

    @sf.effect(name="is written by name", key="named:{a}", in_doubt=sf.Resend())
    async def named(a: int, /, *others: int, b: int, c: Decimal = Decimal("1.50")) -> None:
        sent.append((a, others, b, c))
        if len(sent) == 2:
            raise TimeoutError

    assert (await named.outcome(1, 5, 6, b=2)).told == "done"
    assert sent[1:] == [(1, (5, 6), 2, Decimal("1.50"))] * 2


async def test_what_is_sent_again_is_the_same_to_the_byte(app: sf.Surefoot) -> None:
    """Would catch a resend whose request is written otherwise than the first, so that a service refuses its key."""
    sent: list[str] = []

    @sf.effect(name="sends the same", in_doubt=sf.Resend())
    async def act(lines: dict[str, Decimal], rate: float, note: Any, *tags: str, **more: Decimal) -> None:
        sent.append(repr((lines, rate, note, tags, more)))
        if len(sent) == 1:
            raise TimeoutError

    more = {"z": Decimal("2.0"), "y": Decimal(3)}
    outcome = await act.outcome({"b": Decimal("1.50"), "a": Decimal(2)}, 1.0, {"d": 2.0, "c": 1}, "x", "w", **more)
    assert outcome.told == "done"
    assert sent[0] == sent[1]
    assert sent[0].startswith("({'b': Decimal('1.50'), 'a': Decimal('2')}, 1.0, {'d': 2.0, 'c': 1}, ('x', 'w'), {'z': ")
    assert (await act.outcome({}, 1.0, None)).told == "done"


@pytest.mark.parametrize("recorded", [b"{}", b"null", b'{"order":"A"}', b'{"order":"A","amount":"x"}', b"{"])
def test_recorded_arguments_that_do_not_fit_are_named(recorded: bytes) -> None:
    """Would catch a resend with made-up arguments, after the code has changed under a claim."""

    async def act(order: str, amount: Decimal) -> None: ...

    with pytest.raises(sf.Undecodable) as raised:
        EffectSpec(act, name="has changed").rebuild(recorded)
    assert "has changed" in raised.value.message
    assert raised.value.hint


async def test_a_probe_may_take_all_arguments(app: sf.Surefoot) -> None:
    """Would catch a probe that is asked without what it needs, or with what it has no parameter for."""
    asked: list[Any] = []

    async def ask_by_all(**arguments: Any) -> sf.Landed:
        asked.append(arguments)
        return sf.Landed()

    async def ask_by_one(b: int) -> sf.Landed:
        asked.append(b)
        return sf.Landed()

    for ask in (ask_by_all, ask_by_one):

        @sf.effect(name="is asked about", in_doubt=sf.Probe(ask, longest_life="1ms"))
        async def act(a: int, b: int = 2) -> None:
            raise TimeoutError

        assert (await act.outcome(1)).told == "done"
    assert asked == [{"a": 1, "b": 2}, 2]


async def test_names_that_only_type_checkers_know_are_no_types(app: sf.Surefoot) -> None:
    """Would catch a declaration that fails at import because of an annotation."""

    @sf.effect(name="is annotated oddly")
    async def act(x: OnlyForCheckers) -> OnlyForCheckers:
        return x

    outcome = await act.outcome({"a": 1})
    assert (outcome.told, outcome.value) == ("done", {"a": 1})


async def test_who_asks_for_an_act_that_has_just_ended_does_not_wait() -> None:
    """Would catch a caller that waits for an end which has been."""
    acting = Acting()
    waiting = asyncio.ensure_future(acting.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    acting.end()
    async with asyncio.timeout(5):
        await waiting
        await acting.wait()
        acting.end()  # a second word of it harms nobody


async def test_a_read_outside_a_run_is_a_call(app: sf.Surefoot) -> None:
    """Would catch a read that is recorded, or guarded, where nothing replays it."""
    calls: list[int] = []

    @sf.read(name="is read")
    async def look(x: int) -> int:
        calls.append(x)
        return len(calls)

    assert [await look(7), await look(7)] == [1, 2]
    assert (await look.outcome(7)).value == 3
    assert app.store.read_now(lambda c: c.execute("SELECT count(*) FROM journal").fetchall()) == [(0,)]


async def test_an_effect_that_is_in_time_is_done_with_its_value(app: sf.Surefoot) -> None:
    """Would catch a time limit that loses the answers of those who keep it."""

    @sf.effect(name="is in time", timeout_s=30.0)
    async def act(order: str) -> str:
        return f"sent {order}"

    outcome = await act.outcome("A-1")
    assert (outcome.told, outcome.value) == ("done", "sent A-1")
    (view,) = app.store.read_now(desk.list_effects)
    assert (view.state, view.value) == ("done", "sent A-1")


@pytest.mark.parametrize(("timeout_s", "error", "reason"), [
    (0.01, None, "no answer within 0.01 s"),
    (30.0, TimeoutError("the client's own"), "TimeoutError: the client's own"),
    (None, TimeoutError("the client's own"), "TimeoutError: the client's own"),
])  # fmt: skip
async def test_an_effect_that_is_out_of_time_is_unknown(
    app: sf.Surefoot, timeout_s: float | None, error: Exception | None, reason: str
) -> None:
    """Would catch a limit that is none, and a client's timeout that is taken for ours."""

    @sf.effect(name="is out of time", timeout_s=timeout_s)
    async def act() -> str:
        if error is not None:
            raise error
        await asyncio.sleep(0.2)
        return "late"

    outcome = await act.outcome()
    assert (outcome.told, outcome.reason.partition(";")[0]) == ("unknown", reason)


async def test_a_refusal_keeps_its_reason(app: sf.Surefoot) -> None:
    """Would catch a "no" without a why: in the ledger, and for whoever asks again."""

    @sf.effect(name="is refused", key="refused:{order}")
    async def act(order: str) -> str:
        raise sf.NotDone("closed account")

    outcome = await act.outcome("A-1")
    assert (outcome.told, outcome.reason) == ("not_done", "closed account")
    (view,) = app.store.read_now(desk.list_effects)
    assert (view.state.replace("_", " "), view.reason) == ("not done", "closed account")


async def test_a_receipt_gives_its_value_back_as_it_will_be_read(app: sf.Surefoot, tmp_path: Path) -> None:
    """Would catch code behind a receipt that goes on with another value than a recovery finds."""

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(tmp_path / "books.db")

    receipts = sf.Receipts(connect, paramstyle="qmark")
    with closing(connect()) as db, db:
        db.execute(receipts.ddl)
    given, seen = {"lines": [1, 2]}, []

    @sf.effect(name="looks at its receipt", in_doubt=sf.Transactional(receipts=receipts))
    def act() -> dict[str, list[int]]:
        with closing(connect()) as db, db:
            found = sf.current_effect().receipt(db.execute, given)
            seen.append((found, found is given))
            return found

    outcome = await act.outcome()
    assert seen == [({"lines": [1, 2]}, False)]
    assert outcome.value == {"lines": [1, 2]}
