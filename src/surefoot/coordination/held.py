"""What code around effects holds: each effect inside is claimed only while that is so, and acts under its token."""

from __future__ import annotations

import asyncio
from functools import partial

from surefoot.coordination import rules, tables
from surefoot.coordination.desk import LeaseDesk
from surefoot.coordination.line import Granted, Wanted
from surefoot.coordination.tables import Owner, Row
from surefoot.coordination.words import busy
from surefoot.effects import Pass, Refuse, Request, Wait
from surefoot.effects.gates import Admission
from surefoot.leases import LeaseLost, Session
from surefoot.store import Tx

FORK_TIMEOUT_S = 30.0
"""How long an effect of a fork waits for what its source held around it."""


class HeldBySession:
    """A lease of code outside runs, until its process stops or it is not renewed. See `surefoot.effects.AroundGate`."""

    name = "lease"

    def __init__(self, desk: LeaseDesk, session: Session, wanted: Wanted, granted: Granted, boot_ms: int) -> None:
        self.wanted = wanted
        self.granted = granted
        self._desk = desk
        self.task = asyncio.current_task()
        self._session = session
        self._boot_ms = boot_ms

    @property
    def resources(self) -> tuple[str, ...]:
        """What it is a lease of."""
        return self.wanted.resources if self.wanted.kind == "lease" else ()

    def may_act(self) -> bool:
        """Whether it may still be relied on, as far as this process can know by itself."""
        return self._session.may_act() and rules.may_act(
            renewed_boot_ms=max(self._session.renewed_boot_ms, self._boot_ms),
            ttl_ms=self.wanted.ttl_ms,
            now_boot_ms=self._desk.store.clock.boot_ms(),
        )

    def require(self) -> None:
        """See `AroundGate.require`."""
        if not self.may_act():
            raise lost(self.wanted)

    def require_in(self, tx: Tx) -> None:
        """Raise unless it is still held, in the transaction that relies on it."""
        if not tables.is_held(tx.connection, self.granted.number, self.granted.token):
            raise lost(self.wanted)

    def admit(self, tx: Tx, request: Request) -> Pass:
        """See `Gate.admit`.

        Raises:
            LeaseLost: It is another's, or nobody's. Nothing is claimed.
        """
        self.require_in(tx)
        return Pass(tuple((name, self.granted.token) for name in self.resources))

    def retake(self, tx: Tx, request: Request) -> Pass:
        """See `HoldingGate.retake`: as long as it is ours, the same token says so."""
        return self.admit(tx, request)

    def release(self, tx: Tx, request: Request) -> None:
        """An effect gives nothing of it back."""


class HeldByRun:
    """A lease of a run, until it gives it back or ends. See `surefoot.effects.AroundGate`.

    Whoever executes the run acts for it. A new execution has a token of its own, drawn when its first effect is claimed, so
    that what an earlier worker may still send is refused by a service that compares.
    """

    name = "lease"

    def __init__(self, desk: LeaseDesk, wanted: Wanted, run: int, epoch: int, step: str) -> None:
        self.wanted = wanted
        self._desk = desk
        self._run = run
        self.task = asyncio.current_task()
        self._epoch = epoch
        self._step = step

    @property
    def resources(self) -> tuple[str, ...]:
        """What it is a lease of."""
        return self.wanted.resources if self.wanted.kind == "lease" else ()

    def require(self) -> None:
        """The run's own epoch guards it."""

    def admit(self, tx: Tx, request: Request) -> Admission:
        """See `Gate.admit`. A fork that acts has its source's steps, and none of its leases: it takes them now."""
        rows = tables.of_step(tx.connection, self._run, self._step)
        if rows and all(row.is_held for row in rows):
            return self._pass(tx, request, rows)
        owner = Owner(request.session, f"run {request.run_id}", self._run, self._epoch, self._step)
        number, limit_s = rows[0].number if rows else None, FORK_TIMEOUT_S - request.waited_s
        taken = self._desk.take(
            tx, self.wanted, owner, number, boot_ms=self._desk.store.clock.boot_ms(), until_boot_ms=None
        )  # fmt: skip
        if isinstance(taken, Granted):
            return Pass(tuple((name, taken.token) for name in self.resources))
        reason = busy(self.wanted, taken.ahead, request.waited_s)
        if limit_s <= 0:
            return Refuse(reason, "not_done")
        return Wait(reason, comes=partial(self._desk.comes, self.wanted, taken.number, limit_s))

    def _pass(self, tx: Tx, request: Request, rows: list[Row]) -> Pass:
        token = rows[0].token
        if rows[0].epoch != self._epoch:
            token = self._desk.act_for(tx, rows, request.session, self._epoch)
        return Pass(tuple((name, token) for name in self.resources))

    def retake(self, tx: Tx, request: Request) -> Pass:
        """See `HoldingGate.retake`."""
        rows = tables.of_step(tx.connection, self._run, self._step)
        return self._pass(tx, request, rows) if rows and rows[0].is_held else Pass()

    def release(self, tx: Tx, request: Request) -> None:
        """An effect gives nothing of it back."""


def lost(wanted: Wanted) -> LeaseLost:
    """Return what says that a lease is gone."""
    return LeaseLost(
        f"{wanted.words}: this lease is lost; nothing was recorded or sent",
        hint="was the process stopped, or the disk stuck? another may hold it already; ask for it again, and look anew",
    )
