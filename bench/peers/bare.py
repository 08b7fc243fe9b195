"""The ceiling: no engine at all, only a loop that keeps the same bytes in the same kind of store.

Per cycle what a durable engine must keep, and no more: one decision nobody waits for, one claim that is awaited before
the act, one result nobody waits for; at the end of the run one wait, because its result leaves. SQLite through `apsw`,
WAL, `synchronous=FULL`; one writer thread commits whatever is queued (group commit), wakes the loop once per batch, and
leaves nothing unwritten for longer than `FLUSH_S`. One append-only rowid table.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from bench import driver
from bench.observer import observer
from bench.workload import act, decide

FLUSH_S = 0.005

_encode = msgspec.json.encode
_decode = msgspec.json.decode

_Row = tuple[int, tuple[Any, ...], "asyncio.Future[None] | None"]
"""Which statement, its values, and who waits for it."""


def claim(run: int, cycle: int) -> dict[str, Any]:
    """Return what must be on disk before the act: whose, which, with which arguments, under which token (172 B)."""
    return {
        "key": f"refund:A-{run:07d}-{cycle:04d}",
        "call": f"call-{run:07d}-{cycle:04d}",
        "arguments_sha256": "5f2b1c9d" * 8,
        "attempt": 1,
        "token": 1,
    }


class Writer:
    """A thread that commits queued rows together, statement by statement; `append` and `append_and_wait` are called on the
    loop."""

    def __init__(self, connection: apsw.Connection, statements: Sequence[str]) -> None:
        self.connection = connection
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        self._statements = statements
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Row] = deque()
        self._wake = threading.Event()
        self._is_idle = False
        self._is_closing = False
        self._thread = threading.Thread(target=self._write_for_ever, name="bare-writer")

    def start(self) -> None:
        self._thread.start()

    def append(self, *values: Any, statement: int = 0) -> None:
        self._queue.append((statement, values, None))

    def append_and_wait(self, *values: Any) -> asyncio.Future[None]:
        durable: asyncio.Future[None] = self._loop.create_future()
        self._queue.append((0, values, durable))
        if self._is_idle:  # set before the writer looks at the queue for the last time, so no row is overlooked
            self._wake.set()
        return durable

    def close(self) -> None:
        self._is_closing = True
        self._wake.set()
        self._thread.join()
        self.connection.close()

    def _write_for_ever(self) -> None:
        queue, wake = self._queue, self._wake
        while True:
            self._is_idle = True
            if not queue:
                wake.wait(FLUSH_S)
            wake.clear()
            self._is_idle = False
            batch = [queue.popleft() for _ in range(len(queue))]
            if batch:
                self._commit(batch)
            elif self._is_closing:
                return

    def _commit(self, batch: list[_Row]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        for number, statement in enumerate(self._statements):
            self.connection.executemany(statement, [values for which, values, _ in batch if which == number])
        self.connection.execute("COMMIT")
        waiting = [durable for _, _, durable in batch if durable is not None]
        if waiting:
            self._loop.call_soon_threadsafe(_resolve, waiting)

    def durability(self) -> dict[str, str]:
        def look_up(what: str) -> str:
            return str(self.connection.execute(what).fetchall()[0][0])

        return {
            "journal_mode": look_up("PRAGMA journal_mode"),
            "synchronous": look_up("PRAGMA synchronous"),
            "sqlite_version": look_up("SELECT sqlite_version()"),
            "awaited": "the claim, before each act; the end of the run",
            "versions": f"apsw {apsw.apsw_version()}",
        }

    def rows(self) -> Iterator[tuple[int, bytes]]:
        return self.connection.execute("SELECT run, body FROM journal ORDER BY id")


def _resolve(waiting: list[asyncio.Future[None]]) -> None:
    for durable in waiting:
        if not durable.done():
            durable.set_result(None)


class Bare:
    """The loop, as a `driver.System`."""

    async def open(self, directory: Path) -> None:
        connection = apsw.Connection(str(directory / "bare.db"))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS journal (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, body BLOB NOT NULL)"
        )
        self._writer = Writer(connection, ["INSERT INTO journal (run, body) VALUES (?, ?)"])
        self._left = {run: records for run, records in self._read().items() if not _has_ended(records)}
        self._writer.start()

    def _read(self) -> dict[int, list[Any]]:
        """Read and decode the whole journal once, in order: what an engine's recovery cannot do without."""
        records: dict[int, list[Any]] = {}
        for run, body in self._writer.rows():
            records.setdefault(run, []).append(_decode(body))
        return records

    async def durability(self) -> dict[str, str]:
        return self._writer.durability()

    async def run(self, run: int, cycles: int) -> None:
        await self._cycles(run, 0, cycles)

    async def resume(self, runs: range, cycles: int) -> None:
        await asyncio.gather(*(self._cycles(run, len(self._left[run]) // 3, cycles) for run in runs))

    async def _cycles(self, run: int, first: int, cycles: int) -> None:
        writer, world = self._writer, observer.world
        observer.run_began(run)
        for cycle in range(first, cycles):
            await observer.gate(cycle)
            decision = decide(run, cycle)
            writer.append(run, _encode(decision))
            await writer.append_and_wait(run, _encode(claim(run, cycle)))
            writer.append(run, _encode(act(decision, world)))
            observer.cycle_ended(run)
        await writer.append_and_wait(run, b'"completed"')
        observer.run_ended(run)

    async def close(self) -> None:
        self._writer.close()


def _has_ended(records: list[Any]) -> bool:
    return bool(records) and records[-1] == "completed"


if __name__ == "__main__":
    driver.main(lambda options: Bare())
