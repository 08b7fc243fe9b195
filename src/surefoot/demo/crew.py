"""Processes that die and are replaced: the workers, and the plain loop.

Two hands kill them, both drawn from the seed. The shop kills in the middle of a call (`killing`). The crew kills
between calls: whenever the work has come as far as a drawn point, plus a drawn pause. A spare process waits, with all
it needs loaded, to take the place of the next who dies. Always holds: only processes that this crew has started are
killed, by their own handles; one that ends in any other way than by a kill is an error.

The members' side of it: a process waits for its name, a line on stdin (`await_name`); it says a line on stdout when it
works; the end of stdin tells it to stop.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from surefoot.demo.draws import between, whole
from surefoot.problem import SurefootError

LONGEST_GAP = 8
"""Most steps of progress between two kills of the crew's own."""

STOP_WITHIN_S = 12.0  # longer than a worker waits for its acts in progress
FAILURES_MAX = 3


class WorkerFailed(SurefootError):
    """A process of the demo ended by itself, again and again."""


@dataclass(slots=True)
class Member:
    """One place in the crew, whoever fills it at the moment."""

    name: str
    process: asyncio.subprocess.Process | None = None
    is_ready: bool = False
    failures: int = 0


@dataclass(slots=True)
class Crew:
    """Keeps processes running, and counts how they died.

    Args:
        command: What to start.
        names: One for each process.
        log: Where their stderr goes.
        seed: For the crew's own kills.
        kills: How many of those.
        is_once: Whether a process that ends in order is done, rather than missed.
    """

    command: Sequence[str]
    names: Sequence[str]
    log: Path
    seed: int
    kills: int
    is_once: bool = False
    killed: int = 0
    own_kills: int = 0
    failures: int = 0
    is_stopping: bool = False
    members: list[Member] = field(default_factory=list)
    _next_at: int = 0
    _spare: asyncio.Task[asyncio.subprocess.Process] | None = None

    async def work(self) -> None:
        """Start all, and replace who is killed, until all have ended in order or `stop`."""
        self._next_at = whole(self.seed, 1, LONGEST_GAP, "crew", 0, "gap")
        self.members = [Member(name) for name in self.names]
        await asyncio.gather(*(self._keep(member) for member in self.members))

    async def _keep(self, member: Member) -> None:
        while not self.is_stopping:
            code = await self._run(member)
            if code == -signal.SIGKILL and not self.is_stopping:
                self.killed += 1
            elif code == 0 and self.is_once:
                return
            elif not self.is_stopping:
                member.failures += 1
                self.failures += 1
                if member.failures >= FAILURES_MAX:
                    raise WorkerFailed(
                        f"{member.name} ended {member.failures} times with {code}", hint=f"see {self.log}"
                    )

    async def _run(self, member: Member) -> int:
        spare, self._spare = self._spare, None  # taken before anything is awaited: two may need one at once
        process = await (spare or self._start())
        if self.is_stopping:
            return await _end(process)
        self._spare = self._spare or asyncio.create_task(self._start())
        member.process = process
        assert process.stdin is not None, "a pipe"
        assert process.stdout is not None, "a pipe"
        try:
            process.stdin.write(f"{member.name}\n".encode())
            member.is_ready = bool(await process.stdout.readline())
            return await process.wait()
        finally:
            member.is_ready, member.process = False, None
            await _end(process)

    async def _start(self) -> asyncio.subprocess.Process:
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log
            )

    async def reap(self, progress: int, *, is_late: bool, in_all: int) -> None:
        """Kill somebody if the work has come as far as the next drawn point.

        Args:
            progress: How far it has come: a number that only grows.
            is_late: Whether little work is left. Then the remaining kills come at every step, those included that were
                meant for requests which will not come any more.
            in_all: How many are to be killed, by either hand.
        """
        if is_late:
            self.kills = max(self.kills, self.own_kills + in_all - self.killed)
        if self.own_kills >= self.kills or progress < self._next_at:
            return
        ready = [member for member in self.members if member.is_ready and member.process is not None]
        if not ready:
            return
        number = self.own_kills
        victim = ready[whole(self.seed, 0, len(ready) - 1, "crew", number, "who")]
        await asyncio.sleep(between(self.seed, 0.0, 0.04, "crew", number, "pause"))
        if victim.process is None or victim.process.returncode is not None:
            return
        victim.is_ready = False
        victim.process.kill()
        self.own_kills += 1
        # A loop that ends with its last act is not waited for: what it is still owed comes at once.
        late_gap = 0 if self.is_once else 1
        gap = late_gap if is_late else whole(self.seed, 2, LONGEST_GAP, "crew", self.own_kills, "gap")
        self._next_at = progress + gap

    async def stop(self) -> None:
        """Ask all to end in order; who does not in time is killed."""
        self.is_stopping = True
        processes = [member.process for member in self.members if member.process is not None]
        if self._spare is not None:
            processes.append(await self._spare)
            self._spare = None
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in processes:
            await _end(process, STOP_WITHIN_S)


async def _end(process: asyncio.subprocess.Process, within_s: float = 0.0) -> int:
    try:
        async with asyncio.timeout(within_s):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


def await_name() -> str:
    """Wait, in a process of the crew, until it is needed; return its name, or end with the crew."""
    name = os.read(0, 4096).decode().strip()
    if not name:
        raise SystemExit(0)
    return name
