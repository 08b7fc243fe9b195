"""Effects in another database: their receipts, what recovery makes of them, and attempts that come too late."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import surefoot as sf
from surefoot.effects.live import sweep
from surefoot.effects.receipts import Parameters, find_or_seal
from surefoot.effects.rows import desk
from surefoot.effects.rows.desk import EffectView

STYLES = {
    "qmark": ("(?, ?, ?)", "= ?"),
    "format": ("(%s, %s, %s)", "= %s"),
    "numeric": ("(:1, :2, :3)", "= :1"),
    "named": ("(:idempotency_key, :attempt, :value)", "= :idempotency_key"),
    "pyformat": ("(%(idempotency_key)s, %(attempt)s, %(value)s)", "= %(idempotency_key)s"),
}


class Books:
    """Somebody else's database: what is booked, and the receipts beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_down = False
        self.connections = 0
        self.receipts = sf.Receipts(self.connect, paramstyle=sqlite3.paramstyle)
        with self.transaction() as db:
            db.execute("CREATE TABLE booked (what TEXT)")
            db.execute(self.receipts.ddl)

    def connect(self) -> sqlite3.Connection:
        if self.is_down:
            raise sqlite3.OperationalError("the books can't be reached")
        self.connections += 1
        return sqlite3.connect(self.path, timeout=1.0)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit at the end, or roll back."""
        with closing(sqlite3.connect(self.path, timeout=5.0)) as db, db:
            yield db

    def booked(self) -> list[str]:
        with self.transaction() as db:
            return [row[0] for row in db.execute("SELECT what FROM booked ORDER BY rowid")]

    def rows(self) -> list[tuple[int, str | None]]:
        with self.transaction() as db:
            return list(db.execute("SELECT attempt, value FROM surefoot_receipts ORDER BY value, attempt"))

    def book(self, what: str, value: Any) -> Any:
        """Do it, in one transaction with its receipt."""
        with self.transaction() as db:
            db.execute("INSERT INTO booked VALUES (?)", (what,))
            return sf.current_effect().receipt(db.execute, value)


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path / "books.db")


def effects(app: sf.Surefoot) -> list[EffectView]:
    """Return all effects, newest first."""
    return app.store.read_now(desk.list_effects)


# -- declaring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_statements_in_every_paramstyle(style: str) -> None:
    """Catches a placeholder that the driver doesn't know, or a value in the place of another."""
    receipts = sf.Receipts(lambda: sqlite3.connect(":memory:"), paramstyle=style, table="shop.receipts")
    sql, parameters = receipts.insertion("k", 2, "null")
    assert sql == f"INSERT INTO shop.receipts (idempotency_key, attempt, value) VALUES {STYLES[style][0]}"
    query, key = receipts.selection("k")
    assert query.endswith(f"WHERE idempotency_key {STYLES[style][1]}")
    is_named = style in ("named", "pyformat")
    assert parameters == ({"idempotency_key": "k", "attempt": 2, "value": "null"} if is_named else ("k", 2, "null"))
    assert key == ({"idempotency_key": "k"} if is_named else ("k",))


@pytest.mark.filterwarnings("ignore:Binding :DeprecationWarning")  # numeric ones, from Python 3.12 on
@pytest.mark.parametrize("style", ["qmark", "numeric", "named"])
def test_the_styles_that_sqlite_reads_mean_the_same(books: Books, style: str) -> None:
    """Catches statements that are only right to look at."""
    receipts = sf.Receipts(books.connect, paramstyle=style)
    with books.transaction() as db:
        db.execute(*receipts.insertion("k", 2, '"r"'))
    assert find_or_seal(receipts, "k", 3) == b'"r"'
    assert find_or_seal(receipts, "other", 2) is None
    assert books.rows() == [(1, None), (2, None), (2, '"r"')]


def test_declarations_that_mean_nothing(books: Books) -> None:
    """Catches SQL made of what is no name, a driver's style that is guessed, and a receipt with no table to go to."""
    with pytest.raises(sf.SurefootError, match="paramstyle='\\?'"):
        sf.Receipts(books.connect, paramstyle="?")
    with pytest.raises(sf.SurefootError, match="no plain name"):
        sf.Receipts(books.connect, paramstyle="qmark", table="r; DROP TABLE booked")
    with pytest.raises(sf.BadEffect, match="can't be async"):

        @sf.effect(in_doubt=sf.Transactional())
        async def unsound() -> None: ...


async def test_a_receipt_needs_its_class(app: sf.Surefoot) -> None:
    """Catches a receipt that goes nowhere."""

    @sf.effect
    def act() -> None:
        sf.current_effect().receipt(lambda _sql, _parameters: None, 1)

    assert "leaves no receipts" in (await act.outcome()).reason


# -- with nobody killed ------------------------------------------------------------------------------------------------


