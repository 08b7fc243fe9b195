"""What runs that wait cost a worker: the same worker on a store without any, and on one with a great many.

Each run waits for a signal for a day, evicted: its code has been unwound, and only its rows are left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import apsw
from tests.soak.crew import ROOT, use_of

import surefoot as sf
from surefoot.runs.life import RunState

STARTED_AT_ONCE = 500
IDLE_S = 20.0
SETTLE_S = 10.0
"""After a worker says that it is up: what it looks at once is behind it."""


@sf.durable(name="waits for a day")
async def waits_for_a_day(n: int) -> str:
    """Wait."""
    answer: str | None = await sf.wait_signal("go", str, timeout="1d")
    return answer or "nobody came"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a worker costs on one store.

    Attributes:
        runs: Runs that wait there.
        cpu_ms_per_s: Of one core, while nothing happens.
        rss_bytes: Its memory.
        answer_ms: From a signal to the end of the run it was sent to; the median of several.
        store_bytes: The store.
    """

    runs: int
    cpu_ms_per_s: float
    rss_bytes: int
    answer_ms: float
    store_bytes: int


async def fill(url: str, runs: int) -> None:
    """Let this many runs begin to wait."""

    def waiting(connection: apsw.Connection) -> int:
        (count,) = next(connection.execute("SELECT count(*) FROM runs WHERE state = ?", (int(RunState.WAITING),)))
        return int(count)

    async with sf.Surefoot(url) as app:
        for first in range(0, runs, STARTED_AT_ONCE):
            last = min(runs, first + STARTED_AT_ONCE)
            await asyncio.gather(*(app.start(waits_for_a_day, n, id=f"waits {n}") for n in range(first, last)))
        while await app.store.read(waiting) < runs:
            await asyncio.sleep(0.5)


def cpu_s(pid: int) -> float:
    """Return the CPU time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def cost(directory: Path, runs: int, signals: int = 11) -> Cost:
    """Fill a store and measure a worker on it."""
    url = f"sqlite:///{directory}/agents.db"
    await fill(url, max(runs, signals))
    worker = subprocess.Popen(
        [sys.executable, "-m", "surefoot", "worker", "tests.soak.waiting", "--store", url],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    try:
        worker.stderr.readline()  # "worker ... on ...": it is up
        await asyncio.sleep(SETTLE_S)
        before_s = cpu_s(worker.pid)
        await asyncio.sleep(IDLE_S)
        used_s = cpu_s(worker.pid) - before_s
        rss_bytes = use_of(worker.pid).rss_bytes
        answers = []
        async with sf.Surefoot(url, is_worker=False) as app:
            for n in range(signals):
                run = await app.run(f"waits {n}")
                sent_s = time.monotonic()
                await run.signal("go", "gone")
                await run.result(timeout_s=60)
                answers.append((time.monotonic() - sent_s) * 1_000)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate()
    store_bytes = (directory / "agents.db").stat().st_size
    return Cost(runs, used_s / IDLE_S * 1_000, rss_bytes, sorted(answers)[len(answers) // 2], store_bytes)
