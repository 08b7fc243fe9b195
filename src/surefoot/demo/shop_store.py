"""The shop's database: its orders, its books, its log of calls, and the answers it has given under a key.

Always holds: the books are append-only (the database itself refuses an update or a delete), and a row in them is
committed in one transaction with what the call log and the stored answers say about it. So the books are what really
happened.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw

from surefoot.demo.orders import StockOrder

_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY, customer TEXT NOT NULL, email TEXT NOT NULL, items TEXT NOT NULL,
    amount_cents INTEGER NOT NULL, status TEXT NOT NULL, address TEXT NOT NULL, version INTEGER NOT NULL DEFAULT 1);

-- What really happened, one row per act.
CREATE TABLE IF NOT EXISTS books (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, call INTEGER NOT NULL, kind TEXT NOT NULL, order_id TEXT,
    details TEXT NOT NULL, key TEXT, cents INTEGER);
CREATE TRIGGER IF NOT EXISTS books_keep BEFORE UPDATE ON books BEGIN SELECT RAISE(ABORT, 'books are append-only'); END;
CREATE TRIGGER IF NOT EXISTS books_stay BEFORE DELETE ON books BEGIN SELECT RAISE(ABORT, 'books are append-only'); END;

-- What was asked, what the script did to it, and what the client could see of it.
CREATE TABLE IF NOT EXISTS calls (
    n INTEGER PRIMARY KEY, at REAL NOT NULL, endpoint TEXT NOT NULL, effectful_n INTEGER, fault TEXT NOT NULL,
    key TEXT, body_digest TEXT NOT NULL, worker_pid INTEGER,
    acted INTEGER NOT NULL DEFAULT 0, did TEXT, answered TEXT, answered_at REAL, killed TEXT);

-- First answers by idempotency key.
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, body_digest TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL, at REAL NOT NULL);
"""

_BUSY_MS = 5_000  # a person may be looking into the file with another program


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order as it stands now; `version` counts the writes to it and is its etag."""

    order_id: str
    customer: str
    email: str
    items: str
    amount_cents: int
    status: str
    address: str
    version: int


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The first answer given under an idempotency key, and the digest of the body it answered."""

    body_digest: str
    status: int
    body: str


@dataclass(slots=True)
class Call:
    """One request in the call log.

    Attributes:
        endpoint: e.g. `"POST /refunds"`.
        effectful_n: Its number among all requests to endpoints that act, from 1; None for a read.
        fault: The drawn fault with its figures, as JSON.
        key: What identifies it at its endpoint: idempotency key, client reference or If-Match.
        body_digest: Digest of the body's bytes.
        worker_pid: The process that says it sent this.
        acted: Whether this request changed the world.
        did: What it did, in a word: acted, replayed, read, nothing, or refused with a code.
        answered: A status code, or `cut`, or `left` when the client went first; None while open.
        killed: The moment its sender was killed, if it was.
    """

    at: float
    endpoint: str
    effectful_n: int | None
    fault: str
    key: str | None
    body_digest: str
    worker_pid: int | None
    acted: bool = False
    did: str = "nothing"
    answered: str | None = None
    answered_at: float | None = None
    killed: str | None = None


