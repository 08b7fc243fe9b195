"""`make bench`: every system on the same work in one session on one machine, in turn, and the figures side by side.

In each case the systems take turns (A B C, A B C, ...), so that a slow minute of the machine hits them all; every
measurement is a new process with a new store. Rates of two sessions are not comparable, ratios within one are.

Exit code: 0 if everything that was asked for was measured; 1 if something could not be, which the last table names;
2 for a mistake in the arguments.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # the packages of this repository, and not the files beside this one, are imported by name

from bench import claims, machine, postgres, processes, report, report_postgres  # noqa: E402
from bench.environments import PYDANTIC_AI, Environment, python_of, say  # noqa: E402
from bench.figures import median_of  # noqa: E402
from bench.plan import AGENT_LANES, AGENT_STEP, CASES, POSTGRES, SYSTEMS, System, Work  # noqa: E402

DOCS = ROOT / "docs" / "benchmarks.md"
DOCS_POSTGRES = ROOT / "docs" / "benchmarks-postgresql.md"
LATEST = processes.OUT / "latest.json"

_CALLS = {"resume": processes.kill_and_resume, "aged": processes.age_and_measure}
"""The cases that take two processes."""


class Session:
    """One pass over the plan.

    Attributes:
        measurements: Every process that ended well: `system`, `case`, `repeat`, `work`, `figures`.
        failures: Everything that could not be measured: `system`, `case`, `reason`.
        probes: What the machine was like before, during and after.
        agent_step: The figures of each lane of `pydantic_ai_step.py`.
        postgres: The figures of `postgres.py`: each process of each lane, and the costs of claims and leases.
    """

    def __init__(self) -> None:
        self.measurements: list[dict[str, Any]] = []
        self.failures: list[dict[str, str]] = []
        self.probes: list[dict[str, Any]] = []
        self.agent_step: dict[str, Any] = {}
        self.postgres: dict[str, Any] = {}
        self._pythons: dict[str, Path] = {}

    def prepare(self, environments: Mapping[str, Environment | None]) -> set[str]:
        """Build what is missing, and return the names of what can be measured."""
        for name, environment in environments.items():
            try:
                self._pythons[name] = python_of(environment)
            except subprocess.CalledProcessError as error:
                self.failures.append(_failure(name, "all", f"its environment could not be built: {error}"))
        return set(self._pythons)

    def probe(self, when: str) -> None:
        processes.OUT.mkdir(parents=True, exist_ok=True)
        self.probes.append({"when": when, **machine.probe(processes.OUT)})

    def measure_case(self, case: str, shares: Mapping[System, Work]) -> set[str]:
        """Measure one case, the systems taking turns, and return those that failed and missed the remaining turns."""
        out: set[str] = set()
        for repeat in range(max((work.repeats for work in shares.values()), default=0)):
            for system, work in shares.items():
                if repeat >= work.repeats or system.name in out:
                    continue
                say(f"{case}: {system.name}, {repeat + 1} of {work.repeats}")
                try:
                    self._measure(system, case, repeat, work)
                except processes.MeasurementFailed as error:
                    out.add(system.name)
                    self.failures.append(_failure(system.name, case, str(error)))
        return out

    def _measure(self, system: System, case: str, repeat: int, work: Work) -> None:
        call = _CALLS.get(case, processes.measure)
        figures = call(self._pythons[system.name], system.module, processes.arguments_of(work, system.variant))
        self.measurements.append(
            {"system": system.name, "case": case, "repeat": repeat, "work": str(work), "figures": figures}
        )

    def measure_agent_steps(self, cycles: int, repeats: int) -> None:
        """Measure what durability adds to a step of a Pydantic AI agent, the lanes taking turns."""
        found: dict[str, list[dict[str, Any]]] = {lane: [] for lane in AGENT_LANES}
        for repeat in range(repeats):
            for lane in list(found):
                say(f"{AGENT_STEP}: {lane}, {repeat + 1} of {repeats}")
                try:
                    arguments = ["--lane", lane, "--cycles", str(cycles)]
                    found[lane].append(
                        processes.measure(self._pythons[AGENT_STEP], "bench.pydantic_ai_step", arguments)
                    )
                except processes.MeasurementFailed as error:
                    del found[lane]
                    self.failures.append(_failure(AGENT_STEP, lane, str(error)))
        self.agent_step = {lane: median_of(figures) for lane, figures in found.items()}

    def measure_postgres(self, repeats: int, *, is_quick: bool) -> None:
        """Measure several processes on one server, the systems taking turns, and what claims cost as a store grows, and
        what leases do."""
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in postgres.LANES}
        with postgres.server() as running:
            self.postgres["server"] = running.version
            for repeat in range(repeats):
                for name, lane in (postgres.QUICK if is_quick else postgres.LANES).items():
                    if name not in found:
                        continue
                    say(f"{POSTGRES}: {name}, {repeat + 1} of {repeats}")
                    try:
                        found[name].append(postgres.measure(running, python_of(lane.environment), lane))
                    except (processes.MeasurementFailed, subprocess.CalledProcessError) as error:
                        del found[name]
                        self.failures.append(_failure(f"{name} on PostgreSQL", "all", str(error)))
            stored = claims.STORED[: 2 if is_quick else None]
            say(f"{POSTGRES}: claims with {stored[0]:,} to {stored[-1]:,} stored runs")
            try:
                self.postgres["claims"] = postgres.measure_claims(running, python_of(None), stored)
            except processes.MeasurementFailed as error:
                self.failures.append(_failure(POSTGRES, "claims", str(error)))
            say(f"{POSTGRES}: leases")
            try:
                self.postgres["leases"] = postgres.measure_leases(running, python_of(None), repeats)
            except processes.MeasurementFailed as error:
                self.failures.append(_failure(POSTGRES, "leases", str(error)))
        self.postgres["lanes"] = {name: figures for name, figures in found.items() if figures}

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return the medians, by system and case."""
        summary: dict[str, dict[str, Any]] = {}
        for system in SYSTEMS:
            for case in CASES:
                found = [m for m in self.measurements if (m["system"], m["case"]) == (system.name, case)]
                if not found:
                    continue
                figures = [measurement["figures"] for measurement in found]
                merged = median_of(figures) | {"work": found[0]["work"], "repeats": len(found)}
                if "steps_per_s" in merged:
                    rates = [each["steps_per_s"] for each in figures]
                    merged |= {"slowest_steps_per_s": min(rates), "fastest_steps_per_s": max(rates)}
                summary.setdefault(system.name, {})[case] = merged
        return summary


