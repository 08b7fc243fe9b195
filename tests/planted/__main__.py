"""Write `docs/planted-bugs.md`: every planted bug, who found it, and at what cost. `python -m tests.planted`.

With names of bugs, only their lines are printed; with `--all`, each is tried by every method, and the line names all that
find it, which takes hours for all of them.
"""

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
    """Return a bug's line of the table: all who have found it, in the order in which they looked."""
    found = [one for one in findings if one.is_caught]
    names = ", ".join(one.detector for one in found) or "**nobody**"
    seen = "; ".join(one.by.replace("|", " ") for one in found)
    tries = next((str(one.tries) for one in found if one.tries is not None), f"not in {SCHEDULES:,}")
    took_s = ", ".join(f"{one.took_s:.0f}" for one in found or findings[-1:])
    return f"| {bug.title} | {names} | {seen} | {tries} | {took_s} |\n"


def main() -> None:
    """Write the page; with names of bugs, only print their lines."""
    wanted, is_thorough = [word for word in sys.argv[1:] if word != "--all"], "--all" in sys.argv
    lines, found = [], 0
    for bug in bugs():
        if wanted and bug.name not in wanted:
            continue
        findings = look(bug, is_thorough=is_thorough)
        found += any(one.is_caught for one in findings)
        lines.append(row(bug, findings))
        print(lines[-1], end="", flush=True)
    if not wanted:
        sound = SCHEDULES - len(broken_anyway())
        head = HEAD.format(planted=len(lines), found=found, schedules=SCHEDULES, sound=sound)
        PAGE.write_text(head + "".join(lines) + "\nMade by `python -m tests.planted`.\n")


if __name__ == "__main__":
    main()
