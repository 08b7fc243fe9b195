"""What a disk was asked to do, in order, and what it may hold when the power fails in between.

The model (what a disk and a file system with a journal promise, and no more):

* what was written to a file before a sync of it began is there once the sync has returned;
* all else is there or not, each sector of 512 bytes for itself and in any order, or torn (its first part is there), or
  garbage; what was lost at the end of a file leaves zeros or a shorter file;
* a file that was made, or removed, is so for sure once its directory was synced, which SQLite does with the first sync of a
  new log or journal; until then it may be there or not;
* the note that a writer leaves beside the database is memory that the system writes out when it likes: any of those
  that were left so far may be found, or none.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
from tests.disk.processes import Json
from tests.disk.vfs import kind_of

SECTOR = 512

LOST, KEPT, TORN, GARBAGE = range(4)
"""What becomes of one sector that was written and not synced."""

TORN_AT = 100


@dataclass(frozen=True)
class Event:
    """One thing that happened: an operation on a file, or something that was told or sent."""

    what: str
    path: str = ""
    offset: int = 0
    data: bytes = b""
    number: int = 0
    words: tuple[Json, ...] = ()


class Recorder:
    """The rule of a `Disk` that fails nothing and notes everything; also the line of the worker, so that all is in one
    order."""

    def __init__(self, answer: Callable[[list[Json]], Json]) -> None:
        self.events: list[Event] = []
        self._answer = answer
        self._lock = threading.Lock()
        self._syncs = 0
        self._is_new: dict[str, bool] = {}
        self._desk: Path | None = None
        self._mark = b""

    def _look_at_mark(self) -> None:
        if self._desk is not None and self._desk.exists() and (mark := self._desk.read_bytes()) != self._mark:
            self._mark = mark
            self.events.append(Event("mark", str(self._desk), data=mark))

    def tell(self, *fact: Json) -> None:
        """Say something; see `processes.Line`."""
        self.ask(*fact)

    def ask(self, *question: Json) -> Json:
        """Ask something; see `processes.Line`."""
        with self._lock:
            self._look_at_mark()
            self.events.append(Event("said", words=question))
            return self._answer(list(question))

    def _note(self, event: Event) -> None:
        with self._lock:
            self._look_at_mark()
            self.events.append(event)

    def meet(self, operation: str, _file: Any, path: str, do: Callable[[], Any], detail: tuple[Any, ...]) -> Any:
        """Note a call, and carry it out."""
        match operation:
            case "open":
                is_new = not Path(path).exists() and bool(detail[0] & apsw.SQLITE_OPEN_CREATE)
                result = do()
                if is_new:
                    self._is_new[path] = True
                    self._note(Event("make", path))
                if kind_of(path) == "database":
                    self._desk = Path(f"{path}-desk")
                return result
            case "write" | "lengthen":
                self._note(Event("write", path, detail[1], detail[0]))
            case "truncate":
                self._note(Event("truncate", path, detail[0]))
            case "delete":
                self._note(Event("remove", path))
            case "sync":
                return self._sync(path, do)
        return do()

    def _sync(self, path: str, do: Callable[[], Any]) -> Any:
        with self._lock:
            self._syncs += 1
            number = self._syncs
            self.events.append(Event("sync", path, number=number))
        result = do()
        is_with_folder = kind_of(path) != "database" and self._is_new.pop(path, False)
        self._note(Event("synced", path, number=number, offset=int(is_with_folder)))
        return result


@dataclass
class Content:
    """One file's bytes: what is on disk for sure, and the writes and cuts since, oldest first."""

    sure: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)

    def settle(self, number_of_pending: int) -> None:
        """Note that the oldest pending changes are on disk."""
        for event in self.pending[:number_of_pending]:
            _apply(self.sure, event)
        del self.pending[:number_of_pending]


def _apply(content: bytearray, event: Event) -> None:
    if event.what == "truncate":
        del content[event.offset :]
        return
    if len(content) < event.offset:
        content.extend(bytes(event.offset - len(content)))
    content[event.offset : event.offset + len(event.data)] = event.data


