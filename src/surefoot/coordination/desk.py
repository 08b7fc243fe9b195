"""Where leases of one process are asked for, waited for and given back: the store, who lives, and whom to call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from surefoot.coordination import line, tables
from surefoot.coordination.line import Granted, Outlook, Standing, Wanted
from surefoot.coordination.owners import Owners
from surefoot.coordination.tables import Owner, Row
from surefoot.effects import Guard
from surefoot.leases import LeaseLost, Session
from surefoot.store import StoreError, Tx
from surefoot.store.connection import Connection

LINE_LOOK_S, LINE_LOOK_MAX_S = 0.02, 0.25
"""Pauses between two looks at a line in which others are of other processes: the first, also of whoever is next, and the
longest, of those behind. Who gives back in this process calls whoever is next."""

ROWS_AT_ONCE = 500
"""Rows that one sweep looks at."""


class Asking:
    """One ask on its way. What becomes of it is noted in the writer, so that whoever is cancelled meanwhile can give it
    back; a unit may run twice, and its last time counts."""

    def __init__(self, wanted: Wanted, owner: Owner) -> None:
        self.wanted = wanted
        self.owner = owner
        self.number: int | None = None


class LeaseDesk:
    """The leases of one process.

    Args:
        guard: Where its effects are claimed: the store, the sessions, our own session.
        is_open: Whether a run has not ended.
        tell: Wakes the runs that wait for a target, in the transaction in which it comes.
    """

    def __init__(
        self,
        guard: Guard,
        is_open: Callable[[Connection, int], bool],
        tell: Callable[[Tx, tuple[str, int]], object],
    ) -> None:
        self.guard = guard
        self.store = guard.store
        self.owners = Owners(guard.sessions, guard.store.clock.boot_ms, is_open)
        self._tell = tell
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._swept_to = 0

    def require_session(self, session: Session) -> None:
        """Raise unless something may be taken for this session of ours."""
        if not self.guard.duty.may_act_for(session.id):
            raise LeaseLost(
                f"this process's lease ({session.name}) has run out; nothing was taken",
                hint="was it stopped, or the disk stuck? ask again: then it is asked under a new one",
            )

    def take(
        self, tx: Tx, wanted: Wanted, owner: Owner, number: int | None, *, boot_ms: int, until_boot_ms: int | None
    ) -> Granted | Standing:
        """See `line.take`."""
        return line.take(
            tx, self.owners, wanted, owner, number, self.call, boot_ms=boot_ms, until_boot_ms=until_boot_ms
        )

    def kept(self, tx: Tx, wanted: Wanted, owner: Owner) -> Granted | None:
        """See `line.kept`."""
        return line.kept(tx, self.owners, wanted, owner, self.call)

    def ask(self, asking: Asking, *, boot_ms: int, until_boot_ms: int | None) -> Callable[[Tx], Granted | Standing]:
        """Return the unit that asks once."""
        number = asking.number

        def unit(tx: Tx) -> Granted | Standing:
            there = number if number is not None and tables.of_number(tx.connection, number) else None
            taken = self.take(tx, asking.wanted, asking.owner, there, boot_ms=boot_ms, until_boot_ms=until_boot_ms)
            asking.number = taken.number
            return taken

        return unit

    def give_back(self, tx: Tx, rows: list[Row]) -> None:
        """See `line.give_back`."""
        line.give_back(tx, self.owners, rows, self.call)

    def act_for(self, tx: Tx, rows: list[Row], session: int, epoch: int = 0) -> int:
        """See `line.act_for`."""
        return line.act_for(tx, rows, session, epoch)

    def leave(self, asking: Asking) -> None:
        """Give back what was asked for, granted or not, because its owner has left: in order, and without waiting."""

        def unit(tx: Tx) -> None:
            if asking.number is not None:  # as the unit that asked, which comes before this one, has left it
                self.give_back(tx, tables.of_number(tx.connection, asking.number))

        with contextlib.suppress(StoreError):  # without a store nobody waits, and nothing of ours lives
            self.store.append(unit, label="give back", on_error=None)

    def call(self, tx: Tx, number: int) -> None:
        """Tell whoever waits under a number, in this process or parked."""
        self._tell(tx, ("lease", number))
        for future in self._waiting.get(number, ()):
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits in it any more
                future.get_loop().call_soon_threadsafe(_come, future)

    async def comes(self, wanted: Wanted, number: int, limit_s: float | None) -> None:
        """Return when it is worth asking again under a number, or the limit has passed.

        Args:
            wanted: What is waited for.
            number: The place in the line.
            limit_s: Seconds to wait at the longest; None for no limit.
        """
        clock, future = self.store.clock, asyncio.get_running_loop().create_future()
        until_s = None if limit_s is None else clock.monotonic_s() + limit_s
        pause_s = LINE_LOOK_S
        self._waiting.setdefault(number, []).append(future)
        try:
            while True:
                left_s = pause_s if until_s is None else min(pause_s, until_s - clock.monotonic_s())
                if left_s <= 0:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await asyncio.shield(future)
                if future.done():
                    return
                outlook = await self.store.read(partial(line.outlook, self.owners, wanted, number))
                if outlook is Outlook.NOW:
                    return
                pause_s = LINE_LOOK_S if outlook is Outlook.NEXT else min(LINE_LOOK_MAX_S, pause_s * 2)
        finally:
            self._waiting[number].remove(future)
            if not self._waiting[number]:
                del self._waiting[number]

    async def sweep(self) -> int:
        """Take out some of those whose owners are gone, and call who is next; return how many were taken out."""
        found = await self.store.read(self._look)
        if not found:
            return 0

        return await self.store.commit(lambda tx: line.sweep(tx, self.owners, found, self.call), label="leases")

    def _look(self, connection: Connection) -> list[Row]:
        rows = tables.everything(connection, after=self._swept_to, limit=ROWS_AT_ONCE)
        self._swept_to = rows[-1].id if len(rows) == ROWS_AT_ONCE else 0
        return [row for row in rows if not self.owners.is_alive(connection, row)]


def _come(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
