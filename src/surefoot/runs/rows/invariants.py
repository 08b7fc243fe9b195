"""What always holds of runs and what refers to them, as queries for what breaks it."""

from __future__ import annotations

from surefoot.journal.records import Kind
from surefoot.runs.durable import ELSEWHERE
from surefoot.runs.life import ENDED, RunState
from surefoot.store.finding import Invariant, Severity

_STATES = ", ".join(str(state.value) for state in RunState)
_ENDED = ", ".join(str(state.value) for state in sorted(ENDED))
_BEGUN = ", ".join(str(state.value) for state in (RunState.PENDING, RunState.RUNNING, RunState.WAITING))
_RUNNING = RunState.RUNNING.value

INVARIANTS = (
    Invariant("every run has a known state", f"SELECT run_id FROM runs WHERE state NOT IN ({_STATES})"),
    Invariant(
        "every record of a run belongs to one that is there",
        "SELECT DISTINCT run FROM journal WHERE run IS NOT NULL AND run NOT IN (SELECT id FROM runs)",
    ),
    Invariant(
        "a run that has ended has its end in the journal",
        f"SELECT run_id FROM runs r LEFT JOIN journal j ON j.id = r.ended WHERE r.state IN ({_ENDED})"
        f" AND (j.id IS NULL OR j.kind != {Kind.ENDED.value} OR j.run != r.id)",
    ),
    Invariant(
        "a run that goes on has its beginning in the journal, and no end",
        f"SELECT run_id FROM runs r WHERE r.state NOT IN ({_ENDED}) AND (r.ended IS NOT NULL OR NOT EXISTS"
        f" (SELECT 1 FROM journal j WHERE j.run = r.id AND j.seq = 1 AND j.kind = {Kind.STARTED.value}))",
    ),
    Invariant(
        "each record of a run that goes on came after one that is there",
        "SELECT DISTINCT r.run_id FROM runs r JOIN journal j ON j.run = r.id"
        f" WHERE r.state NOT IN ({_ENDED}) AND j.after NOT IN (0, -1) AND NOT EXISTS (SELECT 1 FROM journal before"
        " WHERE before.run = j.run AND before.seq = CASE WHEN j.after < 0 THEN -j.after - 1 ELSE j.after END)",
    ),
    Invariant(
        "a running run has a holder, unless another engine executes it, and no other has",
        f"SELECT run_id FROM runs WHERE (state = {_RUNNING} AND substr(kind, 1, {len(ELSEWHERE)}) != '{ELSEWHERE}')"
        " != (holder IS NOT NULL)",
    ),
    Invariant(
        "a run that is queued has others of its lane before it",
        f"SELECT q.run_id FROM runs q WHERE q.state = {RunState.QUEUED.value} AND NOT EXISTS (SELECT 1 FROM runs r"
        f" WHERE r.lane = q.lane AND r.state IN ({_BEGUN}))",
    ),
    Invariant(
        "a run that is scheduled has a time",
        f"SELECT run_id FROM runs WHERE state = {RunState.SCHEDULED.value} AND wake_at_ms IS NULL",
    ),
    Invariant(
        "no run that has ended owns an effect without outcome",
        f"SELECT l.id FROM ledger l JOIN runs r ON r.id = l.run WHERE l.state <= 3 AND r.state IN ({_ENDED})",
        Severity.WARNING,  # it left work behind: see docs/failure-model.md
        ("unknowns",),
    ),
    Invariant(
        "every effect's run is there",
        "SELECT l.id FROM ledger l WHERE l.run IS NOT NULL AND l.run NOT IN (SELECT id FROM runs)",
    ),
    Invariant(
        "every parent is there",
        "SELECT run_id FROM runs WHERE parent IS NOT NULL AND parent NOT IN (SELECT id FROM runs)",
    ),
    Invariant(
        "every letter and every wait belongs to a run that is there",
        "SELECT run FROM inbox WHERE run NOT IN (SELECT id FROM runs)"
        " UNION SELECT run FROM waiters WHERE run NOT IN (SELECT id FROM runs)",
    ),
)
"""Checked by `surefoot doctor`."""
