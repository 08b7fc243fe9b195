"""Sagas whose process is killed: at every crossing of the store and of the world, with real SIGKILLs, the world counted."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.support.sagas import KINDS


def _sweep(kind: str, steps: int, twice: int) -> str:
    """Sweep in a warm parent of its own: a process with threads can't be forked safely."""
    command = [sys.executable, "-m", "tests.support.sagas", kind, str(steps), str(twice)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1_800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_saga_is_undone_by_the_next_process(kind: str) -> None:
    """Catches work that is left, undone twice, or undone though it never happened, after a kill at a sample of places."""
    assert int(_sweep(kind, 9, 0).split()[0]) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_saga_survives_a_kill_anywhere_and_another_in_its_recovery(kind: str) -> None:
    """Catches what only one place shows: each crossing once, and every fourth with a second kill at each later one."""
    assert int(_sweep(kind, 1, 4).split()[0]) > 100
