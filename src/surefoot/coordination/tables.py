"""The tables of leases, and their SQL.

`leases`: one row for each resource that somebody holds (it has a token) or waits for (its token is 0), deleted when it is
given back. A row is owned by an effect, until that has an outcome; or by a run, until it gives it back or ends; or else by
a session, as long as that lives. `lease_numbers`: one row, the number drawn last, for the order of asking and for tokens;
so a resource needs no row for ever, and still each of its holders has a higher token than the one before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, cast

from surefoot.store import Migration, Tx
from surefoot.store.connection import Connection

LEASES = Migration(
    "coordination",
    1,
    "leases",
    """CREATE TABLE leases (
        id INTEGER PRIMARY KEY,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        resource TEXT NOT NULL,
        places INTEGER NOT NULL,
        token INTEGER NOT NULL,
        session INTEGER NOT NULL,
        run INTEGER,
        epoch INTEGER NOT NULL,
        step TEXT NOT NULL,
        effect BLOB,
        holder TEXT NOT NULL,
        ttl_ms INTEGER NOT NULL,
        boot_ms INTEGER NOT NULL,
        asked_at_ms INTEGER NOT NULL,
        granted_at_ms INTEGER,
        until_boot_ms INTEGER,
        is_called INTEGER NOT NULL DEFAULT 0);
    CREATE INDEX leases_resource ON leases (kind, resource, number);
    CREATE INDEX leases_number ON leases (number);
    CREATE INDEX leases_run ON leases (run, step) WHERE run IS NOT NULL;
    CREATE INDEX leases_effect ON leases (effect) WHERE effect IS NOT NULL;
    CREATE TABLE lease_numbers (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL);
    INSERT INTO lease_numbers VALUES (1, 0)""",
)

_COLUMNS = (
    "id, number, kind, resource, places, token, session, run, epoch, step, effect, holder, ttl_ms, boot_ms, asked_at_ms,"
    " granted_at_ms, until_boot_ms, is_called"
)
_SELECT = f"SELECT {_COLUMNS} FROM leases"

STEP_BYTES_MAX = 2_600
"""Longest step that a row has as it is: an entry of an index of PostgreSQL has 2704 bytes."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who asks, and until when what it gets is its own.

    Attributes:
        session: The session that acts for it.
        holder: Who that is, for people.
        run: The run that owns it, or that the effect belongs to; None outside runs.
        epoch: That run's epoch.
        step: The step of the run that asks; its row has a long one by its digest.
        effect: Digest of the effect's identity, if an effect owns it.
    """

    session: int
    holder: str
    run: int | None = None
    epoch: int = 0
    step: str = ""
    effect: bytes | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One that holds a resource, or waits for it.

    Attributes:
        number: Its place in the line; one ask has the same at all its resources.
        places: How many may hold the resource at once, as it says.
        token: Drawn when it was granted, and anew when another acts for its owner; 0 while it waits.
        boot_ms: Boot time when it was granted, from before it was asked for.
        until_boot_ms: Boot time when whoever waits in memory gives up; None for never, and for runs, which know it. Of what
            is held: until when a run keeps it, or, owned by an effect, may keep it.
        is_called: A parked run was told that its turn has come.
    """

    id: int
    number: int
    kind: str
    resource: str
    places: int
    token: int
    session: int
    run: int | None
    epoch: int
    step: str
    effect: bytes | None
    holder: str
    ttl_ms: int
    boot_ms: int
    asked_at_ms: int
    granted_at_ms: int | None
    until_boot_ms: int | None
    is_called: int

    @property
    def is_held(self) -> bool:
        """Whether it was granted."""
        return self.token > 0


def _kept_step(step: str) -> str:
    written = step.encode()
    return step if len(written) <= STEP_BYTES_MAX else hashlib.blake2b(written, digest_size=16).hexdigest()


def draw(tx: Tx) -> int:
    """Return the next number."""
    tx.execute("UPDATE lease_numbers SET number = number + 1")
    found = tx.row("SELECT number FROM lease_numbers")
    assert found is not None, "the migration wrote it"
    return cast(int, found[0])


def insert(
    tx: Tx, owner: Owner, kind: str, resource: str, *, number: int, places: int, token: int, ttl_ms: int, boot_ms: int,
    until_boot_ms: int | None
) -> None:  # fmt: skip
    """Write one that holds (with a token) or waits (0)."""
    tx.execute(
        "INSERT INTO leases (number, kind, resource, places, token, session, run, epoch, step, effect, holder, ttl_ms,"
        " boot_ms, asked_at_ms, granted_at_ms, until_boot_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (number, kind, resource, places, token, owner.session, owner.run, owner.epoch, _kept_step(owner.step),
         owner.effect, owner.holder, ttl_ms, boot_ms, tx.now_ms, tx.now_ms if token else None, until_boot_ms),
    )  # fmt: skip


