"""Silent damage is noticed: a flipped byte in the file or in its log, a log that is gone, another program's hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from tests.support.logs import FRAME_BYTES, without_room

import surefoot as sf
from surefoot.journal import take_record_id
from surefoot.store import CorruptStore, Migration, StoreBusy, StoreError, Tx, checksums, open_store
from surefoot.store.log import FRAME_HEADER_BYTES, HEADER_BYTES, Log, NotedIn
from surefoot.store.sqlite import connect_to_read

TABLE = Migration("test", 1, "numbers", "CREATE TABLE numbers (id INTEGER PRIMARY KEY, n INTEGER, body BLOB)")
COMMITS = 12

KILLED = """
import asyncio, os, sys
from surefoot.store import Migration, open_store
store = open_store(sys.argv[1], [Migration("test", 1, "numbers", {sql!r})])
async def main():
    for n in range({commits}):
        body = os.urandom(6000)
        await store.commit(lambda tx: tx.execute("INSERT INTO numbers (n, body) VALUES (?, ?)", (n, body)) and None,
                           label="test")
asyncio.run(main())
os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a store whose only process was killed: its last commits are in the log alone."""
    folder = tmp_path_factory.mktemp("killed")
    code = KILLED.format(sql=TABLE.sql, commits=COMMITS)
    ended = subprocess.run([sys.executable, "-c", code, f"sqlite:///{folder}/agents.db"], check=False, timeout=30)
    assert ended.returncode == -signal.SIGKILL
    assert (folder / "agents.db-wal").stat().st_size > 0
    return folder


@pytest.fixture
def folder(killed: Path, tmp_path: Path) -> Path:
    """Return a copy of it, in whose log each byte means something."""
    copy = Path(shutil.copytree(killed, tmp_path / "copy"))
    log = copy / "agents.db-wal"
    log.write_bytes(without_room(log.read_bytes()))
    return copy


def numbers(folder: Path) -> list[int]:
    """Open the store as a process does, and return what is in it."""
    store = open_store(f"sqlite:///{folder}/agents.db", [TABLE])
    try:
        return store.read_now(lambda c: [int(str(n)) for n, _ in c.execute("SELECT n, body FROM numbers ORDER BY id")])
    finally:
        store.close()


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_a_killed_process_has_lost_nothing(folder: Path) -> None:
    """Catches a check of the log that takes a crash for damage."""
    assert numbers(folder) == list(range(COMMITS))
    assert numbers(folder) == list(range(COMMITS))


def test_the_room_behind_the_log_is_nothing(killed: Path, tmp_path: Path) -> None:
    """Catches zeros that are taken for damage, or for records; whatever lies there instead is no loss either."""
    whole = (killed / "agents.db-wal").read_bytes()
    end = len(without_room(whole))
    assert end + 4_096 < len(whole)
    for at in (None, end, end + 30, len(whole) - 1):
        copy = Path(shutil.copytree(killed, tmp_path / f"{at}"))
        if at is not None:
            flip(copy / "agents.db-wal", at)
        assert numbers(copy) == list(range(COMMITS))


def test_half_a_commit_at_the_end_is_a_crash(folder: Path) -> None:
    """Catches a check that refuses what a power loss leaves: frames of a commit that was never acknowledged."""
    log = folder / "agents.db-wal"
    data = log.read_bytes()
    torn = bytearray(data[-FRAME_BYTES:])
    torn[4:8] = bytes(4)  # not the last of its commit; of the same log by its salts, and its checksum is wrong
    log.write_bytes(data + torn + data[-FRAME_BYTES:])
    assert numbers(folder) == list(range(COMMITS))


def sample(size: int, count: int) -> list[int]:
    return sorted(random.Random(7).sample(range(size), count))


def flips_of_the_log(folder: Path, places: list[int], scratch: Path) -> None:
    for at in places:
        copy = Path(shutil.copytree(folder, scratch / f"{at}"))
        flip(copy / "agents.db-wal", at, at % 8)
        before = (copy / "agents.db-wal").read_bytes()
        try:
            raise AssertionError(f"byte {at} of the log was flipped, and {numbers(copy)} was read as if nothing was")
        except StoreError:
            pass
        assert (copy / "agents.db-wal").read_bytes() == before, "a log that is refused is left as it was"
        shutil.rmtree(copy)


def test_flipped_bytes_of_the_log(folder: Path, tmp_path: Path) -> None:
    """Catches acknowledged commits that vanish because SQLite stops reading at the first bad frame."""
    size = (folder / "agents.db-wal").stat().st_size
    first = [0, 5, 9, 17, 25, 31, 33, 37, 41, 49]
    flips_of_the_log(folder, [*first, *sample(size, 20), size - 4096, size - 1], tmp_path)


@pytest.mark.slow
def test_many_flipped_bytes_of_the_log(folder: Path, tmp_path: Path) -> None:
    """Catches what the sample doesn't: every byte of both headers, and a thousand others."""
    size = (folder / "agents.db-wal").stat().st_size
    headers = list(range(HEADER_BYTES + FRAME_HEADER_BYTES))
    flips_of_the_log(folder, sorted({*headers, *sample(size, 1_000)}), tmp_path)


