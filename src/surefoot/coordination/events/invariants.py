"""What always holds of events and deliveries, as queries for what breaks it."""

from __future__ import annotations

from surefoot.coordination.events.states import State
from surefoot.journal.records import Kind
from surefoot.store.finding import Invariant, Severity

_STATES = ", ".join(str(state.value) for state in State)
_STARTED, _DONE, _DEAD = State.STARTED.value, State.DONE.value, State.DEAD.value

INVARIANTS = (
    Invariant("every delivery has a known state", f"SELECT event FROM deliveries WHERE state NOT IN ({_STATES})"),
    Invariant(
        "every delivery is of an event and a group that are there, and is not ahead of the group",
        "SELECT d.event FROM deliveries d LEFT JOIN events e ON e.id = d.event LEFT JOIN event_groups g ON g.id = d.grp"
        " WHERE e.id IS NULL OR g.id IS NULL OR g.topic != e.topic OR d.event > g.place",
    ),
    Invariant(
        "every event that a group has passed was brought to it, unless it says nothing any more",
        "SELECT e.id FROM events e JOIN event_groups g ON g.topic = e.topic AND e.id <= g.place AND e.id > g.began_after"
        " WHERE e.record IS NOT NULL AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.grp = g.id AND d.event = e.id)",
    ),
    Invariant(
        "what an event says is in the journal",
        "SELECT e.id FROM events e LEFT JOIN journal j ON j.id = e.record"
        f" WHERE e.record IS NOT NULL AND (j.id IS NULL OR j.kind != {Kind.PUBLISHED.value})",
    ),
    Invariant(
        "a delivery that is under way has a run that goes on",
        f"SELECT d.event FROM deliveries d LEFT JOIN runs r ON r.id = d.run WHERE d.state = {_STARTED}"
        " AND (r.id IS NULL OR r.state > 3)",
    ),
    Invariant(
        "a delivery that is done has a run that completed",
        f"SELECT d.event FROM deliveries d LEFT JOIN runs r ON r.id = d.run WHERE d.state = {_DONE}"
        " AND (r.id IS NULL OR r.state != 4)",
    ),
    Invariant(
        "no event waits for a person",
        f"SELECT event FROM deliveries WHERE state = {_DEAD}",
        Severity.WARNING,
        ("events",),
    ),
)
"""Checked by `surefoot doctor`."""
