"""The write-ahead log's end: whether what was acknowledged is still in it.

When SQLite recovers a log it stops at the first frame whose checksum is wrong, and takes all behind it for what a crash
left half written. That is right for a crash and silent for damage: acknowledged commits would be gone. Here a process
notes, after each commit and outside the file, how far the log reached; a log that ends earlier is refused. The note is
not synced: after a power loss it may be older than the log, never newer, for it is written when the commit is on disk.

The note also has the number of the newest record. A log that is gone although the last process that had it was killed was
written back by another program (which knows nothing of page checksums), and then the record is there; or it was deleted, or
the file was replaced by an older copy, and then it isn't, and the store is refused.

Without a note, a commit behind the end of a log that is continued by another frame shows damage too: nothing is written
behind a commit before that is on disk. (A commit alone proves nothing: an earlier crash may have left it there.)

A log that grows is made longer ahead, with zeros: the sync of a file whose size has changed waits for the file system's own
journal too, which is another write of the disk (ext4: 0.18 ms instead of 0.10 for 28 KB). Frames end where a checksum is
wrong, so zeros behind them are nothing, and a log of nothing but zeros is an empty one. They are written under SQLite's
write lock only: without it they could lie over what another has committed. (PostgreSQL does the same: `wal_init_zero`.)

The head of a log is written over when SQLite begins it anew, which it does once all of it is in the database. So a head
that can't be read is damage only if something behind it is not in the database.

Source: https://sqlite.org/fileformat2.html#the_write_ahead_log (frames, salts, checksums).
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import apsw

from surefoot.store.checksums import RESERVED_BYTES

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
PAGE_BYTES = 4_096
"""Of a page, unless somebody made the file before with another size."""

SALTS = slice(16, 24)
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
"""The first four bytes of a log, and the order of bytes in its checksums."""

_NOTE = struct.Struct("<8sQQ")
_SUM = struct.Struct("<I")
NOTE_BYTES = _NOTE.size + _SUM.size

SICK_AT, SICK = 15, b"!"
"""Where, before the note, it says that a checkpoint has failed."""

LOOKS_MAX = 100
"""How often a log is looked at that seems damaged while others write to it: of 125 first looks beside a writer that never
pauses, 3 met a commit."""

ROOM_BYTES = 512 * 1024
"""How much longer a log is made at once: some dozen small commits. Commits of over a quarter of it get no room: to write so
much twice costs as much as it spares."""

JOURNAL = "journal"
"""The table whose newest row is noted: rows are only ever added to it, and the newest one is never deleted."""


class Place(Protocol):
    """Where the note is kept."""

    def note(self, data: bytes) -> None:
        """Keep `NOTE_BYTES` bytes."""

    def noted(self) -> bytes:
        """Return them."""

    @property
    def is_sick(self) -> bool:
        """Whether a checkpoint has failed; see `checkpoint`."""

    @is_sick.setter
    def is_sick(self, is_so: bool) -> None: ...


class NotedIn:
    """The note as a process finds it that only looks: in the file of the turnstile."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}-desk")

    def note(self, data: bytes) -> None:
        """Whoever only looks, notes nothing."""
        raise NotImplementedError

    @property
    def is_sick(self) -> bool:
        """See `Place`."""
        return self._path.exists() and self._path.read_bytes()[SICK_AT : SICK_AT + 1] == SICK

    @is_sick.setter
    def is_sick(self, is_so: bool) -> None:
        raise NotImplementedError

    def noted(self) -> bytes:
        """See `Place`."""
        return self._path.read_bytes()[-NOTE_BYTES:] if self._path.exists() else b""


