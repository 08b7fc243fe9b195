"""Declarations that mean nothing are refused where they are written, and effects where nothing could record them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import surefoot as sf
from surefoot.effects import binding, desk
from surefoot.effects.doubt import duration_ms
from surefoot.effects.keys import KEY_CHARS_MAX, fingerprint, identify
from surefoot.effects.registry import spec_of
from surefoot.effects.states import State


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
    with connect() as db:
        db.execute(receipts.ddl)
    seen: list[str] = []

    async def execute(_sql: str, _parameters: Any) -> None:
        raise AssertionError("nobody awaits it")

    @sf.effect(name="awaits nothing", in_doubt=sf.Transactional(receipts=receipts))
    async def act() -> None:
        with pytest.raises(sf.SurefootError, match="this execute is asynchronous") as raised:
            sf.current_effect().receipt(execute, 1)
        seen.append(raised.value.hint or "")

    with pytest.raises(sf.Unserializable):
        await act()
    assert seen == ["await sf.current_effect().receipt_async(execute, value)"]


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
        with pytest.raises(sf.NoStore, match=r"several stores are open .*other\.db"):
            await act()
    assert acts == []
    await act()
    assert acts == [1]


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


async def test_an_effect_that_is_in_time_is_done_with_its_value(app: sf.Surefoot) -> None:
    """Would catch a time limit that loses the answers of those who keep it."""

    @sf.effect(name="is in time", timeout_s=30.0)
    async def act(order: str) -> str:
        return f"sent {order}"

    outcome = await act.outcome("A-1")
    assert (outcome.told, outcome.value) == ("done", "sent A-1")
    (view,) = app.store.read_now(desk.list_effects)
    assert (view.state, view.value) == ("done", "sent A-1")


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
    with connect() as db:
        db.execute(receipts.ddl)
    given, seen = {"lines": [1, 2]}, []

    @sf.effect(name="looks at its receipt", in_doubt=sf.Transactional(receipts=receipts))
    def act() -> dict[str, list[int]]:
        with connect() as db:
            found = sf.current_effect().receipt(db.execute, given)
            seen.append((found, found is given))
            return found

    outcome = await act.outcome()
    assert seen == [({"lines": [1, 2]}, False)]
    assert outcome.value == {"lines": [1, 2]}
