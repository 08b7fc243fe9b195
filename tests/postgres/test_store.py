"""The store on a PostgreSQL whose connections break: nothing is lost, nothing is written twice, the writer goes on."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support.postgres import Postgres, Proxy, in_schema, schema

import surefoot as sf
from surefoot.leases import Life
from surefoot.store import (
    Migration,
    NewerFormat,
    OlderFormat,
    Store,
    StoreFailed,
    Tx,
    UnusablePath,
    is_there,
    looking_at,
    open_store,
    postgres_connection,
    shown,
)
from surefoot.store.postgres import PostgresStore
from surefoot.store.postgres_clock import ServerClock
from surefoot.store.postgres_connection import Server, in_dialect
from surefoot.store.postgres_desk import PostgresDesk

TABLE = Migration("test", 1, "numbers", "CREATE TABLE numbers (id INTEGER PRIMARY KEY, n INTEGER)")


def add(n: int) -> Callable[[Tx], int]:
    """A unit that a second writing would be seen of."""

    def unit(tx: Tx) -> int:
        number = tx.take_id("numbers")
        tx.execute("INSERT INTO numbers (id, n) VALUES (?, ?)", (number, n))
        return number

    return unit


def numbers(store: Store) -> list[int]:
    """Return what is written, in order."""
    rows = store.read_now(lambda connection: connection.execute("SELECT n FROM numbers ORDER BY id").fetchall())
    return [row[0] for row in rows]


def backend(store: Store) -> int:
    """Return the process that writes for a store."""
    return desk_of(store).connection.real.info.backend_pid  # type: ignore[no-any-return]


def desk_of(store: Store) -> PostgresDesk:
    desk = store.writer._desk
    assert isinstance(desk, PostgresDesk)
    return desk


def end(url: str, pid: int) -> None:
    """End a connection on the server's side, and wait until it is gone."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


def cancel(url: str, event: str, spared: int = 0) -> int:
    """Cancel what a process of the server's waits in, once one does; return which it was."""
    with psycopg.connect(url, autocommit=True) as connection:
        waits = "SELECT pid, pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = %s AND pid <> %s"
        for _ in range(2_000):
            if found := connection.execute(waits, (event, spared)).fetchall():
                return int(found[0][0])
            time.sleep(0.01)
    raise AssertionError(f"nothing waits for {event}")


@pytest.mark.parametrize("way", ["asks", "answers"])
@pytest.mark.parametrize("is_alone", [False, True])
async def test_a_commit_without_an_answer_is_looked_up(url: str, proxy: Proxy, way: str, is_alone: bool) -> None:
    """Catches a commit that is done again though it had landed, and one that is told though it had not."""
    store = open_store(proxy.url(url), [TABLE])
    assert await store.commit(add(1), label="test") == 1
    is_asked = False

    def cut(data: bytes) -> int | None:
        nonlocal is_asked
        is_asked = is_asked or b"COMMIT" in data
        if way == "answers" or not is_asked:
            return None
        proxy.asks = None
        return 0

    def cut_answer(_data: bytes) -> int | None:
        if not is_asked:
            return None
        proxy.answers = proxy.asks = None
        return 0

    proxy.asks = cut
    proxy.answers = cut_answer if way == "answers" else None
    waiting = [store.commit(add(n), label="test", is_alone=is_alone) for n in (2, 3)]
    assert await asyncio.wait_for(asyncio.gather(*waiting), 20) == [2, 3]
    assert proxy.breaks == 1
    assert await store.commit(add(4), label="test") == 4
    assert numbers(store) == [1, 2, 3, 4]
    await asyncio.to_thread(store.close)


@pytest.mark.parametrize(
    "at", [b"pg_advisory_xact_lock", b"CREATE TABLE numbers", b"INSERT INTO surefoot_format", b"COMMIT"]
)
async def test_a_way_that_breaks_while_the_store_is_opened_is_made_again(url: str, proxy: Proxy, at: bytes) -> None:
    """Catches a worker that does not begin because a connection broke, and tables that are made twice or by half."""

    def cut(data: bytes) -> int | None:
        if at not in data:
            return None
        proxy.asks = None
        return data.index(at)

    proxy.asks = cut
    store = await asyncio.to_thread(open_store, proxy.url(url), [TABLE])
    assert proxy.breaks == 1
    assert await store.commit(add(1), label="test") == 1
    await asyncio.to_thread(store.close)


