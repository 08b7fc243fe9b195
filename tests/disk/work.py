"""What a worker does while its disk fails, what its successor does, and what must be so in between and at the end.

The work is small and has one of each: effects of three classes, decisions, a child, a signal and a wait that leaves memory,
a value above the size of a blob, calls beside each other, an effect outside runs. The world (the services' own books)
lives in the parent. What the worker was told, it repeats to the parent: that is *acknowledged*, and must be found again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
from tests.disk.processes import Json, Line
from tests.property.laws import Watch, require
from tests.property.programs import EFFECTS, Operation, Outside, call_outside, enter, program
from tests.support.services import Sent, Service

import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.journal import Kind
from surefoot.runs import Run
from surefoot.store import Clock, SqliteStore, SystemClock, Tx
from surefoot.store.sqlite import open_sqlite

PROGRAMS: dict[str, list[Operation]] = {
    "keys": [["charge", "a"], ["post", "b"], ["look"]],
    "person": [["ship", "c"], ["parcel", "d"]],
    "books": [["book", "f"], ["charge", "g"]],
    "waits": [["signal"], ["charge", "h"]],
    "family": [["child", [["charge", "i"], ["book", "j"]]], ["both", "here", ["charge", "k"], ["book", "l"]]],
}
"""What each run does, by its id."""

TOGETHER = ("keys-2", "books-2")
"""Runs that are started beside each other, so that their units share batches."""

OUTSIDE_RUNS: Operation = ["charge", "z"]

BIG = 70_000
"""Characters of a value that is kept as a blob, and of more pages than a small log holds."""

START_PAGES, INLINE_PAGES = 24, 48
"""Log pages from which checkpoints run here, instead of thousands: so that the work meets some."""

ROOM_BYTES = 128 * 1024
"""How much longer a log is made here: so that it is done more than once, though the log stays small."""

TOLD: dict[str, Json] = {}


@sf.durable(name="bulky")
async def bulky(text: str) -> list[Any]:
    """Keep a large value."""
    first = await write_much(text)
    outcome = await EFFECTS["charge"].effect.outcome("bulk", "it is large")
    return [first[:1], len(first), outcome.told, outcome.value]


@sf.step(name="write much")
async def write_much(text: str) -> str:
    """Return a large value."""
    return text * BIG


def all_programs() -> dict[str, list[Operation]]:
    """Return what each run of `program` does."""
    extra = {name: [[what, f"{item[0]}-2"] for what, *item in PROGRAMS[name[:-2]] if item] for name in TOGETHER}
    return {**PROGRAMS, **extra}


# -- the world ---------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """The services' own books, and what clients were told.

    Attributes:
        told: What the worker was told of each run and call, by name; acknowledged, and so to be found again.
        sent: The requests that left, as they did.
        struck: What the disk did, in words.
    """

    services: dict[str, Service] = field(
        default_factory=lambda: {"keys": Service("keys", has_keys=True), "nothing": Service("nothing")}
    )
    told: dict[str, Json] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)

    def answer(self, words: list[Json]) -> Json:
        """Answer what a worker asks, or note what it says."""
        what, *rest = words
        match what:
            case "send":
                sent = Sent(*rest)
                self.sent.append(sent)
                return self.services[sent.service].act(sent, is_refusing=False, now_ms=0)[0]
            case "landed":
                service, item = rest
                return bool(self.services[service].landed.get(item))
            case "told":
                name, value = rest
                self.told[name] = value
            case "struck":
                self.struck.append(rest[0])
            case _:
                raise AssertionError(f"the world knows no {what!r}")
        return None


class Wire:
    """The network, as effects see it: each request goes to the parent and is answered."""

    is_bad = 0.0
    _draw = random.Random(0)

    def __init__(self, line: Line) -> None:
        self._line = line

    async def call(self, _service: Service, sent: Sent) -> str:
        """Send a request, and wait for its answer."""
        answer: str = self._line.ask(
            "send", sent.service, sent.item, sent.key, sent.token, sent.expires_at_ms, sent.text
        )
        return answer


def outside_of(line: Line, services: dict[str, Service] | None = None) -> Outside:
    """Return the world as the programs see it."""
    return Outside(Wire(line), services or World().services)  # type: ignore[arg-type]  # looks like a network


# -- the work ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_log() -> Iterator[None]:
    """Let checkpoints come early, and waits leave memory soon."""
    with (
        mock.patch("surefoot.store.checkpoint.START_PAGES", START_PAGES),
        mock.patch("surefoot.store.checkpoint.INLINE_PAGES", INLINE_PAGES),
        mock.patch("surefoot.store.log.ROOM_BYTES", ROOM_BYTES),
        mock.patch("surefoot.runs.live.run.LiveRun.wait.__kwdefaults__", {"grace_s": 0.02}),
    ):
        yield


def make_bookings(tx: Tx) -> None:
    """Make the table that transactional effects write to."""
    tx.execute("CREATE TABLE IF NOT EXISTS bookings (item TEXT NOT NULL)")


async def work(line: Line, url: str) -> None:
    """Do all the work, and repeat what was told."""
    enter(outside_of(line))
    with small_log():
        async with sf.Surefoot(url, name="first") as app:
            await app.store.commit(make_bookings, label="bookings")
            line.tell("told", "the store", "is open")
            for run_id in PROGRAMS:
                await _carry_out(line, app, run_id)
            line.tell("told", "outside", await call_outside(app.guard, OUTSIDE_RUNS))
            await asyncio.gather(*(_carry_out(line, app, run_id) for run_id in TOGETHER))
            bulk = await app.start(bulky, "x", id="bulky")
            line.tell("told", "started bulky", True)
            line.tell("told", "bulky", await bulk.result())
        line.tell("told", "the end", "is reached")


async def _carry_out(line: Line, app: sf.Surefoot, run_id: str) -> None:
    run = await app.start(program, all_programs()[run_id], id=run_id)
    line.tell("told", f"started {run_id}", True)
    if run_id == "waits":
        await _until_waiting(app, run)
        await run.signal("go", 7, dedupe="once")
        line.tell("told", f"signalled {run_id}", True)
    line.tell("told", run_id, await run.result())


async def _until_waiting(app: sf.Surefoot, run: Run) -> None:
    while (await run.status()).state in ("pending", "running"):
        if (failure := app.worker.failure or app.store.writer.failure) is not None:
            raise failure
        await asyncio.sleep(0.01)


async def finish(line: Line, url: str, clock: Clock | None = None) -> dict[str, Json]:
    """Be the next worker: start all again, as a client does that got no answer, and wait for the end of everything.

    Returns:
        What each run came to, and the effect outside runs.
    """
    enter(outside_of(line))
    async with sf.Surefoot(url, name="next", clock=clock) as app:
        await app.store.commit(make_bookings, label="bookings")
        runs = {name: await app.start(program, asked, id=name) for name, asked in all_programs().items()}
        runs["bulky"] = await app.start(bulky, "x", id="bulky")
        await runs["waits"].signal("go", 7, dedupe="once")
        person = asyncio.create_task(_person(line, app))
        try:
            told = {name: await run.result() for name, run in runs.items()}
            told["outside"] = await call_outside(app.guard, OUTSIDE_RUNS)
        finally:
            person.cancel()
    return told


async def _person(line: Line, app: sf.Surefoot) -> None:
    """Look at the world, and say what happened, whenever somebody asks."""
    while True:
        for effect in await app.unknowns():
            service = next(one.service for one in EFFECTS.values() if one.effect.__name__ == effect.name)
            if service == "nothing":
                is_done = line.ask("landed", service, effect.arguments["item"])
                with contextlib.suppress(sf.SurefootError):  # settled meanwhile
                    await app.resolve(effect.id, is_done=is_done, by="a person", reason="looked",
                                      value=f"nothing {effect.arguments['item']} 1" if is_done else None)  # fmt: skip
        await asyncio.sleep(0.02)


# -- what must be so ---------------------------------------------------------------------------------------------------


def check_acknowledged(store: SqliteStore, world: World) -> None:
    """Check, before anybody goes on, that what was acknowledged is recorded, and what was sent was claimed before.

    Raises:
        LawBroken: It isn't.
    """
    store.read_now(lambda connection: check_recorded(connection, world))


def check_recorded(connection: apsw.Connection, world: World) -> None:
    """See `check_acknowledged`."""
    found = next(connection.execute("PRAGMA integrity_check"))[0]
    require(found == "ok", "the file is whole", found=found)
    for name, value in world.told.items():
        require(_is_recorded(connection, name, value), "what was acknowledged is recorded", what=name, value=value)
    for sent in world.sent:
        rows = connection.execute(
            "SELECT token FROM ledger WHERE digest = ?", (bytes.fromhex(sent.key.split("-")[1]),)
        ).fetchall()
        counter = sent.token & (1 << 40) - 1
        require(
            any(int(str(token)) >= counter for (token,) in rows),
            "nothing leaves before its claim is durable",
            sent=sent,
        )


def _is_recorded(connection: apsw.Connection, name: str, value: Json) -> bool:
    if name in ("the store", "the end"):
        return True
    if name == "outside":
        calls = connection.execute(
            "SELECT r.body FROM ledger l JOIN journal c ON c.id = l.claim JOIN journal r ON r.id = l.record"
            " WHERE l.run IS NULL AND l.state = 4"
        )
        return [value[3]] == [json.loads(body) for (body,) in calls]
    word, _, run_id = name.rpartition(" ")
    if word == "started":
        return _count(connection, "SELECT count(*) FROM runs WHERE run_id = ?", run_id) == 1
    if word == "signalled":
        sql = "SELECT count(*) FROM inbox i JOIN runs r ON r.id = i.run WHERE r.run_id = ? AND i.name = 'go'"
        return _count(connection, sql, run_id) == 1
    ends = connection.execute(
        "SELECT coalesce(j.body, b.body) FROM runs r JOIN journal j ON j.id = r.ended LEFT JOIN blobs b ON b.id = j.blob"
        " WHERE r.run_id = ? AND j.kind = ?",
        (run_id, int(Kind.ENDED)),
    )
    return [value] == [json.loads(body) for (body,) in ends]


def _count(connection: apsw.Connection, sql: str, *bindings: Any) -> int:
    return int(next(connection.execute(sql, bindings))[0])


def check_end(place: Path, world: World, told: dict[str, Json]) -> None:
    """Check that ledger, journal, world and callers tell one story, in which all that was asked happened once.

    Raises:
        LawBroken: They don't.
    """
    bulk = told.pop("bulky")
    outside = outside_of(None, world.services)  # type: ignore[arg-type]  # nothing is sent any more
    watch = Watch(place)
    try:
        programs = {name: tuple(asked) for name, asked in all_programs().items()}
        watch.check_end(outside, told, {**programs, "outside": (OUTSIDE_RUNS,)})
        found = next(watch.connection.execute("PRAGMA integrity_check"))[0]
        require(found == "ok", "the file is whole", found=found)
    finally:
        watch.close()
    require(bulk[:3] == ["x", BIG, "done"], "a large value comes back", bulk=bulk)
    for name, value in world.told.items():
        if name in told:
            is_same = told[name] == value or (name == "outside" and told[name] == ["repeated", *value[1:]])
            require(is_same, "an answer stands", who=name, first=value, now=told[name])
    for name, answers in told.items():
        require(_is_done(answers), "all that was asked happened", who=name, answers=answers)
    landed = {(one.name, item): len(keys) for one in world.services.values() for item, keys in one.landed.items()}
    require(all(count == 1 for count in landed.values()), "nothing twice", landed=landed)


def _is_done(answers: Json) -> bool:
    if isinstance(answers, list) and len(answers) == 4 and isinstance(answers[0], str):
        is_for_person = EFFECTS[answers[1]].service == "nothing"  # who may have found that it was never sent
        return answers[0] in ("done", "repeated") or (answers[0] == "not_done" and is_for_person)
    return (
        all(_is_done(answer) for answer in answers) if isinstance(answers, list) and answers[:1] != ["signal"] else True
    )


class Rebooted(SystemClock):
    """The host's clocks after it was started again."""

    def boot_id(self) -> str:
        """Another boot than the one before."""
        return "after the power came back"


def opened(place: Path, clock: Clock | None = None) -> SqliteStore:
    """Open a store as any process does."""
    return open_sqlite(f"sqlite:///{place}", MIGRATIONS, clock=clock)
