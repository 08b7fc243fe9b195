"""Crash images: the work is recorded once, and the power fails at every point of it, in many ways.

Each image is opened as a store after a reboot. It must be whole; it must hold exactly what some moment of the recording
held, at or after the last commit that had returned (a prefix, and nothing acknowledged is missing); and all that was told
or sent before the crash must be there. From each different content, and each state of the world, the next worker finishes.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec
from tests.disk import work
from tests.disk.processes import Json, Line, in_child
from tests.disk.recording import GARBAGE, KEPT, LOST, TORN, Event, Machine, Recorder
from tests.disk.vfs import Disk, kind_of

ROOM = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where images are laid out: in memory, where there is such a place."""


@dataclass(frozen=True)
class Cut:
    """One way in which the power fails.

    Attributes:
        at: Number of events that had happened.
        fates: See `Machine.image`.
        folder: See there.
        order: See there.
        grows: See there.
        mark: See there.
    """

    at: int
    fates: tuple[int, ...]
    folder: tuple[bool, ...]
    order: int = 0
    grows: bool = False
    mark: int = -1

    def words(self, machine: Machine) -> str:
        """Say what was lost."""
        names = {LOST: "lost", TORN: "torn", GARBAGE: "garbage"}
        lost = [
            f"{names[fate]}: {event.what} {kind_of(event.path)} at {event.offset}, sector {sector}"
            for fate, (_, event, sector) in zip(self.fates, machine.unsure(), strict=True)
            if fate != KEPT
        ]
        lost += [f"not in the directory: {change}" for is_there, change in zip(self.folder, machine.changes, strict=True)
                 if not is_there]  # fmt: skip
        return f"after event {self.at}, order {self.order}, mark {self.mark}: {'; '.join(lost) or 'nothing lost'}"


@dataclass
class Tally:
    """What came of a sweep.

    Attributes:
        images: Different images that were opened.
        points: Events after which the power failed.
        contents: Different contents they held.
        finished: Contents and worlds from which the next worker finished.
        lengthened: How often the log was made longer ahead.
        wrong: What must not be, in words.
    """

    images: int = 0
    points: int = 0
    contents: int = 0
    finished: int = 0
    lengthened: int = 0
    ways: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def record() -> list[Event]:
    """Do the work once, in a process of its own, and return all that its disk was asked for, told and sent."""
    home = Path(tempfile.mkdtemp(prefix="surefoot-images-", dir=ROOM))
    log = home / "events"

    def run(_line: Line) -> Json:
        recorder = Recorder(work.World().answer)
        disk = Disk(recorder)
        asyncio.run(work.work(recorder, f"sqlite:///{home}/agents.db"))  # type: ignore[arg-type]  # looks like a line
        disk.unregister()
        _write(log, recorder.events)
        return len(recorder.events)

    try:
        ended = in_child(run, lambda _words: None)
        assert ended.said, f"the work itself fails: {ended}"
        return _read(log)
    finally:
        shutil.rmtree(home)


def _write(log: Path, events: list[Event]) -> None:
    log.write_bytes(msgspec.msgpack.encode(events))


def _read(log: Path) -> list[Event]:
    return msgspec.msgpack.decode(log.read_bytes(), type=list[Event])


# -- the ways to lose --------------------------------------------------------------------------------------------------


