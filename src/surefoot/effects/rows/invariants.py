"""What always holds of the ledger and its evidence, as queries for what breaks it."""

from __future__ import annotations

from surefoot.effects.states import OPEN, State
from surefoot.journal.records import Kind
from surefoot.store.finding import Invariant

_STATES = ", ".join(str(state.value) for state in State)
_OPEN = ", ".join(str(state.value) for state in sorted(OPEN))
_OUTCOMES = (
    f"({State.DONE.value}, {Kind.DONE.value}), ({State.NOT_DONE.value}, {Kind.NOT_DONE.value}),"
    f" ({State.COMPENSATED.value}, {Kind.DONE.value})"
)

INVARIANTS = (
    Invariant(
        "every effect has a known state",
        f"SELECT id FROM ledger WHERE state NOT IN ({_STATES})",
    ),
    Invariant(
        "every effect's claim is in the journal",
        "SELECT l.id FROM ledger l LEFT JOIN journal j ON j.id = l.claim"
        f" WHERE j.id IS NULL OR j.kind != {Kind.CLAIMED.value}",
    ),
    Invariant(
        "every outcome is in the journal",
        "SELECT l.id FROM ledger l LEFT JOIN journal j ON j.id = l.record"
        f" WHERE l.state NOT IN ({_OPEN}) AND (j.id IS NULL OR (l.state, j.kind) NOT IN (VALUES {_OUTCOMES}))",
    ),
    Invariant(
        "every open effect has no outcome yet",
        f"SELECT id FROM ledger WHERE state IN ({_OPEN}) AND record != claim",
    ),
    Invariant(
        "the generations of a key follow each other, and only the last may be open or done",
        "SELECT a.id FROM ledger a JOIN ledger b ON b.digest = a.digest AND b.generation = a.generation + 1"
        f" WHERE a.state NOT IN ({State.NOT_DONE.value}, {State.COMPENSATED.value})"
        " UNION ALL SELECT a.id FROM ledger a WHERE a.generation > 1 AND NOT EXISTS"
        " (SELECT 1 FROM ledger b WHERE b.digest = a.digest AND b.generation = a.generation - 1)",
    ),
    Invariant(
        "every piece of evidence belongs to an effect",
        "SELECT id FROM evidence WHERE NOT EXISTS (SELECT 1 FROM ledger WHERE ledger.id = effect)",
    ),
)
"""Checked by `surefoot doctor`."""
