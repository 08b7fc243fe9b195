"""Two agents on one thing: with what Surefoot offers, the world is as if one had worked after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.worlds import dojo
from tests.worlds.dojo import World
from tests.worlds.pair_harness import KILLS, run_pair
from tests.worlds.pairs import PAIRS, TASKS, is_right, serial, work, wrong_orders

WRONG = {pair: wrong_orders(pair) for pair in PAIRS}

ALWAYS = tuple(pair for pair, orders in WRONG.items() if orders == 2)
"""Pairs that leave a wrong state unless somebody coordinates them."""

EVER = tuple(pair for pair, orders in WRONG.items() if orders)
"""The same, and those that do if one of the two acts first."""

SAMPLE = (
    ("banking/user_task_2", "banking/user_task_12"),  # the rent goes up twice: an update is lost
    ("banking/user_task_4", "banking/user_task_15"),  # the same money is refunded: an effect is doubled
)


def name(pair: tuple[str, str]) -> str:
    """Return a short name."""
    return " and ".join(one.rpartition("_")[2] for one in pair)


@pytest.mark.parametrize("task", TASKS)
def test_decisions_are_those_of_the_reference_solution(task: str) -> None:
    """Catches a task that is not AgentDojo's."""
    reference = [(call.tool, dict(call.args)) for call in dojo.load()[task].calls if call.effectful]
    assert work(World(task), task) == reference


def test_pairs_are_about_something() -> None:
    """Catches a table of pairs that can't go wrong, and one whose two orders are never different."""
    assert (len(PAIRS), len(ALWAYS), len(EVER)) == (32, 13, 15)
    assert set(SAMPLE) <= set(ALWAYS)
    assert any(first != second for first, second in map(serial, ALWAYS))


@pytest.mark.parametrize("how", ["apart", "together"])
async def test_only_agents_that_are_coordinated_leave_a_right_state(url: str, tmp_path: Path, how: str) -> None:
    """Catches a lost update, an agent that gives up, and a pair in which nothing could go wrong."""
    ended = await run_pair(url, tmp_path, SAMPLE[0], how)
    assert is_right(SAMPLE[0], ended.state) == (how == "together")
    assert any("stale" in told for told in ended.told) == (how == "together")


async def test_one_of_the_two_is_killed(url: str, tmp_path: Path) -> None:
    """Catches an effect that is done twice or not at all because its agent died, and one that waits for a dead one."""
    ended = await run_pair(url, tmp_path, SAMPLE[1], "together", KILLS["when it has acted"])
    assert is_right(SAMPLE[1], ended.state)
    assert ended.kills == 1


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=name)
async def test_all_pairs_that_are_coordinated_leave_a_right_state(
    url: str, tmp_path: Path, pair: tuple[str, str]
) -> None:
    """As above, of all pairs that are about the same thing."""
    assert is_right(pair, (await run_pair(url, tmp_path, pair, "together")).state)


@pytest.mark.slow
@pytest.mark.parametrize("pair", ALWAYS, ids=name)
async def test_pairs_that_nobody_coordinates_leave_a_wrong_state(
    url: str, tmp_path: Path, pair: tuple[str, str]
) -> None:
    """Catches a sweep that shows nothing."""
    assert not is_right(pair, (await run_pair(url, tmp_path, pair, "apart")).state)


@pytest.mark.slow
@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("pair", EVER, ids=name)
async def test_all_pairs_that_may_go_wrong_with_one_killed(
    url: str, tmp_path: Path, pair: tuple[str, str], kill: str
) -> None:
    """As above, of all pairs that may leave a wrong state if nobody coordinates them, and at all times."""
    ended = await run_pair(url, tmp_path, pair, "together", KILLS[kill])
    assert is_right(pair, ended.state)
    assert ended.kills == 1
