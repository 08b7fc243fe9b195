"""Bytes that change by themselves are reported, or change nothing; see `flips`."""

from __future__ import annotations

from typing import Any

import pytest
from tests.disk import lanes


def check(rows: list[dict[str, Any]]) -> int:
    """Check that nothing went unnoticed; return the number of flips."""
    bad = [row for row in rows if row["fate"] in ("unnoticed", "badly reported")]
    assert bad == []
    assert {row["fate"] for row in rows} == {"equal", "reported"}
    return int(sum(row["count"] for row in rows))


def test_a_sample_of_bytes() -> None:
    """Would catch pages and frames whose damage is read as if nothing was."""
    assert check(lanes.run("flips", "--stride", "2003", "--seed", "5")) > 100


@pytest.mark.slow
def test_every_byte() -> None:
    """Would catch the one byte whose damage nobody notices."""
    assert check(lanes.run("flips")) > 250_000
