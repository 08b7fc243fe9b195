"""Tables: from summaries to cells, and from cells to a terminal or to Markdown. What is measured is decided elsewhere.

A summary is `{system: {case: figures}}`, with the medians over the repeats of a case as figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from bench.figures import bytes_per_step, ratio
from bench.plan import AGENT_LANES, CASES, CEILING, REFERENCE, SYSTEMS

NONE = "-"
TITLE = "Benchmarks"

Figures = Mapping[str, Any]
Summary = Mapping[str, Mapping[str, Figures]]

_SYNCHRONOUS = {"0": "OFF", "1": "NORMAL", "2": "FULL", "3": "EXTRA"}
_TITLES = {system.name: system.title for system in SYSTEMS}


@dataclass(frozen=True)
class Table:
    """One table: a title, its columns, rows of finished cells, and what must be known to read it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return all tables of a session, in reading order; a case nobody was measured on has none."""
    summary: Summary = results["summary"]
    made = [_rates(summary, case) for case in ("one", "hundred", "thousand", "aged")]
    made += [_history(summary), _resume(summary), _agent_steps(results["agent_step"]), _durability(summary)]
    made += [probes(results["probes"]), failures(results["failures"])]
    return [table for table in made if table.rows]


def _rates(summary: Summary, case: str) -> Table:
    rows = []
    for system, figures in _of(summary, case):
        rate = figures["steps_per_s"]
        rows.append(
            [
                _TITLES[system],
                _rate(figures),
                times(_against(summary, REFERENCE, case, "steps_per_s"), rate, system == REFERENCE),
                times(_against(summary, CEILING, case, "steps_per_s"), rate, system == CEILING),
                milliseconds(figures["cycle_p50_ms"]),
                milliseconds(figures["cycle_p99_ms"]),
                f"{figures['cpu_us_per_step']:,.0f}",
                f"{figures['rss_bytes'] / 1e6:,.0f}",
                _bytes_per_step(summary, system, figures),
                figures["work"],
            ]
        )
    columns = [
        "system",
        "steps/s",
        f"{_TITLES[REFERENCE]} is",
        "the ceiling is",
        "cycle p50 ms",
        "p99 ms",
        "CPU µs/step",
        "peak RSS MB",
        "B/step",
        "processes x rounds x runs x cycles",
    ]
    return Table(CASES[case], columns, rows, _against_fresh(summary) if case == "aged" else ())


def _against_fresh(summary: Summary) -> list[str]:
    fresh, aged = (_against(summary, REFERENCE, case, "steps_per_s") for case in ("hundred", "aged"))
    if fresh is None or aged is None:
        return []
    return [f"{aged / fresh:.0%} of the rate of {_TITLES[REFERENCE]} in a fresh store."]


def _rate(figures: Figures) -> str:
    if figures["repeats"] == 1:
        return f"{figures['steps_per_s']:,.0f}"
    slowest, fastest = figures["slowest_steps_per_s"], figures["fastest_steps_per_s"]
    return f"{figures['steps_per_s']:,.0f} ({slowest:,.0f} - {fastest:,.0f})"


def _history(summary: Summary) -> Table:
    rows = []
    for system, figures in _of(summary, "long"):
        first, last = figures["first_tenth_cpu_us_per_step"], figures["last_tenth_cpu_us_per_step"]
        rows.append(
            [
                _TITLES[system],
                f"{first:,.0f}",
                f"{last:,.0f}",
                f"{last / first:.2f}x",
                milliseconds(figures["first_tenth_cycle_ms"]),
                milliseconds(figures["last_tenth_cycle_ms"]),
                _bytes_per_step(summary, system, figures),
            ]
        )
    columns = ["system", "CPU µs/step, first tenth", "last tenth", "growth"]
    columns += ["cycle p50 ms, first tenth", "last tenth", "B/step"]
    return Table(CASES["long"], columns, rows)


def _resume(summary: Summary) -> Table:
    rows = []
    for system, figures in _of(summary, "resume"):
        thousands = figures["runs"] / 1000
        reference = _per_thousand(summary, REFERENCE)
        rows.append(
            [
                _TITLES[system],
                f"{figures['runs']:,.0f}",
                f"{figures['resumed_s']:.2f}",
                f"{figures['done_s']:.2f}",
                f"{figures['resumed_s'] / thousands:.2f}",
                times(figures["resumed_s"] / thousands, reference, system == REFERENCE),
                f"{figures['acts_repeated']:,.0f}",
            ]
        )
    columns = [
        "system",
        "runs killed",
        "all back in their step, s",
        "all ended, s",
        "all back, s per 1,000 runs",
        f"{_TITLES[REFERENCE]} is",
        "acts repeated",
    ]
    notes = [
        "Seconds after the imports. Where fewer than 1,000 runs were killed, the figure per 1,000 is scaled in "
        "proportion, not measured.",
        "LangGraph has no recovery of its own: the harness gives it the thread ids.",
    ]
    return Table(CASES["resume"], columns, rows, notes)


def _agent_steps(lanes: Mapping[str, Figures]) -> Table:
    plain = {at["step"]: at["cpu_us_per_step"] for at in lanes.get("plain", {}).get("at", [])}
    rows = []
    for lane in (lane for lane in AGENT_LANES if lane in lanes):
        for at in lanes[lane]["at"]:
            cpu = at["cpu_us_per_step"]
            added = f"{cpu - plain[at['step']]:,.0f}" if lane != "plain" and at["step"] in plain else NONE
            rows.append([AGENT_LANES[lane], str(at["step"]), f"{cpu:,.0f}", added, f"{at['wall_us_per_step']:,.0f}"])
    columns = ["lane", "at step", "CPU µs/step", "added to plain", "wall µs/step"]
    notes = ["What grows in the plain agent is the framework's own work on all messages before each request."]
    return Table("A step of a Pydantic AI agent, as its history grows", columns, rows, notes)


def _durability(summary: Summary) -> Table:
    rows = []
    for system, cases in summary.items():
        mode = next(iter(cases.values()))["durability"]
        synchronous = _SYNCHRONOUS.get(mode["synchronous"], mode["synchronous"])
        rows.append(
            [
                _TITLES[system],
                mode["journal_mode"],
                synchronous,
                mode["awaited"],
                mode["sqlite_version"],
                mode["versions"],
            ]
        )
    columns = ["system", "journal_mode", "synchronous", "waits for", "SQLite", "versions"]
    return Table("Durability, as the live connection says it", columns, rows)


def probes(probes: Sequence[Figures]) -> Table:
    rows = [
        [
            probe["when"],
            f"{probe['fdatasync_p50_ms']:.2f}",
            f"{probe['fdatasync_p99_ms']:.2f}",
            f"{probe['million_additions_per_s']:.0f}",
            f"{probe['load_1min']:.1f}",
        ]
        for probe in probes
    ]
    columns = ["when", "fdatasync of 1 KB, p50 ms", "p99 ms", "million additions/s", "load, 1 min"]
    notes = ["Where these differ from row to row the machine was not quiet: trust the ratios, not the rates."]
    return Table("The machine while it measured", columns, rows, notes)


def failures(failures: Sequence[Figures]) -> Table:
    rows = [
        [_TITLES.get(failure["system"], failure["system"]), failure["case"], failure["reason"]] for failure in failures
    ]
    return Table("Not measured", ["system", "case", "reason"], rows)


def _of(summary: Summary, case: str) -> list[tuple[str, Figures]]:
    return [(system, cases[case]) for system, cases in summary.items() if case in cases]


def _against(summary: Summary, system: str, case: str, figure: str) -> float | None:
    found = summary.get(system, {}).get(case, {}).get(figure)
    return None if found is None else float(found)


def _per_thousand(summary: Summary, system: str) -> float | None:
    figures = summary.get(system, {}).get("resume")
    return None if figures is None else figures["resumed_s"] * 1000 / figures["runs"]


def times(better: float | None, worse: float | None, is_itself: bool) -> str:
    if is_itself or better is None or worse is None:
        return NONE
    quotient = ratio(better, worse)
    if quotient is None:
        return NONE
    return f"{quotient:,.0f}x" if quotient >= 10 else f"{quotient:.2f}x"


def milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _bytes_per_step(summary: Summary, system: str, figures: Figures) -> str:
    empty = summary[system].get("empty")
    if empty is None or "store_bytes" not in figures:
        return NONE
    return f"{bytes_per_step(figures['store_bytes'], empty['store_bytes'], figures['steps_stored']):,.0f}"


def print_tables(made: Sequence[Table], header: Sequence[str]) -> None:
    """Print the tables on stdout."""
    console = Console(width=None if Console().is_terminal else 190)
    for line in header:
        console.print(escape(line), highlight=False)
    for table in made:
        drawn = RichTable(title=escape(table.title), title_justify="left", caption="\n".join(map(escape, table.notes)))
        drawn.caption_justify = "left"
        for number, column in enumerate(table.columns):
            drawn.add_column(escape(column), justify="left" if number == 0 else "right")
        for row in table.rows:
            drawn.add_row(*map(escape, row))
        console.print()
        console.print(drawn, highlight=False)


def markdown(made: Sequence[Table], header: Sequence[str], title: str = TITLE) -> str:
    """Return the page for the documentation."""
    parts = [
        f"# {title}",
        "",
        "<!-- Written by `python bench/run.py --write-docs`; edit `bench/`, not this page. -->",
    ]
    parts += ["", *header]
    for table in made:
        parts += ["", f"## {table.title}", "", _markdown_row(table.columns)]
        parts += ["|---" + "|---:" * (len(table.columns) - 1) + "|"]
        parts += [_markdown_row(row) for row in table.rows]
        for note in table.notes:
            parts += ["", note]
    return "\n".join(parts) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
