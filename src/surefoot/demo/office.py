"""The desk from which the tickets are handed out and followed, until each has come to an end.

Always holds: this process executes no run; it starts them, looks, and at the end plays the person. A run that only a
person can let go on is never waited for in silence, and nothing is waited for longer than `LIMIT_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

import apsw
import httpx
from pydantic_ai.usage import UsageLimits

import surefoot as sf
from surefoot.demo.accounts import accounts, runs_of
from surefoot.demo.agent import REQUESTS_MAX, clerk, prompt_of
from surefoot.demo.crew import Crew
from surefoot.demo.person import find_out, speak
from surefoot.demo.place import Place
from surefoot.demo.report import shown
from surefoot.demo.screen import Line, Screen, state_of
from surefoot.demo.scripted import scripted_model
from surefoot.demo.shop_process import RunningShop
from surefoot.demo.tickets import Ticket
from surefoot.runs import RunState
from surefoot.runs.life import ENDED
from surefoot.runs.rows.tables import RunRow

LOOK_S = 0.1
LIMIT_S = 900.0  # far above any demo: a provider that hangs must not keep it for ever
LATE = 1
"""With so few tickets left, whoever is still to be killed is killed at every step."""


_CLERKS_OWN = "pydantic_ai.exceptions."
"""A model that goes round in circles, answers nonsense or can't be reached: all that the agent's framework names."""


@dataclass(slots=True)
class Ended:
    """How the tickets ended.

    Attributes:
        failures: How the clerk failed to come to an end, by ticket: that is its judgement.
        errors: What else went wrong with a run, by ticket: that is ours.
        resolutions: How many doubts the person ended.
    """

    failures: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    resolutions: int = 0


@dataclass(frozen=True, slots=True)
class _Sight:
    """The store at one moment."""

    runs: Sequence[RunRow]
    acts: dict[str, str]
    records: int


class Office:
    """The tickets of one demo; use it as an async context manager, within which the crew works."""

    def __init__(
        self, place: Place, shop: RunningShop, tickets: Sequence[Ticket], crew: Crew, screen: Screen, kills: int
    ) -> None:
        self.app = sf.Surefoot(place.url, name="the demo", is_worker=False)
        self._place = place
        self._shop = shop
        self._tickets = tickets
        self._crew = crew
        self._screen = screen
        self._kills = kills
        self._working: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Office:
        # Who decides is the workers' business; here the agent is only needed to start its runs.
        agent = self.app.agent(clerk(scripted_model(), httpx.AsyncClient()))
        await self.app.open()
        for ticket in self._tickets:
            limits = UsageLimits(request_limit=REQUESTS_MAX)
            await agent.start(prompt_of(ticket), id=ticket.ticket_id, deps=ticket.order_id or "", usage_limits=limits)
        self._working = asyncio.create_task(self._crew.work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._crew.stop()
        if self._working is not None:
            await asyncio.gather(self._working, return_exceptions=True)
        await self.app.close()

    async def follow(self) -> Ended:
        """Return when every ticket has come to an end, or can't."""
        ended = Ended()
        with self._screen:
            try:
                async with asyncio.timeout(LIMIT_S):
                    await self._follow(ended)
            except TimeoutError:
                self._screen.say(f"the tickets have not ended within {LIMIT_S:.0f} s", "bold red")
        sight = await self.app.store.read(_look)
        for row in sight.runs:
            if row.state is RunState.FAILED and row.reason.startswith(_CLERKS_OWN):
                ended.failures[row.run_id] = _cause(row)
            elif row.state is not RunState.COMPLETED:
                ended.errors[row.run_id] = f"{state_of(row)}: {row.reason}"
        return ended

    async def _follow(self, ended: Ended) -> None:
        assert self._working is not None, "the crew works"
        while True:
            sight = await self.app.store.read(_look)
            self._show(sight)
            left = [row for row in sight.runs if row.state not in ENDED]
            if not left:
                return
            if all(_needs_person(row) for row in left) and not await self._ask_person(ended):
                return
            await self._crew.reap(sight.records, is_late=len(left) <= LATE, in_all=self._kills)
            await asyncio.wait([self._working], timeout=LOOK_S)
            if self._working.done():
                await self._working

    def _show(self, sight: _Sight) -> None:
        lines = [Line(shown(row.run_id), state_of(row), sight.acts.get(row.run_id, "")) for row in sight.runs]
        self._screen.show("Tickets", lines, self._crew.killed)

    async def _ask_person(self, ended: Ended) -> bool:
        """Play the person; return whether there was anything to say."""
        books = await asyncio.to_thread(self._shop.books)
        said = find_out(await self.app.store.read(accounts), books)
        for resolution in said:
            happened = "happened" if resolution.is_done else "did not happen"
            self._screen.say(f"a person looks: {shown(resolution.what)} {happened}; they would type")
            self._screen.say(f"  {shown(resolution.command(self._place.url))}", "cyan")
            await speak(self.app, resolution)
        ended.resolutions += len(said)
        return bool(said)


def _needs_person(row: RunRow) -> bool:
    return row.state is RunState.WAITING and row.wake_at_ms is None


def _cause(row: RunRow) -> str:
    """The name of the error, without its module and its message."""
    return row.reason.split(":")[0].rsplit(".", 1)[-1] or "failed"


def _look(connection: apsw.Connection) -> _Sight:
    with connection:  # one snapshot
        records = next(connection.execute("SELECT max(id) FROM journal"))[0]
        acts = {}
        for account in accounts(connection):
            ask = account.asked
            end = "sent" if ask.outcome is None else ask.outcome.value.replace("_", " ")
            acts[ask.ticket_id or ""] = shown(f"{ask.kind} {ask.mark}: {end}")
        sight = _Sight(runs_of(connection), acts, int(records or 0))
    return sight  # noqa: RET504  apsw's context manager may swallow, as far as types go
