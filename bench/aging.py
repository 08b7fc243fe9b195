"""A store that has been used for a long time: a few real runs, multiplied by SQL until it holds as many effects as asked.

What always holds: the rows are those the engine itself has written, with ids shifted so that all references stay true,
and every effect has a random digest of its own, as real keys have. So the store has the indexes, and the depth of trees,
of one that came there step by step, in a hundredth of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import apsw

from surefoot.store import checksums

TABLES: Mapping[str, Mapping[str, str]] = {
    "runs": {"id": "id + :k * :runs", "run_id": "run_id || '-' || :k", "ended": "ended + :k * :journal"},
    "journal": {"id": "id + :k * :journal", "run": "run + :k * :runs"},
    "ledger": {
        "id": "id + :k * :ledger",
        "run": "run + :k * :runs",
        "claim": "claim + :k * :journal",
        "record": "record + :k * :journal",
        "digest": "randomblob(16)",
    },
}
"""The columns that must differ in a copy, as SQL over the original; all others are copied."""

COPIES_PER_COMMIT = 10


def multiply(path: Path, effects: int) -> int:
    """Copy what the store holds until it has at least this many effects; return how many it has.

    Args:
        path: A store that no process has open, with ended runs in it.
        effects: How many effects it shall hold.
    """
    connection = checksums.connect(path)  # pages that another program writes count as damaged
    connection.execute("PRAGMA cache_size=-262144; PRAGMA synchronous=OFF")
    newest = {table: _one(connection, f"SELECT max(id) FROM {table}") for table in TABLES}
    originals = _one(connection, "SELECT count(*) FROM ledger")
    statements = [_copying(connection, table, newest[table]) for table in TABLES]
    copies = range(1, -(-effects // originals))
    for first in copies[::COPIES_PER_COMMIT]:
        with connection:
            for copy in range(first, min(first + COPIES_PER_COMMIT, copies.stop)):
                for statement in statements:
                    connection.execute(statement, {**newest, "k": copy})
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    return originals * copies.stop


def _copying(connection: apsw.Connection, table: str, newest: int) -> str:
    columns = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]
    values = [TABLES[table].get(column, column) for column in columns]
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {table} WHERE id <= {newest}"


def _one(connection: apsw.Connection, query: str) -> int:
    found = connection.execute(query).fetchall()[0][0]
    assert isinstance(found, int)
    return found