def at(connection: Connection, kind: str, resource: str) -> list[Row]:
    """Return all that hold a resource or wait for it, in the order of asking."""
    return _rows(connection, f"{_SELECT} WHERE kind = ? AND resource = ? ORDER BY number", (kind, resource))


def of_number(connection: Connection, number: int) -> list[Row]:
    """Return the rows of one ask, in canonical order."""
    return _rows(connection, f"{_SELECT} WHERE number = ? ORDER BY id", (number,))


def of_step(connection: Connection, run: int, step: str) -> list[Row]:
    """Return what a run has asked for in a step of its own."""
    sql = f"{_SELECT} WHERE run = ? AND step IN (?, ?) AND effect IS NULL ORDER BY id"
    return _rows(connection, sql, (run, step, _kept_step(step)))  # whole: written before long ones had digests


def of_effect(connection: Connection, effect: bytes) -> list[Row]:
    """Return what an effect holds or waits for."""
    return _rows(connection, f"{_SELECT} WHERE effect = ? ORDER BY id", (effect,))


def kept(connection: Connection, run: int) -> list[Row]:
    """Return what a run keeps of effects that it decides anew."""
    return _rows(
        connection,
        f"{_SELECT} WHERE run = ? AND effect IS NULL AND token > 0 AND until_boot_ms IS NOT NULL ORDER BY id",
        (run,),
    )


def everything(connection: Connection, *, after: int = 0, limit: int = 1_000) -> list[Row]:
    """Return rows in the order of their ids, from above one on."""
    return _rows(connection, f"{_SELECT} WHERE id > ? ORDER BY id LIMIT ?", (after, limit))


def listed(connection: Connection, *, resource: str | None, limit: int) -> list[Row]:
    """Return rows in the order of kinds and names; of each resource those that hold it first."""
    where, bindings = ("", ()) if resource is None else (" WHERE resource = ?", (resource,))
    order = "ORDER BY kind, resource, CASE WHEN token > 0 THEN 0 ELSE 1 END, number LIMIT ?"
    return _rows(connection, f"{_SELECT}{where} {order}", (*bindings, limit))


def grant(tx: Tx, number: int, token: int, boot_ms: int) -> None:
    """Write that an ask which waited has been granted."""
    tx.execute(
        "UPDATE leases SET token = ?, boot_ms = ?, granted_at_ms = ?, until_boot_ms = NULL WHERE number = ?",
        (token, boot_ms, tx.now_ms, number),
    )


def act_for(tx: Tx, row: Row, token: int, session: int, epoch: int) -> None:
    """Write that another acts for a row's owner from now on, under a token of its own."""
    tx.execute("UPDATE leases SET token = ?, session = ?, epoch = ? WHERE id = ?", (token, session, epoch, row.id))


def keep(tx: Tx, number: int, until_boot_ms: int) -> None:
    """Write that what an effect held is its run's, until then."""
    tx.execute("UPDATE leases SET effect = NULL, until_boot_ms = ? WHERE number = ?", (until_boot_ms, number))


def pass_on(tx: Tx, number: int, token: int, owner: Owner) -> None:
    """Write that what a run kept is owned by its next effect, which may keep it no longer than that; or by a step."""
    bound = "" if owner.effect is not None else ", until_boot_ms = NULL"
    tx.execute(
        f"UPDATE leases SET token = ?, session = ?, epoch = ?, step = ?, effect = ?, holder = ?{bound} WHERE number = ?",
        (token, owner.session, owner.epoch, _kept_step(owner.step), owner.effect, owner.holder, number),
    )


def call(tx: Tx, number: int, *, is_called: bool) -> None:
    """Note whether a parked run was told that its turn has come."""
    tx.execute("UPDATE leases SET is_called = ? WHERE number = ?", (int(is_called), number))


def delete(tx: Tx, row: int) -> None:
    """Take a row out of its line."""
    tx.execute("DELETE FROM leases WHERE id = ?", (row,))


def is_held(connection: Connection, number: int, token: int) -> bool:
    """Whether an ask still has what it was granted under a token."""
    found = connection.execute("SELECT 1 FROM leases WHERE number = ? AND token = ? LIMIT 1", (number, token))
    return bool(found.fetchall())


def _rows(connection: Connection, sql: str, bindings: tuple[Any, ...]) -> list[Row]:
    return [Row(*values) for values in connection.execute(sql, bindings).fetchall()]