@pytest.mark.parametrize("seed", range(3))
async def test_a_way_that_breaks_at_any_byte_costs_nothing(url: str, proxy: Proxy, seed: int) -> None:
    """Catches a fault, at some place of the protocol, that loses a record, doubles one, or stops the writer."""
    draw = random.Random(seed)
    left = {"asks": 4_000, "answers": 4_000}

    def cut(way: str) -> Callable[[bytes], int | None]:
        def cut(data: bytes) -> int | None:
            left[way] -= len(data)
            if left[way] > 0:
                return None
            at = len(data) + left[way]
            left[way] = draw.randint(1, 6_000)
            return at

        return cut

    store = open_store(proxy.url(url), [TABLE])
    proxy.asks, proxy.answers = cut("asks"), cut("answers")
    for begin in range(0, 60, 3):
        waiting = [store.commit(add(n), label="test") for n in range(begin, begin + 3)]
        await asyncio.wait_for(asyncio.gather(*waiting), 30)
        await store.read(lambda connection: connection.execute("SELECT count(*) FROM numbers").fetchall())
    proxy.asks = proxy.answers = None
    assert await asyncio.to_thread(numbers, store) == list(range(60))
    assert proxy.breaks > 3
    await asyncio.to_thread(store.close)


async def test_a_statement_that_a_person_cancels_costs_time_only(url: str) -> None:
    """Catches a worker that stops for good because somebody ended a statement that seemed to hang."""
    store = open_store(url, [TABLE])
    await store.commit(add(1), label="test")
    asked: list[int] = []

    def look(connection: Any) -> list[Any]:
        asked.append(1)
        rows = connection.execute(f"SELECT pg_sleep({60 if len(asked) == 1 else 0})::text, 7").fetchall()
        return list(rows)

    with psycopg.connect(url) as other:
        other.execute("UPDATE surefoot_turn SET turn = turn + 1")
        waiting = [store.commit(add(n), label="test") for n in (2, 3)]
        reading = asyncio.create_task(store.read(look))
        first = await asyncio.to_thread(cancel, url, "Lock")
        await asyncio.to_thread(cancel, url, "Lock", first)  # while it looks up what became of it
        await asyncio.to_thread(cancel, url, "Timeout")
        other.commit()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 20) == [2, 3]
    assert await asyncio.wait_for(reading, 20) == [("", 7)]
    assert await store.commit(add(4), label="test") == 4
    assert numbers(store) == [1, 2, 3, 4]
    await asyncio.to_thread(store.close)


async def test_a_server_that_is_killed_and_started_again_costs_time_only(own: Postgres) -> None:
    """Catches records lost or doubled by a crash of the server, and a writer that does not wait for it."""
    store = open_store(own.url, [TABLE])
    told: list[int] = []

    async def work() -> None:
        for n in range(40):
            await store.commit(add(n), label="test")
            told.append(n)

    working = asyncio.create_task(work())
    for least in (5, 20):
        while len(told) < least:
            await asyncio.sleep(0.002)
        await asyncio.to_thread(own.kill)
        reading = asyncio.create_task(store.read(lambda connection: connection.execute("SELECT 1").fetchall()))
        await asyncio.to_thread(own.start)
        assert await asyncio.wait_for(reading, 30) == [(1,)]
    await asyncio.wait_for(working, 30)
    assert numbers(store) == list(range(40))
    await asyncio.to_thread(store.close)


async def test_a_standby_is_waited_for_until_it_is_promoted(own: Postgres) -> None:
    """Catches a process that stops for good, or reads the past, because its new server answers before it takes writes."""
    store = open_store(own.url, [TABLE])
    rung = threading.Event()
    store.listen(lambda _words: rung.set())
    await store.commit(add(1), label="test")
    own.kill()
    (own.folder / "standby.signal").touch()
    waiting = store.commit(add(2), label="test")
    own.start()
    rung.clear()
    with pytest.raises(UnusablePath, match="read-only") as raised:
        await asyncio.to_thread(open_store, own.url, [TABLE])
    assert "is no standby" in str(raised.value.hint)
    assert is_there(own.url)
    with looking_at(own.url, [TABLE]) as connection:
        assert connection.execute("SELECT n FROM numbers").fetchall() == [(1,)]
    reading = asyncio.create_task(store.read(lambda connection: connection.execute("SELECT n FROM numbers").fetchall()))
    with psycopg.connect(own.url, autocommit=True) as other:
        assert other.execute("SELECT pg_promote()").fetchall() == [(True,)]
    assert await asyncio.wait_for(waiting, 20) == 2
    assert (await asyncio.wait_for(reading, 20))[0] == (1,)
    assert await asyncio.to_thread(rung.wait, 20)
    assert numbers(store) == [1, 2]
    await asyncio.to_thread(store.close)