class ShopStore:
    """One connection to the shop's own database; used by one thread.

    Args:
        path: The file; made if missing.
        orders: Written if the file has no such order yet.
    """

    def __init__(self, path: Path, orders: Iterable[StockOrder]) -> None:
        self._db = apsw.Connection(str(path))
        self._db.set_busy_timeout(_BUSY_MS)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(_SCHEMA)
        with self._db:
            for order in orders:
                self._add_order(order)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def transaction(self) -> AbstractContextManager[object]:
        """All writes inside commit together, or, after an exception, none of them."""
        return self._db

    def order(self, order_id: str) -> OrderRow | None:
        """The order as it stands now."""
        row = self._db.execute("SELECT * FROM orders WHERE order_id = ?", (order_id,)).fetchone()
        return None if row is None else OrderRow(*row)

    def refunded_cents(self, order_id: str) -> int:
        """What the books say was paid back for an order."""
        sql = "SELECT coalesce(sum(cents), 0) FROM books WHERE kind = 'refund' AND order_id = ?"
        return int(self._db.execute(sql, (order_id,)).get)

    def write_address(self, order_id: str, address: str) -> int:
        """Overwrite an order's address and return its new version."""
        sql = "UPDATE orders SET address = ?, version = version + 1 WHERE order_id = ? RETURNING version"
        return int(self._db.execute(sql, (address, order_id)).get)

    def book(
        self,
        kind: str,
        details: Mapping[str, object],
        *,
        at: float,
        call: int,
        order_id: str | None = None,
        key: str | None = None,
        cents: int | None = None,
    ) -> int:
        """Write down one act and return its number in the books."""
        self._db.execute(
            "INSERT INTO books (at, call, kind, order_id, details, key, cents) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (at, call, kind, order_id, json.dumps(details, ensure_ascii=False), key, cents),
        )
        return self._db.last_insert_rowid()

    def books(self, kind: str | None = None, key: str | None = None) -> list[dict[str, object]]:
        """Everything that happened, oldest first; optionally of one kind and one key."""
        sql = (
            "SELECT id, at, call, kind, order_id, details, key FROM books"
            " WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR key = ?2) ORDER BY id"
        )
        rows = self._dicts(sql, (kind, key))
        return [{**row, "details": json.loads(row["details"])} for row in rows]

    def stored_answer(self, key: str, not_before: float) -> StoredAnswer | None:
        """The answer given under a key, unless it was given before `not_before` and the key's life is over."""
        sql = "SELECT body_digest, status, body FROM answers WHERE key = ? AND at > ?"
        row = self._db.execute(sql, (key, not_before)).fetchone()
        return None if row is None else StoredAnswer(*row)

    def store_answer(self, key: str, answer: StoredAnswer, at: float) -> None:
        """Keep the first answer of a key; a key whose life is over starts a new one."""
        self._db.execute(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)",
            (key, answer.body_digest, answer.status, answer.body, at),
        )

    def effectful_calls(self) -> int:
        """How many requests to endpoints that act have arrived so far."""
        return int(self._db.execute("SELECT coalesce(max(effectful_n), 0) FROM calls").get)

    def open_call(self, call: Call) -> int:
        """Log a request on its arrival and return its number."""
        row = asdict(call)
        names = ", ".join(row)
        self._db.execute(f"INSERT INTO calls ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
        return self._db.last_insert_rowid()

    def update_call(self, n: int, call: Call) -> None:
        """Bring the log up to date with what became of a request."""
        self._db.execute(
            "UPDATE calls SET acted = ?, did = ?, answered = ?, answered_at = ?, killed = ? WHERE n = ?",
            (call.acted, call.did, call.answered, call.answered_at, call.killed, n),
        )

    def calls(self) -> list[dict[str, object]]:
        """The whole call log, in order of arrival."""
        rows = self._dicts("SELECT * FROM calls ORDER BY n", ())
        return [{**row, "fault": json.loads(row["fault"]), "acted": bool(row["acted"])} for row in rows]

    def _add_order(self, order: StockOrder) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO orders (order_id, customer, email, items, amount_cents, status, address)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                order.order_id,
                order.customer,
                order.email,
                json.dumps([asdict(item) for item in order.items], ensure_ascii=False),
                int(order.amount * Decimal(100)),
                order.status,
                order.address,
            ),
        )

    def _dicts(self, sql: str, bindings: tuple[str | None, ...]) -> list[dict[str, Any]]:
        cursor = self._db.cursor()
        names: tuple[str, ...] = ()
        rows = []
        for row in cursor.execute(sql, bindings):
            names = names or tuple(column[0] for column in cursor.get_description())
            rows.append(dict(zip(names, row, strict=True)))
        return rows