def test_a_log_cut_short(folder: Path) -> None:
    """Catches a file system that has lost the end of the log."""
    log = folder / "agents.db-wal"
    log.write_bytes(log.read_bytes()[:-FRAME_BYTES])
    with pytest.raises(CorruptStore, match="acknowledged"):
        numbers(folder)


def test_damage_is_seen_without_the_note(folder: Path) -> None:
    """Catches a check that stands on the note alone: it may be gone, or older than the log."""
    (folder / "agents.db-desk").unlink()
    assert numbers(Path(shutil.copytree(folder, folder.parent / "sound"))) == list(range(COMMITS))
    flip(folder / "agents.db-wal", HEADER_BYTES + FRAME_HEADER_BYTES + 100)
    with pytest.raises(CorruptStore, match="acknowledged commits up to frame"):
        numbers(folder)


@pytest.mark.sqlite_only("a log is SQLite's")
async def test_a_commit_while_the_log_is_looked_at_is_no_damage(tmp_path: Path) -> None:
    """Catches a backup that refuses a sound store, and a doctor who calls it damaged, as another process
    writes just then."""
    url, path = f"sqlite:///{tmp_path}/agents.db", tmp_path / "agents.db"
    store, loop = open_store(url, [TABLE]), asyncio.get_running_loop()

    async def write() -> None:
        await store.commit(lambda tx: tx.execute("INSERT INTO numbers (n) VALUES (1)") and None, label="test")

    class Moving(NotedIn):
        """A note that moves each time it is read, for the first times."""

        left = 5

        def noted(self) -> bytes:
            if self.left:
                self.left -= 1
                asyncio.run_coroutine_threadsafe(write(), loop).result(10)
            return super().noted()

    def look() -> str | None:
        with contextlib.closing(connect_to_read(path)) as connection:
            connection.execute("SELECT 1 FROM numbers").fetchall()
            return Log(path, Moving(path)).damage(connection)

    try:
        await write()
        assert await asyncio.to_thread(look) is None
    finally:
        store.close()


def test_a_damaged_note_is_no_damage(folder: Path) -> None:
    """Catches a store that can't be opened because a file beside it is damaged."""
    for at in range(16, (folder / "agents.db-desk").stat().st_size):
        flip(folder / "agents.db-desk", at)
        assert numbers(folder) == list(range(COMMITS))


def flips_of_the_file(folder: Path, places: list[int], scratch: Path) -> None:
    """Flip a byte of a closed store; whatever is read then is what was there, or an error."""
    assert numbers(folder) == list(range(COMMITS))
    whole = everything(folder)
    for at in places:
        copy = Path(shutil.copytree(folder, scratch / f"{at}"))
        flip(copy / "agents.db", at, at % 8)
        try:
            numbers(copy)
            found = everything(copy)
        except (StoreError, apsw.Error):
            found = []
        assert found in ([], whole), f"byte {at} of the file was flipped, and something else was read"
        assert found == [], f"byte {at} of the file was flipped, and nobody noticed"
        shutil.rmtree(copy)


def everything(folder: Path) -> list[object]:
    """Return all tables, and fail if a page that is used is damaged."""
    connection = checksums.connect(folder / "agents.db", apsw.SQLITE_OPEN_READONLY)
    try:
        assert connection.pragma("integrity_check") == "ok"
        tables = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
        return [
            *tables,
            *(connection.execute(f"SELECT * FROM {name}").fetchall() for name, _ in tables if "." not in str(name)),
        ]
    except AssertionError as error:
        raise CorruptStore("integrity_check") from error
    finally:
        connection.close()


def test_flipped_bytes_of_the_file(folder: Path, tmp_path: Path) -> None:
    """Catches a value, a key or a header that is read as something else than was written."""
    numbers(folder)
    size = (folder / "agents.db").stat().st_size
    flips_of_the_file(folder, [0, 16, 20, 27, 55, 71, 99, *sample(size, 25)], tmp_path)


@pytest.mark.slow
def test_many_flipped_bytes_of_the_file(folder: Path, tmp_path: Path) -> None:
    """Catches what the sample doesn't: every byte of the header, and two thousand others."""
    numbers(folder)
    size = (folder / "agents.db").stat().st_size
    flips_of_the_file(folder, sorted({*range(100), *sample(size, 2_000)}), tmp_path)


