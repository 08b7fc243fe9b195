"""What it costs to take a lease and give it back, beside what the engine itself has: `python -m bench.leases ...`.

    lock      the engine's own: `pg_advisory_lock` and unlock on one connection, `BEGIN IMMEDIATE` and `COMMIT` on SQLite
    commits   two commits of one small row, one after the other, on one connection: what any lease costs that is on disk
    lease     `sf.lease`, outside runs

Nobody else wants it. The three take turns, so that a slow moment of the machine hits them all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import apsw

import surefoot as sf
from bench.figures import percentile

TIMES = 600

CREATE = "CREATE TABLE bench_held (id INTEGER PRIMARY KEY, by_whom INTEGER)"
WRITE = "INSERT INTO bench_held VALUES (1, 7) ON CONFLICT (id) DO UPDATE SET by_whom = excluded.by_whom"
DELETE = "DELETE FROM bench_held WHERE id = 1"

Plain = dict[str, Callable[[], None]]
"""The two that do without us, by name."""


@contextmanager
def sqlite(directory: Path) -> Iterator[Plain]:
    """Open a file of the bench's own, as durable as ours."""
    connection = apsw.Connection(str(directory / "plain.db"))
    connection.execute(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {CREATE}").fetchall()

    def lock() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")

    def commits() -> None:
        connection.execute(WRITE)
        connection.execute(DELETE)

    yield {"lock": lock, "commits": commits}
    connection.close()


@contextmanager
def postgres(url: str) -> Iterator[Plain]:
    """Open a connection to the same server."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CREATE)

        def lock() -> None:
            connection.execute("SELECT pg_advisory_lock(7)")
            connection.execute("SELECT pg_advisory_unlock(7)")

        def commits() -> None:
            connection.execute(WRITE)
            connection.execute(DELETE)

        yield {"lock": lock, "commits": commits}


async def measure(url: str, plain: Plain, times: int = TIMES) -> dict[str, float]:
    """Take and give back, so many times each; return medians and 99th percentiles of the last two thirds, in ms."""
    took: dict[str, list[float]] = {name: [] for name in (*plain, "lease")}
    async with sf.Surefoot(url, is_worker=False):
        for _ in range(times):
            for name, once in plain.items():
                began = perf_counter()
                once()
                took[name].append(perf_counter() - began)
            began = perf_counter()
            async with sf.lease("bench"):
                pass
            took["lease"].append(perf_counter() - began)
    settled = {name: values[times // 3 :] for name, values in took.items()}
    return {
        f"{name}_p{percent}_ms": percentile(values, percent) * 1e3
        for name, values in settled.items()
        for percent in (50, 99)
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default="", help="the store; a file in --directory if not given")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    url = options.url or f"sqlite:///{options.directory / 'leases.db'}"
    with postgres(url) if options.url else sqlite(options.directory) as plain:
        figures = await measure(url, plain)
    options.out.write_text(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main())
