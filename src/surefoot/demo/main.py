"""The demo from its first word to its last: who is started, in which order, and what is shown at the end.

    model process, shop, workers -> a run for each ticket -> kills, faults -> a person for what is left in doubt
    second shop, plain loop      -> the same decisions, faults and kills
    the books of both shops beside what the ledger and the loop say

Always holds: every process is stopped by the handle it was started with; the directory is kept.
"""

import asyncio
import json
import secrets
import shlex
import signal
import sys
from pathlib import Path

from rich.console import Console

from surefoot.demo.accounts import accounts, decisions
from surefoot.demo.books import compare, happened_from_books
from surefoot.demo.clerk import Judgement, Verdict, judge
from surefoot.demo.crew import Crew
from surefoot.demo.killing import KillOrder, drawn_kills
from surefoot.demo.minds import LOCAL, model_process, require_weights
from surefoot.demo.office import Ended, Office
from surefoot.demo.orders import write_orders
from surefoot.demo.place import DEFAULT, Place, Setting
from surefoot.demo.plain import asked_by_loop, notes
from surefoot.demo.report import Side, report, shown
from surefoot.demo.screen import Line, Screen
from surefoot.demo.shop_process import RunningShop, running_shop
from surefoot.demo.ticket_files import TicketFileError, load_tickets
from surefoot.demo.tickets import TICKETS, Ticket, orders_for

EXACT, INEXACT, BAD_TICKETS, INTERRUPTED = 0, 1, 2, 130
WORKERS = 2
ROOM = 2
"""Tickets a worker takes at a time: the model answers one request at a time, so more would only wait."""

PLAIN_LOOK_S = 0.03


def run_demo(
    *,
    seed: int | None = None,
    tickets: Path | None = None,
    model: str = LOCAL,
    kills: int = 10,
    workers: int | None = None,
    directory: Path = DEFAULT,
) -> int:
    """Run the demo.

    Args:
        seed: What faults, kills and the local model's choices come from; None: one is drawn and printed.
        tickets: A `.csv` or `.jsonl` file; None: the twelve that come with it.
        model: `local`, `scripted`, or a name that Pydantic AI knows.
        kills: How many processes are killed, on either side.
        workers: How many there are at a time; None: two.
        directory: Where everything is kept; an earlier demo's is replaced.

    Returns:
        0 if the ledger and the books agree exactly, 1 if not, 2 if the tickets can't be used, 130 after Ctrl-C.
    """
    screen = Screen()
    try:
        wanted = _tickets(screen, tickets)
    except TicketFileError as error:
        screen.say(f"error: {error}", "bold red")
        return BAD_TICKETS
    drawn = secrets.randbelow(10_000) if seed is None else seed
    demo = _Demo(Place(directory), screen, wanted, model, drawn, kills, workers or WORKERS)
    screen.say(f"seed {drawn}, {len(wanted)} tickets, {kills} kills; everything is kept in {directory}/")
    try:
        asyncio.run(demo.whole())
    except (KeyboardInterrupt, asyncio.CancelledError):  # Ctrl-C, SIGTERM
        _tell_interrupted(screen, demo.place, drawn)
        return INTERRUPTED
    _print(demo)
    return EXACT if demo.is_exact else INEXACT


def _tickets(screen: Screen, path: Path | None) -> tuple[Ticket, ...]:
    if path is None:
        return TICKETS
    found = load_tickets(path)
    if found.notice:
        screen.say(found.notice)
    return found.tickets


def _tell_interrupted(screen: Screen, place: Place, seed: int) -> None:
    screen.say(f"interrupted; all processes are stopped, and what was recorded is kept in {place.path}/")
    screen.say(f"  what happened so far:     surefoot runs --store {shlex.quote(place.url)}")
    screen.say(f"  the whole demo once more: surefoot demo --seed {seed}")


