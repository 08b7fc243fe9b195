"""Write `docs/planted-bugs.md`: every planted bug, who found it, and at what cost. `python -m tests.planted`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.planted.detectors import ROOT, SCHEDULES, Finding, broken_anyway, look
from tests.planted.patches import Bug, bugs

PAGE = ROOT / "docs" / "planted-bugs.md"

HEAD = """# Planted bugs

Who tests the tests? Each row is a mistake planted in a copy of the engine, one patch each in `tests/planted`, and what it
took to find it. Of {planted} planted bugs {found} were found. The detectors look in this order, and the first that finds
the bug is named, with the law or the test that failed:

* **schedules**: the shipped engine under drawn schedules of kills, stops, disk and network faults, checked against a world
  that is counted outside (`tests/property`). At most {schedules:,} are run, seeds 1, 2, 3 and so on; the table says how
  many it took.
* **rules**: property tests of the pure modules (`tests/property/test_rules.py`).
* **contract**: the promises one by one (`tests/contract`).
* **worlds**: real processes, killed for real, in AgentDojo's worlds (`tests/worlds`).
* **disk**: disks that fail, lose power and change bytes (`tests/disk`).

With no bug planted, {sound:,} of the {schedules:,} schedules keep every law. A bug that nothing finds fails the slow lane
(`make test-slow`), and so does a detector that finds something in the engine as it is. Seconds are those of the detector
that found the bug, on a busy machine.

| planted bug | found by | law or test that failed | schedules it took | seconds |
|---|---|---|---|---|
"""


def row(bug: Bug, findings: Sequence[Finding]) -> str:
    """Return a bug's line of the table."""
    last = findings[-1]
    name, seen = (last.detector, last.by.replace("|", " ")) if last.is_caught else ("**nobody**", "")
    tries = f"{last.tries}" if last.tries is not None else f"not in {SCHEDULES:,}"
    return f"| {bug.title} | {name} | {seen} | {tries} | {last.took_s:.0f} |\n"


def main() -> None:
    """Write the page; with names of bugs, only print their lines."""
    wanted = sys.argv[1:]
    lines, found = [], 0
    for bug in bugs():
        if wanted and bug.name not in wanted:
            continue
        findings = look(bug)
        found += findings[-1].is_caught
        lines.append(row(bug, findings))
        print(lines[-1], end="", flush=True)
    if not wanted:
        sound = SCHEDULES - len(broken_anyway())
        head = HEAD.format(planted=len(lines), found=found, schedules=SCHEDULES, sound=sound)
        PAGE.write_text(head + "".join(lines) + "\nMade by `python -m tests.planted`.\n")


if __name__ == "__main__":
    main()
