"""The command line and the phases of a measured process, the same for every system.

`python -m bench.peers.<system> --runs 100 --cycles 20 --out figures.json` does one of four phases, in a process of its
own, so that CPU, memory and files belong to one system and one case:

- `work`: a short warm-up, then `--rounds` times `--runs` runs at once; figures of the timed part.
- `block`: every run records `RECORDED_STEPS` steps and stops inside the next one. Then the process says so on stdout
  and waits to be killed by `kill -9`.
- `resume`: the same store opened again; how long until every run is back inside the step it was killed in, and until
  every run has ended. Imports are not counted.
- `age`: fill the store with `--effects` effects of earlier runs, for a system that can (`Aging`); no figures.

A system is written as a small class (`System`); nothing about time or memory is its business.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Protocol, runtime_checkable

from bench.figures import percentile
from bench.observer import observer
from bench.workload import STEPS_PER_CYCLE

RECORDED_STEPS = 20
"""Steps each run has on disk when it is killed."""

GATE_CYCLE = RECORDED_STEPS // STEPS_PER_CYCLE
BLOCKED_RUN_CYCLES = GATE_CYCLE + 2
"""A killed run has the step it was killed in and three more before it."""

BLOCKED_LINE = "all runs are blocked"
READY_LINE = "ready for all to begin together"
WARM_UP_RUN = 900_000
WARM_UP_CYCLES = 3


class System(Protocol):
    """One durable engine, set up as its documentation recommends.

    The code of a run calls `observer.run_began`, `await observer.gate(cycle)` inside each decision step,
    `observer.cycle_ended` after each cycle and `observer.run_ended` at its end.
    """

    async def open(self, directory: Path) -> None:
        """Open the store in this directory (new, or left by a killed process) and start the engine."""

    async def durability(self) -> dict[str, str]:
        """Return `journal_mode`, `synchronous`, `sqlite_version` as the live connection says, `awaited`, `versions`."""

    async def run(self, run: int, cycles: int) -> None:
        """Start the run with this number and return when its result is durable."""

    async def resume(self, runs: range, cycles: int) -> None:
        """Bring back all these runs after a kill, and return when all have ended durably."""

    async def close(self) -> None:
        """Stop the engine and close the store."""


@runtime_checkable
class Aging(Protocol):
    """A system whose store can be filled as by a long life."""

    async def age(self, directory: Path, effects: int) -> None:
        """Fill the store in this directory with at least this many effects of runs that have ended."""


def main(make: Callable[[argparse.Namespace], System], variants: Iterable[str] = ("default",)) -> None:
    """Run one phase of one system and write its figures.

    Args:
        make: Returns the system for the options: its `variant`, and the `url` of its server, if it has one.
        variants: The variants this system knows; the first is the default.
    """
    known = list(variants)
    parser = argparse.ArgumentParser(description="Measure one system in this process.")
    parser.add_argument("--runs", type=int, required=True, help="runs at once; 0 only opens and closes an empty store")
    parser.add_argument("--cycles", type=int, default=20, help="cycles of each run in phase `work` (default 20)")
    parser.add_argument("--rounds", type=int, default=1, help="how often the runs are done, one round after another")
    parser.add_argument("--out", type=Path, required=True, help="where the figures are written, as JSON")
    parser.add_argument("--directory", type=Path, help="where the store is (default: a new temporary directory)")
    parser.add_argument("--variant", choices=known, default=known[0])
    parser.add_argument("--phase", choices=["work", "block", "resume", "age"], default="work")
    parser.add_argument("--effects", type=int, default=0, help="effects the store shall hold, in phase `age`")
    parser.add_argument("--url", default="", help="the server's database, for variants that have a server")
    parser.add_argument("--first", type=int, default=0, help="number of the first run, where processes share a store")
    parser.add_argument("--together", action="store_true", help="say when ready, and begin at a line on stdin")
    options = parser.parse_args()

    base_rss = peak_rss_bytes()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="bench-"))
    directory.mkdir(parents=True, exist_ok=True)
    system = make(options)
    if options.phase == "work":
        figures = asyncio.run(_work(system, directory, options))
    elif options.phase == "block":
        asyncio.run(_block(system, directory, options.runs))
        raise SystemExit("the blocked process was let go instead of killed")
    elif options.phase == "age":
        if not isinstance(system, Aging):
            raise SystemExit("this system's store can't be aged")
        asyncio.run(system.age(directory, options.effects))
        figures = {}
    else:
        figures = asyncio.run(_resume(system, directory, options.runs))
    figures |= {"python": sys.version.split()[0], "rss_after_imports_bytes": base_rss, "rss_bytes": peak_rss_bytes()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=2) + "\n")


async def _work(system: System, directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    runs, cycles, rounds, first = options.runs, options.cycles, options.rounds, options.first
    await system.open(directory)
    durability = await system.durability()
    if not runs:
        await system.close()
        return {"durability": durability, "steps_stored": 0}
    await system.run(first + WARM_UP_RUN, WARM_UP_CYCLES)
    observer.forget()
    observer.is_one_run = runs == 1
    gc.collect()
    if options.together:
        print(READY_LINE, flush=True)
        sys.stdin.readline()
    cpu_began, began = process_time(), perf_counter()
    for this_round in range(rounds):
        await _together(system.run(first + this_round * runs + run, cycles) for run in range(runs))
    ended, cpu_s = perf_counter(), process_time() - cpu_began
    elapsed_s = ended - began
    await system.close()

    steps = runs * rounds * cycles * STEPS_PER_CYCLE
    _expect("acts that reached the world", runs * rounds * cycles, observer.world.acts)
    _expect("cycles seen", runs * rounds * cycles, len(observer.cycles_s))
    return {
        "durability": durability,
        "steps": steps,
        "steps_stored": steps + WARM_UP_CYCLES * STEPS_PER_CYCLE,
        "began_s": began,
        "ended_s": ended,
        "elapsed_s": elapsed_s,
        "steps_per_s": steps / elapsed_s,
        "cycle_p50_ms": percentile(observer.cycles_s, 50) * 1e3,
        "cycle_p99_ms": percentile(observer.cycles_s, 99) * 1e3,
        "cpu_us_per_step": cpu_s / steps * 1e6,
        **(_growth() if runs == 1 else {}),
    }


def _growth() -> dict[str, float]:
    """Return what a step cost in the first and in the last tenth of the process's cycles."""
    tenth = max(1, len(observer.cycles_s) // 10)
    cpu_s = [after - before for before, after in pairwise(observer.cpu_s)]
    return {
        "first_tenth_cycle_ms": percentile(observer.cycles_s[:tenth], 50) * 1e3,
        "last_tenth_cycle_ms": percentile(observer.cycles_s[-tenth:], 50) * 1e3,
        "first_tenth_cpu_us_per_step": percentile(cpu_s[:tenth], 50) / STEPS_PER_CYCLE * 1e6,
        "last_tenth_cpu_us_per_step": percentile(cpu_s[-tenth:], 50) / STEPS_PER_CYCLE * 1e6,
    }


async def _block(system: System, directory: Path, runs: int) -> None:
    observer.gate_cycle, observer.gate_is_shut = GATE_CYCLE, True
    await system.open(directory)
    running = asyncio.gather(*(system.run(run, BLOCKED_RUN_CYCLES) for run in range(runs)))
    while len(observer.arrivals) < runs and not running.done():
        await asyncio.sleep(0.05)
    if not running.done():
        print(BLOCKED_LINE, flush=True)
    await running


async def _resume(system: System, directory: Path, runs: int) -> dict[str, Any]:
    observer.gate_cycle = GATE_CYCLE
    cpu_began, began = process_time(), perf_counter()
    await system.open(directory)
    opened_s = perf_counter() - began
    await system.resume(range(runs), BLOCKED_RUN_CYCLES)
    done_s, cpu_s = perf_counter() - began, process_time() - cpu_began
    durability = await system.durability()
    await system.close()
    _expect("runs that came back to the step they were killed in", runs, len(observer.arrivals))
    _expect("runs that ended", runs, len(observer.finishes))
    return {
        "durability": durability,
        "runs": runs,
        "opened_s": opened_s,
        "resumed_s": max(observer.arrivals) - began,
        "done_s": done_s,
        "cpu_s": cpu_s,
        "acts_repeated": observer.world.acts - runs * (BLOCKED_RUN_CYCLES - GATE_CYCLE),
    }


async def _together(runs: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*runs)


def _expect(what: str, expected: int, found: int) -> None:
    if expected != found:
        raise SystemExit(f"{what}: expected {expected}, found {found}; the figures would not be comparable")


def peak_rss_bytes() -> int:
    """Return the largest resident size of this process so far, in bytes.

    From `VmHWM`: `ru_maxrss` also covers the parent's memory before `exec`, so a large parent would show here.
    """
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no VmHWM in /proc: the bench needs Linux")
