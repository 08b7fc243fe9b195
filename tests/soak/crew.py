"""The soak's worker processes: real `surefoot worker`s, some of which are killed, stopped and replaced while they work.

What holds: elders are never touched, so what they hold in memory, files and threads shows what an hour of work leaves
behind; every other worker is, over and over, killed with SIGKILL, stopped for longer than a lease, or asked to go.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import TracebackType

ROOT = Path(__file__).parents[2]
LEASE_S = 10.0
WAYS = ("SIGKILL",) * 6 + ("SIGTERM", "SIGSTOP")
"""How often each way to be troubled is drawn."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a process holds at one moment."""

    rss_bytes: int
    files: int
    threads: int


def use_of(pid: int) -> Use:
    """Look at a process."""
    place = Path(f"/proc/{pid}")
    facts = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
    return Use(int(facts["VmRSS"].split()[0]) * 1024, sum(1 for _ in (place / "fd").iterdir()), int(facts["Threads"]))


class Crew:
    """Some workers on one store.

    Args:
        directory: Where store, books and the workers' words are.
        elders: Workers that are left alone.
        others: Workers that are troubled.
        seed: What is drawn for whom.
    """

    def __init__(self, directory: Path, *, elders: int, others: int, seed: int) -> None:
        self._directory = directory
        self._draw = Random(seed)
        self._begun = 0
        self.troubles: Counter[str] = Counter()
        self._stopped: list[tuple[float, subprocess.Popen[bytes]]] = []
        self.elders = [self._begin() for _ in range(elders)]
        self.others = [self._begin() for _ in range(others)]

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in (*self.elders, *self.others):
            worker.kill()
            worker.wait()

    def _begin(self) -> subprocess.Popen[bytes]:
        self._begun += 1
        with (self._directory / f"worker-{self._begun}.txt").open("wb") as words:
            return subprocess.Popen(
                [sys.executable, "-m", "surefoot", "worker", "tests.soak.work:app"],
                cwd=ROOT,
                env={**os.environ, "SOAK_DIRECTORY": str(self._directory)},
                stdout=words,
                stderr=subprocess.STDOUT,
            )

    def trouble(self) -> str:
        """Do something to one of the others; return what."""
        place = self._draw.randrange(len(self.others))
        way = self._draw.choice(WAYS)
        worker = self.others[place]
        if way == "SIGSTOP" and all(stopped is not worker for _, stopped in self._stopped):
            self._stopped.append((time.monotonic() + self._draw.uniform(0.5, 1.5) * LEASE_S, worker))
        worker.send_signal(signal.Signals[way])
        self.troubles[way] += 1
        if way == "SIGKILL":
            self._stopped = [(until_s, stopped) for until_s, stopped in self._stopped if stopped is not worker]
        return way

    def look_after(self) -> None:
        """Let go on who was stopped long enough, and replace who is gone."""
        now_s = time.monotonic()
        for until_s, worker in self._stopped:
            if until_s <= now_s:
                worker.send_signal(signal.SIGCONT)
        self._stopped = [(until_s, worker) for until_s, worker in self._stopped if until_s > now_s]
        for place, worker in enumerate(self.others):
            if worker.poll() is not None:
                self.others[place] = self._begin()
        for worker in self.elders:
            if worker.poll() is not None:
                raise RuntimeError(f"a worker that nobody touched has ended with {worker.returncode}:\n{self.words()}")

    def words(self) -> str:
        """Return the last words of the workers, for whoever looks for a reason."""
        texts = sorted(self._directory.glob("worker-*.txt"), key=lambda path: path.stat().st_mtime)
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-600:]}" for path in texts[-6:])
