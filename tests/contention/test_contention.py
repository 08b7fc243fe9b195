"""Agents that contend for few accounts lose no update, and wait no longer than they must."""

from __future__ import annotations

import pytest
from tests.contention.agents import TIMEOUT_S
from tests.contention.workload import MODES, Plan, measure


@pytest.mark.parametrize("mode", MODES)
async def test_no_update_is_lost_but_without_coordination(url: str, mode: str) -> None:
    """Catches a lost update, a wait beyond its bound, an update done twice, and a workload that could not lose any."""
    found = await measure(url, mode, Plan(processes=2, agents=10, updates=3))
    assert found.updates == found.written == 60
    assert (found.lost > 0) == (mode == "none")
    assert max(found.took_s) < TIMEOUT_S
