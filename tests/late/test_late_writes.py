"""A service that compares tokens refuses every late write: of holders that were stopped, and knew nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.late.stops import Seen, stop_holders

HOW = ["lease", "run", "effect"]


def look(seen: Seen) -> None:
    """Check that what was late, and nothing else, was refused."""
    assert seen.late
    assert seen.refused == seen.late


@pytest.mark.parametrize("how", HOW)
async def test_late_writes_are_refused(url: str, tmp_path: Path, how: str) -> None:
    """Catches a token that a later holder has, too, a later holder with a lower one, and a good write that is refused."""
    look(await stop_holders(how, url, tmp_path, stops=1, late=1, seed=1, limit_s=240))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("how", HOW)
async def test_many_late_writes_are_refused(url: str, tmp_path: Path, how: str, seed: int) -> None:
    """As above, over many stops."""
    look(await stop_holders(how, url, tmp_path, stops=40, late=10, seed=seed, limit_s=900))
