"""What always holds of the journal's tables, as queries for what breaks it."""

from __future__ import annotations

from surefoot.journal.records import Kind
from surefoot.store.finding import Invariant

_KINDS = ", ".join(str(kind.value) for kind in Kind)

INVARIANTS = (
    Invariant(
        "every record has a known kind",
        f"SELECT id FROM journal WHERE kind NOT IN ({_KINDS})",
    ),
    Invariant(
        "every record of a run has a number of its own",
        "SELECT max(id) FROM journal WHERE run IS NOT NULL GROUP BY run, seq HAVING count(*) > 1 OR seq < 1",
    ),
    Invariant(
        "the blob that a record names is there",
        "SELECT id FROM journal WHERE blob IS NOT NULL AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.id = blob)",
    ),
    Invariant(
        "a record has its value in one place",
        "SELECT id FROM journal WHERE blob IS NOT NULL AND body IS NOT NULL",
    ),
)
"""Checked by `surefoot doctor`."""
