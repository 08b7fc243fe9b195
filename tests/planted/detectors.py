"""Who finds a planted bug, and at what cost. Each detector is a command, run with the copy of the engine in its path."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.planted.patches import SOURCE, Bug, plant

ROOT = Path(__file__).parents[2]
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow")
SCHEDULES = 400


@dataclass(frozen=True)
class Detector:
    """One way to look for bugs."""

    name: str
    command: tuple[str, ...]
    patience_s: int = 240
    """One that takes longer has found something too: a hang."""
    is_last_resort: bool = False
    """Takes minutes: looks for what no other has found."""


DETECTORS = (
    Detector("contract", (*PYTEST, "tests/contract"), patience_s=1_800),  # 8 minutes on a busy machine
    Detector("rules", (*PYTEST, "tests/property/test_rules.py")),
    Detector("lines", (*PYTEST, "tests/unit/coordination", "tests/histories")),
    Detector(
        "schedules", ("-m", "tests.planted.hunt", str(SCHEDULES)), patience_s=1_200
    ),  # none hangs; many take minutes
    Detector("postgres", (*PYTEST, "tests/postgres/test_store.py"), patience_s=600, is_last_resort=True),
    Detector("worlds", (*PYTEST, "tests/worlds/test_surefoot.py"), is_last_resort=True),
    Detector("disk", (*PYTEST, "tests/disk"), patience_s=600, is_last_resort=True),
    Detector("crash", (*PYTEST, "tests/crash"), patience_s=900, is_last_resort=True),
)


@dataclass(frozen=True)
class Finding:
    """What one detector said of one copy.

    Attributes:
        detector: Which.
        is_caught: Whether it failed.
        by: The test or the law that did.
        tries: Schedules until then; None for other detectors.
        took_s: Seconds.
    """

    detector: str
    is_caught: bool
    by: str
    tries: int | None
    took_s: float


def look(bug: Bug | None, detectors: Sequence[Detector] = DETECTORS, *, enough: int = 1) -> list[Finding]:
    """Plant a bug in a copy of the engine and let detectors look for it, in order, until enough of them have found it.

    Args:
        bug: Which; None for the engine as it is, at which all of them look.
        detectors: Who looks.
        enough: After so many have found it, nobody looks any more.
    """
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="surefoot-planted-") as folder:
        source = plant(bug, Path(folder))
        _check_is_imported(source)
        for detector in detectors:
            if detector.is_last_resort and bug is not None and any(one.is_caught for one in findings):
                continue
            findings.append(_run(detector, source))
            if bug is not None and sum(one.is_caught for one in findings) >= enough:
                break
    return findings


@functools.cache
def broken_anyway() -> tuple[str, ...]:
    """Return the seeds whose schedules break a law of the engine as it is, and so say nothing of a planted bug."""
    command = [sys.executable, "-m", "tests.planted.hunt", str(SCHEDULES), "--all"]
    done = subprocess.run(command, env=_environment(SOURCE), cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"searched {SCHEDULES}" in done.stdout, f"{done.stdout}{done.stderr}"
    return tuple(re.findall(r"caught after (\d+)", done.stdout))


def _environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(source), str(ROOT)))}


def _check_is_imported(source: Path) -> None:
    command = [sys.executable, "-c", "import surefoot; print(surefoot.__file__)"]
    done = subprocess.run(command, env=_environment(source), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(str(source)), f"not the copy is imported: {done.stdout}{done.stderr}"


def _run(detector: Detector, source: Path) -> Finding:
    left_out = broken_anyway() if detector.name == "schedules" else ()
    started_s = time.monotonic()
    try:
        done = subprocess.run([sys.executable, *detector.command, *left_out], env=_environment(source), cwd=ROOT,
                              capture_output=True, text=True, check=False, timeout=detector.patience_s)  # fmt: skip
    except subprocess.TimeoutExpired:
        return Finding(detector.name, True, "it hangs", None, time.monotonic() - started_s)
    took_s = time.monotonic() - started_s
    if done.returncode == 0:
        return Finding(detector.name, False, "", None, took_s)
    hunted = re.search(r"caught after (\d+): (.*)", done.stdout)
    if hunted is not None:
        return Finding(detector.name, True, hunted[2].partition(":")[0], int(hunted[1]), took_s)
    failed = re.search(r"^(?:FAILED|ERROR) \S*?(\w+)(?:\[.*\])?(?: - .*)?$", done.stdout, re.MULTILINE)
    return Finding(detector.name, True, failed[1] if failed else done.stdout[-300:] + done.stderr[-300:], None, took_s)
