"""What it costs to find and claim one run, in a store that holds few or many: `python -m bench.claims --stored N ...`.

Of ten stored runs nine have ended and one waits for a signal; what is claimed is one new run at a time. The clock runs from
the question whether there is one, by a reader, to the commit of the claim.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from functools import partial
from pathlib import Path
from time import perf_counter

from bench.figures import percentile
from surefoot.app import MIGRATIONS
from surefoot.runs.rows import queue, tables
from surefoot.store import Store, Tx, open_store

STORED = (1_000, 10_000, 100_000, 1_000_000)
AT_ONCE = 50_000
"""Rows stored by one transaction."""

CLAIMS = 300
KINDS = {"agent": None, "refund": None}

_STORED = (
    "INSERT INTO runs (run_id, kind, state, epoch, digest, waiting_for, created_at_ms, ended_at_ms, ended)"
    " WITH RECURSIVE numbers (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {end})"
    " SELECT 'stored-' || n, 'agent', CASE WHEN n % 10 = 0 THEN 3 ELSE 4 END, 1, ?,"
    " CASE WHEN n % 10 = 0 THEN 'signal' END, 0, 0, 0 FROM numbers"
)


async def measure(store: Store, stored: int) -> dict[str, float]:
    """Store runs, then claim new ones."""
    for first in range(0, stored, AT_ONCE):
        sql = _STORED.format(first=first, end=min(first + AT_ONCE, stored))
        await store.commit(partial(_run, sql=sql), label="stored")
    times = []
    for number in range(CLAIMS):
        await store.commit(partial(_start, run_id=f"new-{number}"), label="start")
        began = perf_counter()
        assert await store.read(lambda connection: queue.has_due(connection, KINDS, store.clock.wall_ms()))
        claimed = await store.commit(_claim, label="take")
        times.append(perf_counter() - began)
        assert claimed == [f"new-{number}"], claimed
    settled = times[CLAIMS // 3 :]  # statements are prepared, pages are in memory
    return {
        "stored": stored,
        "claim_p50_ms": percentile(settled, 50) * 1e3,
        "claim_p99_ms": percentile(settled, 99) * 1e3,
    }


def _run(tx: Tx, sql: str) -> None:
    tx.execute(sql, (b"",))


def _start(tx: Tx, run_id: str) -> int:
    return tables.insert_run(tx, run_id, "agent", b"", holder=None, parent=None, deadline_ms=None)


def _claim(tx: Tx) -> list[str]:
    queue.take_up_due(tx, list(KINDS), {})
    return [row.run_id for row in queue.claim_runs(tx, 1, KINDS, 100, may_try_suspect=True)]


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stored", type=int, required=True, help="runs in the store")
    parser.add_argument("--url", default="", help="the store; a file in --directory if not given")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    store = open_store(options.url or f"sqlite:///{options.directory / 'claims.db'}", MIGRATIONS)
    figures = await measure(store, options.stored)
    await asyncio.to_thread(store.close)
    options.out.write_text(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main())
