"""Several worker processes on one PostgreSQL: killed, stopped, cut off, and the server killed under them."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest
from tests.postgres.team import cuts, hired
from tests.support.postgres import Postgres, Proxy


async def test_a_killed_and_a_stopped_worker_are_taken_over_and_the_stopped_one_goes_on(
    url: str, tmp_path: Path
) -> None:
    """Catches runs that nobody takes over, and a worker that wakes up and records for what is no longer its own."""
    async with hired(url, tmp_path, "a", "b", "c") as team:
        await team.start(range(40))
        await team.until(lambda: {name for name, _ in team.requests()} >= {"a", "b", "c"} or team.ended() == 40)
        team.signal("a", signal.SIGSTOP)
        await team.dismiss("b")
        await team.start(range(40, 60))
        await team.until(lambda: team.ended() == 60)
        team.signal("a", signal.SIGCONT)
        team.check(60)
        await team.dismiss("c")
        await team.start(range(60, 70))
        await team.until(lambda: team.ended() == 70)  # by the one that was stopped, in a session of its own
        team.check(70)
        assert {name for name, order in team.requests() if int(order[1:].split("/")[0]) >= 60} == {"a"}


@pytest.mark.slow
async def test_workers_outlive_their_server(own: Postgres, tmp_path: Path) -> None:
    """Catches a run lost or an effect doubled by a crash of the server, and a worker that gives up."""
    async with hired(own.url, tmp_path, "a", "b") as team:
        await team.start(range(30))
        for least in (5, 15):
            await team.until(lambda least=least: team.ended() >= least)  # type: ignore[misc]  # bound here
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)
        await team.until(lambda: team.ended() == 30)
        team.check(30)


@pytest.mark.slow
async def test_workers_whose_ways_break_lose_and_double_nothing(url: str, proxy: Proxy, tmp_path: Path) -> None:
    """Catches a broken connection, at whatever byte, that loses a run, doubles an effect, or ends a worker."""
    draw = random.Random(7)
    async with hired(url, tmp_path, "a", "b", way=proxy.url(url)) as team:
        proxy.asks, proxy.answers = cuts(draw, 40_000), cuts(draw, 40_000)
        await team.start(range(30))
        await team.until(lambda: team.ended() == 30)
        assert proxy.breaks > 3
        team.check(30)
