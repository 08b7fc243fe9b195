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
    made = [_rates(found.get("lanes", {})), _claims(found.get("claims", [])), _durability(found)]
    made += [probes(results["probes"]), failures(results["failures"])]
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
