"""Who holds what, in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from surefoot.coordination.line import Wanted
from surefoot.coordination.tables import Row

SHOWN = 3
"""So many of those before one are named."""


def busy(wanted: Wanted, ahead: Sequence[Row], waited_s: float) -> str:
    """Say why something is not to be had."""
    held = [row for row in ahead if row.is_held]
    named = "; ".join(f"{row.resource} by {row.holder} since {moment(row.granted_at_ms)}" for row in held[:SHOWN])
    more = f" and {len(held) - SHOWN} more" if len(held) > SHOWN else ""
    waiting = len({row.number for row in ahead if not row.is_held})
    line = f"{waiting} wait{'s' if waiting == 1 else ''} before this" if waiting else ""
    facts = ", ".join(part for part in (f"held: {named}{more}" if held else "", line) if part)
    return f"{wanted.words} was not free within {waited_s:.1f} s; {facts}"


def moment(ms: int | None) -> str:
    """Return a wall-clock time in words."""
    return "-" if ms is None else datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
