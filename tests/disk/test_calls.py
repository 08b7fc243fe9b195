"""Every call that SQLite makes to its files fails, once and for ever, at the VFS and at the system calls.

Whatever fails: the worker ends well or with an error that says what to do, all that it had acknowledged is in the file, the
next worker finishes, and the services' own books show everything once. The fast lane draws a sample, with at least one of
each kind of call and way to fail where the number allows; the slow lane takes more.
"""

from __future__ import annotations

import pytest
from tests.disk import lanes, strace

SEED = "7"


def test_a_sample_of_calls_fails() -> None:
    """Would catch an error that reaches the user bare, a commit that is told though its sync failed, a hang, and a next
    worker that can't go on."""
    rows = lanes.run("calls", "--sample", "10", "--seed", SEED)
    assert lanes.wrong(rows) == []
    assert len(rows) == 10


@pytest.mark.slow
def test_calls_fail() -> None:
    """The same for one call in 16 of each kind, in every way."""
    rows = lanes.run("calls", "--stride", "16")
    assert lanes.wrong(rows) == []
    assert len(rows) > 200
    assert {row["ended"] for row in rows} >= {"well", "StoreFailed", "DiskFull"}
    assert sum(row["is_struck"] for row in rows) > 0.9 * len(rows)


@pytest.mark.skipif(bool(strace.usable()), reason=strace.usable())
def test_a_sample_of_system_calls_fails() -> None:
    """Would catch the same where no VFS comes: the log's index, the turnstile, the session's lock file."""
    rows = lanes.run("strace", "--sample", "4", "--seed", SEED)
    assert lanes.wrong(rows) == []
    assert any(row["is_struck"] for row in rows)


@pytest.mark.slow
@pytest.mark.skipif(bool(strace.usable()), reason=strace.usable())
def test_system_calls_fail() -> None:
    """The same with at least one of each system call, file and error."""
    rows = lanes.run("strace", "--sample", "240")
    assert lanes.wrong(rows) == []
    assert sum(row["is_struck"] for row in rows) > 0.9 * len(rows)
