"""The lanes on PostgreSQL: their arithmetic, their tables, and that what they measure is still what a worker does."""

from __future__ import annotations

from pathlib import Path

from bench import claims, leases, postgres, report_postgres

from surefoot.app import MIGRATIONS
from surefoot.store import open_store

PROCESS = {
    "durability": {"fsync": "on", "awaited": "the claim"},
    "steps": 1_000,
    "began_s": 10.0,
    "ended_s": 11.0,
    "cycle_p50_ms": 4.0,
    "cycle_p99_ms": 9.0,
    "cpu_us_per_step": 100.0,
    "rss_bytes": 5_000_000,
}


LEASE = {"lock_p50_ms": 0.5, "commits_p50_ms": 2.0, "lease_p50_ms": 4.0, "lease_p99_ms": 6.0}


def test_processes_that_worked_together_are_one() -> None:
    """Would catch rates that are added though the processes did not work at the same time."""
    found = postgres.merged([PROCESS, PROCESS | {"began_s": 10.5, "ended_s": 12.0, "cycle_p99_ms": 20.0}], 0.4)
    assert found["steps_per_s"] == 1_000.0
    assert found["cycle_p99_ms"] == 20.0
    assert found["cpu_us_per_step"] == 100.0
    assert found["server_cpu_us_per_step"] == 200.0


def test_the_tables_show_both_systems_and_all_sizes() -> None:
    """Would catch a page that leaves out what was measured."""
    lane = [postgres.merged([PROCESS], 0.1) | {"work": "w"}]
    cost = {"claim_p50_ms": 1.0, "claim_p99_ms": 2.0}
    results = {
        "postgres": {
            "lanes": {"surefoot": lane, "dbos": lane},
            "leases": {"SQLite": [LEASE, LEASE], "PostgreSQL": [LEASE]},
            "claims": [{"stored": stored, "sqlite": cost, "postgres": cost} for stored in claims.STORED],
        },
        "probes": [],
        "failures": [],
    }
    rates, sizes, locks, durability = report_postgres.tables(results)
    assert [row[:3] for row in rates.rows] == [
        ["Surefoot", "1,000 (1,000 - 1,000)", "-"], ["DBOS", "1,000 (1,000 - 1,000)", "1.00x"]]  # fmt: skip
    assert [row[0] for row in sizes.rows] == ["1,000", "10,000", "100,000", "1,000,000"]
    assert [row[5:] for row in locks.rows] == [["8.0x", "2.0x"]] * 2
    assert len(durability.rows) == 2


async def test_one_new_run_is_claimed_among_those_that_are_stored(tmp_path: Path) -> None:
    """Would catch a claim that takes what has ended or waits, or a bench that measures what no worker does any more."""
    store = open_store(f"sqlite:///{tmp_path}/claims.db", MIGRATIONS)
    found = await claims.measure(store, 25)
    store.close()
    assert found["stored"] == 25
    assert 0 < found["claim_p50_ms"] <= found["claim_p99_ms"]


async def test_leases_are_taken_and_given_back_beside_plain_locks(tmp_path: Path) -> None:
    """Would catch a bench that measures no lease, or leaves one of the three out."""
    with leases.sqlite(tmp_path) as plain:
        found = await leases.measure(f"sqlite:///{tmp_path}/leases.db", plain, times=9)
    assert found.keys() >= LEASE.keys()
    assert min(found.values()) > 0
