"""What people and systems do to the files of a store: each enemy is told from an ordinary end, and said."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.disk import work
from tests.disk.lanes import ROOT
from tests.disk.processes import Line, in_child
from tests.disk.vfs import Disk

import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.journal import Kind, Record, insert_record
from surefoot.journal.records import NO_HEAD
from surefoot.store import (
    CorruptStore,
    DiskFull,
    SqliteStore,
    StoreBusy,
    StoreError,
    StoreFailed,
    SystemClock,
    Tx,
    checksums,
)
from surefoot.store.log import ROOM_BYTES, Log, NotedIn
from surefoot.store.sqlite import connect_to_read, open_sqlite
from surefoot.store.turnstile import Turnstile

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it forks, and pytest has threads


class Hasty(SystemClock):
    """A wall clock on which two seconds pass at every look, so that what is looked at once a second is looked at now."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead_ms = 0

    def wall_ms(self) -> int:
        """The time."""
        self._ahead_ms += 2_000
        return super().wall_ms() + self._ahead_ms


def opened(place: Path, clock: SystemClock | None = None) -> SqliteStore:
    return open_sqlite(f"sqlite:///{place}", MIGRATIONS, clock=clock)


def add(store: SqliteStore) -> int:
    """Add a record of its own, and return its number."""

    def unit(tx: Tx) -> int:
        return insert_record(tx, Record(None, 0, Kind.DECIDED, "", 0, NO_HEAD, None))

    return store.writer.commit_blocking(unit, label="add")


def numbers(store: SqliteStore) -> list[Any]:
    return [
        row[0] for row in store.read_now(lambda connection: connection.execute("SELECT id FROM journal").fetchall())
    ]


def killed(place: Path, records: int = 3, *, is_moved: bool = False) -> None:
    """Leave a store behind as a killed process does, with all of its log in the database too or not."""

    def run(line: Line) -> None:
        store = opened(place)
        for _ in range(records):
            add(store)
        if is_moved:
            store._checkpointer._own.wal_checkpoint()
        line.tell("end", {"said": "killed"})
        threading.Event().wait()

    assert in_child(run, lambda _words: None).said == "killed"


# -- under a running process -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_file_taken_away_under_a_worker_stops_it(tmp_path: Path, suffix: str, what: str) -> None:
    """Would catch a worker that goes on writing into files that nobody will ever find again."""
    place = tmp_path / "agents.db"
    store = opened(place, Hasty())
    assert add(store) == 1
    away = Path(f"{place}{suffix}")
    shutil.move(away, tmp_path / "away")
    if what == "replaced":
        shutil.copy(tmp_path / "away", away)
    with pytest.raises(StoreFailed, match="moved, deleted or replaced"):
        add(store)
    with pytest.raises(StoreFailed):
        add(store)
    store.close()
    if suffix:  # the database was there: what was in the log went into it at the end
        after = opened(place)
        assert numbers(after) == [1]
        after.close()


def test_a_store_moved_away_is_not_begun_anew(tmp_path: Path) -> None:
    """Would catch an empty store under the old name, in which all keys are free again, and all is done twice."""
    place = tmp_path / "agents.db"
    killed(place)
    for suffix in ("", "-wal", "-shm"):
        shutil.move(f"{place}{suffix}", tmp_path / f"away{suffix}")
    with pytest.raises(CorruptStore, match="records are missing: number 3 was acknowledged, and the newest is 0"):
        opened(place)
    Path(f"{place}-desk").unlink()  # what the message says, for who means it
    opened(place).close()


def test_a_deleted_log_is_refused(tmp_path: Path) -> None:
    """Would catch acknowledged records that are gone since somebody has tidied up."""
    place = tmp_path / "agents.db"
    killed(place)
    Path(f"{place}-wal").unlink()
    for _ in range(2):
        with pytest.raises(CorruptStore, match="records are missing"):
            opened(place)


