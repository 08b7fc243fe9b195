"""Mutation testing of a room: `python -m tests.mutation [--sample N] [--room effects] [--only PATH:LINE ...]`.

First the tests are run once under coverage, which tells which test executes which line and how long each takes. Then each
mutant is tried by those. Prints each survivor as it is found and a summary, and ends with 1 below `WANTED`.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tests.mutation.hunt import ROOT, Verdict, Worker, preload
from tests.mutation.mutants import Mutant, mutants_of

SUITE = ("tests/contract", "tests/property/test_rules.py", "tests/unit/effects", "tests/unit/adapters")
WANTED = 0.85
TESTS_S = 90.0
"""Seconds of tests, as measured, that may try one mutant: of a line that all tests pass, the quickest of each file."""

AT_IMPORT = ""
"""Coverage's name for what no test has passed, but an import has."""
MAP = ROOT / ".coverage" / "mutation"
DURATIONS = ROOT / ".coverage" / "durations.txt"


def main() -> None:
    """Hunt, and print what survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--room", default="effects", help="the room whose files are mutated")
    parser.add_argument("--sample", type=int, default=0, help="only this many mutants, evenly over all; 0 for all")
    parser.add_argument("--only", nargs="+", default=[""], help="only mutants whose names begin so: PATH, PATH:LINE")
    parser.add_argument("--keep", action="store_true", help="use the map of tests that an earlier hunt has made")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    if not given.keep or not MAP.exists():
        _measure()
    who, took_s = _map(given.room)
    chosen = [one for one in _mutants(given.room) if one.name.startswith(tuple(given.only))]
    if given.sample and given.sample < len(chosen):
        chosen = [chosen[place * len(chosen) // given.sample] for place in range(given.sample)]
    verdicts = list(_try_all(chosen, who, took_s, given.workers))
    _tell(verdicts)
    killed = sum(one.fate in ("killed", "hangs") for one in verdicts)
    sys.exit(killed < WANTED * len(verdicts))


def _mutants(room: str) -> Iterator[Mutant]:
    for path in sorted((ROOT / "src" / "surefoot" / room).rglob("*.py")):
        yield from mutants_of(path.relative_to(ROOT / "src").as_posix(), path.read_text())


def _measure() -> None:
    """Run the suite once, noting for each line which tests pass it, and how long each test takes."""
    MAP.parent.mkdir(exist_ok=True)
    for old in MAP.parent.glob(f"{MAP.name}*"):
        old.unlink()
    measured = ("-m", "coverage", "run", f"--data-file={MAP}")
    command = [sys.executable, *measured, "-m", "pytest", "-q", "-vv", "-m", "not slow", "-p", "no:xdist",
               "-p", "tests.mutation.contexts", "--durations=0", *SUITE]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    DURATIONS.write_text(done.stdout)
    if done.returncode:
        sys.exit(f"the suite fails on the engine as it is:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    combine = [sys.executable, "-m", "coverage", "combine", "--quiet", f"--data-file={MAP}"]
    subprocess.run(combine, cwd=ROOT, check=True)


def _map(room: str) -> tuple[dict[tuple[str, int], set[str]], dict[str, float]]:
    """Return who executes each line, and how long each test takes."""
    who: dict[tuple[str, int], set[str]] = defaultdict(set)
    with closing(sqlite3.connect(MAP)) as db:
        rows = db.execute(
            "SELECT f.path, c.context, a.fromno, a.tono FROM arc a JOIN file f ON f.id = a.file_id"
            " JOIN context c ON c.id = a.context_id WHERE f.path LIKE ?",
            (f"%/src/surefoot/{room}/%",),
        ).fetchall()
    for path, context, start, end in rows:  # those without a test are run by imports
        for line in (start, end):
            who[path.rpartition("/src/")[2], abs(line)].add(context)
    durations = DURATIONS.read_text()
    took_s: dict[str, float] = defaultdict(float)
    for seconds, test in re.findall(r"^([\d.]+)s (?:call|setup|teardown)\s+(.+?)$", durations, re.MULTILINE):
        took_s[test.strip()] += float(seconds)
    if not took_s:  # no durations: who passes fewer lines is quicker
        for tests in who.values():
            for test in tests:
                took_s[test] += 1.0
    return who, took_s


def _tests_of(mutant: Mutant, who: dict[tuple[str, int], set[str]], took_s: dict[str, float]) -> list[str]:
    """Return the tests that pass a mutant's line, as many as `TESTS_S` allows; of what is imported, all that use the file.

    The quickest of each file of tests come first, then the second of each: those of one file resemble each other.
    """
    found = who.get((mutant.path, mutant.line), set())
    if found == {AT_IMPORT}:
        found = {test for (path, _), tests in who.items() if path == mutant.path for test in tests}
    quickest, places = sorted(found - {AT_IMPORT}, key=lambda test: took_s.get(test, 1.0)), Counter[str]()
    turns = []
    for test in quickest:
        file = test.partition("::")[0]
        turns.append((places[file], test))
        places[file] += 1
    in_turn = [test for _, test in sorted(turns, key=lambda turn: turn[0])]
    until_s = itertools.accumulate(took_s.get(test, 1.0) for test in in_turn)
    return [test for test, sum_s in zip(in_turn, until_s, strict=True) if sum_s <= TESTS_S] or in_turn[:1]


def _try_all(
    chosen: Sequence[Mutant], who: dict[tuple[str, int], set[str]], took_s: dict[str, float], workers: int
) -> Iterator[Verdict]:
    tasks = [(mutant, _tests_of(mutant, who, took_s)) for mutant in chosen]
    same = replace(chosen[0], what="nothing is changed", source=(ROOT / "src" / chosen[0].path).read_text())
    tasks.insert(0, (same, tasks[0][1]))  # a hunt that finds something in the engine as it is finds nothing
    context = multiprocessing.get_context("fork")
    preload()
    with context.Pool(workers) as pool:
        control = pool.apply(_try, (tasks.pop(0),))
        if control.fate != "survived":
            sys.exit(f"the engine as it is: {control.fate}")
        for number, verdict in enumerate(pool.imap_unordered(_try, tasks), 1):
            if verdict.fate in ("survived", "not executed"):
                print(f"{verdict.fate}: {verdict.mutant.name}", flush=True)
            if number % 50 == 0:
                print(f"{number} of {len(tasks)} tried", file=sys.stderr, flush=True)
            yield verdict


_own: list[tuple[Worker, tempfile.TemporaryDirectory[str]]] = []


def _try(task: tuple[Mutant, list[str]]) -> Verdict:
    if not _own:
        folder = tempfile.TemporaryDirectory(prefix="surefoot-mutants-")
        _own.append((Worker(Path(folder.name)), folder))
    return _own[0][0].try_one(*task)


def _tell(verdicts: Sequence[Verdict]) -> None:
    by_file: dict[str, Counter[str]] = defaultdict(Counter)
    for one in verdicts:
        by_file[one.mutant.path][one.fate] += 1
    for path, fates in sorted(by_file.items()):
        print(f"{path}: {', '.join(f'{count} {fate}' for fate, count in sorted(fates.items()))}")
    fates = Counter(one.fate for one in verdicts)
    killed = fates["killed"] + fates["hangs"]
    print(f"{killed} of {len(verdicts)} mutants killed ({100 * killed / max(1, len(verdicts)):.1f} %): {dict(fates)}")


if __name__ == "__main__":
    main()
