"""Writing values anew under the current key, so that an older one can be thrown away.

What holds: small transactions beside workers; killed anywhere, the next call goes on; a value that can't be opened stops
it, and is named. Values that were written before there was a codec are sealed too. When it has come to its end, nothing
that was there when it began needs an older key any more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from surefoot.effects.rows.ledger import READABLE
from surefoot.journal import sealing
from surefoot.journal.payloads import seal_payload_anew
from surefoot.journal.records import decode_head, encode_head
from surefoot.journal.tables import load_record
from surefoot.problem import SurefootError
from surefoot.store import Store, Tx
from surefoot.store.codec import Codec
from surefoot.store.connection import Connection
from surefoot.store.pace import politely

ROWS_AT_ONCE = 200
"""Rows looked at by one query, and written by one transaction."""

HEAD_BYTES = 96
"""How much of a stored value is read to see under which key it is."""


class Column(NamedTuple):
    """Where values lie.

    Attributes:
        name: Of the table, for people.
        rows: A query for the next rows above an id: id, the beginning of what is stored, and the head, if it has one.
        anew: Writes one row anew.
    """

    name: str
    rows: str
    anew: Callable[[Tx, Codec, int], None]


def _record(tx: Tx, codec: Codec, row: int) -> None:
    record = load_record(tx.connection, row)
    head = encode_head(sealing.sealed_head(codec, replace(record.head, sealed=""), row))
    body = sealing.sealed(codec, record.body, sealing.of_record(row))
    tx.execute("UPDATE journal SET head = ? WHERE id = ?", (head, row))
    if body is not None:
        tx.execute("UPDATE blobs SET body = ? WHERE id = (SELECT blob FROM journal WHERE id = ?)", (body, row))
        tx.execute("UPDATE journal SET body = ? WHERE id = ? AND blob IS NULL", (body, row))


def _evidence(tx: Tx, codec: Codec, row: int) -> None:
    effect, kind, stored = tx.row("SELECT effect, kind, body FROM evidence WHERE id = ?", (row,)) or (0, "", None)
    place = sealing.of_evidence(effect, kind)
    body = sealing.sealed(codec, sealing.opened(codec, stored, place), place)
    tx.execute("UPDATE evidence SET body = ? WHERE id = ?", (body, row))


def _letter(tx: Tx, codec: Codec, row: int) -> None:
    run, name, stored = tx.row("SELECT run, name, payload FROM inbox WHERE id = ?", (row,)) or (0, "", None)
    place = sealing.of_letter(run, name)
    body = sealing.sealed(codec, sealing.opened(codec, stored, place), place)
    tx.execute("UPDATE inbox SET payload = ? WHERE id = ?", (body, row))


def _reason(tx: Tx, _codec: Codec, row: int) -> None:
    (stored,) = tx.row("SELECT reason FROM runs WHERE id = ?", (row,)) or ("",)
    words = sealing.opened_text(tx.connection, stored, sealing.of_run(row), is_strict=True)
    sealed = sealing.sealed_text(tx.connection, words, sealing.of_run(row))
    tx.execute("UPDATE runs SET reason = ? WHERE id = ?", (sealed, row))


def _document(tx: Tx, codec: Codec, row: int) -> None:
    (stored,) = tx.row("SELECT body FROM documents WHERE id = ?", (row,)) or (None,)
    body = sealing.sealed(codec, sealing.opened(codec, stored, sealing.of_document(row)), sealing.of_document(row))
    tx.execute("UPDATE documents SET body = ? WHERE id = ?", (body, row))


def _payload(tx: Tx, _codec: Codec, row: int) -> None:
    seal_payload_anew(tx, row)


_READABLE = ", ".join(f"'{kind}'" for kind in sorted(READABLE))
COLUMNS = (
    Column(
        "journal",
        f"SELECT j.id, substr(coalesce(j.body, b.body), 1, {HEAD_BYTES}), j.head FROM journal j"
        " LEFT JOIN blobs b ON b.id = j.blob WHERE j.id > ? ORDER BY j.id LIMIT ?",
        _record,
    ),
    Column(
        "evidence",
        f"SELECT id, CASE WHEN kind IN ({_READABLE}) THEN NULL ELSE substr(body, 1, {HEAD_BYTES}) END, NULL FROM evidence"
        " WHERE id > ? ORDER BY id LIMIT ?",
        _evidence,
    ),
    Column(
        "inbox",
        f"SELECT id, substr(payload, 1, {HEAD_BYTES}), NULL FROM inbox WHERE id > ? ORDER BY id LIMIT ?",
        _letter,
    ),
    Column(
        "documents",
        f"SELECT id, substr(body, 1, {HEAD_BYTES}), NULL FROM documents WHERE id > ? ORDER BY id LIMIT ?",
        _document,
    ),
    Column(
        "payloads",
        f"SELECT id, substr(body, 1, {HEAD_BYTES}), NULL FROM payloads WHERE id > ? ORDER BY id LIMIT ?",
        _payload,
    ),
    Column("runs", "SELECT id, reason, NULL FROM runs WHERE id > ? ORDER BY id LIMIT ?", _reason),
)
"""All that a codec covers."""


async def rotate(store: Store, codec: Codec | None, tell: Callable[[int], object] | None = None) -> int:
    """Write all values anew that are not under the current key; return how many rows were written.

    Args:
        store: The store.
        codec: The codec it was opened with.
        tell: Called with how many rows were written so far, now and then; None for nobody.

    Raises:
        SurefootError: There is no codec.
        MissingKey: A value is under a key that the codec doesn't have; it is named.
    """
    if codec is None:
        raise SurefootError("there are no keys to write values under", hint="sf.Encrypted(...), or set SUREFOOT_KEYS")
    written = 0
    for column in COLUMNS:
        after = 0
        while True:
            last, stale = await store.read(partial(_find_stale, column, codec, after))
            if stale:
                await politely(store, partial(_write_anew, column, codec, stale), label="rotate")
                written += len(stale)
                if tell is not None:
                    tell(written)
            if last == after:
                break
            after = last
    return written


def _find_stale(column: Column, codec: Codec, after: int, connection: Connection) -> tuple[int, list[int]]:
    rows = connection.execute(column.rows, (after, ROWS_AT_ONCE)).fetchall()
    stale = [int(str(row[0])) for row in rows if _is_stale(codec, *row[1:])]
    return (int(str(rows[-1][0])) if rows else after), stale


def _is_stale(codec: Codec, stored: bytes | str | None, head: bytes | None) -> bool:
    if isinstance(stored, str):
        is_stale = not sealing.is_text_current(codec, stored)
    else:
        is_stale = stored is not None and not codec.is_current(stored)
    return is_stale or not sealing.is_head_current(codec, decode_head(head))


def _write_anew(column: Column, codec: Codec, rows: list[int], tx: Tx) -> None:
    for row in rows:
        column.anew(tx, codec, row)