def main() -> None:
    options = _options()
    systems = [s for s in SYSTEMS if (s.name in options.only if options.only else not s.is_extra)]
    began, date = perf_counter(), datetime.now(UTC).strftime("%Y-%m-%d")
    session = Session()
    environments: dict[str, Environment | None] = {system.name: system.environment for system in systems}
    if AGENT_STEP in options.only or not (options.only or options.case):
        environments[AGENT_STEP] = PYDANTIC_AI
    has_postgres = POSTGRES in options.only or not (options.only or options.case)
    prepared = session.prepare(environments)
    systems = [system for system in systems if system.name in prepared]
    if options.shield:
        processes.shield()
    session.probe("before")
    if has_postgres:
        session.measure_postgres(options.repeats or (1 if options.quick else 3), is_quick=options.quick)
        session.probe("after: PostgreSQL")
    cannot_open = session.measure_case("empty", _shares(systems, "empty", options))
    systems = [system for system in systems if system.name not in cannot_open]
    for case in [] if not systems else options.case or [case for case in CASES if case != "empty"]:
        shares = _shares(systems, case, options)
        if options.only and options.case:  # asked for by name, so it must not be left out in silence
            missing = [system.name for system in systems if system not in shares]
            session.failures += [
                _failure(name, case, "bench/plan.py gives it no share of this case") for name in missing
            ]
        if shares:
            session.measure_case(case, shares)
            session.probe(f"after: {CASES[case].partition(':')[0].lower()}")
    if AGENT_STEP in prepared:
        repeats = options.repeats or (1 if options.quick else 3)
        session.measure_agent_steps(cycles=20 if options.quick else 100, repeats=repeats)
        session.probe("after: the agent's steps")

    results = {
        "date": date,
        "is_quick": options.quick,
        "is_shielded": options.shield,
        "elapsed_s": perf_counter() - began,
        "machine": machine.facts(),
        "summary": session.summary(),
        "agent_step": session.agent_step,
        "postgres": session.postgres,
        "probes": session.probes,
        "failures": session.failures,
        "measurements": session.measurements,
    }
    LATEST.write_text(json.dumps(results, indent=2) + "\n")
    pages = {}
    if not options.only or set(options.only) != {POSTGRES}:
        pages[DOCS] = (report.tables(results), report.TITLE)
    if has_postgres:
        pages[DOCS_POSTGRES] = (report_postgres.tables(results), report_postgres.TITLE)
    for page, (tables, title) in pages.items():
        report.print_tables(tables, _header(results))
        if options.write_docs:
            page.write_text(report.markdown(tables, _header(results), title))
    written = f", pages in {DOCS.parent.relative_to(ROOT)}" if options.write_docs else ""
    say(f"figures in {LATEST.relative_to(ROOT)}{written}")
    raise SystemExit(1 if session.failures else 0)