def cuts(machine: Machine, at: int, draw: random.Random, ways: int) -> Iterator[tuple[str, Cut]]:
    """Return ways in which the power can fail now: all kept, all lost, and some drawn ones."""
    pieces, changes = len(machine.unsure()), len(machine.changes)
    newest = len(machine.marks) - 1
    yield "all is there", Cut(at, (KEPT,) * pieces, (True,) * changes, mark=newest)
    if not pieces and not changes:
        return
    yield "all is lost", Cut(at, (LOST,) * pieces, (False,) * changes, mark=newest)
    for way in range(ways):
        folder = tuple(draw.random() < 0.5 for _ in range(changes))
        grows, mark = draw.random() < 0.5, draw.choice((newest, draw.randrange(-1, newest + 1)))
        if way % 3 == 0:
            kept = draw.randrange(pieces + 1)
            rest = draw.choice((LOST, TORN, GARBAGE))
            fates = (KEPT,) * kept + (rest,) * min(1, pieces - kept) + (LOST,) * (pieces - kept - 1)
            yield "a prefix, then a torn sector", Cut(at, fates, folder, grows=grows, mark=mark)
        elif way % 3 == 1:
            share = draw.choice((0.1, 0.5, 0.9))
            fates = tuple(KEPT if draw.random() < share else LOST for _ in range(pieces))
            yield "any sectors, in any order", Cut(at, fates, folder, draw.randrange(1, 1 << 30), grows, mark)
        else:
            weights = (draw.random(), draw.random() + 0.5, draw.random() / 3, draw.random() / 3)
            fates = tuple(draw.choices((LOST, KEPT, TORN, GARBAGE), weights, k=pieces))
            yield "any sectors, torn or garbage", Cut(at, fates, folder, draw.randrange(1 << 30), grows, mark)


def lay(files: dict[str, bytes], place: Path) -> None:
    """Lay an image out as files, with rubbish for the log's index, which no power failure respects."""
    for old in place.parent.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for path, content in files.items():
        (place.parent / Path(path).name).write_bytes(content)
    if any(kind_of(path) == "log" for path in files):
        Path(f"{place}-shm").write_bytes(random.Random(len(files)).randbytes(32_768))


# -- looking -----------------------------------------------------------------------------------------------------------


def content_of(connection: apsw.Connection) -> str:
    """Return a digest of all rows of all tables; when a format was applied is left out."""
    digest = hashlib.sha256()
    tables = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()
    for name, sql in tables:
        digest.update(f"{name} {sql}".encode())
        if str(sql).startswith("CREATE TABLE"):
            columns = "room, version, name" if name == "surefoot_format" else "*"
            for row in sorted(map(repr, connection.execute(f"SELECT {columns} FROM {name}"))):
                digest.update(row.encode())
    return digest.hexdigest()


def look(files: dict[str, bytes], place: Path, world: work.World) -> tuple[str, str]:
    """Open an image; return what it holds, and what is wrong with it."""
    lay(files, place)
    try:
        store = work.opened(place, work.Rebooted())
        try:
            content = store.read_now(content_of)
            work.check_acknowledged(store, world)
        finally:
            store.close()
    except Exception as error:
        return "", f"{type(error).__name__}: {error}"
    return content, ""


