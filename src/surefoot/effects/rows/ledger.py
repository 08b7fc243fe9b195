"""The ledger: one row per effect identity and generation, written before the act and settled once.

`ledger` rows are small and of fixed size; what was called and what came of it are journal records the row points to.
`evidence` tells, in order, all that was learned of an effect beside its first outcome: takeovers, questions, late
answers, who resolved it and why. A row of evidence with `is_open` is a contradiction nobody has closed yet.
"""

from __future__ import annotations

from typing import Any

import msgspec

from surefoot.effects.doubt import ESCALATE_AFTER_MS
from surefoot.effects.states import ENDS_GENERATION, OPEN, State
from surefoot.journal import Record, load_record
from surefoot.journal.sealing import of_evidence, sealed
from surefoot.problem import SurefootError
from surefoot.store import Migration, Put, Tx
from surefoot.store.connection import Connection

MIGRATIONS = (
    Migration(
        "effects",
        1,
        "ledger and evidence",
        """CREATE TABLE ledger (
            id INTEGER PRIMARY KEY,
            digest BLOB NOT NULL,
            generation INTEGER NOT NULL,
            state INTEGER NOT NULL,
            token INTEGER NOT NULL,
            holder INTEGER NOT NULL,
            sender INTEGER NOT NULL,
            run INTEGER,
            fingerprint BLOB NOT NULL,
            claim INTEGER NOT NULL,
            record INTEGER NOT NULL,
            sent_boot_ms INTEGER NOT NULL);
        CREATE UNIQUE INDEX ledger_identity ON ledger (digest, generation);
        CREATE INDEX ledger_open ON ledger (state, run) WHERE state <= 3;
        CREATE TABLE evidence (
            id INTEGER PRIMARY KEY,
            effect INTEGER NOT NULL,
            at_ms INTEGER NOT NULL,
            kind TEXT NOT NULL,
            who TEXT NOT NULL,
            is_open INTEGER NOT NULL DEFAULT 0,
            body BLOB);
        CREATE INDEX evidence_effect ON evidence (effect);
        CREATE INDEX evidence_open ON evidence (id) WHERE is_open = 1""",
    ),
)

READABLE = frozenset({"resend", "probe", "read back", "escalated", "telling of it", "told"})
"""Evidence that a codec doesn't cover: numbers of sessions and tokens, which queries look for."""

SENDS_MAX = 5
"""Sends of one effect within one process, probes in between; then it is parked for later."""

_SELECT = (
    "SELECT id, digest, generation, state, token, holder, sender, run, fingerprint, claim, record, sent_boot_ms"
    " FROM ledger"
)
_CLAIM = Put(
    "INSERT INTO ledger (id, digest, generation, state, token, holder, sender, run, fingerprint, claim, record,"
    " sent_boot_ms) VALUES",
    12,
    "ON CONFLICT DO NOTHING",
)
_SETTLE = Put(
    "WITH settled (state, record, id, token) AS (VALUES",
    4,
    ") UPDATE ledger SET state = settled.state, record = settled.record FROM settled"
    " WHERE ledger.id = settled.id AND ledger.token = settled.token AND ledger.state IN (2, 3)",
    one="UPDATE ledger SET state = ?, record = ? WHERE id = ? AND token = ? AND state IN (2, 3)",
)
_encode = msgspec.json.Encoder().encode