async def test_a_server_that_stays_away_is_told(own: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches callers that wait for ever for a server that does not come back."""
    store = open_store(own.url, [TABLE])
    monkeypatch.setattr(postgres_connection, "PATIENCE_S", 0.2)
    own.kill()
    for asked in (store.commit(add(1), label="test"), store.commit(add(2), label="test")):
        with pytest.raises(StoreFailed):
            await asyncio.wait_for(asked, 20)
    with pytest.raises(StoreFailed, match=r"could not be reached for 0 s"):
        await store.read(lambda connection: connection.execute("SELECT 1").fetchall())
    own.start()
    await asyncio.to_thread(store.close)


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_known_of_the_store_is_dropped_when_another_has_written(url: str, seed: int) -> None:
    """Catches "nobody else has written" said wrongly: after a refusal, a break, or a turn of somebody else's."""
    draw = random.Random(seed)
    stores = [open_store(url, [TABLE]) for _ in range(2)]
    written: list[int] = []

    def refused(tx: Tx) -> None:
        add(-1)(tx)
        raise ValueError("refused")

    async def step(n: int) -> None:
        store, kind = draw.choice(stores), draw.choice("aaaabbrrke")
        if kind == "a":
            await store.commit(add(n), label="test")
            written.append(n)
        elif kind == "b":  # several, of which one is refused
            units: list[Callable[[Tx], Any]] = [add(n), refused, add(n + 1_000)]
            await asyncio.gather(*(store.commit(one, label="test") for one in units), return_exceptions=True)
            written.extend([n, n + 1_000])
        elif kind == "r":
            with pytest.raises(ValueError, match="refused"):
                await store.commit(refused, label="test")
        elif kind == "k":
            await asyncio.to_thread(end, url, backend(store))
        else:  # ended in the middle of a unit
            pid, is_first = backend(store), iter((True, False, False))

            def broken(tx: Tx) -> None:
                add(n)(tx)
                if next(is_first):
                    end(url, pid)
                tx.execute("SELECT 1")

            await store.commit(broken, label="test")
            written.append(n)

    for n in range(40):
        await step(n)
    assert numbers(stores[0]) == written
    for store in stores:
        await asyncio.to_thread(store.close)


async def test_whoever_stands_still_in_a_transaction_loses_it_and_does_it_again(url: str) -> None:
    """Catches a stopped process that holds up all others, and its unit lost or refused when it goes on."""
    stopped, other = (open_store(url, [TABLE]) for _ in range(2))
    desk_of(stopped).connection.execute("SET idle_in_transaction_session_timeout = 200")
    has_begun, go_on = threading.Event(), threading.Event()

    def standing(tx: Tx) -> int:
        number = add(1)(tx)
        has_begun.set()
        go_on.wait(20)
        return number

    waiting = asyncio.ensure_future(stopped.commit(standing, label="test"))
    await asyncio.to_thread(has_begun.wait, 10)
    assert await asyncio.wait_for(other.commit(add(2), label="test"), 20) == 1
    go_on.set()
    assert await asyncio.wait_for(waiting, 20) == 2
    assert numbers(other) == [2, 1]
    for store in (stopped, other):
        await asyncio.to_thread(store.close)


async def test_an_error_that_a_unit_keeps_to_itself_is_no_commit(url: str) -> None:
    """Catches PostgreSQL's answer to COMMIT after an error, a rollback, taken for a commit."""
    store = open_store(url, [TABLE])

    def swallowing(tx: Tx) -> None:
        add(9)(tx)
        try:
            tx.execute("INSERT INTO numbers (id, n) VALUES (1, 1)")
        except psycopg.errors.UniqueViolation:
            return

    units: list[Callable[[Tx], Any]] = [add(1), swallowing, add(2)]
    waiting: list[Awaitable[Any]] = [store.commit(one, label="test") for one in units]
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in found] == [int, psycopg.errors.InFailedSqlTransaction, int]
    assert numbers(store) == [1, 2]
    await asyncio.to_thread(store.close)


