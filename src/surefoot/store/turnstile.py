"""A fair write lock between processes: who has just written lets the one who waits go first.

SQLite's own busy handler sleeps and polls, so a busy process starves the others. Here a process takes the door, then
the desk, then leaves the door: whoever holds the desk must pass the door again for another turn, and finds the next one
standing in it. Both are kernel file locks: they are waited for without polling, and drop when their holder dies.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType


class Turnstile:
    """Two lock files beside the database; used as a context manager around one transaction."""

    def __init__(self, database: Path) -> None:
        self._door = os.open(f"{database}-door", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._desk = os.open(f"{database}-desk", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._desk, fcntl.LOCK_EX)
        fcntl.flock(self._door, fcntl.LOCK_UN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self._desk, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give both files back to the system."""
        os.close(self._door)
        os.close(self._desk)