def test_an_older_copy_is_refused(tmp_path: Path) -> None:
    """Would catch a copy that was put back by hand: the keys used since would be free again."""
    place, copy = tmp_path / "agents.db", tmp_path / "copy"
    store = opened(place)
    add(store)
    store.close()
    shutil.copy(place, copy)
    store = opened(place)
    add(store)
    store.close()
    shutil.copy(copy, place)
    with pytest.raises(CorruptStore, match="number 2 was acknowledged, and the newest is 1"):
        opened(place)


def test_a_log_written_back_by_another_program_is_no_loss(tmp_path: Path) -> None:
    """Would catch a store that is refused because somebody looked at it with SQLite's shell after a crash."""
    place = tmp_path / "agents.db"
    killed(place)
    foreign = apsw.Connection(str(place), vfs="unix")
    foreign.execute("SELECT count(*) FROM journal").fetchall()
    foreign.close()
    assert not Path(f"{place}-wal").exists()
    store = opened(place)
    assert numbers(store) == [1, 2, 3]
    store.close()


def test_room_alone_hides_no_page_that_another_program_has_written(tmp_path: Path) -> None:
    """Would catch a store that can't be read, since its log was written back by another program while its process went on,
    and was killed when it had made room for its next commit: the pages have no checksums, and the log is not gone."""
    place = tmp_path / "agents.db"
    killed(place)
    foreign = apsw.Connection(str(place), vfs="unix")
    foreign.execute("SELECT count(*) FROM journal").fetchall()
    foreign.close()
    Path(f"{place}-wal").write_bytes(bytes(ROOM_BYTES))
    store = opened(place)
    assert numbers(store) == [1, 2, 3]
    store.close()


def test_a_log_whose_head_is_nothing_but_zeros_is_left_as_it_was(tmp_path: Path) -> None:
    """Would catch a log that is taken for room, and thrown away, though a few bytes would bring its commits back."""
    place = tmp_path / "agents.db"
    killed(place)
    log = Path(f"{place}-wal")
    log.write_bytes(bytes(512) + log.read_bytes()[512:])
    before = log.read_bytes()
    with pytest.raises(CorruptStore, match="records are missing"):
        opened(place)
    assert log.read_bytes() == before


class Interrupted(NotedIn):
    """The note as found by a process that only looks; between its look at the log's size and that at its frames, something
    happens."""

    def __init__(self, place: Path, happen: Callable[[], object]) -> None:
        super().__init__(place)
        self._happen = happen
        self._looks = 0

    def noted(self) -> bytes:
        """What is noted."""
        self._looks += 1
        found = super().noted()
        if self._looks == 2:
            self._happen()
        return found


def test_a_log_that_is_cut_while_it_is_looked_at_is_no_damage(tmp_path: Path) -> None:
    """Would catch a doctor and a backup that fail with an error that is none of ours, since a checkpoint has cut the log
    beside them."""
    place = tmp_path / "agents.db"
    store = opened(place)
    for _ in range(5):
        add(store)

    def cut() -> None:
        assert store._checkpointer._own.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE) == (0, 0)

    with contextlib.closing(connect_to_read(place)) as reading:
        assert Log(place, Interrupted(place, cut)).damage(reading) is None
    store.close()


def test_commits_of_another_program_beside_a_look_are_no_damage(tmp_path: Path) -> None:
    """Would catch a backup that is refused, since a program that notes nothing has written while the log was looked at."""
    place = tmp_path / "agents.db"
    store = opened(place)
    for _ in range(5):
        add(store)

    def write_beside() -> None:
        with contextlib.closing(checksums.connect(place)) as foreign:
            for number in range(3):
                foreign.execute(f"CREATE TABLE foreign_{number} (id)")

    with contextlib.closing(connect_to_read(place)) as reading:
        assert Log(place, Interrupted(place, write_beside)).damage(reading) is None
    store.close()


@pytest.mark.parametrize("first", [0, 3])
def test_a_head_of_the_log_that_was_torn_is_no_damage_once_all_is_moved(tmp_path: Path, first: int) -> None:
    """Would catch a store that is refused because the power failed while SQLite began its log anew."""
    place = tmp_path / "agents.db"
    killed(place, is_moved=True)
    log = Path(f"{place}-wal")
    log.write_bytes(log.read_bytes()[:first] + b"\xa5" * (512 - first) + log.read_bytes()[512:])
    store = opened(place)
    assert numbers(store) == [1, 2, 3]
    assert add(store) == 4
    store.close()


