"""The sweeps: which cases make up the table, and the table they make.

Run by hand:  python -m tests.worlds --engine tests.worlds.plain:ALL --sweep points
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.worlds import dojo
from tests.worlds.cases import Case, Memory, Result, Verdict
from tests.worlds.dojo import Call
from tests.worlds.kills import Kill, Point

STRAGGLES_S = 0.3

POINTS = (
    Point.BEFORE_CLAIM,
    Point.AFTER_CLAIM,
    Point.LOST_CALL,
    Point.DURING_CALL,
    Point.AFTER_REPLY,
    Point.AFTER_RECORD,
)


def targets(per_tool: int | None = None, tools: Collection[str] | None = None) -> list[tuple[str, Call]]:
    """The calls to kill at, with their tasks: all 81, or the first few of each tool, or of some tools."""
    taken: dict[str, int] = {}
    found = []
    for task in dojo.load().values():
        for call in task.effects:
            taken[call.tool] = taken.get(call.tool, 0) + 1
            if (per_tool is None or taken[call.tool] <= per_tool) and (tools is None or call.tool in tools):
                found.append((task.name, call))
    return found


Targets: TypeAlias = Sequence[tuple[str, Call]]


def undisturbed(calls: Targets) -> list[Case]:
    """No kill: every task, or those of a sample."""
    sampled = dict.fromkeys(task for task, _ in calls)
    return [Case(name) for name in (dojo.load() if len(calls) == len(targets()) else sampled)]


def points(calls: Targets, memory: Memory = Memory.KEPT) -> list[Case]:
    """One kill at each point of each call, and one with the request still on its way."""
    return [
        Case(task, (kill,), memory)
        for task, call in calls
        for kill in (*(Kill(point, call.label) for point in POINTS), _straggler(call))
    ]


def recoveries(calls: Targets) -> list[Case]:
    """A kill during the call, then one at every crossing of the recovery, one case each."""
    return [
        Case(task, (kill,), deepens=True)
        for task, call in calls
        for kill in (Kill(Point.DURING_CALL, call.label), Kill(Point.AFTER_CLAIM, call.label), _straggler(call))
    ]


def crossings(calls: Targets) -> list[Case]:
    """A kill at every crossing of the first worker, one case each: finds points that have no name."""
    return [Case(task, deepens=True) for task in dict.fromkeys(task for task, _ in calls)]


def repeats(calls: Targets) -> list[Case]:
    """No kill, but the model decides everything twice in one run."""
    return [Case(task, memory=Memory.REPEATS) for task in dict.fromkeys(task for task, _ in calls)]


def forgot(calls: Targets) -> list[Case]:
    """A kill at each point of each call, and then another run that decides everything anew in other words."""
    return points(calls, Memory.FORGOT)


def _straggler(call: Call) -> Kill:
    return Kill(Point.DURING_CALL, call.label, straggles_s=STRAGGLES_S)


SWEEPS: Mapping[str, Callable[[Targets], list[Case]]] = {
    "undisturbed": undisturbed,
    "points": points,
    "recoveries": recoveries,
    "crossings": crossings,
    "repeats": repeats,
    "forgot": forgot,
}


def measure(
    engines: Sequence[str],
    *sweeps: str,
    per_tool: int | None = None,
    tools: Sequence[str] = (),
    jobs: int = 4,
    deadline_s: float = 15.0,
) -> list[Result]:
    """Run sweeps in a warm parent of its own, which is safe from within pytest, threads and all.

    Args:
        engines: Places of engines, as `module:name`.
        sweeps: Names of `SWEEPS`.
        per_tool: Only the first so many calls of each tool; None: all.
        tools: Only calls of these tools; empty: all.
        jobs: Cases at a time. Most wait for something, so more than there are cores is well.
        deadline_s: After how many seconds a worker counts as stuck.
    """
    command = [sys.executable, "-W", "error", "-m", "tests.worlds", "--json", "--jobs", str(jobs)]
    command += [word for name in sweeps for word in ("--sweep", name)]
    command += [word for engine in engines for word in ("--engine", engine)]
    command += [word for tool in tools for word in ("--tool", tool)]
    command += ["--deadline", str(deadline_s)]
    command += ["--per-tool", str(per_tool)] if per_tool is not None else []
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    if done.returncode != 0 or done.stderr:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return [Result(**json.loads(line)) for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class Cell:
    """All results of one engine at one point."""

    results: tuple[Result, ...]

    def count(self, verdict: Verdict) -> int:
        """How many cases ended so."""
        return sum(result.verdict == verdict for result in self.results)

    @property
    def duplicates(self) -> int:
        """Effects carried out again, over all cases."""
        return sum(result.duplicates for result in self.results)

    @property
    def misled(self) -> int:
        """Models told "refused" about what was done, over all cases."""
        return sum(result.misled for result in self.results)

    @property
    def exact(self) -> int:
        """Cases that ended in the undisturbed state, if need be after a person's help."""
        return sum(result.exact for result in self.results)

    def __str__(self) -> str:
        parts = [f"{number} {verdict.value}" for verdict in Verdict if (number := self.count(verdict))]
        asked = [result for result in self.results if result.after_person is not None]
        if asked:
            parts.append(f"{sum(result.exact for result in asked)} exact after a person")
        if self.duplicates:
            parts.append(f"{self.duplicates} duplicates")
        if self.misled:
            parts.append(f"{self.misled} misled")
        return ", ".join(parts)


def table(results: Sequence[Result]) -> dict[tuple[str, str], Cell]:
    """The results by engine and point."""
    cells: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        cells.setdefault((result.engine, result.at), []).append(result)
    return {place: Cell(tuple(members)) for place, members in cells.items()}


def render(results: Sequence[Result]) -> str:
    """The table as Markdown, one row per engine and point."""
    cells = table(results)
    lines = ["| engine | killed at | cases | outcome | ms per case |", "|---|---|---|---|---|"]
    for (engine, at), cell in sorted(cells.items(), key=lambda item: item[0][0]):
        took_ms = sum(result.took_ms for result in cell.results) / len(cell.results)
        lines.append(f"| {engine} | {at} | {len(cell.results)} | {cell} | {took_ms:.0f} |")
    return "\n".join(lines)
