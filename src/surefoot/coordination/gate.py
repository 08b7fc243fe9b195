"""The gate of effects that declare `resource=`: nobody else has the resource from the claim until the outcome is known.

What holds: an effect's resources are its own in the transaction that claims it, or it is not claimed; whoever takes the
effect over takes them over under a new token; they are given back in the transaction that settles it. What is in doubt
keeps them: what it has sent may land yet. A run that was told what has changed keeps them, too, for as long as it takes to
decide again: else all who wait behind it would act meanwhile, and it would find them changed each time.

Source: Yu and Dias 1992 (an optimistic transaction that must run again takes locks).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from surefoot.coordination import tables
from surefoot.coordination.desk import LeaseDesk
from surefoot.coordination.line import Granted, Wanted
from surefoot.coordination.rules import KEEP_MS, canonical
from surefoot.coordination.tables import Owner
from surefoot.coordination.words import busy
from surefoot.effects import Pass, Refuse, Request, Wait
from surefoot.effects.gates import Admission
from surefoot.leases.rules import TTL_MS
from surefoot.store import Tx


class ResourceGate:
    """See `surefoot.effects.HoldingGate`."""

    name = "resource"

    def __init__(self, desk: LeaseDesk) -> None:
        self.desk = desk

    def admit(self, tx: Tx, request: Request) -> Admission:
        """Take all resources of the effect, or none and stand in line for them."""
        wanted = Wanted("lease", canonical(request.resources), 1, TTL_MS)
        mine = self._mine(tx, request, wanted)
        if mine is None and (kept := self.desk.kept(tx, wanted, _owner(request))) is not None:
            return Pass(tuple((name, kept.token) for name in wanted.resources))
        limit_s = request.resource_timeout_s - request.waited_s
        boot_ms = self.desk.store.clock.boot_ms()
        taken = self.desk.take(
            tx, wanted, _owner(request), mine, boot_ms=boot_ms,
            until_boot_ms=boot_ms + int(1_000 * max(0.0, limit_s)),
        )  # fmt: skip
        if isinstance(taken, Granted):
            return Pass(tuple((name, taken.token) for name in wanted.resources))
        reason = busy(wanted, taken.ahead, request.waited_s)
        if limit_s <= 0:
            self.leave(tx, request)
            return Refuse(reason, "not_done")
        comes: Callable[[], Awaitable[None]] = partial(self.desk.comes, wanted, taken.number, limit_s)
        return Wait(reason, comes=comes)

    def _mine(self, tx: Tx, request: Request, wanted: Wanted) -> int | None:
        """Return the effect's place in the line, if it has one: another caller of the same key may stand there already. One
        for other resources is given up."""
        rows = tables.of_effect(tx.connection, request.identity)
        if {row.resource for row in rows} == set(wanted.resources):
            return rows[0].number
        self.desk.give_back(tx, rows)
        return None

    def retake(self, tx: Tx, request: Request) -> Pass:
        """See `HoldingGate.retake`. An effect that was claimed before it declared a resource has none, and goes on so."""
        rows = tables.of_effect(tx.connection, request.identity)
        if not rows:
            return Pass()
        token = self.desk.act_for(tx, rows, request.session)
        return Pass(tuple((row.resource, token) for row in rows))

    def release(self, tx: Tx, request: Request) -> None:
        """See `Gate.release`."""
        self.desk.give_back(tx, tables.of_effect(tx.connection, request.identity))

    def keep(self, tx: Tx, request: Request) -> None:
        """See `HoldingGate.keep`. However often it has to decide again, it keeps them no longer than once."""
        rows, boot_ms = tables.of_effect(tx.connection, request.identity), self.desk.store.clock.boot_ms()
        if not rows:
            return
        until_boot_ms = rows[0].until_boot_ms or boot_ms + KEEP_MS
        if request.run is None or boot_ms >= until_boot_ms:
            self.desk.give_back(tx, rows)
        else:
            tables.keep(tx, rows[0].number, until_boot_ms)

    def leave(self, tx: Tx, request: Request) -> None:
        """See `HoldingGate.leave`. What it holds stays: another caller of the same key may act under it."""
        waiting = [row for row in tables.of_effect(tx.connection, request.identity) if not row.is_held]
        self.desk.give_back(tx, waiting)


def _owner(request: Request) -> Owner:
    run = "" if request.run_id is None else f"run {request.run_id}, "
    return Owner(request.session, f"{run}effect {request.name}", run=request.run, effect=request.identity)
