"""The store keeps its promises: order, durability as a prefix, refused units, failing disks, foreign files, processes."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

from surefoot import app as composition
from surefoot import store as store_room
from surefoot.runs.rows.tables import RunRow, list_runs
from surefoot.store import (
    Check,
    CorruptStore,
    DiskFull,
    InsideTransaction,
    Migration,
    NewerFormat,
    Put,
    SqliteStore,
    Store,
    StoreBusy,
    StoreClosed,
    StoreFailed,
    Tx,
    UnitFailed,
    UnsafeSqlite,
    UnusablePath,
    checksums,
    is_on_postgres,
    open_store,
    parse_url,
)
from surefoot.store import turnstile as turnstile_module
from surefoot.store import writer as writer_module
from surefoot.store.log import Log
from surefoot.store.sqlite import refuse_unsafe_sqlite

CONFLICTS = (apsw.ConstraintError, psycopg.errors.UniqueViolation)
"""How an engine says that a number is taken."""

GOLDEN = Path(__file__).parent.parent / "golden"
TABLE = Migration("test", 1, "numbers", "CREATE TABLE numbers (id INTEGER PRIMARY KEY, n INTEGER UNIQUE, body BLOB)")
of_the_file = pytest.mark.sqlite_only("is about SQLite's file, its locks or its format")
needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    """An open store with one table."""
    opened = open_store(url, [TABLE])
    yield opened
    opened.close()


def add(n: int, body: bytes = b"") -> Any:
    """Return a unit that writes a number."""
    return lambda tx: tx.execute("INSERT INTO numbers (n, body) VALUES (?, ?)", (n, body)) and n


def numbers(url: str) -> list[int]:
    """Return what is in the store, in the order it was written, by a connection of its own.

    (Not by Python's sqlite3: two SQLite libraries in one process drop each other's file locks.)
    """
    if is_on_postgres(url):
        with psycopg.connect(url) as other:
            return [row[0] for row in other.execute("SELECT n FROM numbers ORDER BY id").fetchall()]
    connection = checksums.connect(parse_url(url))
    try:
        return [int(str(row[0])) for row in connection.execute("SELECT n FROM numbers ORDER BY id")]
    finally:
        connection.close()


def unheard(error: BaseException) -> None:
    """Be told of an error that the test asks for elsewhere."""


class Told:
    """Collects the errors that appended units are told."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def __call__(self, error: BaseException) -> None:
        self.errors.append(error)


# -- order and durability ---------------------------------------------------------------------------------------------


