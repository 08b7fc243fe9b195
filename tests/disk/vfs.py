"""A disk between SQLite and the real one, as a VFS of apsw: it fails on demand, or notes what is done to it.

What fails, one *call* at a time (an operation on one of the three kinds of file):

=========  ==============================================================================================================
EIO        the call does nothing and fails
ENOSPC     the same, because nothing fits any more (writes)
short      half of a write is carried out, then nothing fits any more
lost       a sync fails, and what was written since the last one is gone from the file, as when the kernel has dropped the
           pages it could not write (Rebello et al., ATC 2020): each file that was open then is told once, at its next
           sync, and a later sync succeeds though the data is not there
=========  ==============================================================================================================

A fault strikes at the n-th call of its kind, once or from then on always. What it can't reach, since apsw has no way to
it, is the shared memory of the log's index; its system calls are left to `strace`. What the store itself does to the log,
past SQLite, is a call too: to *lengthen* it (`log.Log.make_room`).
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import apsw

CODES = {
    "open": apsw.SQLITE_CANTOPEN,
    "read": apsw.SQLITE_IOERR_READ,
    "write": apsw.SQLITE_IOERR_WRITE,
    "lengthen": apsw.SQLITE_IOERR_WRITE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "size": apsw.SQLITE_IOERR_FSTAT,
    "lock": apsw.SQLITE_IOERR_LOCK,
    "delete": apsw.SQLITE_IOERR_DELETE,
    "access": apsw.SQLITE_IOERR_ACCESS,
}
"""What SQLite is told when a call fails with EIO."""

WRITES = ("write", "lengthen")

HOW = {**dict.fromkeys(WRITES, ("EIO", "ENOSPC", "short")), "sync": ("EIO", "lost")}
"""The ways in which a call can fail; EIO alone where nothing else is said."""


@dataclass(frozen=True)
class Fault:
    """Which call fails, and how.

    Attributes:
        call: For example "write log".
        nth: The first one that fails, from 1.
        how: See the module.
        is_lasting: Whether all later ones fail too.
    """

    call: str
    nth: int
    how: str
    is_lasting: bool = False


class Failing:
    """Lets one fault strike. Counts all calls, so that a run without a fault says how many there are to fail."""

    def __init__(self, fault: Fault | None, on_strike: Callable[[str], object]) -> None:
        self.counts: Counter[str] = Counter()
        self._fault = fault
        self._on_strike = on_strike
        self._lock = threading.Lock()
        self._before: dict[str, list[tuple[int, bytes, int]]] = {}
        self._open: dict[str, set[File]] = {}
        self._untold: set[File] = set()

    def opened(self, file: File, path: str) -> None:
        """Note a file that is open: it is told of what is lost."""
        self._open.setdefault(path, set()).add(file)

    def meet(
        self, operation: str, file: File | Beside | None, path: str, do: Callable[[], Any], detail: tuple[Any, ...]
    ) -> Any:
        """Carry a call out, or fail it."""
        call = f"{operation} {kind_of(path)}"
        with self._lock:
            self.counts[call] += 1
            fault, count = self._fault, self.counts[call]
        keeps = fault is not None and fault.how == "lost" and file is not None
        if operation == "sync" and file in self._untold:
            self._untold.discard(file)
            raise self._failure(operation)
        if fault is None or fault.call != call or count < fault.nth or (count > fault.nth and not fault.is_lasting):
            if keeps and operation in WRITES:
                self._keep(file, path, *detail)
            result = do()
            if keeps and operation == "sync":
                self._before.pop(path, None)
            return result
        self._on_strike(f"{fault.how} at {call} number {count}")
        if fault.how == "short":
            data, offset = detail
            assert file is not None
            file.write_raw(data[: len(data) // 2], offset)
        if fault.how == "lost":
            self._lose(file, path)
        raise self._failure(operation, is_full=fault.how in ("short", "ENOSPC"))

    def _failure(self, operation: str, *, is_full: bool = False) -> Exception:
        failure = apsw.exception_for(apsw.SQLITE_FULL if is_full else CODES[operation])
        failure.args = ("database or disk is full" if is_full else f"{operation} failed",)
        return failure

    def _keep(self, file: Any, path: str, data: bytes, offset: int) -> None:
        size = file.size_raw()
        old = file.read_raw(min(len(data), max(0, size - offset)), offset) if offset < size else b""
        self._before.setdefault(path, []).append((offset, old, size))

    def _lose(self, file: Any, path: str) -> None:
        """Put back what the file held at its last sync, and let others that have it open fail once."""
        self._untold |= self._open.get(path, set()) - {file}
        for offset, old, size in reversed(self._before.pop(path, [])):
            if old:
                file.write_raw(old, offset)
            if file.size_raw() > size:
                file.truncate_raw(size)


def kind_of(path: str) -> str:
    """Return which of SQLite's files this is."""
    name = Path(path).name
    return "log" if name.endswith("-wal") else "journal" if name.endswith("-journal") else "database"