async def test_a_users_statement_that_fails_undoes_only_itself(url: str) -> None:
    """Catches a `Transactional` effect that handles an error of its own statement, and is undone as a whole."""
    store = open_store(url, [TABLE])

    def unit(tx: Tx) -> list[tuple[Any, ...]]:
        add(1)(tx)
        with pytest.raises(psycopg.errors.UniqueViolation):
            tx.execute_apart("INSERT INTO numbers (id, n) VALUES (?, ?)", (1, 7))
        return tx.execute_apart("SELECT n FROM numbers", ())

    assert await store.commit(unit, label="test", is_alone=True) == [(1,)]
    assert numbers(store) == [1]
    await asyncio.to_thread(store.close)


@pytest.mark.parametrize("limit", ["statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout"])
async def test_a_limit_of_the_database_cuts_off_nothing_of_ours(url: str, limit: str) -> None:
    """Catches a long unit of a user's that is cut off, done again and cut off again, for ever."""
    store = open_store(f"{url}%20-c{limit}%3D200ms", [TABLE])
    tries: list[int] = []

    def unit(tx: Tx) -> None:
        tries.append(1)
        tx.execute_apart("SELECT pg_sleep(0.3)", ())
        time.sleep(0.3)
        add(1)(tx)

    await asyncio.wait_for(store.commit(unit, label="test", is_alone=True), 20)
    assert tries == numbers(store) == [1]
    await asyncio.to_thread(store.close)


async def test_a_users_unit_that_takes_too_long_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a `Transactional` effect that is cut off and done again for ever, and all that waits behind it."""
    settings = postgres_connection._SETTINGS
    shorter = settings.replace(f"_session_timeout = {postgres_connection.STOPPED_MS}", "_session_timeout = 300")
    assert shorter != settings
    monkeypatch.setattr(postgres_connection, "_SETTINGS", shorter)
    monkeypatch.setattr(postgres_connection, "STOPPED_MS", 300)
    tries: list[int] = []

    @sf.effect(key="book", in_doubt=sf.Transactional())
    def book() -> None:
        tries.append(1)
        time.sleep(1)

    @sf.durable(name="too long")
    async def run() -> None:
        await sf.in_thread(book)

    async with sf.Surefoot(url) as app:
        begun = await app.start(run, id="r")
        with pytest.raises(sf.RunFailed, match="3 times the server has ended its transaction"):
            await begun.result(timeout_s=30)
        assert tries == [1, 1, 1]
        await app.store.commit(lambda tx: None, label="test")


async def test_a_process_of_another_machine_is_never_proven_dead(url: str) -> None:
    """Catches a takeover from a process whose lock file can't be seen from here, while its lease lasts."""
    async with sf.Surefoot(url) as app:
        holder = app.worker.sessions.holder

        def add(tx: Tx) -> None:
            tx.execute(
                "INSERT INTO sessions (name, pid, boot_id, lock_file, opened_at_ms, renewed_boot_ms, ttl_ms)"
                " SELECT 'other', 4711, boot_id, 'elsewhere-4711-x', opened_at_ms, renewed_boot_ms, 60000 FROM sessions"
            )

        await app.store.commit(add, label="test")
        assert app.store.read_now(lambda connection: holder(connection, 2)).life is Life.ALIVE
        await app.store.commit(lambda tx: tx.execute("UPDATE sessions SET ttl_ms = -10000 WHERE id = 2"), label="test")
        assert app.store.read_now(lambda connection: holder(connection, 2)).life is Life.EXPIRED
    async with sf.Surefoot(url) as app:  # nor tidied up
        found = app.store.read_now(lambda c: c.execute("SELECT closed_at_ms FROM sessions WHERE id = 2").fetchall())
        assert found == [(None,)]


async def test_words_with_a_nul_are_recorded(url: str) -> None:
    """Catches a run that can't end, since PostgreSQL's text has no room for what its error says."""

    @sf.durable(name="says nul")
    async def run(word: str) -> None:
        raise ValueError(f"a {word}")

    async with sf.Surefoot(url) as app:
        begun = await app.start(run, "\0", id="nul \0")
        with pytest.raises(sf.RunFailed, match="a "):
            await begun.result(timeout_s=20)
        assert (await (await app.run("nul \0")).status()).state == "failed"


