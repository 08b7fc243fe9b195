"""Running the warm parent from a test: a process without threads, which is what may fork."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(*words: str) -> list[dict[str, Any]]:
    """Return what `python -m tests.disk WORDS` prints, one line each."""
    command = [sys.executable, "-m", "tests.disk", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2_000:]}{done.stderr[-4_000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def wrong(rows: list[dict[str, Any]]) -> list[str]:
    """Return what went wrong in any case."""
    return [f"{row['what']}: {row['wrong']}" for row in rows if row["wrong"]]
