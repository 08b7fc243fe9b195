"""What the soak's samples say: whether a series stays flat, and the table of the docs. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

WARM_UP = 0.15
"""The part of the samples at the beginning that counts for nothing: caches and pools fill."""

GROWTH_MAX = 0.10
"""By how much a flat series may be higher at its end than at its beginning."""


@dataclass(frozen=True, slots=True)
class Series:
    """One figure over time.

    Attributes:
        name: What was sampled.
        unit: "MB", or "" for plain numbers.
        slack: What may come on top of `GROWTH_MAX`, in its unit: small numbers jump by one.
        values: The samples in order.
    """

    name: str
    unit: str
    slack: float
    values: Sequence[float]

    def _thirds(self) -> tuple[float, float, float]:
        settled = self.values[int(len(self.values) * WARM_UP) :]
        third = max(1, len(settled) // 3)
        return median(settled[:third]), median(settled[-third:]), max(settled)

    @property
    def is_flat(self) -> bool:
        """Whether the last third is no higher than the first, within the bounds."""
        first, last, _ = self._thirds()
        return last <= first * (1 + GROWTH_MAX) + self.slack

    def row(self) -> str:
        """Return its row of the table."""
        first, last, most = self._thirds()
        words = [f"{value:,.1f} {self.unit}".strip() if self.unit else f"{value:,.0f}" for value in (first, last, most)]
        return f"| {self.name} | {' | '.join(words)} | {'flat' if self.is_flat else 'GROWS'} |"


def table(series: Sequence[Series]) -> str:
    """Return the table of all series."""
    head = "| figure | first third | last third | highest | |\n|---|---:|---:|---:|---|"
    return "\n".join([head, *(each.row() for each in series)])
