"""Write `docs/planted-bugs.md`: every planted bug, and what each detector made of it. `python -m tests.planted`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tests.planted.detectors import DETECTORS, ROOT, SCHEDULES, Finding, look
from tests.planted.patches import Bug, bugs

PAGE = ROOT / "docs" / "planted-bugs.md"

HEAD = f"""# Planted bugs

Who tests the tests? Each row is a mistake planted in a copy of the engine, as a patch in `tests/planted`, and what it took
to find it. A bug that nothing finds fails the slow lane (`make test-slow`); so does a detector that finds something in
the engine as it is.

* **rules**: property tests of the pure modules (`tests/property/test_rules.py`).
* **schedules**: the shipped engine under drawn schedules of kills, stops, disk and network faults, checked against a world
  that is counted outside (`tests/property`). The number says how many schedules it took; at most {SCHEDULES} are tried.
* **contract**: `tests/contract`, the promises one by one.
* **worlds**: real processes, killed for real, in AgentDojo's worlds (`tests/worlds`); asked when nothing else has found it.

A dash: it looked, and did not find it.

| planted | rules | schedules | contract | worlds |
|---|---|---|---|---|
"""


def row(bug: Bug, findings: Iterable[Finding]) -> str:
    """Return a bug's line of the table."""
    found = {finding.detector: finding for finding in findings}
    cells = [_cell(found.get(detector.name)) for detector in DETECTORS]
    return f"| {bug.title} | {' | '.join(cells)} |\n"


def _cell(finding: Finding | None) -> str:
    if finding is None:
        return ""
    if not finding.is_caught:
        return "-"
    by = finding.by.replace("|", " ")
    return by if finding.tries is None else f"{finding.tries}: {by}"


def look_at(bug: Bug) -> list[Finding]:
    """Ask all quick detectors, and the slow one if none of them has found it."""
    findings = look(bug, DETECTORS[:3], is_first_enough=False)
    if not any(finding.is_caught for finding in findings):
        findings += look(bug, DETECTORS[3:])
    return findings


def main() -> None:
    """Write the page; with names of bugs, only print their lines."""
    wanted = sys.argv[1:]
    lines = []
    for bug in bugs():
        if wanted and bug.name not in wanted:
            continue
        lines.append(row(bug, look_at(bug)))
        print(lines[-1], end="", flush=True)
    if not wanted:
        PAGE.write_text(HEAD + "".join(lines) + "\nMade by `python -m tests.planted`.\n")


if __name__ == "__main__":
    main()
