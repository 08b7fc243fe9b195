"""Who holds what, since when and for whom, and who waits for it: what people see of leases."""

from __future__ import annotations

from dataclasses import dataclass

from surefoot.coordination import tables
from surefoot.coordination.owners import Owners
from surefoot.coordination.tables import Row
from surefoot.leases import Holder, Sessions
from surefoot.leases.tables import token_of
from surefoot.runs.rows.desk import is_open
from surefoot.runs.rows.tables import get_run
from surefoot.store import Clock
from surefoot.store.connection import Connection


@dataclass(frozen=True, slots=True)
class LeaseView:
    """One that holds a resource, or waits for it.

    Attributes:
        kind: lease, election or semaphore.
        resource: Its name.
        places: How many may hold it at once.
        state: "held", "waiting", or "left": its owner is gone, and the next one that asks takes it.
        token: Its fencing token; None while it waits.
        owner: Who owns it: "process", "run" or "effect".
        holder: Who that is, in words.
        run_id: The run it is held for; None outside runs.
        process: The process that acts, or acted last, for its owner.
        asked_at_ms: When it was asked for.
        granted_at_ms: Since when it is held.
        until_ms: When whoever waits in memory gives up, or a run that decides again may not keep it any more, wall clock;
            None for never, and for other waits of runs: see the run.
    """

    kind: str
    resource: str
    places: int
    state: str
    token: int | None
    owner: str
    holder: str
    run_id: str | None
    process: Holder
    asked_at_ms: int
    granted_at_ms: int | None
    until_ms: int | None


def list_leases(
    connection: Connection, sessions: Sessions, clock: Clock, *, resource: str | None = None,
    limit: int = 100
) -> list[LeaseView]:  # fmt: skip
    """Return who holds what, in the order of kinds and names, each followed by those that wait for it.

    Args:
        connection: To the store.
        sessions: Judges processes.
        clock: The store's.
        resource: Only this one; None for all.
        limit: At most so many.
    """
    rows = tables.listed(connection, resource=resource, limit=limit)
    incarnation = int(next(connection.execute("SELECT incarnation FROM store_incarnation"))[0])
    return [_view(connection, sessions, clock, incarnation, row) for row in rows]


def _view(connection: Connection, sessions: Sessions, clock: Clock, incarnation: int, row: Row) -> LeaseView:
    is_alive = Owners(sessions, clock.boot_ms, is_open).is_alive(connection, row)
    until_boot_ms = None if row.is_held and row.effect is not None else row.until_boot_ms
    left_ms = None if until_boot_ms is None else until_boot_ms - clock.boot_ms()
    return LeaseView(
        kind=row.kind,
        resource=row.resource,
        places=row.places,
        state="left" if not is_alive else "held" if row.is_held else "waiting",
        token=token_of(incarnation, row.token) if row.is_held else None,
        owner="effect" if row.effect is not None else "process" if row.run is None else "run",
        holder=row.holder,
        run_id=None if row.run is None else get_run(connection, row.run).run_id,
        process=sessions.holder(connection, row.session),
        asked_at_ms=row.asked_at_ms,
        granted_at_ms=row.granted_at_ms,
        until_ms=None if left_ms is None else clock.wall_ms() + left_ms,
    )
