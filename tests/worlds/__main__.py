"""The warm parent: imports everything once, runs a sweep, prints results as JSON lines or as a table."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict

from tests.worlds import sweep
from tests.worlds.cases import Engine
from tests.worlds.harness import run_cases


def _engines(place: str) -> list[Engine]:
    module, _, name = place.partition(":")
    found = getattr(importlib.import_module(module), name)
    return list(found) if isinstance(found, (list, tuple)) else [found]


def main() -> None:
    """Run a sweep as asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.worlds", description=sweep.__doc__)
    parser.add_argument("--engine", action="append", required=True, help="module:name of an engine or a tuple of them")
    parser.add_argument("--sweep", action="append", choices=sweep.SWEEPS, required=True, help="what to do to them")
    parser.add_argument("--per-tool", type=int, help="only the first N calls of each tool, not all 81")
    parser.add_argument("--tool", action="append", help="only calls of this tool")
    parser.add_argument("--jobs", type=int, default=2, help="cases that run at the same time")
    parser.add_argument("--deadline", type=float, default=15.0, help="seconds after which a worker counts as stuck")
    parser.add_argument("--json", action="store_true", help="results as JSON lines instead of a table")
    asked = parser.parse_args()

    calls = sweep.targets(asked.per_tool, asked.tool)
    cases = [case for name in asked.sweep for case in sweep.SWEEPS[name](calls)]
    engines = [engine for place in asked.engine for engine in _engines(place)]
    results = []
    for result in run_cases(engines, cases, asked.jobs, asked.deadline):
        results.append(result)
        if asked.json:
            print(json.dumps(asdict(result)), flush=True)
    if not asked.json:
        print(sweep.render(results))
        for result in [result for result in results if result.error][:3]:
            print(result.engine, result.task, result.at, result.error, sep="\n", file=sys.stderr)


main()
