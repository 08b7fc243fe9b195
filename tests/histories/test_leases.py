"""Leases are what they say: recorded histories of processes that are stopped and killed have an order that leases allow."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.histories.nemesis import Recorded, problems, record


def look(recorded: Recorded) -> None:
    """Check a history, and that what it is about has happened in it."""
    assert problems(recorded) == []
    assert recorded.count("acquire") > 0
    assert recorded.count("write", "ok") > 0
    assert recorded.stops > 0


async def test_a_short_history_is_linearizable(url: str, tmp_path: Path) -> None:
    """Catches two holders at once, a token that falls, a write of who has lost its lease, and a read of the past."""
    look(await record(url, tmp_path, operations=600, processes=3, seed=1, limit_s=60))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_a_history_of_ten_thousand_operations_is_linearizable(url: str, tmp_path: Path, seed: int) -> None:
    """As above, over many stops and kills."""
    recorded = await record(url, tmp_path, operations=10_000, processes=4, seed=seed, limit_s=600)
    look(recorded)
    assert recorded.kills > 3
