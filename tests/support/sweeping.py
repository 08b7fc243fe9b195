"""A kill sweep in miniature: a program is killed by a real SIGKILL at each of its crossings in turn, and gone on with.

A crossing is a place between two facts: before and after each commit of the store, before and after each request to the
world. The world is a directory that outlives every process: what was done is a file per idempotency key, so that it
dedupes, and a line in `log` for each request that it acted on.

A warm parent forks a process for each attempt, which costs a tenth of starting Python.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import surefoot as sf
from surefoot.store.sqlite_desk import SqliteDesk

Program = Callable[["World", sf.Surefoot], Awaitable[None]]


@dataclass
class World:
    """Services that dedupe on a key and write down what they do; and the trap that kills at the n-th crossing."""

    place: Path
    kill_at: int = 0
    crossings: int = field(default=0, init=False)
    _acting: threading.Lock = field(default_factory=threading.Lock, init=False)

    def cross(self) -> None:
        """Be at a crossing; does not return if the trap is set to it."""
        with self._acting:  # no thread kills another in the middle of what the world does at once
            self.crossings += 1
            if self.crossings == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()

    def act(self, words: str, key: str) -> None:
        """Do something in the world, once per key."""
        self.cross()
        with self._acting:
            try:
                os.close(os.open(self.place / key, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                words = f"(again) {words}"
            with (self.place / "log").open("a") as log:
                log.write(f"{words}\n")
        self.cross()

    def acted(self) -> list[str]:
        """What was done, in order, without requests that were deduped."""
        log = self.place / "log"
        return [line for line in log.read_text().splitlines() if not line.startswith("(again)")] if log.exists() else []


class _Disk:
    """Stands around the writer's connection: each commit is crossed twice."""

    def __init__(self, connection: Any, world: World) -> None:
        self._connection, self._world = connection, world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *rest: Any) -> Any:
        if sql != "COMMIT":
            return self._connection.execute(sql, *rest)
        self._world.cross()
        result = self._connection.execute(sql, *rest)
        self._world.cross()
        return result


async def _attempt(world: World, program: Program) -> None:
    async with sf.Surefoot(f"sqlite:///{world.place}/agents.db") as app:
        desk = app.store.writer._desk
        assert isinstance(desk, SqliteDesk)
        desk.connection = _Disk(desk.connection, world)  # type: ignore[assignment]  # looks like one
        await program(world, app)


def attempt(place: Path, program: Program, kill_at: int) -> bool:
    """Run the program in a process of its own; return whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.run(_attempt(World(place, kill_at), program))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the program failed; see above"
    return not os.WIFSIGNALED(status)


def sweep(place: Path, program: Program, check: Callable[[World], None], *, steps: int, twice: int) -> int:
    """Kill at each crossing, go on, and check the world; return how many processes were killed.

    Args:
        place: An empty directory.
        program: Starts its run, or goes on with it, and waits for its end.
        check: Raises if the world is not as it should be.
        steps: Every how many crossings to kill; 1: at each.
        twice: Every how many of these the process that goes on is killed at each of its own crossings too; 0: never.
    """
    kills, nth = 0, 1
    while True:
        first = place / f"{nth}"
        first.mkdir()
        if attempt(first, program, nth):
            check(World(first))
            return kills
        kills += 1
        attempt(first, program, 0)
        check(World(first))
        if twice and nth % twice == 0:
            kills += _kill_again(place, program, check, nth, steps)
        nth += steps


def _kill_again(place: Path, program: Program, check: Callable[[World], None], nth: int, steps: int) -> int:
    kills, again = 0, 1
    while True:
        second = place / f"{nth}-{again}"
        second.mkdir()
        attempt(second, program, nth)
        kills += 1
        is_over = attempt(second, program, again)
        if not is_over:
            kills += 1
            attempt(second, program, 0)
        check(World(second))
        if is_over:
            return kills
        again += steps
