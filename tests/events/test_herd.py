"""Samples of what `python -m tests.events` measures: nothing lost, nothing acted on twice, in order; with real kills."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.events.herd import kills, many_events, one_event, rolling


async def test_one_event_wakes_one_worker_of_many(url: str, tmp_path: Path) -> None:
    """Catches an event that several workers act on, or that makes all of them look for it in the store."""
    found = await one_event(url, tmp_path / "world", workers=4, places=50)
    assert (found.requests, found.actors) == (1, 1)


async def test_each_of_many_events_is_acted_on_once_and_in_order(url: str, tmp_path: Path) -> None:
    """Catches an event that is lost or doubled between workers, or that overtakes another of its key."""
    found = await many_events(url, tmp_path / "world", 300, workers=3)
    assert found.requests == 300, "no run was begun twice"


async def test_killed_workers_lose_nothing_and_double_nothing(url: str, tmp_path: Path) -> None:
    """Catches an event that is lost with its worker, in whatever state it was."""
    found = await kills(url, tmp_path / "world", 300, workers=2, pause_s=0.2)
    assert found.kills > 0


async def test_a_rolling_restart_loses_nothing_and_tries_nothing_twice(url: str, tmp_path: Path) -> None:
    """Catches a worker that is stopped in order in the middle of an act, and leaves it to be done again."""
    found = await rolling(url, tmp_path / "world", 300, workers=2)
    assert found.kills > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_killed_workers_lose_nothing_at_any_time(url: str, tmp_path: Path, seed: int) -> None:
    """Catches the same where it is rare."""
    await kills(url, tmp_path / "world", 1_000, seed=seed, pause_s=0.1 + seed / 10)