class Call(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The body of a claim record: everything needed to send the same bytes again.

    Attributes:
        effect: The effect's name.
        doubt: The name of its class.
        key: Its key.
        scope: Where the key is unique.
        arguments: The arguments, as JSON.
        generation: Which generation of the key.
        session: The session that claimed it first.
        boot_ms: Boot time of that claim.
        deadline_ms: Milliseconds after which its doubt is escalated, where only a person can end it.
        since_ms: Wall clock from which it may have been sent, where that is before its claim: the store was restored, and
            forgot what it had claimed; 0 otherwise.
        forgotten_at_ms: When retention took its arguments away; 0 while they are kept.
        returns: The declared type of its value, where not every JSON value fits it; empty otherwise, and in claims
            written before this was noted.
        redact: Parameters whose values are not shown, "return" for the value.
    """

    effect: str
    doubt: str
    key: str
    scope: str
    arguments: msgspec.Raw
    generation: int = 1
    session: int = 0
    boot_ms: int = 0
    deadline_ms: int = ESCALATE_AFTER_MS
    returns: str = ""
    redact: tuple[str, ...] = ()
    since_ms: int = 0
    forgotten_at_ms: int = 0


encode_call = _encode
decode_call = msgspec.json.Decoder(Call).decode


class Row(msgspec.Struct, frozen=True, gc=False):
    """One generation of an effect.

    Attributes:
        token: Counts its claims and takeovers; a write with an older one is refused.
        holder: The session that may act, or that looks into a doubt.
        sender: The session that may have sent it last: whoever looks into a doubt doesn't become it.
        claim: The id of the record of its first claim.
        record: The id of its newest record: the claim, then the outcome.
        sent_boot_ms: Boot time of the last possible send: the claim, or the moment its doubt was noted.
    """

    id: int
    digest: bytes
    generation: int
    state: State
    token: int
    holder: int
    sender: int
    run: int | None
    fingerprint: bytes
    claim: int
    record: int
    sent_boot_ms: int


def find(connection: Connection, digest: bytes, generation: int | None = None) -> Row | None:
    """Return one generation of an effect; the newest for None."""
    if generation is None:
        rows = connection.execute(f"{_SELECT} WHERE digest = ? ORDER BY generation DESC LIMIT 1", (digest,))
    else:
        rows = connection.execute(f"{_SELECT} WHERE digest = ? AND generation = ?", (digest, generation))
    return _row(next(rows, None))


def get(connection: Connection, effect: int) -> Row | None:
    """Return a row by its id."""
    return _row(next(connection.execute(f"{_SELECT} WHERE id = ?", (effect,)), None))


def _row(values: tuple[Any, ...] | None) -> Row | None:
    return None if values is None else Row(*[*values[:3], State(values[3]), *values[4:]])


def is_free(row: Row | None) -> bool:
    """Whether a new generation may be claimed."""
    return row is None or row.state in ENDS_GENERATION


def insert(tx: Tx, row: Row) -> bool:
    """Write the claim of a generation; return whether it is new: if it exists already, nothing is written."""
    return tx.put(_CLAIM, msgspec.structs.astuple(row))


def take_row_id(tx: Tx) -> int:
    """Return the id of the row that this transaction inserts next."""
    return tx.take_id("ledger")


def settle(tx: Tx, effect: int, token: int, state: State, record: int) -> bool:
    """Write an outcome, if the effect is still open under this token; first writer wins."""
    return tx.put(_SETTLE, (int(state), record, effect, token))


def take_over(tx: Tx, row: Row, holder: int, sent_boot_ms: int | None) -> Row | None:
    """Claim an open effect again: the token grows, so that whoever held it can settle no more.

    Args:
        tx: The transaction.
        row: The row as it was read.
        holder: Our session.
        sent_boot_ms: The boot time from which we may send it; None to look into it without sending.

    Returns:
        The row as it is now; None if it has moved since it was read.
    """
    ours = msgspec.structs.replace(row, state=State.CLAIMED, token=row.token + 1, holder=holder)
    if sent_boot_ms is not None:
        ours = msgspec.structs.replace(ours, sender=holder, sent_boot_ms=sent_boot_ms)
    tx.execute(
        "UPDATE ledger SET state = 2, token = ?, holder = ?, sender = ?, sent_boot_ms = ?"
        " WHERE id = ? AND token = ? AND state IN (2, 3)",
        (ours.token, holder, ours.sender, ours.sent_boot_ms, row.id, row.token),
    )
    return ours if tx.connection.changes() == 1 else None


def add_evidence(tx: Tx, effect: int, kind: str, who: str, body: Any = None, *, is_open: bool = False) -> None:
    """Note what was learned."""
    data = None if body is None else _encode(body)
    if kind not in READABLE:
        data = sealed(tx.codec, data, of_evidence(effect, kind))
    tx.execute(
        "INSERT INTO evidence (effect, at_ms, kind, who, is_open, body) VALUES (?, ?, ?, ?, ?, ?)",
        (effect, tx.now_ms, kind, who, int(is_open), data),
    )


def doubt(tx: Tx, row: Row, holder: int, boot_ms: int) -> bool:
    """Note that the outcome of a claim is unknown; whoever holds this token may still settle it.

    Args:
        tx: The transaction.
        row: The row as it was read; it must not have moved since.
        holder: Our session.
        boot_ms: The last moment at which it may have been sent: for our own act its end, for somebody else's claim the
            moment we saw that its holder is gone. A fence counts from here.
    """
    tx.execute(
        "UPDATE ledger SET state = 3, holder = ?, sent_boot_ms = ? WHERE id = ? AND token = ? AND state IN (2, 3)",
        (holder, boot_ms, row.id, row.token),
    )
    return tx.connection.changes() == 1


def compensated(tx: Tx, effect: int) -> None:
    """Note that a done effect was undone: its key may act again, as the next generation."""
    tx.execute("UPDATE ledger SET state = 6 WHERE id = ? AND state = 4", (effect,))


def is_open(row: Row) -> bool:
    """Whether the effect still waits for an outcome."""
    return row.state in OPEN


def call_to_show(claim: Record, effect: int) -> Call:
    """Return what was called, from the record of an effect's claim as people are shown it.

    Where its key is missing, key and arguments are the words that say so; and as nobody knows then what was not to be
    shown, the value is not.
    """
    if not claim.head.sealed:
        return _called(claim, effect)
    return call_unread(claim.head.sealed)


def call_unread(words: str) -> Call:
    """Return what stands for a call whose key is missing, with the words that say so."""
    return Call(
        effect="(encrypted)", doubt="", key=words, scope="", arguments=msgspec.Raw(_encode(words)), redact=("return",)
    )


def call_of(connection: Connection, row: Row) -> Call:
    """Return what was called under a row."""
    return _called(load_record(connection, row.claim), row.id)


def _called(claim: Record, effect: int) -> Call:
    if claim.body is None:
        raise SurefootError(f"effect {effect}: its claim has no body", hint=f"surefoot effects --id {effect}")
    return decode_call(claim.body)
