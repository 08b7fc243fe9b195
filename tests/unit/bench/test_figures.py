import pytest
from bench.figures import bytes_per_step, median_of, percentile


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([3.0], 99, 3.0),
        ([2.0, 1.0], 50, 1.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([1.0, 2.0, 9.0], 99, 9.0),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], percent: float, expected: float) -> None:
    """Would catch an off-by-one rank, which hides the slowest cycles of small samples."""
    assert percentile(values, percent) == expected


def test_medians_are_taken_number_by_number_and_keep_the_shape() -> None:
    """Would catch a median of another repeat's neighbour, or a nested figure taken from the first repeat only."""
    repeats = [
        {"rate": rate, "mode": "wal", "at": [{"step": 20, "cpu": cpu}]}
        for rate, cpu in [(5.0, 30), (9.0, 10), (7.0, 20)]
    ]
    assert median_of(repeats) == {"rate": 7.0, "mode": "wal", "at": [{"step": 20, "cpu": 20}]}


def test_bytes_per_step_leave_out_what_an_empty_store_has() -> None:
    """Would catch a schema of 100 KB counted as the cost of 40 steps."""
    assert bytes_per_step(store_bytes=140_000, empty_bytes=100_000, steps_stored=40) == 1000
