"""The write-ahead log's end: whether what was acknowledged is still in it.

When SQLite recovers a log it stops at the first frame whose checksum is wrong, and takes all behind it for what a crash
left half written. That is right for a crash and silent for damage: acknowledged commits would be gone. Here a process
notes, after each commit and outside the file, how far the log reached; a log that ends earlier is refused. The note is
not synced: after a power loss it may be older than the log, never newer, for it is written when the commit is on disk.

A log that is gone although the last process that had it was killed was written back by another program (which knows
nothing of page checksums), or deleted.

Without a note, two commits behind the end of a log show damage too: the second was begun when the first was on disk.

Source: https://sqlite.org/fileformat2.html#the_write_ahead_log (frames, salts, checksums).
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Protocol

import apsw

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
SALTS = slice(16, 24)
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
"""The first four bytes of a log, and the order of bytes in its checksums."""

_NOTE = struct.Struct("<8sQ")
_SUM = struct.Struct("<I")
NOTE_BYTES = _NOTE.size + _SUM.size


class Place(Protocol):
    """Where the note is kept."""

    def note(self, data: bytes) -> None:
        """Keep `NOTE_BYTES` bytes."""

    def noted(self) -> bytes:
        """Return them."""


class NotedIn:
    """The note as a process finds it that only looks: in the file of the turnstile."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}-desk")

    def note(self, data: bytes) -> None:
        """Whoever only looks, notes nothing."""
        raise NotImplementedError

    def noted(self) -> bytes:
        """See `Place`."""
        return self._path.read_bytes()[-NOTE_BYTES:] if self._path.exists() else b""


class Log:
    """The log of one database."""

    def __init__(self, database: Path, place: Place) -> None:
        self._path = Path(f"{database}-wal")
        self._place = place
        self._file = -1

    def open(self) -> None:
        """Begin to note; a connection of ours has the log open, so that it stays this file."""
        self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give the file back. Safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def note_commit(self, frames: int) -> None:
        """Note that the log has so many frames now; called by the process that has written them, at its turn."""
        note = _NOTE.pack(os.pread(self._file, 8, SALTS.start), frames)
        self._place.note(note + _SUM.pack(zlib.crc32(note)))

    def was_taken_away(self) -> bool:
        """Whether commits were noted in a log that is gone, and none of our processes has closed it."""
        return self._noted()[1] > 0 and self._is_empty()

    def note_closed(self) -> None:
        """Forget what was noted, if whoever closed the database last has written the log back; called at our turn."""
        if self._is_empty():
            self._place.note(bytes(NOTE_BYTES))

    def _is_empty(self) -> bool:
        return not self._path.exists() or self._path.stat().st_size <= HEADER_BYTES

    def damage(self, connection: apsw.Connection) -> str | None:
        """Return how the log is damaged, or None; a connection has just read from the database."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return self._damage(file, connection)
        finally:
            os.close(file)

    def _damage(self, file: int, connection: apsw.Connection) -> str | None:
        header = os.pread(file, HEADER_BYTES, 0)
        size = os.fstat(file).st_size
        if size <= HEADER_BYTES or not any(header):  # empty, or never synced
            return None
        if not _is_sound(header):
            return "the head of its log is damaged, so that nothing in the log can be read"
        frames = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
        salts, noted = self._noted()
        if salts == header[SALTS] and frames < noted:
            return f"its log is damaged at frame {frames + 1:,}: {noted:,} were acknowledged, {frames:,} can be read"
        behind = _commits_behind(file, header, size, max(0, frames))
        if behind >= 2:
            return f"its log is damaged at frame {frames + 1:,}: {behind:,} commits behind it can't be read"
        return None

    def _noted(self) -> tuple[bytes, int]:
        data = self._place.noted()
        note = data[: _NOTE.size]
        if len(data) != NOTE_BYTES or _SUM.unpack(data[_NOTE.size :])[0] != zlib.crc32(note):
            return b"", 0
        salts, frames = _NOTE.unpack(note)
        return salts, frames


def _is_sound(header: bytes) -> bool:
    """Whether a log's header has the checksum it should have."""
    (magic,) = struct.unpack(">I", header[:4])
    order = _MAGIC.get(magic)
    if order is None:
        return False
    first = second = 0
    words = struct.unpack(f"{order}6I", header[:24])
    for a, b in zip(words[::2], words[1::2], strict=True):
        first = (first + a + second) & 0xFFFFFFFF
        second = (second + b + first) & 0xFFFFFFFF
    return struct.unpack(">2I", header[24:]) == (first, second)


def _commits_behind(file: int, header: bytes, size: int, frames: int) -> int:
    """Return how many last frames of commits of the same log lie behind its first `frames` frames."""
    (page_bytes,) = struct.unpack(">I", header[8:12])
    frame_bytes = FRAME_HEADER_BYTES + page_bytes
    found = 0
    for at in range(HEADER_BYTES + frames * frame_bytes, size - FRAME_HEADER_BYTES + 1, frame_bytes):
        frame = os.pread(file, FRAME_HEADER_BYTES, at)
        found += int(frame[8:16] == header[SALTS] and any(frame[4:8]))
    return found
