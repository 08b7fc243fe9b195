"""What retention does to a settled effect: its key, its outcome and a digest of the value stay, arguments and value go.

What holds: a key that was done stays done for ever. The claim's record keeps who, when and under which key; the outcome's
record keeps that and when it happened; what a person has decided stays in the evidence.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec.structs import replace

from surefoot.effects.rows import ledger
from surefoot.effects.rows.ledger import Row
from surefoot.journal.records import Head, encode_head
from surefoot.journal.tables import load_record, rewrite_record
from surefoot.store import Tx

KEPT_EVIDENCE = ("resolved as done", "resolved as not_done", "contradiction closed", "escalated")
"""Evidence that names a decision of a person, or that one was asked for. All other tells how the outcome was found."""


def detach(tx: Tx, record: int) -> None:
    """Take a record out of its run, because the ledger still needs it when the run's other records are deleted."""
    tx.execute("UPDATE journal SET run = NULL, seq = 0 WHERE id = ?", (record,))


def forget_call(tx: Tx, record: int) -> None:
    """Delete the arguments in a record whose body is a call: a claim, or what a person was asked."""
    body = load_record(tx.connection, record).body
    if body is not None:
        call = replace(ledger.decode_call(body), arguments=msgspec.Raw(b"null"), forgotten_at_ms=tx.now_ms)
        rewrite_record(tx, record, None, ledger.encode_call(call))


def forget(tx: Tx, row: Row) -> None:
    """Delete an effect's arguments, value and evidence."""
    outcome = load_record(tx.connection, row.record)
    forget_call(tx, row.claim)
    head = Head(
        state=outcome.head.state,
        forgotten_at_ms=tx.now_ms,
        # Under a codec no digest either: it would tell whoever guesses the value.
        detail={"digest": digest_of(outcome.body)} if outcome.body is not None and tx.codec is None else None,
    )
    rewrite_record(tx, row.record, encode_head(head), None)
    marks = ", ".join("?" * len(KEPT_EVIDENCE))
    tx.execute(
        f"DELETE FROM evidence WHERE effect = ? AND is_open = 0 AND kind NOT IN ({marks})", (row.id, *KEPT_EVIDENCE)
    )


def digest_of(body: bytes) -> str:
    """Return what is kept of a value: enough to tell whether another copy of it is the same."""
    return hashlib.blake2b(body, digest_size=16).hexdigest()
