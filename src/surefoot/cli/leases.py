"""The command about leases: who holds what, since when, and for which run."""

from __future__ import annotations

from typing import Annotated

import typer

from surefoot.cli.place import Desk, JsonOption, StoreOption, at_desk
from surefoot.cli.runs import LimitOption
from surefoot.cli.screen import Column, emit, listing, say
from surefoot.cli.shapes.sharing import LeasesDocument, LeaseShape
from surefoot.cli.words import moment
from surefoot.coordination.looking import LeaseView, list_leases

COLUMNS = (
    Column("resource"),
    Column("state"),
    Column("holder", is_flexible=True),
    Column("since"),
    Column("token"),
    Column("process", is_flexible=True),
)


def leases(
    *,
    resource: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only who holds this one, and who waits for it.")
    ] = None,
    limit: LimitOption = 100,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """List who holds which resource, since when and for which run, and who waits for it.

    What an effect holds it gives back when its outcome is known: resolve it, if it is in doubt. What a run holds it gives
    back at the end of its block or its own: cancel it, if it stands. What a process holds it loses when it ends.
    """

    async def work(desk: Desk) -> None:
        sessions, clock = desk.app.worker.sessions, desk.app.store.clock
        views = await desk.read(
            lambda connection: list_leases(connection, sessions, clock, resource=resource, limit=limit)
        )
        document = desk.seen(LeasesDocument([_shape(one) for one in views]))
        if is_json:
            return emit(document)
        if not document.leases:
            return say("nobody holds anything" if resource is None else f"nobody holds {resource}, or waits for it")
        return listing(COLUMNS, [_cells(one) for one in document.leases])

    at_desk(store, work)


def _shape(one: LeaseView) -> LeaseShape:
    return LeaseShape(
        kind=one.kind,
        resource=one.resource,
        state=one.state,
        places=one.places,
        token=one.token,
        owner=one.owner,
        holder=one.holder,
        run=one.run_id,
        process=one.process.name,
        pid=one.process.pid,
        life=one.process.life.value,
        asked_at=moment(one.asked_at_ms) or "",
        since=moment(one.granted_at_ms),
        until=moment(one.until_ms),
    )


def _cells(one: LeaseShape) -> list[str]:
    name = one.resource if one.kind == "lease" else f"{one.kind} {one.resource}"
    life = "" if one.life == "alive" else f", {one.life}"
    since = one.since or f"asked {one.asked_at}"
    return [name, one.state, one.holder, since, str(one.token or ""), f"{one.process} (pid {one.pid}{life})"]