@pytest.mark.parametrize("has_note", [True, False])
def test_a_damaged_head_of_a_log_that_is_needed_is_damage(tmp_path: Path, has_note: bool) -> None:
    """Would catch a log that is thrown away as a whole, since it could have been torn."""
    place = tmp_path / "agents.db"
    killed(place)
    if not has_note:
        Path(f"{place}-desk").unlink()
    with Path(f"{place}-wal").open("r+b") as log:
        log.seek(20)
        log.write(b"\x5a")
    with pytest.raises(CorruptStore, match="head of its log"):
        opened(place)


def test_a_lower_number_of_another_process_takes_nothing_from_the_note(tmp_path: Path) -> None:
    """Would catch a note of one process that forgets what another has acknowledged."""
    place = tmp_path / "agents.db"
    first, second = opened(place), opened(place)
    for _ in range(3):
        add(first)
    second.writer.commit_blocking(lambda _tx: None, label="nothing")
    second.writer.commit_blocking(lambda tx: tx.execute("UPDATE store_incarnation SET incarnation = 1"), label="other")
    assert Turnstile(place).noted()[16:24] == (3).to_bytes(8, "little")
    first.close()
    second.close()


def test_two_names_of_one_file_share_its_locks(tmp_path: Path) -> None:
    """Would catch a link under which a second process has another log of the same file."""
    place, link = tmp_path / "agents.db", tmp_path / "link.db"
    store = opened(place)
    link.symlink_to(place)
    other = opened(link)
    assert [add(store), add(other), add(store)] == [1, 2, 3]
    assert other.path == store.path
    other.close()
    store.close()


def test_a_hard_link_is_refused(tmp_path: Path) -> None:
    """Would catch one file with two logs, one beside each of its names: each writer overwrites the other's pages."""
    place, link = tmp_path / "agents.db", tmp_path / "link.db"
    opened(place).close()
    link.hardlink_to(place)
    for name in (link, place):
        with pytest.raises(StoreError, match="2 names"):
            opened(name)
    link.unlink()
    opened(place).close()


# -- the system says no ------------------------------------------------------------------------------------------------


@pytest.fixture
def files_left() -> Iterator[Callable[[int], None]]:
    """Lets the process open so many more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def leave(number: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(number):
            os.close(taken.pop())

    yield leave
    for one in taken:
        os.close(one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("number", range(10))
def test_no_files_left_at_open_says_so_and_keeps_none(
    tmp_path: Path, files_left: Callable[[int], None], number: int
) -> None:
    """Would catch an error that speaks of the disk, and files that stay open after it."""
    opened(tmp_path / "another.db").close()  # what is imported once has its files by now
    files_left(number)
    with pytest.raises(StoreError):
        opened(tmp_path / "agents.db")
    left = [os.open("/dev/null", os.O_RDONLY) for _ in range(number)]
    for one in left:
        os.close(one)


async def test_no_files_left_later_stops_no_worker(tmp_path: Path, files_left: Callable[[int], None]) -> None:
    """Would catch a worker that needs another file to go on, or takes others for dead since it can't look."""
    async with sf.Surefoot(f"sqlite:///{tmp_path}/agents.db", name="one") as app:
        files_left(0)
        assert isinstance(app.store, SqliteStore)
        for _ in range(5):
            await asyncio.to_thread(add, app.store)
        assert app.worker.failure is None
        assert app.store.writer.failure is None


def limited_worker(place: Path, limit: int, records: int) -> dict[str, Any]:
    """Write while no file may grow beyond `limit`; say what was acknowledged, and what the error was."""
    acknowledged: list[int] = []

    def run(line: Line) -> dict[str, Any]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            store = opened(place)
            for _ in range(records):
                line.tell("written", add(store))
        except StoreError as error:
            return {"error": type(error).__name__}
        return {"error": ""}

    ended = in_child(run, lambda words: acknowledged.append(words[1]))
    assert not ended.error, ended
    assert not ended.signal, ended
    return {"error": ended.said["error"], "acknowledged": acknowledged}