class Machine:
    """A machine to which events happen one by one; at any point its power can fail."""

    def __init__(self) -> None:
        self.files: list[Content] = []
        self.now: dict[str, int] = {}
        self.sure: dict[str, int] = {}
        self.changes: list[tuple[str, int | None]] = []
        self.marks: list[Event] = []
        self._syncing: dict[int, tuple[int, Event | None, int]] = {}

    def happen(self, event: Event) -> None:
        """Let the next event happen."""
        match event.what:
            case "make":
                self.files.append(Content())
                self.now[event.path] = len(self.files) - 1
                self.changes.append((event.path, self.now[event.path]))
            case "remove":
                if self.now.pop(event.path, None) is not None:
                    self.changes.append((event.path, None))
            case "mark":
                self.marks.append(event)
            case "write" | "truncate":
                self.files[self.now[event.path]].pending.append(event)
            case "sync":
                file = self.now[event.path]
                pending = self.files[file].pending
                self._syncing[event.number] = (file, pending[-1] if pending else None, len(self.changes))
            case "synced":
                file, last, changes = self._syncing.pop(event.number)
                pending = self.files[file].pending
                at = next((n for n, one in enumerate(pending) if one is last), None)
                self.files[file].settle(0 if at is None else at + 1)
                if event.offset:
                    self._settle_folder(changes)

    def _settle_folder(self, number_of_changes: int) -> None:
        for path, file in self.changes[:number_of_changes]:
            if file is None:
                self.sure.pop(path, None)
            else:
                self.sure[path] = file
        del self.changes[:number_of_changes]

    # -- when the power fails --------------------------------------------------------------------------------------

    def unsure(self) -> list[tuple[int, Event, int]]:
        """Return all that may be lost: file, event, and which of its sectors; a cut is one piece."""
        found = []
        for number, file in enumerate(self.files):
            for event in file.pending:
                first, last = event.offset // SECTOR, (event.offset + max(1, len(event.data)) - 1) // SECTOR
                found += [(number, event, sector) for sector in range(first, last + 1)]
        return found

    def image(
        self, fates: Sequence[int], folder: Sequence[bool], order: int = 0, grows: bool = False, mark: int = -1
    ) -> dict[str, bytes]:
        """Return the files that are found when the power is back.

        Args:
            fates: For each unsure piece, what becomes of it.
            folder: For each unsure change of the directory, whether it is there.
            order: Seed for the order in which pieces of one sector reach the disk; 0 for that of the writes.
            grows: Whether a file has the size that was written, though what was written at its end is lost.
            mark: Which of the marks is found, from 0; -1 for none.
        """
        place = dict(self.sure)
        for is_there, (path, file) in zip(folder, self.changes, strict=True):
            if is_there:
                place.pop(path, None)
                if file is not None:
                    place[path] = file
        contents = {number: bytearray(file.sure) for number, file in enumerate(self.files) if number in place.values()}
        pieces = [(fate, *piece) for fate, piece in zip(fates, self.unsure(), strict=True)]
        if order:
            random.Random(order).shuffle(pieces)
        for fate, number, event, sector in pieces:
            if number in contents:
                _reach(contents[number], fate, event, sector, grows)
        found = {path: bytes(contents[number]) for path, number in place.items()}
        if mark >= 0:
            found[self.marks[mark].path] = self.marks[mark].data
        return found


def _reach(content: bytearray, fate: int, event: Event, sector: int, grows: bool) -> None:
    if event.what == "truncate":
        if fate != LOST:
            _apply(content, event)
        return
    begin = max(event.offset, sector * SECTOR)
    data = event.data[begin - event.offset : sector * SECTOR + SECTOR - event.offset]
    if fate == TORN:
        data = data[:TORN_AT]
    elif fate == GARBAGE:
        data = random.Random(begin).randbytes(len(data))
    elif fate == LOST:
        if grows and len(content) < begin + len(data):
            content.extend(bytes(begin + len(data) - len(content)))
        return
    _apply(content, Event("write", offset=begin, data=data))