async def test_several_reads_see_one_moment(url: str) -> None:
    """Catches a document put together from two states of the store."""
    store = open_store(url, [TABLE])
    await store.commit(add(1), label="test")

    def look(connection: Any) -> list[int]:
        counts = []
        with connection:
            for n in (2, 3):
                counts.append(connection.execute("SELECT count(*) FROM numbers").fetchall()[0][0])
                store.writer.commit_blocking(add(n), label="test")
        counts.append(connection.execute("SELECT count(*) FROM numbers").fetchall()[0][0])
        return counts

    assert await store.read(look) == [1, 1, 3]
    await asyncio.to_thread(store.close)


def test_a_store_is_made_once_and_looked_at_as_it_is(url: str) -> None:
    """Catches a look that makes or changes a store, and formats that are taken for each other."""
    assert not is_there(url)
    with pytest.raises(StoreFailed, match="has no Surefoot store"), looking_at(url, [TABLE]):
        raise AssertionError("there is none")
    open_store(url, [TABLE]).close()
    assert is_there(url)
    second = Migration("test", 2, "more", "ALTER TABLE numbers ADD COLUMN more INTEGER")
    with pytest.raises(OlderFormat), looking_at(url, [TABLE, second]):
        raise AssertionError("it is older")
    with looking_at(url, [TABLE]) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("INSERT INTO numbers (id, n) VALUES (1, 1)")
    open_store(url, [TABLE, second]).close()
    with pytest.raises(NewerFormat, match="upgrade"):
        open_store(url, [TABLE])
    with pytest.raises(NewerFormat), looking_at(url, [TABLE]):
        raise AssertionError("it is newer")


async def test_a_migration_beside_an_old_worker_is_seen_by_it(url: str) -> None:
    """Catches an old worker that goes on from what it knew before a newer one changed the tables."""
    old = open_store(url, [TABLE])
    for n in range(1, 10):  # often enough for its statements to be prepared
        await old.commit(add(n), label="test")
        old.read_now(lambda connection: connection.execute("SELECT id, n FROM numbers WHERE n > ?", (0,)).fetchall())
    desk = desk_of(old)
    before = desk.begin((), is_owing=False).version
    desk.rollback()
    newer = "ALTER TABLE numbers ADD COLUMN more INTEGER NOT NULL DEFAULT 0; INSERT INTO numbers (id, n) VALUES (10, 2)"
    open_store(url, [TABLE, Migration("test", 2, "more", newer)]).close()
    after = desk.begin((), is_owing=False).version
    desk.rollback()
    assert after != before
    assert await old.commit(add(3), label="test") == 11
    found = old.read_now(
        lambda connection: connection.execute("SELECT id, n FROM numbers WHERE n > ?", (0,)).fetchall()
    )
    assert len(found) == 11
    await asyncio.to_thread(old.close)


def _column(version: int) -> Migration:
    return Migration("test", version, "more", f"ALTER TABLE numbers ADD COLUMN m{version} INTEGER")


async def test_a_migration_waits_for_nobody_and_nobody_for_long(url: str) -> None:
    """Catches old workers whose commits fail, or that deadlock, while a newer one changes the tables under them."""
    old, told = open_store(url, [TABLE]), 0
    is_over = False

    async def work() -> None:
        nonlocal told
        while not is_over:
            await asyncio.gather(*(old.commit(add(n), label="test") for n in range(5)))
            await old.read(
                lambda connection: connection.execute("SELECT id, n FROM numbers WHERE n > ?", (3,)).fetchall()
            )
            told += 5

    working = asyncio.create_task(work())
    for version in range(2, 8):
        while told < version * 20:
            await asyncio.sleep(0.01)
        steps = [
            Migration("test", v, "more", f"ALTER TABLE numbers ADD COLUMN m{v} INTEGER") for v in range(2, version + 1)
        ]
        newer = await asyncio.to_thread(open_store, url, [TABLE, *steps])
        await asyncio.to_thread(newer.close)
    is_over = True
    await asyncio.wait_for(working, 30)
    assert len(numbers(old)) == told
    await asyncio.to_thread(old.close)


def test_a_store_of_another_schema_is_not_taken_for_ones_own(url: str, postgres: Postgres) -> None:
    """Catches an app whose runs go to another app's store, because that lies in a later schema of its search path."""
    with schema(postgres.url) as theirs:
        open_store(theirs, [TABLE]).close()
        both = f"{url}%2C{theirs.rsplit('%3D', maxsplit=1)[-1]}"
        with pytest.raises(UnusablePath, match=r"has no Surefoot store, and s\w+, behind it"):
            open_store(both, [TABLE])
        open_store(url, [TABLE]).close()
        open_store(both, [TABLE]).close()