async def test_the_receipt_is_the_outcome(app: sf.Surefoot, books: Books) -> None:
    """Catches an effect that is not done, done twice, or whose value differs between its caller and the books."""

    @sf.effect(key="pay:{x}", in_doubt=sf.Transactional(receipts=books.receipts))
    def pay(x: int) -> Decimal:
        paid: Decimal = books.book(f"pay {x}", Decimal("12.50"))
        return paid

    assert await asyncio.to_thread(pay, 1) == Decimal("12.50")
    assert (await pay.outcome(1)).told == "repeated"
    assert (books.booked(), books.rows(), books.connections) == (["pay 1"], [(1, '"12.50"')], 0)


async def test_async_functions_and_drivers(app: sf.Surefoot, books: Books) -> None:
    """Catches a receipt that is never awaited, and so never written."""
    is_awaited = True

    @sf.effect(key="pay:{x}", in_doubt=sf.Transactional(receipts=books.receipts))
    async def pay(x: int) -> str:
        with books.transaction() as db:
            db.execute("INSERT INTO booked VALUES (?)", (f"pay {x}",))

            async def execute(sql: str, parameters: Parameters) -> None:
                db.execute(sql, parameters)

            if is_awaited:
                return await sf.current_effect().receipt_async(execute, "paid")
            return sf.current_effect().receipt(execute, "paid")

    assert await pay(1) == "paid"
    is_awaited = False
    assert "rolled back: SurefootError: effect pay: this execute is asynchronous" in (await pay.outcome(2)).reason
    assert (books.booked(), books.rows()) == (["pay 1"], [(1, None), (1, '"paid"')])


async def test_what_raises_is_rolled_back_and_known_not_to_have_happened(app: sf.Surefoot, books: Books) -> None:
    """Catches a doubt where the database knows, and a refusal that is believed over the receipt."""
    error: Exception = ValueError("no such account")
    is_after = False

    @sf.effect(key="pay:{x}", in_doubt=sf.Transactional(receipts=books.receipts), refused_on=(ValueError,))
    def pay(x: int) -> str:
        with books.transaction() as db:
            db.execute("INSERT INTO booked VALUES (?)", (f"pay {x}",))
            if not is_after:
                raise error
            sf.current_effect().receipt(db.execute, "paid")
        raise error

    first = await pay.outcome(1)
    assert (first.told, first.reason) == ("not_done", "rolled back: ValueError: no such account")
    error = sf.NotDone("closed")
    refused = await pay.outcome(1)
    assert (refused.told, refused.reason) == ("not_done", "closed")
    assert books.booked() == []
    is_after = True  # the answer to the commit was lost, say: whatever is raised, it is done
    done = await pay.outcome(1)
    assert (done.told, done.value) == ("done", "paid")
    assert books.booked() == ["pay 1"]
    assert [one.state for one in effects(app)] == ["done", "not_done", "not_done"]


async def test_an_effect_that_forgets_its_receipt_is_told_so(app: sf.Surefoot, books: Books) -> None:
    """Catches a mistake that would show at the first crash only, by acting twice."""

    @sf.effect(key="pay:{x}", in_doubt=sf.Transactional(receipts=books.receipts))
    def pay(x: int) -> None:
        with books.transaction() as db:
            db.execute("INSERT INTO booked VALUES (?)", (f"pay {x}",))

    for _ in range(2):
        with pytest.raises(sf.Unserializable, match="returned without a receipt"):
            await pay.outcome(1)
    assert books.booked() == ["pay 1"]


# -- doubt -------------------------------------------------------------------------------------------------------------


async def test_an_attempt_that_comes_too_late_is_rolled_back(app: sf.Surefoot, books: Books) -> None:
    """Catches a straggler that commits after the effect was said to be not done."""
    may_go, ended = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def work(current: sf.CurrentEffect) -> None:
        may_go.wait(10)
        try:
            with books.transaction() as db:
                db.execute("INSERT INTO booked VALUES ('late')")
                current.receipt(db.execute, "late")
        except sqlite3.IntegrityError as error:
            errors.append(error)
        ended.set()

    @sf.effect(key="pay:{x}", in_doubt=sf.Transactional(receipts=books.receipts), timeout_s=0.05)
    async def pay(x: int) -> None:
        await asyncio.to_thread(work, sf.current_effect())  # goes on when its caller has lost patience

    outcome = await pay.outcome(1)
    assert (outcome.told, outcome.reason) == ("not_done", "rolled back: no answer within 0.05 s")
    may_go.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert len(errors) == 1
    assert (books.booked(), books.rows()) == ([], [(1, None)])


