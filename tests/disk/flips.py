"""Every byte of a small store flipped in turn: the content is the same, or somebody says what is damaged.

The store was left by a worker that was killed: runs that have ended, one that waits for a signal, one whose effect nobody
knows the outcome of; a part of it in the database, a part in the log alone. The same store closed in order has no log. Each
byte of their files has some bits turned over, one byte at a time. Then the store is opened, everything in it is read, and
`surefoot doctor` looks at it.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import apsw
from tests.disk import work
from tests.disk.images import ROOM, content_of
from tests.disk.processes import Json, Line, in_child
from tests.property.programs import enter, program
from tests.support.logs import without_room

import surefoot as sf
from surefoot.journal.tables import load_record
from surefoot.store import SqliteStore, Store, StoreError, Tx

LEFT: tuple[tuple[str, list[list[str]]], ...] = (
    ("keys", [["charge", "a"], ["post", "b"]]),
    ("person", [["ship", "c"]]),
    ("waits", [["signal"], ["charge", "h"]]),
    ("books", [["book", "f"]]),
)
"""The runs of the store, in order: the third is on disk before the log begins anew."""


@dataclass(frozen=True)
class Flip:
    """One byte of one file, with these bits turned over."""

    file: str
    at: int
    bits: int


@dataclass(frozen=True)
class Seen:
    """What came of a flip.

    Attributes:
        flip: Which.
        fate: "equal", "reported", "unnoticed", or "badly reported".
        by: Who reported it, or what it did.
    """

    flip: Flip
    fate: str
    by: str


Files = dict[str, bytes]


def small_stores(home: Path) -> dict[str, Files]:
    """Let a worker leave a store behind, and return its files as it was killed, and as they are once it was closed."""
    ended = in_child(lambda line: _leave(line, home / "agents.db"), work.World().answer)
    assert ended.said == "killed", ended
    killed = _files(home)
    closing = in_child(lambda _line: work.opened(home / "agents.db").close(), lambda _words: None)
    assert not closing.error, closing
    return {"killed": killed, "closed": _files(home)}


def _files(home: Path) -> Files:
    found = {
        path.name: path.read_bytes() for path in sorted(home.glob("agents.db*")) if path.is_file() and path.name in KEPT
    }
    if (log := "agents.db-wal") in found:
        found[log] = without_room(found[log])
    return found


KEPT = ("agents.db", "agents.db-wal", "agents.db-desk")
"""What a disk keeps of a store: its other files are empty, or made anew."""


def _leave(line: Line, place: Path) -> Json:
    async def leave() -> None:
        enter(work.outside_of(_Deaf(line)))  # type: ignore[arg-type]  # looks like a line
        async with sf.Surefoot(f"sqlite:///{place}", name="left") as app:
            await app.store.commit(work.make_bookings, label="bookings")
            for name, asked in LEFT:
                run = await app.start(program, asked, id=name)
                while (await run.status()).state in ("pending", "running"):
                    await asyncio.sleep(0.01)
                if name == "waits":
                    await app.store.commit(_nothing, label="barrier")
                    assert isinstance(app.store, SqliteStore)
                    app.store._checkpointer._own.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            await app.store.commit(_nothing, label="barrier")
            line.tell("end", {"said": "killed"})
            os.kill(os.getpid(), 9)

    with mock.patch("surefoot.runs.live.run.LiveRun.wait.__kwdefaults__", {"grace_s": 0.02}):
        asyncio.run(leave())
    return None


def _nothing(_tx: Tx) -> None:
    return None


class _Deaf:
    """A line on which the service that offers nothing loses its answer."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def ask(self, *question: Json) -> Json:
        """Ask."""
        answer = self._line.ask(*question)
        if question[1] == "nothing":
            raise TimeoutError("read timed out")
        return answer


# -- looking -----------------------------------------------------------------------------------------------------------


def flips(files: Files, seed: int, stride: int = 1, bits: int = 1) -> Iterator[Flip]:
    """Return `bits` flips of every byte, or of one byte in each `stride`."""
    draw = random.Random(seed)
    for name, content in files.items():
        for begin in range(0, len(content), stride):
            at = min(begin + draw.randrange(stride), len(content) - 1)
            chosen = draw.sample([1 << bit for bit in range(8)], bits - 1)
            yield from (Flip(name, at, one) for one in (*chosen, draw.randrange(1, 256)))


class Looker:
    """Flips, and looks."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._home = Path(tempfile.mkdtemp(prefix="surefoot-flips-", dir=ROOM))
        self._place = self._home / "agents.db"
        self._whole = self._look(files)
        assert self._whole[1] == "", self._whole

    def close(self) -> None:
        """Clear away."""
        shutil.rmtree(self._home)

    def flip(self, flip: Flip) -> Seen:
        """Flip, look, and say what came of it."""
        content = bytearray(self._files[flip.file])
        content[flip.at] ^= flip.bits
        try:
            found, report = self._look({**self._files, flip.file: bytes(content)})
        except Exception as error:
            return Seen(flip, "badly reported", f"{type(error).__name__}: {error}")
        if report:
            return Seen(flip, "reported", report)
        return Seen(flip, "equal", "") if found == self._whole[0] else Seen(flip, "unnoticed", "")

    def _look(self, files: Files) -> tuple[str, str]:
        """Return the content, and the first report of damage."""
        for old in self._home.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        for name, content in files.items():
            (self._home / name).write_bytes(content)
        try:
            store = work.opened(self._place, work.Rebooted())
        except StoreError as error:
            return "", f"open: {type(error).__name__}"
        try:
            return _read_all(store)
        except StoreError as error:
            return "", f"reading: {type(error).__name__}"
        finally:
            store.close()


def _read_all(store: Store) -> tuple[str, str]:
    found = store.read_now(lambda connection: connection.execute("PRAGMA integrity_check").fetchall())
    if found != [("ok",)]:
        return "", "pages"
    ids = store.read_now(lambda connection: connection.execute("SELECT id FROM journal").fetchall())
    for (one,) in ids:
        store.read_now(lambda connection, one=one: load_record(connection, int(str(one))))  # type: ignore[misc]
    return store.read_now(content_of), ""


def rows(name: str, seen: list[Seen]) -> Iterator[dict[str, Json]]:
    """Return how many flips of each file had each fate, and each one that nobody reported as it should be."""
    for (file, fate), count in sorted(Counter((one.flip.file, one.fate) for one in seen).items()):
        yield {"store": name, "file": file, "fate": fate, "count": count}
    for one in seen:
        if one.fate in ("unnoticed", "badly reported"):
            where = f"{one.flip.file} byte {one.flip.at}, bits {one.flip.bits:08b}"
            yield {"store": name, "file": one.flip.file, "fate": one.fate, "count": 0, "what": where, "by": one.by}
