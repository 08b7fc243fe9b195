"""The tables of the lanes on PostgreSQL; see `report`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.figures import median_of
from bench.plan import REFERENCE
from bench.postgres import LANES, PROCESSES
from bench.report import NONE, Table, failures, milliseconds, probes, times

TITLE = "Benchmarks: workers on PostgreSQL"


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return all tables of the page, in reading order."""
    found = results["postgres"]
    made = [_rates(found.get("lanes", {})), _claims(found.get("claims", [])), leases(found.get("leases", {}))]
    made += [_durability(found), probes(results["probes"]), failures(results["failures"])]
    return [table for table in made if table.rows]


def _rates(lanes: Mapping[str, Any]) -> Table:
    rows = []
    reference = median_of(lanes[REFERENCE])["steps_per_s"] if REFERENCE in lanes else None
    for name, each in lanes.items():
        figures, rates = median_of(each), [one["steps_per_s"] for one in each]
        rows.append(
            [
                LANES[name].title,
                f"{figures['steps_per_s']:,.0f} ({min(rates):,.0f} - {max(rates):,.0f})",
                times(reference, figures["steps_per_s"], name == REFERENCE),
                milliseconds(figures["cycle_p50_ms"]),
                milliseconds(figures["cycle_p99_ms"]),
                f"{figures['cpu_us_per_step']:,.0f}",
                f"{figures['server_cpu_us_per_step']:,.0f}",
                f"{figures['rss_bytes'] / 1e6:,.0f}",
                figures["work"],
            ]
        )
    columns = ["system", "steps/s", "Surefoot is", "cycle p50 ms", "p99 ms", "CPU µs/step", "the server's"]
    columns += ["peak RSS MB of a process", "processes x rounds x runs x cycles"]
    return Table(
        f"{PROCESSES} worker processes on one server",
        columns,
        rows,
        ["The server shares the machine's processors with the workers; the CPU time of a step is what scales."],
    )


def _claims(claims: list[Mapping[str, Any]]) -> Table:
    rows = []
    for at in claims:
        cells = [f"{at['stored']:,}"]
        for engine in ("sqlite", "postgres"):
            cells += [f"{at[engine]['claim_p50_ms']:.2f}", f"{at[engine]['claim_p99_ms']:.2f}"]
        rows.append(cells)
    columns = ["stored runs", "SQLite, p50 ms", "p99 ms", "PostgreSQL, p50 ms", "p99 ms"]
    notes = [
        "To see one new run and to claim it, its commit included; of ten stored runs nine have ended and one waits."
    ]
    return Table("A claim, as the store grows", columns, rows, notes)


def leases(found: Mapping[str, list[dict[str, Any]]]) -> Table:
    """Return the table of leases beside the engines' own locks."""
    rows = []
    for engine, each in found.items():
        figures = median_of(each)
        took = {name: figures[f"{name}_p50_ms"] for name in ("lock", "commits", "lease")}
        against = [f"{took['lease'] / took[name]:,.1f}x" for name in ("lock", "commits")]
        cells = [f"{one:.2f}" for one in (*took.values(), figures["lease_p99_ms"])]
        rows.append([engine, *cells, *against])
    columns = ["engine", "its own lock, p50 ms", "two commits of a row, p50 ms", "`sf.lease`, p50 ms", "p99 ms"]
    columns += ["times the lock", "times the commits"]
    notes = [
        "Taken and given back by one process that nobody contends with. The engine's own lock is `pg_advisory_lock` and "
        "unlock, or an empty `BEGIN IMMEDIATE` and `COMMIT`, on one connection: nothing of it is on disk, it has no token, "
        "and ends with its connection. Whatever outlives its process is two commits at least."
    ]
    return Table("A lease beside the engine's own lock", columns, rows, notes)


def _durability(found: Mapping[str, Any]) -> Table:
    rows = []
    for name, each in found.get("lanes", {}).items():
        mode = each[0]["durability"]
        rows.append([LANES[name].title, *(mode.get(key, NONE) for key in _MODES)])
    return Table("Durability, as the live connection says it", ["system", *_MODES.values()], rows)


_MODES = {
    "server_version": "PostgreSQL",
    "fsync": "fsync",
    "synchronous_commit": "synchronous_commit",
    "awaited": "waits for",
    "versions": "versions",
}