class Log:
    """The log of one database.

    Attributes:
        newest: The id of the newest row of `JOURNAL` that a commit under way has written, or one before.
    """

    def __init__(self, database: Path, place: Place) -> None:
        self.newest = 0
        self._database = database
        self._path = Path(f"{database}-wal")
        self._place = place
        self._file = -1
        self._salts = b""
        self._page_bytes = PAGE_BYTES
        self._frames = 0
        self._last = b""
        self._end = 0  # of what is in the log, in bytes, as of our last commit
        self._growth = 0  # by that commit
        self._room = 0  # the file's size when it was last looked at

    def open(self) -> None:
        """Begin to note; a connection of ours has the log open, so that it stays this file."""
        self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Give the file back. Safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @property
    def is_sick(self) -> bool:
        """Whether a checkpoint has failed in any process; see `checkpoint`."""
        return self._place.is_sick

    @is_sick.setter
    def is_sick(self, is_so: bool) -> None:
        self._place.is_sick = is_so

    def may_begin_anew(self) -> None:
        """A checkpoint has run: the next commit may begin the log anew, under other salts."""
        self._frames = 0

    def make_room(self) -> None:
        """Make the log longer, if another commit like the last one would not fit; called within a transaction that writes,
        so that nobody else does. Only behind the file's end, where there can be no frame."""
        needed = self._end + 2 * self._growth
        if not 0 < self._growth <= ROOM_BYTES // 4 or needed < self._room:
            return
        with contextlib.suppress(OSError):  # a full disk, a limit: then the commit itself finds out whether it fits
            self._room = os.fstat(self._file).st_size
            if needed >= self._room:
                self._room += os.pwrite(self._file, bytes(ROOM_BYTES), self._room)

    def note_commit(self, frames: int) -> None:
        """Note that the log has so many frames now; called by the process that has written them, at its turn."""
        if not 0 < self._frames < frames or self._place.noted() != self._last:  # begun anew, or others have written
            self._room = 0  # the file may have been cut
            header = os.pread(self._file, HEADER_BYTES, 0)
            self._salts, self._page_bytes = header[SALTS], _page_bytes(header)
            self.newest = max(self.newest, self._noted()[2])
        end = HEADER_BYTES + frames * (FRAME_HEADER_BYTES + self._page_bytes)
        self._growth, self._end = end - self._end, end
        self._frames = frames
        note = _NOTE.pack(self._salts, frames, self.newest)
        self._last = note + _SUM.pack(zlib.crc32(note))
        self._place.note(self._last)

    def was_taken_away(self) -> bool:
        """Whether commits were noted in a log that is gone, and none of our processes has closed it."""
        return self._noted()[1] > 0 and self._is_empty()

    def note_closed(self) -> None:
        """Note that nothing is in the log, if whoever closed the database last has written it back; called at our turn."""
        if self._is_empty():
            note = _NOTE.pack(bytes(8), 0, self._noted()[2])
            self._place.note(note + _SUM.pack(zlib.crc32(note)))

    def _is_empty(self) -> bool:
        """Whether no frame was ever in it: it is gone, has none behind its head, or is nothing but room."""
        try:
            with self._path.open("rb") as log:
                head = log.read(HEADER_BYTES + 1)
                return len(head) <= HEADER_BYTES or not (any(head) or log.read().strip(b"\0"))
        except FileNotFoundError:
            return True

    def damage(self, connection: apsw.Connection) -> str | None:
        """Return what is damaged or missing, or None; a connection has just read from the database.

        Others may write meanwhile, so that what is noted and what is read are of two moments: what looks like damage is
        looked at again while the note moves, and until it looks the same twice, for other programs note nothing.
        """
        found: str | None = None
        for _ in range(LOOKS_MAX):
            noted, before = self._place.noted(), found
            found = self._look(connection)
            if found is None or (found == before and self._place.noted() == noted):
                break
        return found

    def _look(self, connection: apsw.Connection) -> str | None:
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return self._missing(connection)
        try:
            return self._damage(file, connection) or self._missing(connection)
        finally:
            os.close(file)

    def _missing(self, connection: apsw.Connection) -> str | None:
        """Return whether records are missing as a whole: the log was deleted, or the file is an older copy."""
        noted = self._noted()[2]
        newest = 0
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (JOURNAL,)).fetchall():
            newest = int(str(connection.execute(f"SELECT coalesce(max(id), 0) FROM {JOURNAL}").fetchall()[0][0]))
        if newest >= noted:
            return None
        return (
            f"records are missing: number {noted:,} was acknowledged, and the newest is {newest:,}; its log was deleted, "
            f"or the file was emptied or is an older copy (if that is meant, though what is missing may be done twice: "
            f"rm {self._database}-desk)"
        )

    def _damage(self, file: int, connection: apsw.Connection) -> str | None:
        header = os.pread(file, HEADER_BYTES, 0)
        size = os.fstat(file).st_size
        if size <= HEADER_BYTES or not any(header):  # empty, or never synced
            return None
        if not _is_sound(header):
            is_all_there = _is_written_back(file, size, self._database, connection, self._noted()[0])
            return None if is_all_there else "the head of its log is damaged, so that nothing in the log can be read"
        frames = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
        salts, noted, _ = self._noted()
        if salts == header[SALTS] and frames < noted:
            return f"its log is damaged at frame {frames + 1:,}: {noted:,} were acknowledged, {frames:,} can be read"
        if (later := _continued_behind(file, header, size, max(0, frames))) is not None:
            return (
                f"its log is damaged at frame {frames + 1:,}: acknowledged commits up to frame {later:,} can't be read"
            )
        return None

    def _noted(self) -> tuple[bytes, int, int]:
        data = self._place.noted()
        note = data[: _NOTE.size]
        if len(data) != NOTE_BYTES or _SUM.unpack(data[_NOTE.size :])[0] != zlib.crc32(note):
            return b"", 0, 0
        salts, frames, newest = _NOTE.unpack(note)
        return salts, frames, newest