async def test_books_that_cant_be_reached_leave_a_doubt_that_ends_later(
    app: sf.Surefoot, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a guess where nobody can look, a doubt that doesn't say why, and one that stays when somebody can."""
    monkeypatch.setattr("surefoot.effects.doubt.ASKS_MAX", 2)
    monkeypatch.setattr("surefoot.effects.live.sweep.IDLE_MS", 0)
    acts: list[int] = []

    @sf.effect(name="pay in reach", key="pay:{x}", in_doubt=sf.Transactional(receipts=books.receipts))
    def pay(x: int) -> str:
        acts.append(sf.current_effect().attempt)
        if len(acts) == 1:
            books.is_down = True
            raise sqlite3.OperationalError("the connection broke")
        paid: str = books.book(f"pay {x}", "paid")
        return paid

    unknown = await pay.outcome(1)
    assert unknown.told == "unknown"
    assert "could not be looked for 2 times" in unknown.reason
    looks = [one for one in app.store.read_now(partial(desk.evidence, effect=unknown.effect)) if "receipt" in one.kind]
    assert [one.body for one in looks] == ["OperationalError: the books can't be reached"] * 2
    books.is_down = False
    await asyncio.sleep(0.01)
    await sweep.sweep(app.guard)
    assert [(one.state, one.value) for one in effects(app)] == [("done", "paid")]
    assert (acts, books.booked(), books.rows()) == ([1, 2], ["pay 1"], [(1, None), (2, '"paid"')])


@pytest.mark.parametrize("is_in_run", [True, False])
async def test_an_outcome_that_comes_while_the_receipt_is_looked_for(
    app: sf.Surefoot, books: Books, is_in_run: bool
) -> None:
    """Catches a run left running with nobody in it, and a caller without an answer, when another was first to settle."""
    loop = asyncio.get_running_loop()

    def connect() -> sqlite3.Connection:
        if (effect := effects(app)[0]).state == "unknown":
            by_hand = app.resolve(effect.id, is_done=True, by="ann", reason="saw it", value="r")
            asyncio.run_coroutine_threadsafe(by_hand, loop).result(5)
        return books.connect()

    receipts = sf.Receipts(connect, paramstyle=sqlite3.paramstyle)

    @sf.effect(key="found:{what}", in_doubt=sf.Transactional(receipts=receipts))
    async def book(what: str) -> str:
        books.book(what, "r")
        raise TimeoutError

    @sf.durable
    async def books_it() -> str:
        return await book("a")

    if is_in_run:
        assert await (await app.start(books_it, id="b")).result(timeout_s=5) == "r"
    else:
        assert await book("a") == "r"
    assert [one.kind for one in app.store.read_now(desk.evidence)] == []  # they agree: no contradiction


async def test_a_row_that_is_no_receipt_is_not_believed(app: sf.Surefoot, books: Books) -> None:
    """Catches foreign bytes that become an outcome."""
    with books.transaction() as db:
        db.execute(*books.receipts.insertion("k", 1, "paid"))
    with pytest.raises(ValueError, match="JSON is malformed"):
        find_or_seal(books.receipts, "k", 1)


def test_books_that_can_be_read_and_not_written_seal_nothing(books: Books) -> None:
    """Catches an attempt that is called impossible though its tombstone was never written."""
    reading = sf.Receipts(
        lambda: sqlite3.connect(f"file:{books.path}?mode=ro", uri=True), paramstyle=sqlite3.paramstyle
    )
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        find_or_seal(reading, "k", 1)
    with books.transaction() as db:
        db.execute(*books.receipts.insertion("k", 1, '"paid"'))
    assert find_or_seal(reading, "k", 2) == b'"paid"'
    assert books.rows() == [(1, '"paid"')]


def test_a_receipt_that_comes_before_its_tombstone_is_found(books: Books) -> None:
    """Catches "never" about an attempt that was committed between the look and the seal."""
    cursors: list[int] = []

    class Late(sqlite3.Connection):
        def cursor(self, *args: Any) -> Any:
            cursors.append(1)
            if len(cursors) == 2:  # the first is for the look
                with books.transaction() as db:
                    db.execute(*books.receipts.insertion("k", 1, '"paid"'))
            return super().cursor(*args)

    receipts = sf.Receipts(lambda: sqlite3.connect(books.path, factory=Late), paramstyle=sqlite3.paramstyle)
    assert find_or_seal(receipts, "k", 1) == b'"paid"'
    assert books.rows() == [(1, '"paid"')]


def test_live_attempts_and_recoveries_at_once(books: Books) -> None:
    """Catches an order of attempts and recoveries in which a receipt and "never" are both said, or two receipts written."""

    def attempt(key: str, number: int) -> bool:
        try:
            with books.transaction() as db:
                db.execute("INSERT INTO booked VALUES (?)", (key,))
                db.execute(*books.receipts.insertion(key, number, f'"by {number}"'))
        except sqlite3.IntegrityError:
            return False
        return True

    def recover(key: str) -> bytes | None:
        found = find_or_seal(books.receipts, key, 1)
        if found is None and attempt(key, 2):  # as the one that takes the claim over would
            return b'"by 2"'
        return found if found is not None else find_or_seal(books.receipts, key, 2)

    with ThreadPoolExecutor(8) as pool:
        for round_ in range(40):
            key = f"k{round_}"
            first = pool.submit(attempt, key, 1)
            answers = [future.result() for future in [pool.submit(partial(recover, key)) for _ in range(3)]]
            winner = b'"by 1"' if first.result() else b'"by 2"'
            assert answers == [winner] * 3
    assert sorted(books.booked()) == sorted(f"k{round_}" for round_ in range(40))
