"""An effect in another database, whose processes are killed at every point, and stopped and continued."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

WAIT_S = 60.0
"""When a test gives up. Far above what a loaded machine needs: reaching it is a failure, never a pace."""

PROGRAM = """
import asyncio, os, sqlite3, time
from contextlib import closing
from pathlib import Path
import surefoot as sf
from surefoot.leases import Sessions

Sessions.open.__kwdefaults__["ttl_ms"] = 3_000  # of a stopped process the others then need not wait 10 s

def at(point):
    if os.environ.get("STOP_AT") == point:
        Path("here").touch()
        while not Path("go").exists():
            time.sleep(0.01)

def connect():
    at("recovery")
    return sqlite3.connect("books.db", timeout=5.0)

@sf.effect(key="pay:{x}", in_doubt=sf.Transactional(receipts=sf.Receipts(connect, paramstyle=sqlite3.paramstyle)))
def pay(x: int) -> str:
    at("claimed")
    try:
        with closing(sqlite3.connect("books.db", timeout=5.0)) as db, db:
            db.execute("INSERT INTO booked VALUES (?)", (os.environ["WHO"],))
            paid = sf.current_effect().receipt(db.execute, os.environ["WHO"])
            at("written")
    except sqlite3.IntegrityError:
        Path("too late").touch()
        raise
    at("committed")
    return paid

@sf.durable
async def paying(x: int) -> str:
    return await sf.in_thread(pay, x)

async def main():
    async with sf.Surefoot("sqlite:///agents.db") as app:
        print(await (await app.start(paying, 1, id="p-1")).result(timeout_s=50))

asyncio.run(main())
"""

TABLES = """CREATE TABLE booked (who TEXT);
CREATE TABLE surefoot_receipts (
    idempotency_key VARCHAR(64) NOT NULL,
    attempt BIGINT NOT NULL,
    value TEXT,
    written_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL,
    PRIMARY KEY (idempotency_key, attempt));"""


class Place:
    """A directory with the program, its store, and the books."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started: list[subprocess.Popen[str]] = []
        (path / "program.py").write_text(PROGRAM)
        with closing(sqlite3.connect(path / "books.db")) as db:
            db.executescript(TABLES)

    def start(self, who: str, stop_at: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "program.py"], cwd=self.path, env={**os.environ, "WHO": who, "STOP_AT": stop_at},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def reached(self, process: subprocess.Popen[str]) -> None:
        """Return when the process stands at its point."""
        until(lambda: (self.path / "here").exists() or process.poll() is not None)
        assert process.poll() is None, "it ended before its point"
        (self.path / "here").unlink()

    def kill_at(self, who: str, point: str) -> None:
        process = self.start(who, point)
        self.reached(process)
        process.kill()
        process.wait()

    def result(self, who: str) -> str:
        """Return what a process says that goes on to the end."""
        out, _ = self.start(who).communicate(timeout=WAIT_S)
        return out.strip()

    def booked(self) -> list[str]:
        with closing(sqlite3.connect(self.path / "books.db")) as db:
            return [row[0] for row in db.execute("SELECT who FROM booked")]


def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds."""
    for _ in range(int(WAIT_S / 0.02)):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("the condition did not come true in time")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("first", "second", "payer"),
    [
        ("claimed", "recovery", "third"),
        ("written", "written", "third"),
        ("committed", "recovery", "first"),
        pytest.param("claimed", "claimed", "third", marks=pytest.mark.slow),
        pytest.param("claimed", "written", "third", marks=pytest.mark.slow),
        pytest.param("claimed", "committed", "second", marks=pytest.mark.slow),
        pytest.param("written", "recovery", "third", marks=pytest.mark.slow),
        pytest.param("written", "committed", "second", marks=pytest.mark.slow),
    ],
)
def test_killed_at_every_point_and_again_in_the_recovery(place: Place, first: str, second: str, payer: str) -> None:
    """Catches a booking that is lost, made twice, or reported by another than who made it."""
    place.kill_at("first", first)
    place.kill_at("second", second)
    assert place.result("third") == payer
    assert place.booked() == [payer]


def test_a_stopped_attempt_that_goes_on_later_is_rolled_back(place: Place) -> None:
    """Catches a straggler whose booking lands beside that of the process that took over."""
    stopped = place.start("first", "claimed")
    place.reached(stopped)
    stopped.send_signal(signal.SIGSTOP)
    assert place.result("second") == "second"
    (place.path / "go").touch()
    stopped.send_signal(signal.SIGCONT)
    until((place.path / "too late").exists)
    assert place.booked() == ["second"]
    out, _ = stopped.communicate(timeout=WAIT_S)
    assert out.strip() == "second"