@pytest.mark.parametrize("limit", [0, 10, 512, 5_000, 60_000, 110_000, 120_000, 121_234])
def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path: Path, limit: int) -> None:
    """Would catch a real short write (the kernel writes what fits) that is taken for a whole one, and a process that
    dies of a signal instead of saying what is wrong."""
    place = tmp_path / "agents.db"
    ended = limited_worker(place, limit, 50)
    assert ended["error"] in ("DiskFull", "StoreFailed")
    store = opened(place)
    assert numbers(store)[: len(ended["acknowledged"])] == ended["acknowledged"]
    assert add(store) > 0
    store.close()


def test_another_process_goes_on_though_the_failed_one_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a writer that stops for good and keeps the file's lock, or its place at the turnstile."""
    place = tmp_path / "agents.db"
    first, second = opened(place), opened(place)
    add(first)
    real = first._turnstile.__class__.is_free

    def broken(turnstile: Turnstile) -> bool:
        if turnstile is first._turnstile:
            raise OSError(errno.EIO, "Input/output error")
        return real(turnstile)

    monkeypatch.setattr(Turnstile, "is_free", broken)
    with pytest.raises(StoreFailed):
        add(first)
    monkeypatch.undo()
    assert add(second) == 2
    first.close()
    second.close()


# -- checkpoints -------------------------------------------------------------------------------------------------------


class Slow:
    """A disk on which a sync of the database waits until it is let go, for one thread."""

    def __init__(self) -> None:
        self.is_on = False
        self.has_come = threading.Event()
        self.go = threading.Event()

    def meet(self, operation: str, _file: Any, path: str, do: Callable[[], Any], _detail: tuple[Any, ...]) -> Any:
        if self.is_on and operation == "sync" and path.endswith(".db") and not self.has_come.is_set():
            self.has_come.set()
            assert self.go.wait(30)
        return do()


def write_beside_a_checkpoint(place: Path) -> None:
    """Write much while the checkpoint of another connection waits for the disk; in a process without an open store."""
    slow = Slow()
    disk = Disk(slow)
    with work.small_log():
        first, second = opened(place), opened(place)
        add(first)
        slow.is_on = True
        other = threading.Thread(target=second._checkpointer._own.wal_checkpoint)
        other.start()
        assert slow.has_come.wait(30)
        for _ in range(200):
            add(first)
        slow.go.set()
        other.join()
        assert len(numbers(first)) == 201
    disk.unregister()


def test_a_checkpoint_of_another_process_stops_no_writer(tmp_path: Path) -> None:
    """Would catch a writer that stops for good since another one's checkpoint holds the lock of checkpoints."""
    code = f"from pathlib import Path; from {__name__} import *; write_beside_a_checkpoint(Path({str(tmp_path)!r}, 'a.db'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_failed_open_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch an error of the operating system that reaches the user bare."""

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("surefoot.store.turnstile.os.pwrite", full)
    with pytest.raises(DiskFull, match="no room"):
        opened(tmp_path / "agents.db")


def test_a_failed_checkpoint_stops_everybody_until_somebody_is_alone(tmp_path: Path) -> None:
    """Would catch a checkpoint that is tried again after the system has dropped its pages, and lets the log go."""
    place = tmp_path / "agents.db"
    first, second = opened(place), opened(place)
    assert [add(first), add(second)] == [1, 2]

    class Failing:
        def __init__(self, connection: apsw.Connection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def wal_checkpoint(self, **_: Any) -> None:
            raise apsw.IOError("disk I/O error")

    first._checkpointer._move(Failing(first._checkpointer._own))  # type: ignore[arg-type]  # looks like one
    for store in (first, second):
        with pytest.raises(StoreFailed, match="a sync of the database has failed"):
            add(store)
    first.close()
    with pytest.raises(StoreBusy, match="others of its processes"):
        opened(place)
    second.close()
    assert Path(f"{place}-wal").stat().st_size > 0  # neither has moved it
    after = opened(place)
    assert numbers(after) == [1, 2]
    assert add(after) == 3
    after.close()
