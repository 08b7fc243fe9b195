"""`sf.lease`, `sf.elect`, `sf.semaphore`: holding something around a piece of code, in a run or outside.

Outside runs a lease is the process's: renewed by the session's own thread, gone at once when the process dies, and `ttl`
after it was stopped. Inside a run it is the run's: taking it and giving it back are steps, so that a replay neither takes
it anew nor passes it over. It stays the run's through waits, evictions and takeovers, until the block is left or the run
ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

from surefoot.coordination.desk import Asking, LeaseDesk
from surefoot.coordination.gate import ResourceGate
from surefoot.coordination.held import HeldByRun, HeldBySession, lost
from surefoot.coordination.in_run import RunLease
from surefoot.coordination.line import Granted, Wanted
from surefoot.coordination.rules import PLACES_MAX, BadResource, canonical, checked_ttl_ms
from surefoot.coordination.tables import Owner, of_number
from surefoot.coordination.words import busy
from surefoot.effects import around
from surefoot.effects.binding import bound_guard, open_guard
from surefoot.effects.doubt import duration_ms
from surefoot.effects.live.guard import Guard
from surefoot.journal import current_frame
from surefoot.leases import LeaseLost, Session
from surefoot.leases.rules import TTL_MS
from surefoot.leases.tables import token_of
from surefoot.problem import SurefootError
from surefoot.runs.live.run import LiveRun
from surefoot.store import StoreError, Tx


class ResourceBusy(SurefootError):
    """What was asked for was not free in time. Nothing is held; the message says who holds it, and since when."""


class Lease:
    """A lease, a leadership or a place of a semaphore: `async with sf.lease("order/7") as lease:`.

    Enter it once. Effects that are called inside, in this task or those it starts, are claimed only while it is held.
    """

    def __init__(self, wanted: Wanted, *, timeout: float | str | None, has_own_ttl: bool, key: str | None) -> None:
        self._wanted = wanted
        self._timeout_s = None if timeout is None else 0.0 if timeout == 0 else duration_ms(timeout) / 1_000
        self._has_own_ttl = has_own_ttl
        self._key = key
        self._in_process: InProcess | None = None
        self._in_run: RunLease | None = None
        self._is_entered = False

    @property
    def resources(self) -> tuple[str, ...]:
        """What it is a lease of, in the order in which everybody takes them."""
        return self._wanted.resources

    @property
    def token(self) -> int:
        """The fencing token: higher than that of any earlier holder of these resources. Send it to services that compare.

        Raises:
            LeaseLost: It is not held.
            BadResource: In a run it is no one number: it grows when another worker goes on with the run. Effects inside
                have today's: `sf.current_effect().tokens`.
        """
        if self._in_run is not None:
            raise BadResource(
                f"{self._wanted.words}: in a run a lease has no one token: it grows when another worker takes the run over",
                hint="send sf.current_effect().token in an effect with resource=, or .tokens[...] in any",
            )
        return self._process_lease().token

    @property
    def is_held(self) -> bool:
        """Whether it may be relied on now, as far as this process can know by itself; a stopped one learns it late."""
        if self._in_run is not None:
            return self._in_run.is_held
        return self._in_process is not None and self._in_process.held.may_act()

    def check(self) -> None:
        """Raise unless it may be relied on now.

        Raises:
            LeaseLost: It may not. Ask for it again, and look anew at what it protects.
        """
        if not self.is_held:
            raise lost(self._wanted)

    def _process_lease(self) -> InProcess:
        if self._in_process is None:
            raise LeaseLost(f"{self._wanted.words} is not held", hint="use it inside `async with`")
        return self._in_process

    async def __aenter__(self) -> Lease:
        if self._is_entered:
            raise BadResource(
                f"{self._wanted.words}: this lease was entered before", hint="call sf.lease(...) anew for each block"
            )
        self._is_entered = True
        self._refuse_own()
        run = current_frame.get()
        if isinstance(run, LiveRun):
            if self._has_own_ttl:
                raise BadResource(
                    f"{self._wanted.words}: ttl= means nothing in a run: its leases are the run's until it gives them back",
                    hint="leave ttl away; use timeout= to bound the wait, and the run's deadline_s= to bound the run",
                )
            self._in_run = RunLease(run, _desk_of(run.worker.guard), self._wanted, self._timeout_s, self._key)
            reason = await self._in_run.enter()
            if reason:
                self._in_run = None
                raise _busy(reason)
        else:
            desk = _desk_of(bound_guard.get() or await open_guard(self._wanted.words, "lease"))
            self._in_process = await enter(desk, self._wanted, self._timeout_s)
        return self

    def _refuse_own(self) -> None:
        """Refuse to wait for what this very task holds around this."""
        mine = [one for one in around.get() if isinstance(one, HeldBySession | HeldByRun)]
        for held in (one.wanted for one in mine if one.task is asyncio.current_task()):
            is_same = held.kind == self._wanted.kind and set(held.resources) & set(self.resources)
            if is_same and self._wanted.places == 1:
                raise BadResource(
                    f"{self._wanted.words}: the code around this holds it already, and would wait for itself",
                    hint="effects inside act under that lease; take all that is needed at once: sf.lease(a, b)",
                )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        in_run, in_process = self._in_run, self._in_process
        self._in_process = None
        if in_run is not None:
            in_run.leave()
        elif in_process is not None:
            await in_process.leave(error)


def _busy(reason: str) -> ResourceBusy:
    return ResourceBusy(reason, hint="surefoot leases; or wait longer: timeout=")


def _desk_of(guard: Guard) -> LeaseDesk:
    gate = guard.holding
    if not isinstance(gate, ResourceGate):
        raise BadResource("this store leases nothing", hint="open it with sf.Surefoot(...)")
    return gate.desk


# -- outside runs -----------------------------------------------------------------------------------------------------


class InProcess:
    """A lease that this process holds, from its grant until the block is left."""

    def __init__(self, desk: LeaseDesk, session: Session, held: HeldBySession) -> None:
        self.held = held
        self.token = token_of(desk.guard.incarnation, held.granted.token)
        self._desk = desk
        self._session = session
        self._outer = around.get()
        self._task = asyncio.current_task()
        self._is_cancelled = False
        self._loop = asyncio.get_running_loop()
        self._watch = self._loop.call_later(self._pause_s, self._look)
        around.set((*self._outer, held))

    @property
    def _pause_s(self) -> float:
        return self.held.wanted.ttl_ms / 10_000

    def _look(self) -> None:
        """Cancel the block once the lease may not be relied on any more; leaving it turns that into `LeaseLost`."""
        if self.held.may_act():
            self._watch = self._loop.call_later(self._pause_s, self._look)
        elif self._task is not None:
            self._is_cancelled = True
            self._task.cancel("surefoot: the lease is lost")

    async def leave(self, error: BaseException | None) -> None:
        """Give it back.

        Raises:
            LeaseLost: It was lost before; also instead of the cancellation by which the block learned it.
        """
        self._watch.cancel()
        self._session.relax(self.held.wanted.ttl_ms)
        around.set(self._outer)
        if self._is_cancelled and self._task is not None and self._task.uncancel() > 0:
            self._is_cancelled = False  # somebody else has cancelled it too
        if error is not None and not (self._is_cancelled and isinstance(error, asyncio.CancelledError)):
            with contextlib.suppress(StoreError):  # without a store nothing of ours lives
                self._desk.store.append(self._give_back, label="give back", on_error=None)
            return
        if not await self._desk.store.commit(self._give_back, label="give back") or self._is_cancelled:
            raise lost(self.held.wanted) from error

    def _give_back(self, tx: Tx) -> bool:
        try:
            self.held.require_in(tx)
        except LeaseLost:
            return False
        self._desk.give_back(tx, of_number(tx.connection, self.held.granted.number))
        return True


async def enter(desk: LeaseDesk, wanted: Wanted, timeout_s: float | None) -> InProcess:
    """Take a lease for this process.

    Raises:
        ResourceBusy: It was not free in time.
        LeaseLost: This process may hold nothing any more.
    """
    await desk.guard.duty.take_up()
    clock, session = desk.store.clock, desk.guard.duty.session
    since_s, asking = clock.monotonic_s(), Asking(wanted, Owner(session.id, session.name))
    session.hasten(wanted.ttl_ms)
    try:
        while True:
            desk.require_session(session)
            left_s = None if timeout_s is None else timeout_s - (clock.monotonic_s() - since_s)
            boot_ms = clock.boot_ms()
            until_boot_ms = None if left_s is None else boot_ms + int(left_s * 1_000)
            taken = await desk.store.commit(
                desk.ask(asking, boot_ms=boot_ms, until_boot_ms=until_boot_ms), label="lease"
            )
            if isinstance(taken, Granted):
                return InProcess(desk, session, HeldBySession(desk, session, wanted, taken, boot_ms))
            if left_s is not None and left_s <= 0:
                raise _busy(busy(wanted, taken.ahead, clock.monotonic_s() - since_s))
            await desk.comes(wanted, taken.number, left_s)
    except BaseException:
        session.relax(wanted.ttl_ms)
        desk.leave(asking)
        raise


# -- what users call --------------------------------------------------------------------------------------------------


def lease(
    *resources: str, ttl: float | str | None = None, timeout: float | str = 30.0, key: str | None = None
) -> Lease:
    """Hold resources around a block, so that nobody else who asks for them has any of them meanwhile.

    Effects with `resource=` ask for the same leases; inside the block they act under its.

    Args:
        resources: Their names, "order/7". Several are taken together or not at all, whatever the order they are named in.
        ttl: Outside runs: how long a *stopped* process keeps it, as seconds or "3s", 1 to 10 s; None: 10 s. A process that
            dies loses it at once, one that runs renews it. In a run it means nothing, and is refused.
        timeout: How long to wait at the longest, as seconds or "15m"; 0: not at all.
        key: In a run, the caller's distinction between leases of one name in parallel tasks.

    Returns:
        An async context manager; what it gives has `token`, `is_held` and `check()`.

    Raises:
        ResourceBusy: On entering: it was not free in time.
        LeaseLost: It was lost in the block. Effects inside that had not begun were not done.
        BadResource: A name or a time means nothing.
    """
    ttl_ms = TTL_MS if ttl is None else checked_ttl_ms(duration_ms(ttl), TTL_MS)
    wanted = Wanted("lease", canonical(resources), 1, ttl_ms)
    return Lease(wanted, timeout=timeout, has_own_ttl=ttl is not None, key=key)


def elect(
    name: str, *, ttl: float | str | None = None, timeout: float | str | None = None, key: str | None = None
) -> Lease:
    """Lead around a block: of all who ask for this name, one at a time; the others stand by.

    When the leadership is lost the block is cancelled, and `LeaseLost` comes out of it.

    Args:
        name: The election's name, "nightly-report".
        ttl: As for `lease`: how long a stopped leader stays it.
        timeout: How long to stand by at the longest; None: until it is elected, 0: not at all.
        key: As for `lease`.

    Returns:
        An async context manager; `token` is the term: higher than that of any earlier leader.

    Raises:
        ResourceBusy: On entering: another led all the time.
        LeaseLost: The leadership was lost in the block.
    """
    ttl_ms = TTL_MS if ttl is None else checked_ttl_ms(duration_ms(ttl), TTL_MS)
    return Lease(
        Wanted("election", canonical([name]), 1, ttl_ms), timeout=timeout, has_own_ttl=ttl is not None, key=key
    )


def semaphore(
    name: str, *, limit: int, ttl: float | str | None = None, timeout: float | str = 30.0, key: str | None = None
) -> Lease:
    """Have one of `limit` places around a block, in the order of asking, over all processes of the store.

    Args:
        name: The semaphore's name, "crm".
        limit: How many may be inside at once. All who use a name should say the same; each keeps to its own.
        ttl: As for `lease`.
        timeout: As for `lease`.
        key: As for `lease`.

    Returns:
        An async context manager.

    Raises:
        ResourceBusy: On entering: no place was free in time.
        LeaseLost: The place was lost in the block.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= PLACES_MAX:
        raise BadResource(
            f"semaphore {name!r:.100}: limit={limit!r:.100}",
            hint=f"how many may be inside at once: 1 to {PLACES_MAX:,}",
        )
    ttl_ms = TTL_MS if ttl is None else checked_ttl_ms(duration_ms(ttl), TTL_MS)
    wanted = Wanted("semaphore", canonical([name]), limit, ttl_ms)
    return Lease(wanted, timeout=timeout, has_own_ttl=ttl is not None, key=key)
