"""Everything that fails, at once and often: no run is lost, no effect is done twice, and others take over in time."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from tests.postgres import crew
from tests.postgres.team import LIFE_MS, Crew, cuts, hired
from tests.support.postgres import Postgres, Proxy

import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.store import looking_at

RUNS, AT_ONCE = 1_000, 25
"""Runs of the long test, and how many are started between two faults."""

PAUSE_MAX_S = 2 * LIFE_MS / 1_000
"""Longest stop of a worker: twice its lease."""

BYTES_MAX = 400_000
"""Longest way of a connection, in bytes."""


class Faults:
    """What is done to workers and their server, and how often it was."""

    def __init__(self, team: Crew, own: Postgres, way: str, draw: random.Random) -> None:
        self._team, self._own, self._way, self._draw = team, own, way, draw
        self._names: Iterator[str] = (f"w{n}" for n in range(10_000))
        self.counts = {"kill": 0, "stop": 0, "server": 0}
        self._stopped: set[asyncio.Task[None]] = set()

    async def one(self) -> None:
        """Let one thing fail."""
        fault = self._draw.choices(list(self.counts), weights=(4, 4, 1))[0]
        self.counts[fault] += 1
        name = self._draw.choice(list(self._team.workers))
        if fault == "server":
            await asyncio.to_thread(self._own.kill)
            await asyncio.sleep(self._draw.uniform(0, 1))
            await asyncio.to_thread(self._own.start)
        elif fault == "kill":
            await self._team.dismiss(name)
            await self._team.hire(next(self._names), self._way, tries=5)
        else:
            self._team.signal(name, signal.SIGSTOP)
            task = asyncio.create_task(self._let_go_on(name))
            self._stopped.add(task)
            task.add_done_callback(self._stopped.discard)

    async def _let_go_on(self, name: str) -> None:
        await asyncio.sleep(self._draw.uniform(0, PAUSE_MAX_S))
        if name in self._team.workers:  # it may have been killed meanwhile
            self._team.signal(name, signal.SIGCONT)

    async def end(self) -> None:
        """Let all go on."""
        await asyncio.gather(*self._stopped)


async def endure(own: Postgres, folder: Path, *, runs: int, workers: int, seed: int) -> Faults:
    """Start runs, some at a time, and let something fail in between; then wait for all of them, and count."""
    draw = random.Random(seed)
    (folder / "way").mkdir()
    with Proxy(own.socket, folder / "way") as proxy:
        way = proxy.url(own.url)
        async with hired(own.url, folder, *(f"first{n}" for n in range(workers)), way=way) as team:
            faults = Faults(team, own, way, draw)
            proxy.asks, proxy.answers = cuts(draw, BYTES_MAX), cuts(draw, BYTES_MAX)
            for first in range(0, runs, AT_ONCE):
                await team.start(range(first, min(first + AT_ONCE, runs)))
                await faults.one()
                await asyncio.sleep(draw.uniform(0, 0.5))
            await faults.end()
            await team.until(lambda: team.ended() == runs, within_s=120)
            team.check(runs)
            sent = len(team.requests())
            print(f"{runs} runs, {workers} workers: {faults.counts}, {proxy.breaks} connections broken;"
                  f" {sent} requests for {runs * crew.ACTS} effects, each done once")  # fmt: skip
            return faults


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_what_comes_of_several_faults_together(own: Postgres, tmp_path: Path, seed: int) -> None:
    """Catches what only comes of kills, stops, broken ways and a killed server at once."""
    await endure(own, tmp_path, runs=150, workers=3, seed=seed)


@pytest.mark.slow
async def test_a_thousand_runs_outlive_everything(own: Postgres, tmp_path: Path) -> None:
    """Catches a run lost or an effect doubled where faults are many, and what is rare."""
    faults = await endure(own, tmp_path, runs=RUNS, workers=4, seed=23)
    assert all(faults.counts.values())


@pytest.mark.slow
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_others_take_over(url: str, tmp_path: Path, fault: signal.Signals) -> None:
    """Catches runs of a killed or stopped worker that stay with it; prints how long it took."""
    took_s = []
    async with hired(url, tmp_path, "keeps") as team:
        for n in range(5):
            await team.hire(f"a{n}")
            begun = range(n * 20, n * 20 + 20)
            async with sf.Surefoot(url, is_worker=False) as app:
                for order in begun:
                    await app.start(crew.lasting, f"o{order}", id=f"r{order}")
            await team.until(lambda begun=begun: {f"o{order}" for order in begun} <= {o for _, o in team.requests()})  # type: ignore[misc]
            held = [order for name, order in team.requests() if name == f"a{n}"]
            team.signal(f"a{n}", fault)
            began = monotonic()
            await team.until(
                lambda held=held: all(["keeps", order] in team.requests() for order in held),  # type: ignore[misc]
                is_stopped=fault is signal.SIGKILL,
            )
            took_s.append(monotonic() - began)
            await team.dismiss(f"a{n}")
    print(f"{fault.name}: taken over after {min(took_s):.2f} to {max(took_s):.2f} s; a lease is {LIFE_MS / 1_000} s")


@pytest.mark.slow
@pytest.mark.parametrize("service", ["trusting", "checking"])
async def test_a_pause_longer_than_the_longest_life_is_seen(url: str, tmp_path: Path, service: str) -> None:
    """Catches an effect done twice in silence: a service that checks refuses the straggler, and any other's second answer
    is listed as a contradiction."""
    async with hired(url, tmp_path, "first") as team, sf.Surefoot(url, is_worker=False) as app:
        run = await app.start(crew.posting, service, id="r")
        await team.until(lambda: bool(team.requests()))  # it stops itself, before it sends
        await team.hire("second")
        second = await asyncio.wait_for(run.result(), 60)
        team.signal("first", signal.SIGCONT)
        await team.until((tmp_path / "answered-first").exists)
        landed = sorted(path.read_text() for path in (tmp_path / "done").iterdir())
        if service == "checking":
            assert landed == [second]
            return
        assert landed == sorted(["from first", "from second"])

        def is_listed() -> bool:
            with looking_at(url, MIGRATIONS) as connection:
                return len(connection.execute("SELECT 1 FROM evidence WHERE is_open = 1").fetchall()) == 1

        await team.until(is_listed)
        assert second == "from second"
