"""An open app: its store, its session, its worker, wired together, and what is looked after beside them now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from surefoot.coordination import LeaseDesk, ResourceGate
from surefoot.coordination.events import Dispatcher
from surefoot.coordination.events.dispatch import know_groups
from surefoot.coordination.restoring import has_lost_time, lost_since_ms
from surefoot.effects import Gate, Guard, remove_open
from surefoot.effects.rows import desk
from surefoot.leases import Session, Sessions
from surefoot.people import People
from surefoot.people.trail import set_rules
from surefoot.runs import Escalation, Worker
from surefoot.runs.rows.desk import is_open
from surefoot.runs.rows.tables import run_holders
from surefoot.store import Store, StoreError
from surefoot.store.connection import Connection

KEEP_LOOK_S = 3_600.0
"""How often an app with `keep_for` looks for what is too old."""

LEASES_LOOK_S = 1.0
"""How often a worker looks for leases whose owners are gone, for the sake of runs that are parked until their turn comes;
whoever waits in memory looks for itself."""

_logger = logging.getLogger("surefoot")


class Opened:
    """What an app has while it is open.

    Attributes:
        store: Its store.
        session: What it was opened under; None until it is.
        worker: Its worker; None until it is wired.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.session: Session | None = None
        self.worker: Worker | None = None
        self._leases: LeaseDesk | None = None
        self._chores: list[asyncio.Task[None]] = []

    async def wire(
        self,
        name: str,
        *,
        people: People | None,
        gates: Sequence[Gate],
        room: int,
        on_escalation: Callable[[Escalation], Awaitable[object] | object] | None,
    ) -> None:
        """Open a session and wire the rooms together; for the arguments see `Surefoot`."""
        store, sessions = self.store, Sessions(self.store)
        if people is not None:
            await store.commit(partial(set_rules, people=people, who=name), label="people")
        self.session = await sessions.open(name, in_use=_sessions_in_use)
        incarnation = store.read_now(
            lambda connection: int(next(connection.execute("SELECT incarnation FROM store_incarnation"))[0])
        )
        guard = Guard(store, sessions, self.session, incarnation, gates)
        guard.lost_since = lost_since_ms if store.read_now(has_lost_time) else None
        self.worker = Worker(store, sessions, guard, room=room, on_escalation=on_escalation)
        self.worker.sources.append(Dispatcher())
        self._leases = LeaseDesk(guard, is_open, self.worker.tell)
        guard.holding = ResourceGate(self._leases)
        await know_groups(store)

    async def work(self, keep: Callable[[], Awaitable[object]] | None) -> None:
        """Begin to execute runs, and look after leases and, with `keep`, what is too old."""
        assert self.worker is not None, "it is wired"
        assert self._leases is not None, "it is wired"
        await self.worker.start()
        self._begin("surefoot-leases", self._leases.sweep, LEASES_LOOK_S, "looking after leases")
        if keep is not None:
            self._begin("surefoot-retention", keep, KEEP_LOOK_S, "deleting what is older than keep_for")

    def _begin(self, name: str, chore: Callable[[], Awaitable[object]], pause_s: float, what: str) -> None:
        self._chores.append(asyncio.create_task(_now_and_then(chore, pause_s, what), name=name))

    async def close(self) -> None:
        """Hand runs back, write what is queued, and give the store back."""
        for task in self._chores:
            task.cancel()
            await asyncio.wait([task])
        worker, session = self.worker, self.session
        if worker is not None:
            remove_open(worker.guard)
            await worker.stop()
            session = worker.session  # a new one, if the first was lost meanwhile
        if session is not None:
            await asyncio.to_thread(session.close, is_acting=worker is not None and bool(worker.guard.acting))
        await asyncio.to_thread(self.store.close)


async def _now_and_then(chore: Callable[[], Awaitable[object]], pause_s: float, what: str) -> None:
    """Do it, rest, and so on, until cancelled. A failing store has told everybody; anything else is tried again."""
    while True:
        try:
            await chore()
        except StoreError:
            return
        except Exception:
            _logger.exception("%s failed; tried again in %.0f s", what, pause_s)
        await asyncio.sleep(pause_s)


def _sessions_in_use(connection: Connection) -> set[int] | None:
    """Return the sessions that open runs and open effects refer to; None when there are too many to tell."""
    by_effects = desk.sessions_in_use(connection)
    return None if by_effects is None else by_effects | set(run_holders(connection))