class Sweep:
    """Goes through a recording, and looks at images of every point."""

    def __init__(self, events: list[Event], seed: int, ways: int, stride: int = 1) -> None:
        self._events = events
        self._draw = random.Random(seed)
        self._ways = ways
        self._stride = stride
        self._home = Path(tempfile.mkdtemp(prefix="surefoot-image-", dir=ROOM))
        self._place = self._home / "agents.db"
        self._seen: set[bytes] = set()
        self.tally = Tally()
        self.starts: dict[tuple[str, int], tuple[dict[str, bytes], work.World]] = {}
        self._contents = self._reference()

    def close(self) -> None:
        """Clear away."""
        shutil.rmtree(self._home)

    def _reference(self) -> list[tuple[int, str]]:
        """Return what the store held at each moment that a sync returned: number of events, content."""
        machine, found = Machine(), list[tuple[int, str]]()
        for number, event in enumerate(self._events, 1):
            machine.happen(event)
            if event.what in ("synced", "remove") or number == 1:
                content, wrong = look(self._whole(machine), self._place, work.World())
                assert not wrong, f"the recording itself can't be opened after event {number}: {wrong}"
                if not found or found[-1][1] != content:
                    found.append((number, content))
        return found

    def _whole(self, machine: Machine) -> dict[str, bytes]:
        return machine.image([KEPT] * len(machine.unsure()), [True] * len(machine.changes), mark=len(machine.marks) - 1)

    def _allowed(self, at: int) -> set[str]:
        """Return what may be found after a crash: what was sure, or what was under way."""
        sure = max((n for n, (number, _) in enumerate(self._contents) if number <= at), default=0)
        return {content for _, content in self._contents[sure : sure + 2]}

    def run(self) -> Tally:
        """Look at all images; the first that is wrong is made smaller and ends the sweep."""
        machine, world = Machine(), work.World()
        self.tally.lengthened = sum(event.data == bytes(work.ROOM_BYTES) for event in self._events)
        for number, event in enumerate(self._events, 1):
            machine.happen(event)
            if event.what == "said":
                world.answer(list(event.words))
            if number % self._stride:
                continue
            self.tally.points += 1
            for way, cut in cuts(machine, number, self._draw, self._ways):
                if not self._look(machine, world, way, cut):
                    return self.tally
        self.tally.contents = len({content for content, _ in self.starts})
        return self.tally

    def _look(self, machine: Machine, world: work.World, way: str, cut: Cut) -> bool:
        files = machine.image(cut.fates, cut.folder, cut.order, cut.grows, cut.mark)
        digest = _digest(files, world)
        if digest in self._seen:
            return True
        self._seen.add(digest)
        self.tally.images += 1
        self.tally.ways[way] = self.tally.ways.get(way, 0) + 1
        content, wrong = self._judge(files, world, cut)
        if wrong:
            small = self._smaller(machine, world, cut)
            self.tally.wrong.append(f"{wrong}\n  {small.words(machine)}")
            return False
        self.starts.setdefault((content, len(world.sent)), (files, copy.deepcopy(world)))
        return True

    def _judge(self, files: dict[str, bytes], world: work.World, cut: Cut) -> tuple[str, str]:
        content, wrong = look(files, self._place, world)
        if not wrong and content not in self._allowed(cut.at):
            at = [number for number, one in self._contents if one == content]
            wrong = f"it holds what was there after event {at or 'none'}, not what was sure or under way"
        return content, wrong

    def _smaller(self, machine: Machine, world: work.World, cut: Cut) -> Cut:
        """Return a cut that loses less and is still wrong."""
        changes = len(cut.folder)
        for n in range(changes + len(cut.fates)):
            is_change = n < changes
            smaller = (
                replace(cut, folder=_with(cut.folder, n, True))
                if is_change
                else replace(cut, fates=_with(cut.fates, n - changes, KEPT))
            )
            files = machine.image(smaller.fates, smaller.folder, smaller.order, smaller.grows, smaller.mark)
            if self._judge(files, world, smaller)[1]:
                cut = smaller
        return cut

    def finish(self, every: int = 1) -> None:
        """Let the next worker finish from each different content and world."""
        for number, (files, world) in enumerate(self.starts.values()):
            if number % every:
                continue
            lay(files, self._place)
            told: list[Any] = []
            wrong = _finish(self._place, world, told)
            self.tally.finished += 1
            if wrong:
                self.tally.wrong.append(f"from start {number}: {wrong}")
                return


T = TypeVar("T")


def _with(values: tuple[T, ...], at: int, value: T) -> tuple[T, ...]:
    return (*values[:at], value, *values[at + 1 :])


def _digest(files: dict[str, bytes], world: work.World) -> bytes:
    digest = hashlib.sha256(f"{len(world.told)} {len(world.sent)}".encode())
    for path, content in sorted(files.items()):
        digest.update(f"{path} {len(content)} ".encode())
        digest.update(content)
    return digest.digest()


def _finish(place: Path, world: work.World, told: list[Any]) -> str:
    def answer(words: list[Json]) -> Json:
        if words[0] == "finished":
            told.append(words[1])
            return None
        return world.answer(words)

    def run(line: Line) -> None:
        line.tell("finished", asyncio.run(work.finish(line, f"sqlite:///{place}", work.Rebooted())))

    ended = in_child(run, answer)
    if ended.error or ended.signal:
        return ended.error or ended.signal
    return in_child(lambda _line: work.check_end(place, world, told[-1]), answer).error
