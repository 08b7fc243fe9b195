"""The formats of all rooms, which make up a store."""

from __future__ import annotations

from surefoot import approvals, coordination, effects, journal, leases, people, runs
from surefoot.coordination import events
from surefoot.journal import payloads

MIGRATIONS = (
    *leases.MIGRATIONS,
    *journal.MIGRATIONS,
    *payloads.MIGRATIONS,
    *people.MIGRATIONS,
    *effects.MIGRATIONS,
    *approvals.MIGRATIONS,
    *runs.MIGRATIONS,
    *coordination.MIGRATIONS,
    *events.MIGRATIONS,
)
"""The formats of all rooms, in the order they are brought up to date."""
