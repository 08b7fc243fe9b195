"""A few seconds of the soak, and the arithmetic that judges an hour of it."""

from pathlib import Path

import pytest
from tests.soak.figures import Series
from tests.soak.soak import Plan, Soak
from tests.soak.waiting import cost


async def test_work_goes_on_whatever_happens_to_the_workers(tmp_path: Path) -> None:
    """Catches a run of any kind that does not survive what happens to workers, and an act done twice or not at all."""
    plan = Plan(seconds=6, runs=28, elders=1, others=1, trouble_s=1, seed=7)
    seen = await Soak(tmp_path, plan, lambda text: None).run()
    assert seen.wrong == []
    assert seen.troubles.total() >= 2
    assert seen.states["completed"] == 28 + 4 * 4  # four families of four children


@pytest.mark.parametrize(
    ("values", "is_flat"),
    [
        ([0] * 20 + [100] * 80, True),  # the beginning counts for nothing
        ([100, 101] * 50, True),
        ([100 + n / 4 for n in range(100)], False),
        ([100] * 80 + [130] * 40, False),
        ([5] * 80 + [6] * 40, True),  # within the slack
    ],
)
def test_what_grows_is_called_so(values: list[float], is_flat: bool) -> None:
    """Catches a leak that is called flat, and a warm-up that is called a leak."""
    assert Series("x", "", 2, values).is_flat is is_flat


@pytest.mark.slow
async def test_runs_that_wait_cost_a_worker_nothing(tmp_path: Path) -> None:
    """Catches a worker that holds, or looks through, all runs that wait."""
    for name in ("few", "many"):
        (tmp_path / name).mkdir()
    few, many = await cost(tmp_path / "few", 100), await cost(tmp_path / "many", 5_000)
    assert many.rss_bytes < few.rss_bytes + 4_000_000
