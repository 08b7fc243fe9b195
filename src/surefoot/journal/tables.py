"""The journal's tables and SQL.

`journal` is an append-only rowid table: rows of many runs interleave in commit order, which is what makes a batch cheap;
`journal_run` finds one run's rows. Values above `BLOB_ABOVE` lie in `blobs`, so that listing a run doesn't read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from surefoot.journal.records import NEXT, NO_HEAD, Record, decode_head, encode_head, kind_of
from surefoot.journal.sealing import MissingKey, of_record, opened, opened_head, sealed, sealed_head, unread_words
from surefoot.journal.values import Value
from surefoot.store.codec import SEALED, Codec, codec_of
from surefoot.store.connection import Connection
from surefoot.store.migrations import Migration
from surefoot.store.tx import Put, Tx

BLOB_ABOVE = 64 * 1024
"""Bytes from which a value is kept beside its record. SQLite reads smaller rows as fast as rows without them."""

MIGRATIONS = (
    Migration(
        "journal",
        1,
        "journal and blobs",
        """CREATE TABLE journal (
            id INTEGER PRIMARY KEY,
            run INTEGER,
            seq INTEGER NOT NULL,
            kind INTEGER NOT NULL,
            step TEXT NOT NULL,
            after INTEGER NOT NULL,
            at_ms INTEGER NOT NULL,
            head BLOB,
            body BLOB,
            blob INTEGER);
        CREATE INDEX journal_run ON journal (run, seq) WHERE run IS NOT NULL;
        CREATE TABLE blobs (id INTEGER PRIMARY KEY, run INTEGER, body BLOB NOT NULL)""",
    ),
)

_RECORD = Put("INSERT INTO journal (id, run, seq, kind, step, after, at_ms, head, body, blob) VALUES", 10)
_NEXT_RECORD = Put(
    "INSERT INTO journal (id, run, seq, kind, step, after, at_ms, head, body, blob) VALUES",
    10,
    one="INSERT INTO journal (id, run, seq, kind, step, after, at_ms, head, body, blob) VALUES"
    " (?, ?, (SELECT coalesce(max(seq), 0) + 1 FROM journal WHERE run = ?), ?, ?, ?, ?, ?, ?, ?)",
    is_single=True,
)
"""Of a run whose records are numbered when they are written (`NEXT`), the run's own row standing in for the number."""

_COLUMNS = "SELECT j.run, seq, kind, step, after, head, coalesce(j.body, b.body), j.id, at_ms FROM journal j"
_JOIN = " LEFT JOIN blobs b ON b.id = j.blob"


def take_record_id(tx: Tx) -> int:
    """Return the id of the record that this transaction inserts next, for rows that refer to it."""
    return tx.take_id("journal")


def next_record_id(tx: Tx) -> int:
    """Return the id that the next record gets: all that are there, or were written before it, have lower ones."""
    return tx.next_id("journal")


def insert_record(tx: Tx, record: Record, record_id: int | None = None, body: Value | None = None) -> int:
    """Write a record and return its row id. The caller has checked, in this transaction, that it may.

    Args:
        tx: The transaction.
        record: What to write.
        record_id: An id from `take_record_id`; None to take one here.
        body: Its value, where that was not known when it was drafted; None for the record's own.
    """
    row_id = tx.take_id("journal") if record_id is None else record_id
    body, head, blob, codec = record.body if body is None else body, record.head, None, tx.codec
    if codec is not None:
        body = sealed(codec, body, of_record(row_id))
        head = sealed_head(codec, head, row_id)
    if body is not None and len(body) > BLOB_ABOVE:
        tx.execute("INSERT INTO blobs (run, body) VALUES (?, ?)", (record.run, body))
        body, blob = None, tx.connection.last_insert_rowid()
    is_numbered = record.seq != NEXT
    tx.put(
        _RECORD if is_numbered else _NEXT_RECORD,
        (row_id, record.run, record.seq if is_numbered else record.run, record.kind, record.step, record.after,
         tx.now_ms, None if head is NO_HEAD else encode_head(head), body, blob),
    )  # fmt: skip
    tx.newest = max(tx.newest, row_id)
    return row_id


def newest_seq(tx: Tx, run: int | None) -> int:
    """Return the number of a run's newest record; 0 for none."""
    found = tx.row("SELECT max(seq) FROM journal WHERE run = ?", (run,))
    return int(found[0] or 0) if found else 0


def load_record(connection: Connection, record_id: int) -> Record:
    """Return one record by its row."""
    row = next(connection.execute(f"{_COLUMNS}{_JOIN} WHERE j.id = ?", (record_id,)))
    return _record(row, codec_of(connection))


