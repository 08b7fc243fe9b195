"""Write `docs/planted-bugs.md`: every planted bug, who found it, and at what cost. `python -m tests.planted [--jobs N]`.

With names of bugs, only their lines are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.planted.detectors import ROOT, SCHEDULES, Finding, broken_anyway, look
from tests.planted.patches import Bug, bugs

PAGE = ROOT / "docs" / "planted-bugs.md"
ENOUGH = 2
"""Methods that should find each bug."""

HEAD = """# Planted bugs

Who tests the tests? Each row is a mistake planted in a copy of the engine, one patch each in `tests/planted`, and what it
took to find it. Of {planted} planted bugs {found} were found, {twice} of them by two methods that know nothing of each
other. They look in this order, until two have found the bug; these are named, with the law or the test that failed. The
last four take minutes, and look only for what no other has found:

* **contract**: the promises one by one (`tests/contract`).
* **rules**: property tests of the pure modules (`tests/property/test_rules.py`).
* **lines**: who comes next at a resource, and recorded histories of leases under stops and kills (`tests/histories`).
* **schedules**: the shipped engine under drawn schedules of kills, stops, disk and network faults, with people who approve,
  deny and find out, sagas, resources, versions, documents and events, checked against a world that is counted outside
  (`tests/property`). At most {schedules:,} are run, seeds 1, 2, 3 and so on; the table says how many it took.
* **postgres**: a store on PostgreSQL, over connections that break (`tests/postgres/test_store.py`).
* **worlds**: real processes, killed for real, in AgentDojo's worlds (`tests/worlds`).
* **disk**: disks that fail, lose power and change bytes (`tests/disk`).
* **crash**: sagas, approvals, sub-agents and fans of children, killed for real (`tests/crash`).

A bug of the file alone (a sync left out, an error of the disk told wrongly, a torn log) has one method, because in no
schedule does the power fail or a byte change. So have those of PostgreSQL and of restored stores, which no schedule
has, and a few that show only at one moment in thousands of schedules.

With no bug planted, {sound:,} of the {schedules:,} schedules keep every law. A bug that nothing finds fails the slow lane
(`make test-slow`), and so does a detector that finds something in the engine as it is. Seconds are those of the detectors
that found the bug, on a busy machine.

| planted bug | found by | law or test that failed | schedules it took | seconds |
|---|---|---|---|---|
"""


def row(bug: Bug, findings: Sequence[Finding]) -> str:
    """Return a bug's line of the table: all who have found it, in the order in which they looked."""
    found = [one for one in findings if one.is_caught]
    names = ", ".join(one.detector for one in found) or "**nobody**"
    seen = "; ".join(one.by.replace("|", " ") for one in found)
    tries = next((_tries(one) for one in findings if one.detector == "schedules"), "not tried")
    took_s = ", ".join(f"{one.took_s:.0f}" for one in found or findings[-1:])
    return f"| {bug.title} | {names} | {seen} | {tries} | {took_s} |\n"


def _tries(hunted: Finding) -> str:
    return str(hunted.tries) if hunted.is_caught else f"not in {SCHEDULES:,}"


def main() -> None:
    """Write the page; with names of bugs, only print their lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted")
    parser.add_argument("names", nargs="*", help="only these bugs, and no page")
    parser.add_argument("--jobs", type=int, default=1, help="bugs that are looked for at once")
    given = parser.parse_args()
    chosen = [bug for bug in bugs() if not given.names or bug.name in given.names]
    sound = SCHEDULES - len(broken_anyway())
    lines, finders = [], []
    with ThreadPoolExecutor(given.jobs) as pool:
        for bug, findings in zip(chosen, pool.map(lambda bug: look(bug, enough=ENOUGH), chosen), strict=True):
            finders.append(sum(one.is_caught for one in findings))
            lines.append(row(bug, findings))
            print(lines[-1], end="", flush=True)
    if not given.names:
        found, twice = (sum(count >= least for count in finders) for least in (1, ENOUGH))
        head = HEAD.format(planted=len(lines), found=found, twice=twice, schedules=SCHEDULES, sound=sound)
        PAGE.write_text(head + "".join(lines) + "\nMade by `python -m tests.planted`.\n")


if __name__ == "__main__":
    main()