class _Demo:
    """One demo on its way. What it has found out so far is in its attributes."""

    def __init__(
        self,
        place: Place,
        screen: Screen,
        tickets: tuple[Ticket, ...],
        model: str,
        seed: int,
        kills: int,
        workers: int,
    ) -> None:
        self.place = place
        self.screen = screen
        self.tickets = tickets
        self.model = model
        self.seed = seed
        self.kills = kills
        self.names = [f"worker-{number}" for number in range(1, workers + 1)]
        self.own_kills = kills // 3  # between calls; the others are the shop's, in the middle of one
        self.left: Side | None = None
        self.right: Side | None = None
        self.judgements: list[Judgement] = []
        self.ended: Ended | None = None

    @property
    def is_exact(self) -> bool:
        """Whether all that our ledger says is what happened, every ticket came to an end, and there was anything to do."""
        if self.left is None or self.ended is None:
            return False
        return self.left.comparison.is_exact and not self.ended.errors and self.left.comparison.total.asked > 0

    @property
    def orders(self) -> tuple[KillOrder, ...]:
        """The kills in the middle of calls."""
        return drawn_kills(self.seed, self.kills - self.own_kills, max_gap=2)  # all of them before the requests run out

    async def whole(self) -> None:
        """Do everything; the processes end with it."""
        task = asyncio.current_task()
        assert task is not None, "runs as a task"
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        if self.model == LOCAL:
            await asyncio.to_thread(require_weights, self.screen.say)
        self.place.clear()
        write_orders(self.place.orders, orders_for(self.tickets))
        async with model_process(self.model, self.place.log) as model_url:
            with running_shop(self.place.shop_db, seed=self.seed, script="nasty", orders=self.place.orders) as shop:
                self.place.write(Setting(self.seed, self.model, model_url, shop.url, ROOM))
                await self.ours(shop)
        plain_shop = running_shop(self.place.plain_shop_db, seed=self.seed, script="nasty", orders=self.place.orders)
        with plain_shop as shop:
            await self.plain(shop)

    async def ours(self, shop: RunningShop) -> None:
        """Let the agent work, under fire."""
        shop.order_kills(self.orders)
        command = [sys.executable, "-m", "surefoot.demo.worker", str(self.place.path)]
        crew = Crew(command, self.names, self.place.log, self.seed, self.own_kills)
        async with Office(self.place, shop, self.tickets, crew, self.screen, self.kills) as office:
            self.ended = await office.follow()
            found = await office.app.store.read(accounts)
        if crew.failures:
            self.screen.say(f"error: {crew.failures} workers ended by themselves; see {self.place.log}", "bold red")
        books = await asyncio.to_thread(shop.books)
        self._keep("decisions.json", decisions(found))
        self._keep("books.json", books)
        asked = [account.asked for account in found]
        facts = {**self._facts(shop, crew), "asked a person": str(self.ended.resolutions)}
        self.left = Side("Surefoot", compare(asked, happened_from_books(books)), facts)
        known = {order.order_id: order for order in orders_for(self.tickets)}
        for ticket in self.tickets:
            judgement = judge(ticket, [ask for ask in asked if ask.ticket_id == ticket.ticket_id], known)
            self.judgements.append(_with_end(judgement, self.ended.failures.get(ticket.ticket_id)))

    async def plain(self, shop: RunningShop) -> None:
        """Let the plain loop carry out the same decisions, under the same fire."""
        shop.order_kills(self.orders)
        command = [sys.executable, "-m", "surefoot.demo.plain", str(self.place.path), "--url", shop.url]
        crew = Crew(command, ["plain loop"], self.place.log, self.seed, self.own_kills, is_once=True)
        asked = asked_by_loop(self.place)
        with self.screen:
            working = asyncio.create_task(crew.work())
            try:
                while not working.done():
                    done = len(notes(self.place))
                    # Two acts may be done between two looks, and each kill takes one of them.
                    is_late = len(asked) - done <= 2 * (self.kills - crew.killed)
                    await crew.reap(done, is_late=is_late, in_all=self.kills)
                    line = Line("plain loop", f"{done} of {len(asked)} acts", "")
                    self.screen.show("The same decisions by a plain retrying loop", [line], crew.killed)
                    await asyncio.wait([working], timeout=PLAIN_LOOK_S)
                await working
            finally:
                await crew.stop()
                await asyncio.gather(working, return_exceptions=True)
        books = await asyncio.to_thread(shop.books)
        self._keep("plain-books.json", books)
        self.right = Side(
            "Plain retries",
            compare(asked_by_loop(self.place), happened_from_books(books)),
            self._facts(shop, crew),
        )

    def _facts(self, shop: RunningShop, crew: Crew) -> dict[str, str]:
        requests = sum(call["effectful_n"] is not None for call in shop.calls())
        return {"killed": str(crew.killed), "requests": str(requests)}

    def _keep(self, name: str, what: object) -> None:
        (self.place.path / name).write_text(json.dumps(what, ensure_ascii=False, indent=1), encoding="utf-8")


def _with_end(judgement: Judgement, failure: str | None) -> Judgement:
    """A clerk that never came to an end has not done well, whatever it did on the way."""
    if failure is None or judgement.verdict is Verdict.NOT_JUDGED:
        return judgement
    missed = (*judgement.missed, f"an end ({failure})")
    return Judgement(judgement.ticket_id, Verdict.NOT_GOOD, missed, judgement.needless)


def _print(demo: _Demo) -> None:
    assert demo.left is not None, "it was counted"
    assert demo.right is not None, "it was counted"
    store = shlex.quote(demo.place.url)
    first = shlex.quote(demo.tickets[0].ticket_id)
    hints = [
        f"surefoot show {first} --store {store}",
        f"surefoot runs --store {store}",
        f"surefoot effects --store {store}",
        f"the shops' own books: {demo.place.path / 'books.json'} and {demo.place.path / 'plain-books.json'}",
        f"the same again: surefoot demo --seed {demo.seed}",
    ]
    Console().print(report(demo.left, demo.right, demo.judgements, hints))
    assert demo.ended is not None, "they were followed to their end"
    for ticket, error in demo.ended.errors.items():
        demo.screen.say(f"error: {shown(ticket)} {shown(error)}", "bold red")
    if not demo.left.comparison.total.asked:
        demo.screen.say("error: the clerk asked for nothing at all, so nothing was shown", "bold red")
