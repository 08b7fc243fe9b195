"""The trail: every decision of a person, in order, each entry sealed with the digest of the one before it.

What holds: an entry is written in the transaction of the decision it tells of, so neither is there without the other; the
rules are asked in the same transaction; an entry that was changed, taken out or put in breaks the chain of digests, and a
cut end is missed by its number. Whoever can write the file can also write the whole chain anew: against that only a digest
helps that was noted elsewhere (`surefoot audit --verify --head DIGEST`).

Source: hash chains of Haber and Stornetta 1991; Schneier and Kelsey 1999, secure audit logs.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from surefoot.journal.texts import without_surrogates
from surefoot.people.roles import PROGRAM, NotAllowed, People, Proven, from_json, refusal
from surefoot.store import Tx
from surefoot.store.connection import Connection
from surefoot.store.highest import highest, keep_highest

RULES = "people"
"""The act by which an app has set other rules."""

_START = b"surefoot trail 1"
_COLUMNS = "id, at_ms, act, who, target, call, reason, host, pid"


class Deed(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decides.

    Attributes:
        act: What; see `roles.ACTS`.
        who: The person.
        target: What about: "approval 7", "effect 3", "run ticket-991".
        reason: Why, or how they know.
        call: A digest of what exactly it was about, where there is one.
        needed: Roles or names of which one is needed besides what the rules say of the act.
    """

    act: str
    who: str
    target: str
    reason: str = ""
    call: bytes = b""
    needed: tuple[str, ...] = ()


class Entry(msgspec.Struct, frozen=True):
    """One decision, as the trail has it."""

    id: int
    at_ms: int
    act: str
    who: str
    target: str
    call: bytes
    reason: str
    host: str
    pid: int
    digest: bytes


def record(tx: Tx, deed: Deed) -> None:
    """Note a decision, in the transaction that carries it out, if the rules allow it.

    Raises:
        NotAllowed: They don't. The caller must let it through, so that nothing is written.
    """
    problem = refusal(rules(tx.connection), deed.act, deed.who, deed.needed)
    if problem is not None:
        raise problem
    _append(tx, deed)


def _append(tx: Tx, deed: Deed) -> None:
    host, pid = socket.gethostname(), os.getpid()
    who, target, reason = _writable(deed.who), _writable(deed.target), _writable(deed.reason)
    last = tx.row("SELECT digest FROM trail ORDER BY id DESC LIMIT 1")
    number = highest(tx.connection, "trail") + 1
    fields = (number, tx.now_ms, deed.act, who, target, deed.call, reason, host, pid)
    tx.execute(
        "INSERT INTO trail (id, at_ms, act, who, target, call, reason, host, pid, digest)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*fields, _digest(_START if last is None else last[0], fields)),
    )
    keep_highest(tx, "trail", number)


def _writable(text: str) -> str:
    """Return text without the half characters that a terminal's odd bytes become, and without NUL, which PostgreSQL would
    keep as something else than what was sealed."""
    return without_surrogates(text).replace("\0", "\\x00")


def _digest(before: bytes, fields: Sequence[Any]) -> bytes:
    """Return the seal of an entry: of its fields, and of the seal before it."""
    flat = [one.hex() if isinstance(one, bytes) else one for one in fields]
    return hashlib.blake2b(before + msgspec.json.encode(flat), digest_size=32).digest()


def rules(connection: Connection) -> People | None:
    """Return who may do what in this store; None where nothing was said."""
    found = [row[0] for row in connection.execute("SELECT body FROM people")]
    return None if not found else from_json(found[0] if isinstance(found[0], bytes) else b"")


async def identify(people: People | None, name: str) -> str:
    """Return the name as the app's hook has proven it; as it was given, where there is none.

    Raises:
        NotAllowed: It proves nothing.
    """
    if people is None or people.authenticate is None or isinstance(name, Proven):
        return name
    proven = people.authenticate(name)
    if inspect.isawaitable(proven):
        proven = await proven
    if not isinstance(proven, str) or not proven.strip() or proven == PROGRAM:
        raise NotAllowed(
            f"nobody was authenticated for {name!r}", hint="the app's authenticate hook must return a name"
        )
    return Proven(proven)


def set_rules(tx: Tx, people: People, who: str) -> None:
    """Keep an app's rules, for whoever opens the store; a change is part of the trail."""
    body = people.to_json()
    there = tx.row("SELECT body FROM people")
    if there is not None and there[0] == body:
        return
    tx.execute(
        "INSERT INTO people (one, body, at_ms, who) VALUES (1, ?, ?, ?)"
        " ON CONFLICT (one) DO UPDATE SET body = excluded.body, at_ms = excluded.at_ms, who = excluded.who",
        (body, tx.now_ms, who),
    )
    digest = hashlib.blake2b(body, digest_size=16).digest()
    _append(tx, Deed(act=RULES, who=who, target="people", reason=body.decode(), call=digest))


def entries(connection: Connection, *, after: int = 0, limit: int = 2**62) -> list[Entry]:
    """Return decisions in order; the newest ones where there are more than `limit`."""
    rows = connection.execute(
        f"SELECT {_COLUMNS}, digest FROM trail WHERE id > ? ORDER BY id DESC LIMIT ?", (after, limit)
    ).fetchall()
    return [Entry(*row) for row in reversed(rows)]


def head(connection: Connection) -> str:
    """Return the newest seal, as hexadecimal digits: it stands for the whole trail."""
    found = connection.execute("SELECT digest FROM trail ORDER BY id DESC LIMIT 1").fetchall()
    return (_bytes(found[0][0]) if found else _START).hex()


def verify(connection: Connection, noted: str | None = None) -> list[str]:
    """Return what is wrong with the trail, in words; nothing where it is whole.

    Args:
        connection: The store.
        noted: A seal that was noted elsewhere, which must be in the trail; None for none.
    """
    return list(_problems(connection, noted))


def _problems(connection: Connection, noted: str | None) -> Iterator[str]:
    before, expected, seals = _START, 1, {_START.hex()}
    for entry in entries(connection):
        if entry.id != expected:
            yield f"entries {expected} to {entry.id - 1} are missing"
        fields = [getattr(entry, name) for name in _COLUMNS.split(", ")]
        if _digest(before, fields) != entry.digest:
            yield f"entry {entry.id} ({entry.act} by {entry.who}) or the one before it is not as it was written"
        before, expected = entry.digest, entry.id + 1
        seals.add(entry.digest.hex())
    written = highest(connection, "trail")
    if written >= expected:
        yield f"entries {expected} to {written} are missing at the end"
    kept = connection.execute("SELECT body FROM people").fetchall()
    told = connection.execute("SELECT reason FROM trail WHERE act = ? ORDER BY id DESC LIMIT 1", (RULES,)).fetchall()
    if [row[0] for row in kept] != [str(row[0]).encode() for row in told]:
        yield "the rules of who may do what are not those that the trail says were set last"
    if noted is not None and noted.lower() not in seals:
        yield f"the seal {noted} that was noted is not in the trail: it was written anew, or is that of another store"


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes), "as the table declares it"
    return value


__all__ = ["Deed", "Entry", "NotAllowed", "entries", "head", "record", "rules", "set_rules", "verify"]
