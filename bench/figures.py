"""Arithmetic on figures: percentiles, medians over repeats, ratios. Pure functions, no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: the smallest value that at least `percent` per cent of the values reach.

    Args:
        values: At least one value, in any order.
        percent: Above 0, up to 100.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median_of(repeats: Sequence[Any]) -> Any:
    """Return one set of figures from several of the same shape: every number is the median of those in its place.

    Args:
        repeats: At least one; dictionaries and lists of dictionaries, lists, numbers and anything else, of which the
            first is taken.
    """
    first = repeats[0]
    if isinstance(first, Mapping):
        return {name: median_of([repeat[name] for repeat in repeats]) for name in first}
    if isinstance(first, list):
        return [median_of(values) for values in zip(*repeats, strict=True)]
    return median(repeats) if isinstance(first, int | float) else first


def bytes_per_step(store_bytes: float, empty_bytes: float, steps_stored: float) -> float:
    """Return the bytes one step costs on disk, without what an empty store of that system has anyway."""
    return (store_bytes - empty_bytes) / steps_stored


def ratio(figure: float, reference: float) -> float | None:
    """Return figure / reference; None where the reference is not positive."""
    return figure / reference if reference > 0 else None
