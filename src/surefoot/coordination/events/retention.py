"""Retention of events: what every group has acted on leaves what it says, and keeps its id.

What holds: an event that a group has yet to come to, or whose run goes on, or that is a dead letter, keeps everything. The
row of an event stays, so that the same id published late is known; so do the rows of runs, so that nobody acts on it anew.
"""

from __future__ import annotations

from functools import partial

from surefoot.coordination.events.tables import OPEN
from surefoot.store import Store, Tx
from surefoot.store.connection import Connection
from surefoot.store.pace import politely

EVENTS_AT_ONCE = 500
"""Events looked at by one query, and emptied by one transaction."""


async def sweep(store: Store, before_ms: int, *, is_dry: bool) -> int:
    """Delete what events say that were published before a time; return how many.

    Args:
        store: The store.
        before_ms: Wall clock.
        is_dry: Only count.
    """
    after, count = 0, 0
    while True:
        found = await store.read(partial(_find, after, before_ms))
        if not found:
            return count
        count += len(found) if is_dry else await politely(store, partial(_empty, after, before_ms), label="gc")
        after = found[-1][0]


def _find(after: int, before_ms: int, connection: Connection) -> list[tuple[int, int]]:
    rows = connection.execute(
        "SELECT e.id, e.record FROM events e WHERE e.id > ? AND e.at_ms < ? AND e.record IS NOT NULL"
        " AND e.record < (SELECT max(id) FROM journal)"  # its number must not be given out again
        " AND NOT EXISTS (SELECT 1 FROM event_groups g WHERE g.topic = e.topic AND g.place < e.id)"
        " AND NOT EXISTS (SELECT 1 FROM event_groups g JOIN deliveries d ON d.grp = g.id AND d.event = e.id"
        f" WHERE g.topic = e.topic AND d.{OPEN}) ORDER BY e.id LIMIT ?",
        (after, before_ms, EVENTS_AT_ONCE),
    ).fetchall()
    return [(int(str(event)), int(str(record))) for event, record in rows]


def _empty(after: int, before_ms: int, tx: Tx) -> int:
    """Empty what is found now, in this transaction: a group may have begun since it was seen, and come to some of it."""
    found = _find(after, before_ms, tx.connection)
    if not found:
        return 0
    events = ",".join(str(event) for event, _ in found)
    records = ",".join(str(record) for _, record in found)
    tx.execute(f"DELETE FROM blobs WHERE id IN (SELECT blob FROM journal WHERE id IN ({records}))")
    tx.execute(f"DELETE FROM journal WHERE id IN ({records})")
    tx.execute(f"UPDATE events SET record = NULL WHERE id IN ({events})")
    tx.execute(f"DELETE FROM deliveries WHERE event IN ({events})")
    return len(found)
