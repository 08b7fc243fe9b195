"""Write `docs/planted-bugs.md`: every planted bug, who found it, and at what cost. `python -m tests.planted`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.planted.detectors import ROOT, SCHEDULES, Finding, look
from tests.planted.patches import Bug, bugs

PAGE = ROOT / "docs" / "planted-bugs.md"

HEAD = f"""# Planted bugs

Who tests the tests? Each row is a mistake planted in a copy of the engine, one patch each in `tests/planted`, and what it
took to find it. The detectors look in this order, and the first that finds the bug is named:

* **schedules**: the shipped engine under drawn schedules of kills, stops, disk and network faults, checked against a world
  that is counted outside (`tests/property`): at most {SCHEDULES:,} of them, and the law that was broken is named.
* **rules**: property tests of the pure modules (`tests/property/test_rules.py`).
* **contract**: the promises one by one (`tests/contract`).
* **worlds**: real processes, killed for real, in AgentDojo's worlds (`tests/worlds`).

A bug that nothing finds fails the slow lane (`make test-slow`), and so does a detector that finds something in the engine
as it is. Seconds are those of the detector that found it, on a busy machine.

| planted | found by | what was seen | schedules | seconds |
|---|---|---|---|---|
"""


def row(bug: Bug, findings: Sequence[Finding]) -> str:
    """Return a bug's line of the table."""
    last = findings[-1]
    name, seen = (last.detector, last.by.replace("|", " ")) if last.is_caught else ("**nobody**", "")
    tries = f"{last.tries}" if last.tries is not None else f"none in {SCHEDULES:,}"
    return f"| {bug.title} | {name} | {seen} | {tries} | {last.took_s:.0f} |\n"


def main() -> None:
    """Write the page; with names of bugs, only print their lines."""
    wanted = sys.argv[1:]
    lines = []
    for bug in bugs():
        if wanted and bug.name not in wanted:
            continue
        lines.append(row(bug, look(bug)))
        print(lines[-1], end="", flush=True)
    if not wanted:
        PAGE.write_text(HEAD + "".join(lines) + "\nMade by `python -m tests.planted`.\n")


if __name__ == "__main__":
    main()
