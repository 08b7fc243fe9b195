"""What an examination of a store can find, as data: findings, and invariants as queries. Pure.

Each room lists its own invariants beside its tables; nothing here knows what they are about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import apsw

SHOWN = 5
"""How many rows that break an invariant are named; the rest is counted."""


class Severity(Enum):
    """How bad a finding is."""

    ERROR = "error"
    """Something is damaged, or will go wrong."""
    WARNING = "warning"
    """Somebody should look."""
    NOTE = "note"
    """Good to know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: How bad it is.
        words: What it is, with the values.
        next: What to do about it: the words of a `surefoot` command after `surefoot`, or, as one element, a sentence.
    """

    severity: Severity
    words: str
    next: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something that always holds of the tables.

    Attributes:
        holds: What always holds, as a sentence.
        broken_by: A query for what breaks it; its first column names the row.
        severity: How bad it is when it doesn't hold.
        next: See `Finding.next`.
    """

    holds: str
    broken_by: str
    severity: Severity = Severity.ERROR
    next: tuple[str, ...] = ()


def broken(connection: apsw.Connection, invariants: Iterable[Invariant]) -> Iterator[Finding]:
    """Yield what breaks any of the invariants."""
    for one in invariants:
        rows = connection.execute(one.broken_by).fetchall()
        if rows:
            yield Finding(one.severity, f"{one.holds}: {_named(rows)} not so", one.next)


def _named(rows: Sequence[tuple[object, ...]]) -> str:
    names = ", ".join(str(row[0]) for row in rows[:SHOWN])
    more = f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
    return f"{names}{more} {'is' if len(rows) == 1 else 'are'}"
