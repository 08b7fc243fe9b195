"""The inbox: signals, cancellations and wake-ups, from anybody to a run; a record of the run that names a row takes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from surefoot.journal.sealing import of_letter, opened, sealed
from surefoot.runs.rows.tables import WORK
from surefoot.store import Tx
from surefoot.store.codec import Codec, codec_of
from surefoot.store.connection import Connection

CANCEL = "$cancel"
WAKE = "$wake"


@dataclass(frozen=True, slots=True)
class Letter:
    """One row of the inbox. Its payload is opened when it is taken: a missing key is a matter of the run that takes it."""

    id: int
    run: int
    name: str
    sent_by: str
    stored: bytes | None
    codec: Codec | None = None

    @property
    def payload(self) -> bytes | None:
        """What was sent, as JSON.

        Raises:
            MissingKey: It is encrypted, and its key is not here.
        """
        return opened(self.codec, self.stored, of_letter(self.run, self.name))


def post(tx: Tx, run: int, name: str, payload: bytes | None, *, sent_by: str, dedupe: str | None = None) -> int | None:
    """Put a letter in a run's inbox and wake the run if it waits; None if the same letter is there already."""
    tx.execute(
        "INSERT INTO inbox (run, name, dedupe, sent_by, at_ms, payload) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (run, name, dedupe, sent_by, tx.now_ms, sealed(tx.codec, payload, of_letter(run, name))),
    )
    if tx.connection.changes() == 0:
        return None
    tx.ring(WORK)
    letter = tx.connection.last_insert_rowid()
    waking = "= 3" if name != CANCEL else "IN (-1, 0, 3)"  # what has not begun keeps its turn, unless it is to end
    tx.execute(
        f"UPDATE runs SET state = 1, waiting_for = NULL, wake_at_ms = NULL WHERE id = ? AND state {waking}", (run,)
    )
    return letter


def is_posted(tx: Tx, run: int, name: str, dedupe: str | None) -> bool:
    """Whether the same letter is in the run's inbox already, read or not."""
    if dedupe is None:
        return False
    return tx.row("SELECT 1 FROM inbox WHERE run = ? AND name = ? AND dedupe = ?", (run, name, dedupe)) is not None


def letters_since(connection: Connection, last: int) -> list[Letter]:
    """Return all letters newer than `last`."""
    rows = connection.execute("SELECT id, run, name, sent_by, payload FROM inbox WHERE id > ? ORDER BY id", (last,))
    codec: Any = codec_of(connection)
    return [Letter(*[*values, codec]) for values in rows]


def cancels_since(connection: Connection, last: int) -> tuple[list[int], int]:
    """Return the runs that letters newer than `last` cancel, and the newest letter that was looked at."""
    newest = max(last, int(connection.execute("SELECT coalesce(max(id), 0) FROM inbox").fetchall()[0][0]))
    sql = "SELECT run FROM inbox WHERE id > ? AND id <= ? AND name = ? ORDER BY id"
    return [int(row[0]) for row in connection.execute(sql, (last, newest, CANCEL)).fetchall()], newest


def letters_of(connection: Connection, runs: Iterable[int]) -> list[Letter]:
    """Return all letters of these runs, in order."""
    marks = ",".join(str(int(run)) for run in runs)
    rows = connection.execute(f"SELECT id, run, name, sent_by, payload FROM inbox WHERE run IN ({marks}) ORDER BY id")
    codec: Any = codec_of(connection)
    return [Letter(*[*values, codec]) for values in rows]