def _is_same(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), Path(path).stat())
    except FileNotFoundError:
        return False


class Beside:
    """A log as the store has it open by itself."""

    def __init__(self, file: int, pwrite: Callable[[int, bytes, int], int]) -> None:
        self._file = file
        self._pwrite = pwrite

    def read_raw(self, amount: int, offset: int) -> bytes:
        """Read."""
        return os.pread(self._file, amount, offset)

    def write_raw(self, data: bytes, offset: int) -> None:
        """Write."""
        self._pwrite(self._file, data, offset)

    def size_raw(self) -> int:
        """Return the size."""
        return os.fstat(self._file).st_size

    def truncate_raw(self, size: int) -> None:
        """Cut."""
        os.ftruncate(self._file, size)


class Disk(apsw.VFS):
    """Stands in for the operating system's files in every connection that is opened from now on in this process."""

    def __init__(self, rule: Any) -> None:
        super().__init__("disk", base="unix", makedefault=True)
        self._rule = rule
        self._logs: set[str] = set()
        self._pwrite = os.pwrite
        self._beside = mock.patch("os.pwrite", self._write_beside)
        self._beside.start()

    def unregister(self) -> None:
        """Give the system its files back."""
        self._beside.stop()
        super().unregister()

    def _write_beside(self, file: int, data: bytes, offset: int) -> int:
        """Write to a file that the store has open by itself."""
        path = next((log for log in self._logs if _is_same(file, log)), None)
        if path is None:
            return self._pwrite(file, data, offset)
        beside = Beside(file, self._pwrite)
        try:
            self._rule.meet("lengthen", beside, path, lambda: beside.write_raw(data, offset), (data, offset))
        except apsw.Error as error:
            number = errno.ENOSPC if isinstance(error, apsw.FullError) else errno.EIO
            raise OSError(number, os.strerror(number)) from error
        return len(data)

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        """Open a file."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        if kind_of(path) == "log":
            self._logs.add(path)
        return self._rule.meet("open", None, path, lambda: File(self._rule, name, flags, path), (flags[0],))

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Remove a file."""
        self._rule.meet("delete", None, filename, lambda: super(Disk, self).xDelete(filename, syncdir), (syncdir,))

    def xAccess(self, pathname: str, flags: int) -> bool:
        """Ask whether a file is there."""
        there = super().xAccess
        return bool(self._rule.meet("access", None, pathname, lambda: there(pathname, flags), ()))


class File(apsw.VFSFile):
    """One open file."""

    def __init__(self, rule: Any, name: Any, flags: list[int], path: str) -> None:
        super().__init__("unix", name, flags)
        self._rule = rule
        self._path = path
        if hasattr(rule, "opened"):
            rule.opened(self, path)
        self.read_raw = super().xRead
        self.write_raw = super().xWrite
        self.truncate_raw = super().xTruncate
        self.size_raw = super().xFileSize

    def _meet(self, operation: str, do: Callable[[], Any], *detail: Any) -> Any:
        return self._rule.meet(operation, self, self._path, do, detail)

    def xRead(self, amount: int, offset: int) -> bytes:
        """Read."""
        data: bytes = self._meet("read", lambda: self.read_raw(amount, offset))
        return data

    def xWrite(self, data: bytes, offset: int) -> None:
        """Write."""
        self._meet("write", lambda: self.write_raw(data, offset), bytes(data), offset)

    def xSync(self, flags: int) -> None:
        """Force to disk."""
        sync = super().xSync
        self._meet("sync", lambda: sync(flags))

    def xTruncate(self, newsize: int) -> None:
        """Cut."""
        self._meet("truncate", lambda: self.truncate_raw(newsize), newsize)

    def xFileSize(self) -> int:
        """Return the size."""
        return int(self._meet("size", self.size_raw))

    def xLock(self, level: int) -> None:
        """Lock."""
        lock = super().xLock
        self._meet("lock", lambda: lock(level))
