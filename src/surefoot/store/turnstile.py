"""A fair write lock between processes: who has just written lets the one who waits go first.

SQLite's own busy handler sleeps and polls, so a busy process starves the others. Here a process takes the door, then
the desk, then leaves the door: whoever holds the desk must pass the door again for another turn, and finds the next one
standing in it. Both are kernel file locks: they are waited for without polling, and drop when their holder dies.

A holder that is stopped (SIGSTOP, a debugger) neither dies nor goes on. Nobody waits for it longer than `WAIT_S` to open a
store, or `PATIENCE_S` to write to one; whose turn it is stands in the desk file. Kernel locks can't be waited for with a
limit, so a thread of our own stands in line.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from surefoot.store.errors import StoreBusy
from surefoot.store.log import NOTE_BYTES, SICK, SICK_AT

WAIT_S = 10.0
"""Longest wait for our turn. A turn takes milliseconds; a disk that stalls for seconds is waited for."""

PATIENCE_S = 60.0
"""Longest wait of a process that has the store open already. Its leases run out meanwhile, and it begins anew: that is
cheaper than to end, since whoever took its place would stand in the same line."""

_NAME_BYTES = SICK_AT
_NOTE_AT = SICK_AT + 1
_NOTE_BYTES = _NOTE_AT + NOTE_BYTES
"""The desk file: the process id of whoever wrote last, as decimal text, padded; whether a sync of the database has failed;
then how far the log reached (`log`)."""


class Turnstile:
    """Two lock files beside the database; used as a context manager around one transaction.

    Attributes:
        wait_s: Longest wait for our turn, in seconds.
        before_waiting: Called when another process stands before us, before we wait for it.
    """

    def __init__(self, database: Path, *, wait_s: float = WAIT_S) -> None:
        self._database = database
        self.wait_s = wait_s
        with contextlib.ExitStack() as undo:
            self._door = _open(f"{database}-door", undo)
            self._desk = _open(f"{database}-desk", undo)
            _fill(self._desk, _NOTE_BYTES)
            self._note = mmap.mmap(self._desk, _NOTE_BYTES)  # written at every turn, without a system call
            undo.pop_all()
        self._name = str(os.getpid()).encode().ljust(_NAME_BYTES)
        self.before_waiting: Callable[[], object] = _nothing

    def __enter__(self) -> None:
        """Wait for our turn.

        Raises:
            StoreBusy: It did not come within the limit.
        """
        if not self.is_free():
            self.before_waiting()
            self._queue()
        self._note[:_NAME_BYTES] = self._name

    def is_free(self) -> bool:
        """Take a turn, if nobody else wants one."""
        try:
            fcntl.flock(self._door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            fcntl.flock(self._desk, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # we stand in the door now, and `stand` takes it again, which is no change
        except OSError:
            fcntl.flock(self._door, fcntl.LOCK_UN)
            raise
        fcntl.flock(self._door, fcntl.LOCK_UN)
        return True

    def _queue(self) -> None:
        turn = _Turn(os.dup(self._door), os.dup(self._desk))
        threading.Thread(target=turn.stand, name="surefoot-turnstile", daemon=True).start()
        if turn.wait(self.wait_s):
            return
        holder = self._note[:_NAME_BYTES].split(b"\0")[0].decode().strip() or "?"
        raise StoreBusy(
            f"{self._database}: process {holder} has held the write lock for over {self.wait_s:g} s",
            hint=f"is it stopped? `ps -o stat,cmd -p {holder}`; `kill -CONT {holder}` or end it, then try again",
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self._desk, fcntl.LOCK_UN)

    def note(self, data: bytes) -> None:
        """Keep how far the log reached; called at our turn. See `log.Place`."""
        self._note[_NOTE_AT:] = data

    def noted(self) -> bytes:
        """Return what was noted last, by any process."""
        return self._note[_NOTE_AT:]

    @property
    def is_sick(self) -> bool:
        """Whether what was moved from the log to the database may not be on disk, as some process saw; see `checkpoint`."""
        return self._note[SICK_AT:_NOTE_AT] == SICK

    @is_sick.setter
    def is_sick(self, is_so: bool) -> None:
        self._note[SICK_AT:_NOTE_AT] = SICK if is_so else b" "

    def close(self) -> None:
        """Give both files back to the system. Safe to call twice."""
        if not self._note.closed:
            self._note.close()
            os.close(self._door)
            os.close(self._desk)


def _fill(file: int, size: int) -> None:
    """Make a file at least so large, in writing: the hole that `ftruncate` makes is filled when the mapping is written to,
    which kills the process if there is no room."""
    there = os.fstat(file).st_size
    if there < size and os.pwrite(file, bytes(size - there), there) < size - there:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _open(path: str, undo: contextlib.ExitStack) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    undo.callback(os.close, descriptor)
    return descriptor


def _nothing() -> None:
    return None


class _Turn:
    """One wait in line, by a thread of its own: with own descriptors of the same two open files, so that it locks for us
    and outlives a close."""

    def __init__(self, door: int, desk: int) -> None:
        self._door = door
        self._desk = desk
        self._lock = threading.Lock()
        self._has_come = threading.Event()
        self._is_given_up = False
        self._error: OSError | None = None

    def wait(self, limit_s: float) -> bool:
        """Return whether the turn came within the limit; if not, it is given up when it comes.

        Raises:
            OSError: The system can't lock.
        """
        if self._has_come.wait(limit_s):
            if self._error is not None:
                raise self._error
            return True
        with self._lock:
            self._is_given_up = not self._has_come.is_set()
            return not self._is_given_up

    def stand(self) -> None:
        """Take the door, then the desk, then leave the door."""
        try:
            fcntl.flock(self._door, fcntl.LOCK_EX)
            fcntl.flock(self._desk, fcntl.LOCK_EX)
            fcntl.flock(self._door, fcntl.LOCK_UN)
            with self._lock:
                if self._is_given_up:
                    fcntl.flock(self._desk, fcntl.LOCK_UN)
                else:
                    self._has_come.set()
        except OSError as error:
            self._error = error
            self._has_come.set()
        finally:
            os.close(self._door)
            os.close(self._desk)
