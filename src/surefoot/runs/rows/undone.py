"""Which run an undo undoes: asked by whoever keeps, restores or traces runs."""

from __future__ import annotations

from surefoot.journal.tables import load_record
from surefoot.runs.durable import UNDO, kind_of
from surefoot.store.connection import Connection


def undone_by(connection: Connection, undo: int) -> int | None:
    """Return the run that an undo is to undo; None where that can't be told any more."""
    rows = connection.execute("SELECT id FROM journal WHERE run = ? AND seq = 1", (undo,)).fetchall()
    if not rows:
        return None
    body = load_record(connection, int(str(rows[0][0]))).body
    assert body is not None, "an undo is started with the run's id"
    (run_id, *_), _ = kind_of(UNDO).load_input(body)
    found = connection.execute("SELECT id FROM runs WHERE run_id = ?", (run_id,)).fetchall()
    return int(str(found[0][0])) if found else None
