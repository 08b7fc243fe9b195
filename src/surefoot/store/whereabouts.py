"""Whether the files a process has open are still the ones that are found under their names.

A file that is moved, deleted or replaced under a running process is written to all the same, and nobody else sees what is
written; a second process that opens the store then has another log, or another index of it, and both are lost
(https://sqlite.org/howtocorrupt.html, "Unlinking or renaming a database file while in use"). The system tells nobody. So
the writer looks from time to time, and stops; what it had acknowledged meanwhile goes where its files went, and whoever
opens what is found under the name is told that records are missing (`log`).
"""

from __future__ import annotations

import os
from pathlib import Path

from surefoot.store.errors import StoreFailed

LOOK_MS = 1_000
"""How often to look, by the wall clock: three calls of `stat` are too much for each commit, and nothing for one second."""


class Whereabouts:
    """The files of one open store."""

    def __init__(self, database: Path) -> None:
        self._paths = (str(database), f"{database}-wal", f"{database}-shm")
        self._known = [_identity(path) for path in self._paths]
        self._looked_ms = 0

    def check(self, now_ms: int) -> None:
        """Look, if it is time.

        Raises:
            StoreFailed: One of the files was moved, deleted or replaced.
        """
        if abs(now_ms - self._looked_ms) < LOOK_MS:
            return
        self._looked_ms = now_ms
        for path, known in zip(self._paths, self._known, strict=True):
            if _identity(path) != known:
                raise StoreFailed(
                    f"{path} was moved, deleted or replaced while this process had it open; it records nothing more",
                    hint="stop all processes of this store, put its files back as they were, and start the processes again",
                )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  called for years, once a second
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
