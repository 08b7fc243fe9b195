"""Standing in line, being granted, giving back: what becomes of leases within one transaction.

What holds: a resource is granted to as many as have places, and never to one whose turn it isn't; whoever is not alive any
more (see `owners`) is taken out of the line by the next one that looks, in the transaction that relies on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from surefoot.coordination import tables
from surefoot.coordination.owners import Owners
from surefoot.coordination.rules import InLine, before, is_turn
from surefoot.coordination.tables import Owner, Row
from surefoot.store import Tx
from surefoot.store.connection import Connection

Call: TypeAlias = Callable[[Tx, int], object]
"""Tells whoever waits under a number that its turn has come, in the transaction that makes it so."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.

    Attributes:
        kind: "lease", "election" or "semaphore": names of one kind say nothing of another's.
        resources: Its names, in canonical order.
        places: How many may hold it at once.
        ttl_ms: How long a stopped holder keeps it.
    """

    kind: str
    resources: tuple[str, ...]
    places: int = 1
    ttl_ms: int = 10_000

    @property
    def words(self) -> str:
        """How people call it."""
        names = ", ".join(self.resources)
        return names if self.kind == "lease" else f"{self.kind} {names}"


@dataclass(frozen=True, slots=True)
class Granted:
    """It is the owner's.

    Attributes:
        number: The ask.
        token: Higher than that of any earlier holder of these resources.
    """

    number: int
    token: int


@dataclass(frozen=True, slots=True)
class Standing:
    """It is not its turn.

    Attributes:
        number: Its place in the line.
        ahead: Who is before it.
    """

    number: int
    ahead: tuple[Row, ...]


def take(
    tx: Tx, owners: Owners, wanted: Wanted, owner: Owner, number: int | None, call: Call, *, boot_ms: int,
    until_boot_ms: int | None
) -> Granted | Standing:  # fmt: skip
    """Grant what is wanted if it is the asker's turn, or let it stand in line.

    Args:
        tx: The transaction.
        owners: Tells who lives.
        wanted: What.
        owner: For whom.
        number: Its place in the line; None when it has just come, or was taken for gone.
        call: Tells those whose turn comes because others are found to be gone.
        boot_ms: Boot time before it was asked for.
        until_boot_ms: Boot time when it gives up; None for never, or where its run knows.
    """
    for resource in wanted.resources:
        _clear(tx, owners, wanted.kind, resource, number, call)
    ahead = _ahead(tx.connection, wanted, number)
    if ahead:
        if number is None:
            number = tables.draw(tx)
            _insert(tx, wanted, owner, number=number, token=0, boot_ms=boot_ms, until_boot_ms=until_boot_ms)
        else:
            tables.call(tx, number, is_called=False)
        return Standing(number, tuple(ahead))
    token = tables.draw(tx)
    if number is None:
        number = token
        _insert(tx, wanted, owner, number=number, token=token, boot_ms=boot_ms, until_boot_ms=None)
    else:
        tables.grant(tx, number, token, boot_ms)
    return Granted(number, token)


def _insert(
    tx: Tx, wanted: Wanted, owner: Owner, *, number: int, token: int, boot_ms: int, until_boot_ms: int | None
) -> None:
    for resource in wanted.resources:
        tables.insert(tx, owner, wanted.kind, resource, number=number, places=wanted.places, token=token,
                      ttl_ms=wanted.ttl_ms, boot_ms=boot_ms, until_boot_ms=until_boot_ms)  # fmt: skip


def _clear(tx: Tx, owners: Owners, kind: str, resource: str, number: int | None, call: Call) -> None:
    """Take those who are gone out of a line, and out of all others that they stand in; whoever asks is not gone, whatever
    a clock says."""
    line = tables.at(tx.connection, kind, resource)
    gone = {row.number for row in line if row.number != number and _is_gone(tx, owners, row)}
    give_back(tx, owners, [row for one in sorted(gone) for row in tables.of_number(tx.connection, one)], call)


def _ahead(connection: Connection, wanted: Wanted, number: int | None) -> list[Row]:
    """Return who is before an ask at the resources whose turn it isn't."""
    found: list[Row] = []
    for resource in wanted.resources:
        line = tables.at(connection, wanted.kind, resource)
        standing = [_in_line(row) for row in line]
        if not is_turn(standing, number, wanted.places):
            numbers = {one.number for one in before(standing, number)}
            found += [row for row in line if row.number in numbers]
    return found