def _options() -> argparse.Namespace:
    names = [system.name for system in SYSTEMS] + [AGENT_STEP, POSTGRES]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, in under a minute: for development")
    parser.add_argument("--only", choices=names, action="append", default=[], help="this system; may be repeated")
    parser.add_argument(
        "--case",
        choices=[case for case in CASES if case != "empty"],
        action="append",
        default=[],
        help="this case; may be repeated",
    )
    parser.add_argument(
        "--repeats", type=int, help="processes per system and case (default: by case, see bench/plan.py)"
    )
    parser.add_argument("--shield", action="store_true", help="real-time priority, for a busy machine; needs the right")
    parser.add_argument("--write-docs", action="store_true", help="also write docs/benchmarks.md")
    options = parser.parse_args()
    if options.repeats is not None and options.repeats < 1:
        parser.error("--repeats must be at least 1")
    is_whole = not options.only or options.only == [POSTGRES]
    if options.write_docs and (options.quick or not is_whole or options.case):
        parser.error(
            "--write-docs is for whole sessions, or --only postgres, whose page is its own: leave out the rest"
        )
    return options


def _shares(systems: list[System], case: str, options: argparse.Namespace) -> dict[System, Work]:
    shares = {}
    for system in systems:
        work = (system.quick if options.quick else system.work).get(case)
        if work is not None:
            repeats = work.repeats if options.repeats is None or case == "empty" else options.repeats
            shares[system] = replace(work, repeats=repeats)
    return shares


def _header(results: Mapping[str, Any]) -> list[str]:
    facts = results["machine"]
    return [
        f"{results['date']}; {facts['processor']}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']}, "
        f"Python {facts['python']}; {results['elapsed_s'] / 60:.1f} minutes"
        + ("; at real-time priority" if results["is_shielded"] else "")
        + ("; quick: too little of everything for figures that are repeated to others" if results["is_quick"] else ""),
        "",
        "Runs of cycles: one decision (965 B of JSON) and one act (198 B, a side effect in memory), two steps a cycle. "
        "Nothing in them waits, so all time is overhead. Each figure is the median of several processes (slowest - "
        "fastest); the systems took turns. `B/step` after a truncating checkpoint, without what an empty store has.",
    ]


def _failure(system: str, case: str, reason: str) -> dict[str, str]:
    return {"system": system, "case": case, "reason": reason}


if __name__ == "__main__":
    main()
