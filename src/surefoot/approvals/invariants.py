"""What always holds of approvals and of the trail, as queries for what breaks it."""

from __future__ import annotations

from surefoot.approvals.states import Event, State
from surefoot.journal.records import Kind
from surefoot.store.finding import Invariant

_STATES = ", ".join(str(state.value) for state in State)

INVARIANTS = (
    Invariant(
        "every approval has a known state",
        f"SELECT id FROM approvals WHERE state NOT IN ({_STATES})",
    ),
    Invariant(
        "what may still be decided or used has its question in the journal",
        "SELECT a.id FROM approvals a LEFT JOIN journal j ON j.id = a.record"
        f" WHERE a.state <= {State.APPROVED.value} AND (j.id IS NULL OR j.kind != {Kind.ASKED.value})",
    ),
    Invariant(
        "what is used was approved before",
        f"SELECT id FROM approvals WHERE state = {State.USED.value} AND NOT EXISTS (SELECT 1 FROM approval_notes n"
        f" WHERE n.approval = approvals.id AND n.kind = '{Event.APPROVED.value}')",
    ),
    Invariant(
        "everything said belongs to an approval",
        "SELECT id FROM approval_notes WHERE NOT EXISTS (SELECT 1 FROM approvals WHERE approvals.id = approval)",
    ),
    Invariant(
        "the trail of decisions has no gaps",
        "SELECT id FROM trail WHERE id > 1 AND NOT EXISTS (SELECT 1 FROM trail t WHERE t.id = trail.id - 1)",
    ),
)
"""Checked by `surefoot doctor`."""