def test_a_schema_that_is_not_there_is_named(postgres: Postgres) -> None:
    """Catches a first start that ends in words of the driver's about SQL."""
    with pytest.raises(UnusablePath, match="search_path is 'nowhere', and there is no such schema") as raised:
        open_store(in_schema(postgres.url, "nowhere"), [TABLE])
    assert raised.value.hint == "CREATE SCHEMA ...; then try again"


def test_a_url_that_leads_nowhere_says_so(tmp_path: Any) -> None:
    """Catches a traceback of the driver's where a host was mistyped, and a password in a message."""
    with pytest.raises(UnusablePath, match="can't be reached") as raised:
        open_store(f"postgresql://me:secret@/db?host={tmp_path}", [TABLE])
    assert "secret" not in str(raised.value)


async def test_text_of_any_language_is_read_as_it_was_written(url: str) -> None:
    """Catches ids that come back as others where the environment or the URL asks for another encoding."""

    @sf.durable(name="says so")
    async def run(word: str) -> str:
        return word

    async with sf.Surefoot(f"{url}&client_encoding=latin1") as app:
        await (await app.start(run, "\u00fc", id="r\u00e9\u2192")).result(timeout_s=20)
        assert [row.run_id for row in await app.runs()] == ["r\u00e9\u2192"]


def test_a_connection_is_ready_after_one_round_trip(url: str, proxy: Proxy) -> None:
    """Would catch workers that need longer to come back after a break, the farther their server is away."""
    asked: list[bytes] = []
    proxy.asks = asked.append
    with Server(proxy.url(url)).connect():
        assert [data[:1] for data in asked[1:]] == [b"Q"]  # after the greeting: one query


@pytest.mark.parametrize(("asked", "kept"), [("off", "on"), ("local", "local")])
def test_a_commit_that_is_acknowledged_is_on_disk_whatever_the_url_asks_for(url: str, asked: str, kept: str) -> None:
    """Would catch commits that a crash of the server takes back, and a choice that needs no overruling."""
    with Server(f"{url}%20-csynchronous_commit%3D{asked}").connect() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == (kept,)


@pytest.mark.parametrize(
    ("more", "name", "timeout"),
    [("", "surefoot", "10"), ("&application_name=billing", "billing", "10"), ("&connect_timeout=3", "surefoot", "3")],
)
def test_what_a_url_says_of_name_and_patience_holds(url: str, more: str, name: str, timeout: str) -> None:
    """Would catch a worker that nobody finds under its name on the server, and one that waits longer than it was told."""
    with Server(f"{url}{more}").connect() as connection:
        assert connection.execute("SHOW application_name").fetchone() == (name,)
        assert connection.info.get_parameters()["connect_timeout"] == timeout


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_has_no_room_for_every_text_is_refused(postgres: Postgres, encoding: str) -> None:
    """Catches a store that garbles names, or whose reads fail, because of how its database was made."""
    name = f"d{encoding.lower()}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0".encode()
        )
        try:
            with pytest.raises(UnusablePath, match=f"encoding is {encoding}") as raised:
                open_store(postgres.url.replace("/postgres?", f"/{name}?"), [TABLE])
            assert raised.value.hint == "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://me:se/cret@host:5432/db", None),
        ("postgresql://me:s%40cret@host:5432/db?sslmode=require", "postgresql://me:***@host:5432/db?sslmode=require"),
        ("postgresql://me:a:se#c?ret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me:se@cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?sslkey=k&sslpassword=secret", "postgresql://host/db?sslkey=k&sslpassword=***"),
        ("postgresql://host:5432,other:5433/db", "postgresql://host:5432,other:5433/db"),
        ("postgresql://me@host/db?password=secret&x=1", "postgresql://me@host/db?password=***&x=1"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, seen: str | None) -> None:
    """Catches secrets in messages and suggested commands."""
    assert seen is None or shown(url) == seen