def _is_sound(header: bytes) -> bool:
    """Whether a log's header has the checksum it should have."""
    order = _order(header)
    return order is not None and struct.unpack(">2I", header[24:]) == _checksum(order, header[:24], (0, 0))


def _page_bytes(header: bytes) -> int:
    return int.from_bytes(header[8:12])


def _order(header: bytes) -> str | None:
    return _MAGIC.get(struct.unpack(">I", header[:4])[0])


def _checksum(order: str, data: bytes, start: tuple[int, int]) -> tuple[int, int]:
    """Return SQLite's checksum of a log, going on from `start`: that of a frame goes on from the frame before."""
    first, second = start
    for a, b in struct.iter_unpack(f"{order}2I", data):
        first = (first + a + second) & 0xFFFFFFFF
        second = (second + b + first) & 0xFFFFFFFF
    return first, second


class _Frame(NamedTuple):
    """One frame: `size` is that of the database in pages at the end of a commit, else 0."""

    number: int
    page: int
    size: int
    salts: bytes
    checksum: tuple[int, int]
    data: bytes

    def continues(self, before: _Frame, order: str) -> bool:
        """Whether this frame was written behind that one."""
        head = struct.pack(">2I", self.page, self.size)
        return self.salts == before.salts and self.checksum == _checksum(order, head + self.data, before.checksum)


def _continued_behind(file: int, header: bytes, size: int, frames: int) -> int | None:
    """Return the number of a frame behind the `frames` first that continues a commit which is not among them."""
    order = _order(header)
    assert order is not None, "the header is sound"
    before: _Frame | None = None
    for frame in _frames(file, size, _page_bytes(header), frames + 1):
        if before is not None and before.size and before.salts == header[SALTS] and frame.continues(before, order):
            return frame.number
        before = frame
    return None


def _is_written_back(file: int, size: int, database: Path, connection: apsw.Connection, noted: bytes) -> bool:
    """Whether all that a log without a readable head can hold is in the database: the last commit's newest pages are there.

    The first frame may have gone with the head: it is one if it has the noted salts, or those of the second. That one is
    taken on trust, and each one that continues it.
    """
    page_bytes, reserved = int(connection.pragma("page_size")), RESERVED_BYTES
    order = "<" if sys.byteorder == "little" else ">"
    newest: dict[int, bytes] = {}
    pending: dict[int, bytes] = {}
    before: _Frame | None = None
    for frame in _frames(file, size, page_bytes, 1):
        if before is not None and before.number > 1 and not frame.continues(before, order):
            break
        if before is not None and before.salts not in (noted, frame.salts):
            newest, pending = {}, {}  # the first was none
        pending[frame.page] = frame.data
        if frame.size:
            newest.update(pending)
            pending.clear()
        before = frame
    if before is not None and before.number == 1 and before.salts != noted:
        return True
    with database.open("rb") as pages:
        for page, data in newest.items():
            pages.seek((page - 1) * page_bytes)
            if pages.read(page_bytes)[:-reserved] != data[:-reserved]:
                return False
    return True


def _frames(file: int, size: int, page_bytes: int, first: int) -> Iterator[_Frame]:
    """Yield all frames of a log from the number `first` on."""
    step = FRAME_HEADER_BYTES + page_bytes
    for number in range(first, (size - HEADER_BYTES) // step + 1):
        frame = os.pread(file, step, HEADER_BYTES + (number - 1) * step)
        if len(frame) < step:  # it was cut meanwhile, for all of it is in the database
            return
        page, pages, salts, *checksum = struct.unpack(">2I8s2I", frame[:FRAME_HEADER_BYTES])
        yield _Frame(number, page, pages, salts, (checksum[0], checksum[1]), frame[FRAME_HEADER_BYTES:])
