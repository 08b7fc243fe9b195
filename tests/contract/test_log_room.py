"""A log that grows is made longer ahead, so that a commit's sync need not make its new size durable too."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from pathlib import Path

import apsw
import pytest
from tests.support.logs import FRAME_BYTES, without_room

from surefoot.store import Migration, SqliteStore, Store, StoreFailed, Tx, log, open_store
from surefoot.store.log import FRAME_HEADER_BYTES, HEADER_BYTES

pytestmark = pytest.mark.sqlite_only("a log is SQLite's")

TABLE = Migration("test", 1, "numbers", "CREATE TABLE numbers (id INTEGER PRIMARY KEY, body BLOB)")


def opened(folder: Path) -> SqliteStore:
    store = open_store(f"sqlite:///{folder}/agents.db", [TABLE])
    assert isinstance(store, SqliteStore)
    return store


def add(store: Store, size: int = 100) -> None:
    def unit(tx: Tx) -> None:
        tx.execute("INSERT INTO numbers (body) VALUES (?)", (os.urandom(size),))

    store.writer.commit_blocking(unit, label="test")


def count(store: Store) -> int:
    return int(store.read_now(lambda connection: connection.execute("SELECT count(*) FROM numbers").fetchall())[0][0])


def sizes(store: SqliteStore, commits: int, size: int = 100) -> list[int]:
    """Return how large the log is after each of so many commits."""
    found = []
    for _ in range(commits):
        add(store, size)
        found.append(os.stat(f"{store.path}-wal").st_size)  # noqa: PTH116  as the log does
    return found


def test_small_commits_find_their_room(tmp_path: Path) -> None:
    """Would catch a log that grows with each commit: then each sync is two writes of the disk."""
    store = opened(tmp_path)
    try:
        assert len(set(sizes(store, 40)[5:])) <= 2
        assert count(store) == 40
    finally:
        store.close()


def test_room_goes_by_the_size_of_a_page(tmp_path: Path) -> None:
    """Would catch a log that is eight times as long as what is in it, in a file that was made with small pages."""
    with contextlib.closing(apsw.Connection(str(tmp_path / "agents.db"))) as made:
        made.execute("PRAGMA page_size = 512; VACUUM")
    store = opened(tmp_path)
    try:
        *_, last = sizes(store, 300)
        frames = store._checkpointer._own.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)[0]
        assert last <= HEADER_BYTES + frames * (FRAME_HEADER_BYTES + 512) + log.ROOM_BYTES
    finally:
        store.close()


def test_large_commits_get_none(tmp_path: Path) -> None:
    """Would catch a log that is written twice where that costs more than it spares."""
    store = opened(tmp_path)
    try:
        *_, last = sizes(store, 4, log.ROOM_BYTES)
        assert last == len(without_room(Path(f"{store.path}-wal").read_bytes()))
    finally:
        store.close()


@pytest.mark.parametrize("seed", range(4))
def test_two_stores_make_room_for_each_other(tmp_path: Path, seed: int) -> None:
    """Would catch zeros of one process over frames of another, behind which all is lost when the last one is killed."""
    draw = random.Random(seed)
    home, killed = tmp_path / "home", tmp_path / "killed"
    home.mkdir()
    stores = [opened(home), opened(home)]
    path = Path(f"{stores[0].path}-wal")
    add(stores[0])
    try:
        for _ in range(60):
            before = without_room(path.read_bytes())
            add(draw.choice(stores), draw.choice((100, 9_000, 60_000)))
            assert path.read_bytes()[: len(before)] == before
        shutil.copytree(home, killed)
        assert count(stores[0]) == 61
    finally:
        for store in stores:
            store.close()
    for folder in (home, killed):
        again = opened(folder)
        try:
            assert count(again) == 61
        finally:
            again.close()


def test_a_log_that_was_cut_is_made_longer_anew(tmp_path: Path) -> None:
    """Would catch room that is remembered, and is there no more: then nothing is gained ever after."""
    store = opened(tmp_path)
    try:
        sizes(store, 5)
        assert store._checkpointer._own.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE) == (0, 0)
        assert os.stat(f"{store.path}-wal").st_size == 0  # noqa: PTH116
        assert len(set(sizes(store, 40)[5:])) <= 2
    finally:
        store.close()


def test_a_transaction_that_is_over_makes_no_room(tmp_path: Path) -> None:
    """Would catch zeros over what another program commits between our look at the file's size and our write: the write
    lock is gone if a unit has swallowed the error that ended its transaction."""
    store = opened(tmp_path)

    def unit(tx: Tx) -> None:
        with contextlib.suppress(apsw.ConstraintError):
            tx.execute("INSERT OR ROLLBACK INTO numbers (id) VALUES (1)")

    try:
        sizes(store, 5)
        store._checkpointer._log._room = 0  # so that there is something to do
        os.truncate(f"{store.path}-wal", store._checkpointer._log._end)
        before = os.stat(f"{store.path}-wal").st_size  # noqa: PTH116
        with pytest.raises(StoreFailed, match="no transaction is active"):
            store.writer.commit_blocking(unit, label="test")
        assert os.stat(f"{store.path}-wal").st_size == before  # noqa: PTH116
    finally:
        store.close()


@pytest.mark.parametrize("written", [0, FRAME_BYTES + 7])
def test_no_room_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """Would catch a commit that fails, though it fits, since the disk has no room for more."""
    real = os.pwrite

    def pwrite(file: int, data: bytes, at: int) -> int:
        if len(data) != log.ROOM_BYTES:
            return real(file, data, at)
        if written:
            return real(file, data[:written], at)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("surefoot.store.log.os.pwrite", pwrite)
    store = opened(tmp_path)
    try:
        sizes(store, 30)
        assert count(store) == 30
    finally:
        store.close()