def test_without_psycopg_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an import error where one command would help."""
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(UnusablePath, match="PostgreSQL needs psycopg") as raised:
        open_store("postgresql://host/db", [TABLE])
    assert raised.value.hint == 'pip install "surefoot[postgres]"'


async def test_a_role_with_few_rights_suffices(url: str, postgres: Postgres) -> None:
    """Catches a statement that only an owner may run: what docs/postgresql.md grants is enough."""
    page = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text()
    schema_name = url.rsplit("%3D", maxsplit=1)[-1]
    grants = "".join(re.findall(r"^GRANT .*?;", page, flags=re.MULTILINE | re.DOTALL))
    async with sf.Surefoot(url, is_worker=False):  # makes the tables
        pass
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        words = grants.replace("agents_worker", f"few_{schema_name}").replace("SCHEMA agents", f"SCHEMA {schema_name}")
        connection.execute(f"CREATE ROLE few_{schema_name} LOGIN; {words}".encode())
    theirs = url.replace("//postgres:", f"//few_{schema_name}:")

    @sf.durable(name="few rights")
    async def run() -> str:
        return str(await sf.wait_signal("go"))

    try:
        async with sf.Surefoot(theirs) as app:
            begun = await app.start(run, id="r")
            await asyncio.to_thread(end, theirs, backend(app.store))
            await begun.signal("go", "gone")
            assert await begun.result(timeout_s=20) == "gone"
            await app.gc("1s")
    finally:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY few_{schema_name} CASCADE; DROP ROLE few_{schema_name}".encode())


def test_a_role_that_may_not_make_tables_is_told_who_may(url: str, postgres: Postgres) -> None:
    """Catches a first start, as a role that may do nothing, whose hint leads to the server's log."""
    name = f"none_{url.rsplit('%3D', maxsplit=1)[-1]}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN".encode())
        try:
            with pytest.raises(StoreFailed, match="permission denied") as raised:
                open_store(postgres.url.replace("//postgres:", f"//{name}:"), [TABLE])
            assert "as the owner of its schema" in str(raised.value.hint)
        finally:
            connection.execute(f"DROP ROLE {name}".encode())


async def test_a_server_whose_clock_went_back_is_not_written_to(url: str) -> None:
    """Catches keys, fences and leases whose age is counted by a clock that was set back."""
    store = open_store(url, [TABLE])
    await store.commit(add(1), label="test")
    with psycopg.connect(url, autocommit=True) as connection:  # as if it had been later before
        connection.execute("UPDATE surefoot_turn SET at_ms = at_ms + 50000")
        await store.commit(add(2), label="test")
        connection.execute("UPDATE surefoot_turn SET at_ms = at_ms + 50000")
        with pytest.raises(StoreFailed, match=r"clock has gone back by \d+ s"):
            await store.commit(add(3), label="test")
        connection.execute("UPDATE surefoot_turn SET at_ms = 0")  # nobody is held up
    assert numbers(store) == [1, 2]
    await asyncio.to_thread(store.close)


class HostClock:
    """A host's clocks that are set by hand."""

    now_ms = 1_000

    def wall_ms(self) -> int:
        return 0

    def boot_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return 0.0

    def boot_id(self) -> str:
        return "boot"


def test_the_servers_time_is_never_ahead_of_what_it_said() -> None:
    """Catches a late answer that moves the clock, one that is believed for ever though clocks drift apart, and a clock that
    was set and is not followed."""
    host = HostClock()
    clock = ServerClock(host, "server")
    clock.learn(50_000, clock.ask())
    asked_ms = clock.ask()
    host.now_ms += 1_000
    assert clock.boot_ms() == 51_000
    clock.learn(50_900, asked_ms)  # its answer was 100 ms under way
    assert clock.boot_ms() == 50_999
    asked_ms = clock.ask()
    host.now_ms += 1_000_000
    clock.learn(1_050_500, asked_ms)
    assert clock.boot_ms() == 1_050_500
    clock.learn(1_040_000, clock.ask())  # it was set back
    assert clock.boot_ms() == 1_040_000


def test_tables_are_defined_in_postgresqls_words() -> None:
    """Catches a definition that PostgreSQL reads as something else, such as numbers of 32 bits."""
    assert in_dialect("CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, b BLOB, c INTEGER) WITHOUT ROWID") == (
        "CREATE TABLE a (id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, b BYTEA, c BIGINT)"
    )


def test_a_store_is_a_postgres_store(url: str) -> None:
    """Catches a URL that opens another engine."""
    with pytest.MonkeyPatch.context():
        store = open_store(url.replace("postgresql://", "postgres://"), [TABLE])
    assert isinstance(store, PostgresStore)
    store.close()