def load_to_show(connection: Connection, record_id: int) -> Record:
    """Return one record as people are shown it; see `load_records_to_show`."""
    row = next(connection.execute(f"{_COLUMNS}{_JOIN} WHERE j.id = ?", (record_id,)))
    return _to_show(row, codec_of(connection))


def load_records_to_show(connection: Connection, run: int) -> list[Record]:
    """Return a run's records in order, as people are shown them: one whose key is missing has, in the place of its value
    and its reason, and in `head.sealed`, the words that say which key that is."""
    codec = codec_of(connection)
    rows = connection.execute(f"{_COLUMNS}{_JOIN} WHERE j.run = ? ORDER BY seq", (run,))
    return [_to_show(row, codec) for row in rows]


def _to_show(row: tuple[Any, ...], codec: Codec | None) -> Record:
    try:
        return _record(row, codec)
    except MissingKey as missing:
        run, seq, kind, step, after, stored_head, body, row_id, at_ms = row
        words, head = unread_words(missing), decode_head(stored_head)
        head = replace(head, reason=words if head.sealed else head.reason, sealed=words)
        body = None if body is None else msgspec.json.encode(words)
        return Record(run, seq, kind_of(kind), step, after, head, body, row_id, at_ms)


def load_records(connection: Connection, run: int) -> list[Record]:
    """Return a run's records in order."""
    codec = codec_of(connection)
    rows = connection.execute(f"{_COLUMNS}{_JOIN} WHERE j.run = ? ORDER BY seq", (run,))
    return [_record(row, codec) for row in rows]


def load_records_under(connection: Connection, run: int, path: str) -> list[Record]:
    """Return the records of a run's step and of the steps under it, in order."""
    where = "j.run = ? AND (step = ? OR substr(step, 1, CAST(? AS INTEGER)) = ?) ORDER BY seq"
    below = f"{path}/"
    rows = connection.execute(f"{_COLUMNS}{_JOIN} WHERE {where}", (run, path, len(below), below))
    codec = codec_of(connection)
    return [_record(row, codec) for row in rows]


def load_records_of(connection: Connection, runs: Sequence[int]) -> dict[int, list[Record]]:
    """Return the records of many runs, each in order, by one query."""
    found: dict[int, list[Record]] = {run: [] for run in runs}
    marks = ",".join(str(int(run)) for run in runs)
    for record in _records(connection, f"{_COLUMNS}{_JOIN} WHERE j.run IN ({marks}) ORDER BY j.run, seq"):
        found[record.run or 0].append(record)
    return found


def _records(connection: Connection, sql: str) -> Iterator[Record]:
    codec = codec_of(connection)
    return (_record(row, codec) for row in connection.execute(sql))


def _record(row: tuple[Any, ...], codec: Codec | None) -> Record:
    run, seq, kind, step, after, stored_head, body, row_id, at_ms = row
    head = decode_head(stored_head)
    if head.sealed:
        head = opened_head(codec, head, row_id)
    if body is not None and body[0] == SEALED:
        body = opened(codec, body, of_record(row_id))
    return Record(run, seq, kind_of(kind), step, after, head, body, row_id, at_ms)


def rewrite_record(tx: Tx, record: int, head: bytes | None, body: bytes | None) -> None:
    """Take a record's value away; the only change a record ever sees, made by retention.

    Args:
        tx: The transaction.
        record: Its row.
        head: What its head is from now on; None to leave it.
        body: What is left of its value.
    """
    tx.execute("DELETE FROM blobs WHERE id = (SELECT blob FROM journal WHERE id = ?)", (record,))
    body = sealed(tx.codec, body, of_record(record))
    tx.execute("UPDATE journal SET head = coalesce(?, head), body = ?, blob = NULL WHERE id = ?", (head, body, record))


def delete_records(tx: Tx, run: int, kept: int, limit: int) -> int:
    """Delete records of a run, all but one, the oldest first; return how many were deleted.

    The newest record of the journal is never deleted: its number must not be given out again.
    """
    rows = tx.execute(
        "SELECT id FROM journal WHERE run = ? AND id != ? AND id < (SELECT max(id) FROM journal) ORDER BY seq LIMIT ?",
        (run, kept, limit),
    ).fetchall()
    marks = ",".join(str(int(str(row[0]))) for row in rows)
    tx.execute(f"DELETE FROM blobs WHERE id IN (SELECT blob FROM journal WHERE id IN ({marks}))")
    tx.execute(f"DELETE FROM journal WHERE id IN ({marks})")
    return len(rows)