def test_another_program_that_writes_the_log_back(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a store that is called damaged because somebody has looked at it with a SQLite shell after a crash: the
    shell, which knows of no checksums, writes the log into the file when it leaves."""
    shell = apsw.Connection(str(folder / "agents.db"))
    assert shell.execute("SELECT count(*) FROM numbers").fetchall() == [(COMMITS,)]
    shell.close()
    assert not (folder / "agents.db-wal").exists()
    with pytest.raises(CorruptStore):
        everything_or_corrupt(folder)
    with caplog.at_level(logging.WARNING, "surefoot"):
        assert numbers(folder) == list(range(COMMITS))
    assert "another program" in caplog.text
    assert everything(folder)
    caplog.clear()
    assert numbers(folder) == list(range(COMMITS))
    assert caplog.text == ""


def everything_or_corrupt(folder: Path) -> None:
    try:
        everything(folder)
    except apsw.Error as error:
        raise CorruptStore("a page") from error


def test_a_deleted_log_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches commits that are gone without a word because somebody has tidied up after a crash."""
    (folder / "agents.db-wal").unlink()
    with caplog.at_level(logging.WARNING, "surefoot"):
        assert len(numbers(folder)) < COMMITS
    assert "log is gone" in caplog.text


def test_a_format_is_brought_forward_by_who_has_the_file_alone(tmp_path: Path) -> None:
    """Catches a migration under the hands of a process with older code, which goes on writing what it knows."""
    url = f"sqlite:///{tmp_path}/agents.db"
    old = open_store(url, [TABLE])
    newer = [TABLE, Migration("test", 2, "labels", "ALTER TABLE numbers ADD COLUMN label TEXT")]
    with pytest.raises(StoreBusy, match="no other process has it open"):
        open_store(url, newer)
    assert old.writer.commit_blocking(lambda tx: tx.row("SELECT count(*) FROM numbers"), label="test") == (0,)
    old.close()
    open_store(url, newer).close()


@pytest.mark.parametrize("pace", [25, pytest.param(3, marks=pytest.mark.slow)])
def test_a_process_killed_while_it_brings_a_format_forward(tmp_path: Path, pace: int) -> None:
    """Catches a file that lies between two formats, or whose pages have half their checksums: killed at any system call
    that writes or syncs, the next process goes on."""
    old = tmp_path / "old.db"
    connection = apsw.Connection(str(old))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA application_id = 0x53464F54")
    connection.execute("CREATE TABLE surefoot_format (room TEXT NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL,"
                       " applied_at_ms INTEGER NOT NULL, PRIMARY KEY (room, version)) WITHOUT ROWID")  # fmt: skip
    connection.execute("INSERT INTO surefoot_format VALUES ('test', 1, 'numbers', 0)")
    connection.execute(TABLE.sql)
    for n in range(COMMITS):
        connection.execute("INSERT INTO numbers (n, body) VALUES (?, ?)", (n, os.urandom(6000)))
    connection.close()
    code = """
import os, sys, apsw
from surefoot.store import Migration, checksums, open_store
class Count(apsw.VFS):
    def __init__(self): super().__init__("counting", "unix")
    def xOpen(self, name, flags): return File(name, flags)
left = int(sys.argv[2])
def step():
    global left
    left -= 1
    if left < 0: os.kill(os.getpid(), 9)
class File(apsw.VFSFile):
    def __init__(self, name, flags): super().__init__("unix", name, flags)
    def xWrite(self, data, offset): step(); super().xWrite(data, offset)
    def xTruncate(self, size): step(); super().xTruncate(size)
    def xSync(self, flags): step(); super().xSync(flags)
vfs = Count()
apsw.set_default_vfs("counting")
open_store(sys.argv[1], [Migration("test", 1, "numbers", "")]).close()
"""
    kills = 0
    for at in range(1, 10_000, pace):
        copy = tmp_path / f"{at}"
        copy.mkdir()
        shutil.copy(old, copy / "agents.db")
        ended = subprocess.run(
            [sys.executable, "-c", code, f"sqlite:///{copy}/agents.db", str(at)], check=False, timeout=30
        )
        assert ended.returncode in (0, -signal.SIGKILL)
        assert numbers(copy) == list(range(COMMITS)), at
        assert everything(copy)
        if ended.returncode == 0:
            break
        kills += 1
    assert kills > 1


async def test_an_id_that_was_taken_and_not_used_is_no_loss(url: str) -> None:
    """Catches a store that is called damaged because a claim took a record's number and then met somebody else's."""
    async with sf.Surefoot(url, is_worker=False) as app:

        def unit(tx: Tx) -> None:
            take_record_id(tx)
            tx.execute("INSERT INTO blobs (run, body) VALUES (1, ?)", (b"\0",))

        await app.store.commit(unit, label="test")
    async with sf.Surefoot(url, is_worker=False) as app:
        assert await app.runs() == []