def _in_line(row: Row) -> InLine:
    return InLine(row.number, row.is_held)


def _living(owners: Owners, connection: Connection, kind: str, resource: str) -> list[Row]:
    return [row for row in tables.at(connection, kind, resource) if owners.is_alive(connection, row)]


class Outlook(Enum):
    """What one that waits may expect."""

    NOW = "now"
    """It is its turn, or it has been taken for gone: it is worth asking again."""
    NEXT = "next"
    """Only holders are before it."""
    LATER = "later"
    """Others that wait are before it."""


def outlook(owners: Owners, wanted: Wanted, number: int, connection: Connection) -> Outlook:
    """Return what the one of that number may expect; changes nothing."""
    if not tables.of_number(connection, number):
        return Outlook.NOW
    lines = [
        [_in_line(row) for row in _living(owners, connection, wanted.kind, resource)] for resource in wanted.resources
    ]
    if all(is_turn(line, number, wanted.places) for line in lines):
        return Outlook.NOW
    is_next = all(one.is_holding for line in lines for one in before(line, number))
    return Outlook.NEXT if is_next else Outlook.LATER


def give_back(tx: Tx, owners: Owners, rows: Sequence[Row], call: Call) -> None:
    """Take rows out of their lines, and call those whose turn that makes it."""
    for row in rows:
        tables.delete(tx, row.id)
    for kind, resource in dict.fromkeys((row.kind, row.resource) for row in rows):
        _call_next(tx, owners, kind, resource, call)


def _call_next(tx: Tx, owners: Owners, kind: str, resource: str, call: Call) -> None:
    """Call whoever's turn it is at a resource and, for what it asks together, everywhere else."""
    for row in _living(owners, tx.connection, kind, resource):
        if row.is_held or row.is_called:
            continue
        if not all(_is_turn(tx, owners, one) for one in tables.of_number(tx.connection, row.number)):
            return  # whoever stands behind it must wait, too
        tables.call(tx, row.number, is_called=True)
        call(tx, row.number)


def _is_turn(tx: Tx, owners: Owners, row: Row) -> bool:
    line = _living(owners, tx.connection, row.kind, row.resource)
    return is_turn([_in_line(one) for one in line], row.number, row.places)


def act_for(tx: Tx, rows: list[Row], session: int, epoch: int) -> int:
    """Draw a new token for what an owner holds, because another acts for it from now on; return it."""
    token = tables.draw(tx)
    for row in rows:
        tables.act_for(tx, row, token, session, epoch)
    return token


def kept(tx: Tx, owners: Owners, wanted: Wanted, owner: Owner, call: Call) -> Granted | None:
    """Return what a run has kept of what it wants, under a new token for its new owner; give back what else it has kept: it
    has decided on something else.

    Args:
        tx: The transaction.
        owners: Tells who lives.
        wanted: What.
        owner: For whom: an effect or a step of the run.
        call: Tells those whose turn comes.
    """
    if owner.run is None:
        return None
    rows = tables.kept(tx.connection, owner.run)
    mine = [row for row in rows if row.kind == wanted.kind and owners.is_alive(tx.connection, row)]
    numbers = {row.number for row in mine if row.resource in wanted.resources}
    mine = [row for row in mine if row.number in numbers]
    is_it = len(numbers) == 1 and {row.resource for row in mine} == set(wanted.resources)
    give_back(tx, owners, [row for row in rows if not is_it or row not in mine], call)
    if not is_it:
        return None
    granted = Granted(mine[0].number, tables.draw(tx))
    tables.pass_on(tx, granted.number, granted.token, owner)
    return granted


def sweep(tx: Tx, owners: Owners, seen: Sequence[Row], call: Call) -> int:
    """Take out those of these asks whose owners are gone, and call who comes next; return how many rows were taken out."""
    asks = [tables.of_number(tx.connection, number) for number in dict.fromkeys(row.number for row in seen)]
    gone = [row for rows in asks if any(_is_gone(tx, owners, row) for row in rows) for row in rows]
    give_back(tx, owners, gone, call)
    return len(gone)


def _is_gone(tx: Tx, owners: Owners, row: Row) -> bool:
    return not owners.is_alive(tx.connection, row)