async def test_a_query_that_raises_half_way_leaves_no_snapshot_open(store: Store) -> None:
    """Catches reads that see the past for as long as somebody keeps the error of an earlier one."""
    for n in (1, 2, 3):
        await store.commit(add(n), label="add")

    def broken(connection: apsw.Connection) -> list[Any]:
        return [1 // (int(str(row[0])) - 1) for row in connection.execute("SELECT n FROM numbers ORDER BY n")]

    def count(connection: apsw.Connection) -> Any:
        return next(connection.execute("SELECT count(*) FROM numbers"))[0]

    with pytest.raises(ZeroDivisionError) as kept:
        await store.read(broken)
    await store.commit(add(4), label="add")
    assert await store.read(count) == 4
    assert kept.value is not None


async def test_units_are_written_in_the_order_they_were_asked(store: Store, url: str) -> None:
    """Catches a writer that reorders: then a sync of the last is no proof of the first."""
    for n in range(500):
        store.append(add(n), label="test", on_error=unheard)
    assert await store.commit(add(500), label="test") == 500
    assert numbers(url) == list(range(501))


async def test_a_commit_takes_its_place_when_it_is_asked_for(store: Store) -> None:
    """Catches a commit that is queued only once somebody awaits it, behind what was asked for later."""
    earlier = store.commit(put(1), label="test")
    store.append(lambda tx: tx.execute("UPDATE numbers SET n = n + 10"), label="test", on_error=unheard)
    await earlier
    await store.barrier()
    assert [n for (n,) in await store.read(lambda c: c.execute("SELECT n FROM numbers").fetchall())] == [11]


async def test_what_is_committed_survives_a_kill_and_is_a_prefix(url: str) -> None:
    """Catches an acknowledgement before the sync, and a hole in what was recorded."""
    script = f"""
import asyncio, os, sys
from surefoot.store import Migration
from surefoot.store import open_store
TABLE = Migration(*{(TABLE.room, TABLE.version, TABLE.name, TABLE.sql)!r})
def add(n): return lambda tx: tx.execute("INSERT INTO numbers (n) VALUES (?)", (n,))
async def main():
    store = open_store({url!r}, [TABLE])
    for n in range(100_000):
        store.append(add(n), label="test", on_error=print)
        if n % 50 == 0:
            await store.commit(add(-n - 1), label="test")
            print(n, flush=True)
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(20):
        acknowledged = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    found = numbers(url)
    assert -acknowledged - 1 in found
    counted = [n for n in found if n >= 0]
    assert counted == list(range(len(counted)))
    assert len(counted) > acknowledged


async def test_units_that_wait_share_a_sync(store: Store) -> None:
    """Catches one sync per unit, which a disk can't keep up with."""
    before = store.writer.syncs
    await asyncio.gather(*(store.commit(add(n), label="test") for n in range(1_000)))
    assert store.writer.syncs - before < 50


async def test_what_nobody_waits_for_is_on_disk_soon(url: str) -> None:
    """Catches appended records that stay in memory until somebody waits."""
    store = open_store(url, [TABLE], flush_s=0.02)
    try:
        for round_ in range(3):
            await asyncio.sleep(0.1)  # the writer is asleep now
            store.append(add(round_), label="test", on_error=unheard)
            async with asyncio.timeout(1.0):
                while len(numbers(url)) <= round_:
                    await asyncio.sleep(0.005)
    finally:
        store.close()


async def test_what_nobody_waits_for_is_joined_by_what_follows(url: str) -> None:
    """Catches a sync for each record that comes after a pause: twice as many as an agent needs."""
    store = open_store(url, [TABLE], flush_s=0.3)
    try:
        for round_ in range(3):
            async with asyncio.timeout(5):
                while not store.writer._is_asleep:
                    await asyncio.sleep(0.01)
            before = store.writer.syncs
            store.append(add(round_), label="test", on_error=unheard)
            await asyncio.sleep(0.01)
            await store.commit(add(round_ + 10), label="test")
            assert store.writer.syncs == before + 1
    finally:
        store.close()


@pytest.mark.sqlite_only("SQLite moves the log into the file when it is closed")
async def test_a_process_that_closes_the_file_is_waited_for(url: str) -> None:
    """Catches a worker that ends at its start because a command beside it is just done, and has the file for itself."""
    open_store(url, [TABLE]).close()
    closing = checksums.connect(parse_url(url))
    closing.pragma("locking_mode", "exclusive")
    closing.execute("BEGIN EXCLUSIVE; COMMIT")
    with pytest.raises(apsw.BusyError):
        checksums.connect(parse_url(url)).execute("SELECT count(*) FROM sqlite_schema")
    ends = threading.Timer(0.2, closing.close)
    ends.start()
    open_store(url, [TABLE]).close()
    ends.join()


async def test_close_writes_what_is_queued(url: str) -> None:
    """Catches records that are dropped at a graceful end."""
    store = open_store(url, [TABLE])
    for n in range(100):
        store.append(add(n), label="test", on_error=unheard)
    store.close()
    assert numbers(url) == list(range(100))


async def test_too_much_unsynced_holds_the_caller_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a backlog that grows until memory ends, and a caller that is never let go."""
    monkeypatch.setattr(writer_module, "BACKLOG_BYTES_MAX", 1_000)
    body = bytes(600)
    for n in range(3):
        store.append(add(n, body), label="test", on_error=unheard, size=len(body))
    assert not store.writer.has_room
    assert await store.commit(add(3), label="test") == 3
    assert store.writer.has_room
    assert store.writer._backlog == 0


async def test_the_backlog_is_counted_right_between_threads(store: Store) -> None:
    """Catches lost updates: a backlog that never comes back to nothing holds everybody back for ever."""

    def many(start: int) -> None:
        for n in range(start, start + 200):
            store.writer.commit_blocking(add(n), label="test")

    threads = [threading.Thread(target=many, args=(start,)) for start in (1_000, 2_000, 3_000)]
    for thread in threads:
        thread.start()
    for n in range(500):
        store.append(add(n), label="test", on_error=unheard, size=7)
        if n % 100 == 0:
            await asyncio.sleep(0)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await store.barrier()
    assert store.writer._backlog == 0


# -- rows on trust ----------------------------------------------------------------------------------------------------

PUT = Put("INSERT INTO numbers (n, body) VALUES", 2, "ON CONFLICT DO NOTHING")


def put(n: int) -> Any:
    """Return a unit that writes a number, perhaps with others."""
    return lambda tx: tx.put(PUT, (n, b""))


def held_up(store: Store) -> threading.Event:
    """Let the writer wait inside a unit, so that what is queued meanwhile becomes one batch."""
    go_on = threading.Event()
    store.append(lambda _tx: go_on.wait(5), label="test", on_error=unheard)
    return go_on


async def test_a_row_on_trust_that_meets_another_is_told_the_truth(store: Store, url: str) -> None:
    """Catches two callers of one batch who both hear that the row is theirs."""
    go_on = held_up(store)
    asked = [asyncio.ensure_future(store.commit(put(n), label="test"))
             for n in (*range(150), 7, 7, *range(150, 200))]  # fmt: skip
    await asyncio.sleep(0)
    go_on.set()
    answers = await asyncio.gather(*asked)
    assert [number for number, answer in enumerate(answers) if not answer] == [150, 151]
    assert numbers(url) == list(range(200))


async def test_a_unit_reads_what_was_put_before_it(store: Store) -> None:
    """Catches rows that wait for their kind while somebody looks for them."""
    go_on = held_up(store)
    looks = (
        lambda tx: tx.row("SELECT count(*) FROM numbers"),
        lambda tx: tx.execute("SELECT count(*) FROM numbers").fetchall()[0],
        lambda tx: next(tx.connection.execute("SELECT count(*) FROM numbers")),
    )
    seen = []
    for n, look in enumerate(looks):
        store.append(put(n), label="test", on_error=unheard)
        seen.append(asyncio.ensure_future(store.commit(look, label="test")))
        await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.gather(*seen) == [(1,), (2,), (3,)]


IS_THERE = Check(1, "n", "SELECT count(*) AS found FROM asked JOIN numbers ON numbers.n = asked.n", is_each=True)
IS_NOT_THERE = Check(1, "n", "SELECT count(*) AS found FROM asked JOIN numbers ON numbers.n = asked.n", is_each=False)


def behind(n: int, before: int) -> Any:
    """Return a unit that writes a number only if another is there, and none is there yet."""

    def unit(tx: Tx) -> str:
        for check, number, is_right in ((IS_THERE, before, True), (IS_NOT_THERE, n, False)):
            if not tx.trusts(check, number):
                found = tx.row("SELECT 1 FROM numbers WHERE n = ?", (number,))
                if (found is not None) is not is_right:
                    return "no"
        tx.put(PUT, (n, b""))
        return "yes"

    return unit


async def test_what_was_trusted_and_is_not_so_is_told_the_truth(store: Store, url: str) -> None:
    """Catches a guard that is believed and never asked, and one refusal that is told to its neighbours."""
    await store.commit(put(0), label="test")
    go_on = held_up(store)
    asked = [asyncio.ensure_future(store.commit(behind(n, before), label="test"))
             for n, before in [(1, 0), (2, 9), (3, 0), *((n, 0) for n in range(4, 100)), (1, 0)]]  # fmt: skip
    await asyncio.sleep(0)
    go_on.set()
    answers = await asyncio.gather(*asked)
    assert [number for number, answer in enumerate(answers) if answer == "no"] == [1, 99]
    assert numbers(url) == [0, 1, *range(3, 100)]
    assert await store.commit(behind(100, 2), label="test") == "no"
    assert await store.commit(behind(100, 1), label="test") == "yes"


async def test_rows_on_trust_are_gone_with_their_transaction(store: Store, url: str) -> None:
    """Catches rows that wait on after a rollback, and are written with somebody else's."""
    go_on = held_up(store)
    told = Told()
    store.append(lambda tx: (tx.put(PUT, (1, b"")), 1 // 0), label="test", on_error=told)
    last = asyncio.ensure_future(store.commit(put(2), label="test"))
    await asyncio.sleep(0)
    go_on.set()
    assert await last
    assert numbers(url) == [2]
    assert [type(error) for error in told.errors] == [ZeroDivisionError]


@of_the_file
async def test_who_is_committed_is_told_before_a_foreign_program_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an answer that is kept back while another program holds the file's own lock."""
    foreign, go_on = apsw.Connection(str(store.path)), held_up(store)

    def take_the_lock() -> None:  # between the two commits
        monkeypatch.undo()
        foreign.execute("BEGIN IMMEDIATE")

    commits: list[int] = []

    def after_commit() -> None:
        commits.append(1)
        if len(commits) == 2:  # that of the unit which holds us up, and the first
            take_the_lock()

    assert isinstance(store, SqliteStore)
    monkeypatch.setattr(store._checkpointer, "after_commit", after_commit)
    first = asyncio.ensure_future(store.commit(add(1), label="test", is_alone=True))
    second = asyncio.ensure_future(store.commit(add(2), label="test"))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait_for(first, 3)
    assert not second.done()
    foreign.execute("ROLLBACK")
    assert await second == 2
    foreign.close()


async def test_who_is_committed_is_told_though_all_that_follows_is_refused(store: Store) -> None:
    """Catches an answer that waits for a commit which never comes."""
    go_on, told = held_up(store), Told()
    first = asyncio.ensure_future(store.commit(add(1), label="test", is_alone=True))
    await asyncio.sleep(0)
    store.append(add(1), label="test", on_error=told)  # breaks the uniqueness
    go_on.set()
    assert await asyncio.wait_for(first, 2) == 1
    async with asyncio.timeout(5):
        while not told.errors:
            await asyncio.sleep(0.01)
    (refusal,) = told.errors
    assert isinstance(refusal, CONFLICTS)


@of_the_file
async def test_who_is_committed_is_told_before_another_process_is_waited_for(store: Store) -> None:
    """Catches an answer that is kept back while somebody else writes."""
    assert isinstance(store, SqliteStore)
    in_line, done, other = threading.Event(), threading.Event(), turnstile_module.Turnstile(store.path)

    def write_elsewhere() -> None:
        with other:
            done.wait(5)

    first = asyncio.ensure_future(store.commit(lambda tx: in_line.wait(5) and add(1)(tx), label="test"))
    await asyncio.sleep(0.05)
    second = asyncio.ensure_future(store.commit(add(2), label="test"))
    standing = threading.Thread(target=write_elsewhere)
    standing.start()
    await asyncio.sleep(0.05)
    in_line.set()
    await asyncio.wait_for(first, 2)
    assert not second.done()
    done.set()
    await second
    standing.join()
    other.close()


# -- one refused unit -------------------------------------------------------------------------------------------------


async def test_a_refused_unit_fails_alone(store: Store, url: str) -> None:
    """Catches one bad record that takes its neighbours of the same batch with it."""
    told = Told()
    for n in (1, 2, 1, 3):  # the second 1 breaks the uniqueness
        store.append(add(n), label="test", on_error=told)
    await store.barrier()
    assert numbers(url) == [1, 2, 3]
    (refusal,) = told.errors
    assert isinstance(refusal, CONFLICTS)


async def test_a_refused_unit_costs_its_neighbours_one_more_write(store: Store, url: str) -> None:
    """Catches a batch that is written again as a whole though the unit at fault would raise again; and a refusal that
    nobody needs to hear of, and that keeps somebody else's answer back."""
    go_on, written = held_up(store), []

    def once_more(tx: Tx) -> None:
        written.append(add(1)(tx))

    def refused(_tx: Tx) -> None:
        raise ValueError("no")

    first = asyncio.ensure_future(store.commit(once_more, label="test"))
    store.append(refused, label="test", on_error=None)
    last = asyncio.ensure_future(store.commit(add(2), label="test"))
    go_on.set()
    await asyncio.gather(first, last)
    assert len(written) == 2  # with the unit at fault, and alone
    assert numbers(url) == [1, 2]


async def test_a_refusal_is_known_before_the_next_unit_runs(store: Store) -> None:
    """Catches a unit that is written on top of one that was refused, because it could not know yet."""
    refused: list[str] = []
    seen: list[list[str]] = []

    def bad(_tx: Tx) -> None:
        raise ValueError("no")

    store.append(lambda _tx: None, label="test", on_error=unheard)
    store.append(bad, label="test", on_error=unheard, on_refused=lambda error: refused.append(str(error)))
    store.append(lambda _tx: seen.append(list(refused)), label="test", on_error=unheard)
    await store.barrier()
    assert seen[-1] == ["no"]  # it may have run before, in a batch that was rolled back


async def test_user_code_in_a_transaction_of_its_own_stops_nothing(store: Store, url: str) -> None:
    """Catches a tool's missing file, or its cancellation, that ends the store for the whole process."""
    errors: list[type[BaseException]] = [
        FileNotFoundError, apsw.IOError, apsw.FullError, asyncio.CancelledError, SystemExit, StopIteration, GeneratorExit,
    ]  # fmt: skip

    def raising(kind: type[BaseException]) -> Any:
        def unit(tx: Tx) -> None:
            add(7)(tx)
            raise kind("template.html")

        return unit

    for kind in errors:
        with pytest.raises((kind, UnitFailed)):
            await store.commit(raising(kind), label="test", is_alone=True)
    with pytest.raises(OSError, match="template"):  # nor does an ordinary unit's, which may come from a gate
        await store.commit(raising(OSError), label="test")
    assert await store.commit(add(8), label="test") == 8
    assert numbers(url) == [8]


async def test_a_transaction_that_waits_for_the_store_is_refused(store: Store) -> None:
    """Catches a process that hangs for ever because a unit waits for the writer it holds up."""

    def unit(_tx: Tx) -> None:
        assert store.writer.is_own_thread
        store.writer.commit_blocking(add(1), label="inner")

    with pytest.raises(InsideTransaction, match="would wait for itself"):
        await store.commit(unit, label="outer", is_alone=True)
    assert not store.writer.is_own_thread
    await store.barrier()


# -- a failing disk ---------------------------------------------------------------------------------------------------


@of_the_file
async def test_a_full_disk_stops_the_writer_and_tells_everybody(url: str) -> None:
    """Catches records that are acknowledged though there was no room, and callers that are left waiting."""
    store = open_store(url, [TABLE])
    await store.commit(add(1), label="test")
    pages = store.read_now(lambda connection: connection.pragma("page_count"))
    assert isinstance(store, SqliteStore)
    store._connection.pragma("max_page_count", pages)
    told = Told()
    store.append(add(2, bytes(100_000)), label="test", on_error=told)
    waiting = [asyncio.ensure_future(store.commit(add(n), label="test")) for n in (3, 4)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in results} == {DiskFull}
    await asyncio.sleep(0)
    assert [type(one) for one in told.errors] == [DiskFull]
    with pytest.raises(DiskFull):
        await store.commit(add(5), label="test")
    with pytest.raises(DiskFull):
        await asyncio.to_thread(store.writer.commit_blocking, add(6), label="test")
    store.close()
    assert numbers(url) == [1]


@of_the_file
async def test_a_failed_commit_stops_the_writer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a second try after a failed sync, which may report success without the data."""
    await store.commit(add(1), label="test")

    def hook() -> bool:
        raise apsw.IOError("the disk is gone")

    assert isinstance(store, SqliteStore)
    store._connection.set_commit_hook(hook)
    with pytest.raises(StoreFailed, match="records nothing more"):
        await store.commit(add(2), label="test")
    store._connection.set_commit_hook(None)
    with pytest.raises(StoreFailed):
        await store.commit(add(3), label="test")
    assert store.writer.failure is not None


@of_the_file
async def test_whatever_ends_the_writers_thread_is_told(store: Store) -> None:
    """Catches a dead writer that everybody waits for."""

    def broken() -> None:
        raise MemoryError("of all things")

    assert isinstance(store, SqliteStore)
    store._checkpointer.after_commit = broken  # type: ignore[method-assign]  # stands for a mistake of ours
    await store.commit(add(1), label="test")
    await asyncio.to_thread(store.writer._thread.join, 5)
    with pytest.raises(StoreFailed, match="of all things"):
        await store.commit(add(2), label="test")


async def test_a_closed_store_says_so_and_loses_no_ticket(url: str) -> None:
    """Catches a unit that is put while the store closes, and is neither written nor refused."""
    for _ in range(20):
        store = open_store(url, [TABLE])
        answers: list[str] = []

        def put_until_closed(store: Store = store, answers: list[str] = answers) -> None:
            while True:
                try:
                    store.writer.commit_blocking(lambda _tx: None, label="test")
                    answers.append("written")
                except StoreClosed:
                    answers.append("closed")
                    return

        threads = [threading.Thread(target=put_until_closed) for _ in range(3)]
        for thread in threads:
            thread.start()
        await asyncio.sleep(0.005)
        await asyncio.to_thread(store.close)
        for thread in threads:
            await asyncio.to_thread(thread.join, 5)
            assert not thread.is_alive()
        assert answers.count("closed") == 3
    with pytest.raises(StoreClosed, match="is closed"):
        store.read_now(lambda connection: connection.pragma("page_count"))
    with pytest.raises(StoreClosed, match="is closed"):
        await store.commit(add(1), label="test")
    store.writer.close()


async def test_a_forked_child_is_refused(store: Store) -> None:
    """Catches two processes that write through one connection, which damages the file."""
    await store.commit(add(1), label="test")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.writer.commit_blocking(add(2), label="test")
            os.write(writer, b"written")
        except StoreClosed as error:
            os.write(writer, error.message.encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        assert b"before this process was forked" in pipe.read()
    await store.commit(add(3), label="test")


# -- files ------------------------------------------------------------------------------------------------------------


def test_only_urls_that_name_a_file_are_taken() -> None:
    """Catches a store somewhere else than the user thinks, or in memory."""
    assert parse_url("sqlite:///a.db") == Path("a.db")
    assert parse_url("sqlite:////var/a.db") == Path("/var/a.db")
    for url in ("a.db", "sqlite://a.db", "sqlite:///", "sqlite:///:memory:", "mysql:///a", "postgresql://u:secret@h/d"):
        with pytest.raises(UnusablePath) as caught:
            parse_url(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("version", ["3.51.2", "3.50.6", "3.44.5", "3.7.0", "3.45.0", "3.51.0"])
def test_a_sqlite_that_can_lose_commits_is_refused(version: str) -> None:
    """Catches an old library that slipped in."""
    with pytest.raises(UnsafeSqlite):
        refuse_unsafe_sqlite(version)
    refuse_unsafe_sqlite("3.51.3")
    refuse_unsafe_sqlite("3.50.7")
    refuse_unsafe_sqlite("3.44.6")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """Catches a directory made by a typo."""
    with pytest.raises(UnusablePath, match="there is no directory"):
        open_store(f"sqlite:///{tmp_path}/nowhere/a.db", [TABLE])
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """Catches a traceback of the library's."""
    with pytest.raises(UnusablePath, match="not a file"):
        open_store(f"sqlite:///{tmp_path}", [TABLE])


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    """Catches a traceback of the library's."""
    (tmp_path / "a.db").symlink_to(tmp_path / "b.db")
    (tmp_path / "b.db").symlink_to(tmp_path / "a.db")
    with pytest.raises(UnusablePath):
        open_store(f"sqlite:///{tmp_path}/a.db", [TABLE])


@of_the_file
def test_a_disk_that_fails_at_the_last_look_of_opening_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a bare error of the system out of opening, and files that stay open behind it."""

    def fail(_path: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("surefoot.store.whereabouts._identity", fail)
        with pytest.raises(StoreFailed, match="opening failed"):
            open_store(url, [TABLE])
    open_store(url, [TABLE]).close()


@of_the_file
def test_a_disk_that_fails_at_the_very_end_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a bare error of the system out of closing, which leaves open whether what was acknowledged is there."""
    store = open_store(url, [TABLE])

    def fail(_log: Log) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Log, "note_closed", fail)
        with pytest.raises(StoreFailed, match="closing failed") as raised:
            store.close()
    assert "all that was acknowledged is recorded" in (raised.value.hint or "")
    open_store(url, [TABLE]).close()


@needs_permissions
def test_a_directory_without_permission_is_named(tmp_path: Path) -> None:
    """Catches an error that comes only at the first write."""
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(UnusablePath, match="not writable"):
            open_store(f"sqlite:///{tmp_path}/a.db", [TABLE])
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_readonly_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, also where the tests run as root."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UnusablePath, match="not writable"):
        open_store(f"sqlite:///{tmp_path}/a.db", [TABLE])


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    """Catches our tables in somebody else's file."""
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(CorruptStore, match="something else"):
        open_store(f"sqlite:///{path}", [TABLE])
    with sqlite3.connect(path) as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM sqlite_schema")] == ["theirs"]
    connection.close()


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    """Catches a text file that is overwritten."""
    path = tmp_path / "a.db"
    path.write_bytes(b"dear diary " * 1_000)
    with pytest.raises(CorruptStore, match="damaged or no SQLite database"):
        open_store(f"sqlite:///{path}", [TABLE])
    assert path.read_bytes() == b"dear diary " * 1_000


async def test_one_file_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches two spellings of one file, whose locks then don't meet."""
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    urls = ["sqlite:///a.db", f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/link/a.db", "sqlite:///./link/a.db"]
    stores = [open_store(url, [TABLE]) for url in urls]
    try:
        assert {store.path for store in stores} == {(tmp_path / "a.db").resolve()}
    finally:
        for store in stores:
            store.close()


# -- formats ----------------------------------------------------------------------------------------------------------

SECOND = Migration("test", 2, "labels", "ALTER TABLE numbers ADD COLUMN label TEXT NOT NULL DEFAULT 'old'")


@of_the_file
async def test_an_older_format_is_brought_forward_once(url: str) -> None:
    """Catches a migration that is skipped, run twice, or forgets what was there."""
    store = open_store(url, [TABLE])
    await store.commit(add(1), label="test")
    store.close()
    for _ in range(2):
        store = open_store(url, [TABLE, SECOND])
        rows = store.read_now(lambda c: list(c.execute("SELECT n, label FROM numbers")))
        steps = store.read_now(lambda c: list(c.execute("SELECT room, version, name FROM surefoot_format")))
        store.close()
        assert rows == [(1, "old")]
        assert steps == [("store", 1, "page checksums"), ("test", 1, "numbers"), ("test", 2, "labels")]


@of_the_file
def test_a_migration_that_fails_leaves_the_old_format(url: str) -> None:
    """Catches a file between two formats."""
    open_store(url, [TABLE]).close()
    broken = Migration("test", 3, "broken", "CREATE TABLE oops (x); SELECT no_such_function()")
    with pytest.raises(StoreFailed):
        open_store(url, [TABLE, SECOND, broken])
    with sqlite3.connect(parse_url(url)) as connection:
        assert "label" not in str(list(connection.execute("SELECT sql FROM sqlite_schema")))
    connection.close()
    open_store(url, [TABLE]).close()


@of_the_file
@pytest.mark.parametrize("known", [[TABLE], []], ids=["older step", "room unknown"])
def test_a_newer_format_is_refused_and_unchanged(url: str, known: list[Migration]) -> None:
    """Catches an old program that writes into a file it doesn't understand."""
    open_store(url, [TABLE, SECOND]).close()
    before = parse_url(url).read_bytes()
    with pytest.raises(NewerFormat, match="upgrade"):
        open_store(url, known)
    assert parse_url(url).read_bytes() == before
    open_store(url, [TABLE, SECOND]).close()


def test_the_golden_file_of_format_1_is_still_read(tmp_path: Path) -> None:
    """Catches a change of the format that no migration carries: this file is what users have on disk.

    Made by `tests/golden/make.py`; a file is never made anew, a new format gets a new file.
    """
    path = tmp_path / "agents.db"
    shutil.copy(GOLDEN / "format-1.db", path)
    store = open_store(f"sqlite:///{path}", composition.MIGRATIONS)
    try:
        runs = {run.run_id: run for run in store.read_now(list_runs)}
        newest = {(m.room, m.version) for m in (*store_room.MIGRATIONS, *composition.MIGRATIONS)}
        have = set(store.read_now(lambda c: list(c.execute("SELECT room, version FROM surefoot_format"))))
        assert have == newest
        assert _summary(runs) == {"done": ("golden", "COMPLETED", None), "waits": ("golden", "WAITING", "signal")}
    finally:
        store.close()


def _summary(runs: dict[str, RunRow]) -> dict[str, tuple[str, str, str | None]]:
    return {name: (run.kind, run.state.name, run.waiting_for) for name, run in runs.items()}


def test_released_migrations_never_change(tmp_path: Path) -> None:
    """Catches an edit of a step that files on disk have had already: the golden file's tables are those of its steps."""
    with sqlite3.connect(shutil.copy(GOLDEN / "format-1.db", tmp_path)) as golden:
        had = {tuple(row) for row in golden.execute("SELECT room, version, name FROM surefoot_format")}
        golden_schema = {_flat(sql) for (sql,) in golden.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
    golden.close()
    known = {(m.room, m.version, m.name) for m in composition.MIGRATIONS}
    assert had <= known
    fresh = sqlite3.connect(":memory:")
    for step in composition.MIGRATIONS:
        if (step.room, step.version, step.name) in had:
            fresh.executescript(step.sql)
    made = {_flat(sql) for (sql,) in fresh.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
    fresh.close()
    assert made <= golden_schema
    assert all("surefoot_format" in sql for sql in golden_schema - made)


def _flat(sql: str) -> str:
    return " ".join(sql.split())


# -- several processes ------------------------------------------------------------------------------------------------


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Any]:
    """Return a function that starts a process which takes a turn on the store and keeps it."""
    processes: list[subprocess.Popen[str]] = []

    def start(url: str) -> subprocess.Popen[str]:
        script = f"""
import time
from surefoot.store import parse_url
from surefoot.store.turnstile import Turnstile
with Turnstile(parse_url({url!r}).resolve()):
    print("held", flush=True)
    time.sleep(60)
"""
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@of_the_file
def test_who_waits_too_long_is_told_who_holds_the_lock(url: str, hold: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches processes that wait for ever behind one that is stopped."""
    open_store(url, [TABLE]).close()
    holder = hold(url)
    holder.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(turnstile_module.Turnstile.__init__, "__kwdefaults__", {"wait_s": 0.3})
    with pytest.raises(StoreBusy, match=f"process {holder.pid} has held"):
        open_store(url, [TABLE])
    holder.kill()
    holder.wait()
    open_store(url, [TABLE]).close()  # and who gave up holds nothing


@of_the_file
async def test_whoever_has_a_store_open_waits_longer_than_whoever_opens_it(
    url: str, hold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches workers that all end because one of them was stopped for a while at the lock."""
    monkeypatch.setattr(turnstile_module.Turnstile.__init__, "__kwdefaults__", {"wait_s": 0.1})
    store = open_store(url, [TABLE])
    holder = hold(url)
    writing = asyncio.ensure_future(store.commit(add(1), label="test"))
    await asyncio.sleep(0.3)
    assert not writing.done()
    holder.kill()
    holder.wait()
    await writing
    store.close()


def test_a_turn_that_comes_after_it_was_given_up_is_passed_on(
    tmp_path: Path, hold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a lock that is taken by nobody, and kept."""
    url = f"sqlite:///{tmp_path}/a.db"
    holder = hold(url)
    waiting = turnstile_module.Turnstile(tmp_path / "a.db", wait_s=0.1)
    with pytest.raises(StoreBusy), waiting:
        pass
    holder.kill()
    holder.wait()
    other = turnstile_module.Turnstile(tmp_path / "a.db", wait_s=5)
    for turnstile in (other, waiting, other):
        with turnstile:
            pass
    for turnstile in (other, waiting):
        turnstile.close()
        turnstile.close()


@of_the_file
async def test_a_database_locked_by_a_foreign_program_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a hang behind an open transaction in a SQLite shell."""
    monkeypatch.setattr("surefoot.store.sqlite.BUSY_TIMEOUT_MS", 50)
    store = open_store(url, [TABLE])
    script = (
        f"import sqlite3, sys; c = sqlite3.connect({str(store.path)!r}, isolation_level=None);"
        " c.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        with pytest.raises(StoreBusy, match="another program holds the write lock"):
            await store.commit(add(1), label="test")
    store.close()


def _write_many(url: str, number: int, together: Any) -> None:
    async def main() -> None:
        store = open_store(url, [TABLE])
        together.wait(60)
        for _ in range(300):
            await store.commit(
                lambda tx: tx.execute("INSERT INTO numbers (body) VALUES (?)", (bytes([number]),)), label="test"
            )
        store.close()

    asyncio.run(main())


def test_processes_get_their_turns_fairly(url: str) -> None:
    """Catches a busy process that starves the others: until it is done, they have hardly begun."""
    open_store(url, [TABLE]).close()
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(3)
    processes = [context.Process(target=_write_many, args=(url, number, together)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    store = open_store(url, [TABLE])
    order = [row[0] for row in store.read_now(lambda c: c.execute("SELECT body FROM numbers ORDER BY id").fetchall())]
    store.close()
    assert len(order) == 900
    done = {number: [at for at, body in enumerate(order) if body == bytes([number])] for number in range(3)}
    first_end = min(turns[-1] for turns in done.values())
    turns = {number: sum(at <= first_end for at in turns) for number, turns in done.items()}
    assert min(turns.values()) > 150, turns
