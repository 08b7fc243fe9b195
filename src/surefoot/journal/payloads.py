"""Values that the history of another engine only refers to: what is too large to lie in it.

What holds: a value is known by its digest and kept once per run; it goes when retention takes the run's values. Under a
codec it lies sealed, like any value.
"""

from __future__ import annotations

from surefoot.journal.sealing import opened, sealed
from surefoot.store.codec import codec_of
from surefoot.store.connection import Connection
from surefoot.store.migrations import Migration
from surefoot.store.tx import Tx

MIGRATIONS = (
    Migration(
        "payloads",
        1,
        "payloads of other engines' histories",
        """CREATE TABLE payloads (
            id INTEGER PRIMARY KEY,
            digest BLOB NOT NULL,
            run_id TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            body BLOB NOT NULL);
        CREATE UNIQUE INDEX payloads_run ON payloads (run_id, digest);
        CREATE INDEX payloads_digest ON payloads (digest)""",
    ),
)


def of_payload(digest: bytes) -> bytes:
    """Return the place of a payload."""
    return b"payload:%s" % digest.hex().encode()


def keep_payload(tx: Tx, run_id: str, digest: bytes, body: bytes) -> None:
    """Keep a value for a run; it may be there already."""
    tx.execute(
        "INSERT INTO payloads (digest, run_id, at_ms, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (digest, run_id, tx.now_ms, sealed(tx.codec, body, of_payload(digest))),
    )


def load_payload(connection: Connection, digest: bytes) -> bytes | None:
    """Return a value, for whichever run it was kept; None if it is not there."""
    row = next(connection.execute("SELECT body FROM payloads WHERE digest = ? LIMIT 1", (digest,)), None)
    return None if row is None else opened(codec_of(connection), bytes(row[0]), of_payload(digest))


def seal_payload_anew(tx: Tx, row: int) -> None:
    """Write a value anew under the current key."""
    digest, stored = tx.row("SELECT digest, body FROM payloads WHERE id = ?", (row,)) or (b"", b"")
    place = of_payload(bytes(digest))
    body = sealed(tx.codec, opened(tx.codec, bytes(stored), place), place)
    tx.execute("UPDATE payloads SET body = ? WHERE id = ?", (body, row))


def delete_payloads(tx: Tx, run_id: str) -> None:
    """Delete the values of a run that has ended."""
    tx.execute("DELETE FROM payloads WHERE run_id = ?", (run_id,))
