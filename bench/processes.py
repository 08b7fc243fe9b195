"""Measured processes: started, waited for, killed with `kill -9`, and their stores weighed.

What always holds: one process and one new directory per measurement; a directory is gone when its figures are taken; a
process that outlives its limit is killed and reported, never waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import apsw

from bench.driver import BLOCKED_LINE, READY_LINE
from bench.environments import BENCH, ROOT
from bench.plan import Work

LIMIT_S = 600
SHIELD_PRIORITY = 5
SETTLE_S = 0.25
"""Between the last run's arrival and the kill: time to write records that nobody waits for (ours take 5 ms)."""

OUT = BENCH / "out"
_SQLITE_HEADER = b"SQLite format 3\0"
_QUIET = {"LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false"}  # no tracing of the runs to any service


class MeasurementFailed(Exception):
    """A measured process did not end well; the message is the last thing it said."""


def shield() -> None:
    """Run all later measurements in the real-time class, before every ordinary process of the machine.

    For machines that are busy with other work: there one `fdatasync` waits for a scheduler tick (4 ms) instead of for
    the disk (0.1 ms), and the systems that wait most often look worst. Ordinary work stands still meanwhile.

    Raises:
        PermissionError: This needs the right to raise priorities.
    """
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(SHIELD_PRIORITY))


def measure(python: Path, module: str, arguments: list[str]) -> dict[str, Any]:
    """Run a driver in a directory of its own and return its figures, with the bytes its store has left on disk.

    Raises:
        MeasurementFailed: The process failed, or took longer than `LIMIT_S`.
    """
    with _new_directory() as directory:
        figures = _finish(_start(python, module, arguments, directory), directory)
        figures["store_bytes"] = weigh(directory / "store")
    return figures


def measure_together(python: Path, module: str, arguments: list[list[str]]) -> list[dict[str, Any]]:
    """Run a driver in several processes, which are let go together once all are ready; return the figures of each.

    Raises:
        MeasurementFailed: One of them failed, or took longer than `LIMIT_S`.
    """
    with _new_directory() as directory, contextlib.ExitStack() as limits:
        own = [directory / str(number) for number in range(len(arguments))]
        for each in own:
            each.mkdir()
        started = [
            _start(python, module, [*given, "--together"], each, stdin=subprocess.PIPE)
            for given, each in zip(arguments, own, strict=True)
        ]
        for process in started:
            limits.enter_context(_limited(process))
        for process, each in zip(started, own, strict=True):
            assert process.stdout is not None
            if not any(line.strip() == READY_LINE for line in process.stdout):
                process.wait()
                raise _failure(process, each)
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return [_finish(process, each) for process, each in zip(started, own, strict=True)]


def age_and_measure(python: Path, module: str, arguments: list[str]) -> dict[str, Any]:
    """Let a driver fill its store, and measure another process on it. The store is not weighed: most of it is old.

    Raises:
        MeasurementFailed: One of the two processes failed, or took longer than `LIMIT_S`.
    """
    with _new_directory() as directory:
        _finish(_start(python, module, [*arguments, "--phase", "age"], directory), directory)
        return _finish(_start(python, module, arguments, directory), directory)


def kill_and_resume(python: Path, module: str, arguments: list[str]) -> dict[str, Any]:
    """Let every run of a driver block inside a step, kill the process with SIGKILL, and measure the resume.

    Raises:
        MeasurementFailed: One of the two processes failed, or took longer than `LIMIT_S`.
    """
    with _new_directory() as directory:
        _block_and_kill(_start(python, module, [*arguments, "--phase", "block"], directory), directory)
        return _finish(_start(python, module, [*arguments, "--phase", "resume"], directory), directory)


def weigh(directory: Path) -> int:
    """Return the bytes of all files, after a truncating checkpoint of every SQLite database among them."""
    for path in directory.rglob("*"):
        if path.is_file() and _is_sqlite(path):
            connection = apsw.Connection(str(path))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.close()
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def arguments_of(work: Work, variant: str) -> list[str]:
    """Return a driver's arguments for its share of a case."""
    given = {
        "runs": work.runs,
        "cycles": work.cycles,
        "rounds": work.rounds,
        "variant": variant,
        "effects": work.effects,
    }
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


@contextmanager
def _new_directory() -> Iterator[Path]:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=OUT, ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def _start(
    python: Path, module: str, arguments: list[str], directory: Path, *, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    command = [str(python), "-m", module, *arguments]
    command += ["--directory", str(directory / "store"), "--out", str(directory / "figures.json")]
    with (directory / "stderr.txt").open("w") as stderr:
        return subprocess.Popen(
            command,
            cwd=ROOT,  # the modules are found from here
            env=os.environ | _QUIET,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )


def _finish(process: subprocess.Popen[str], directory: Path) -> dict[str, Any]:
    with _limited(process):
        process.communicate()
    if process.returncode:
        raise _failure(process, directory)
    return dict(json.loads((directory / "figures.json").read_text()))


def _block_and_kill(process: subprocess.Popen[str], directory: Path) -> None:
    assert process.stdout is not None
    with _limited(process):
        are_blocked = any(line.strip() == BLOCKED_LINE for line in process.stdout)
        if are_blocked:
            sleep(SETTLE_S)
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    if not are_blocked or process.returncode != -signal.SIGKILL:
        raise _failure(process, directory)


def _failure(process: subprocess.Popen[str], directory: Path) -> MeasurementFailed:
    said = (directory / "stderr.txt").read_text().strip().splitlines()
    return MeasurementFailed(said[-1] if said else f"exit code {process.returncode}")


@contextmanager
def _limited(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill the process when `LIMIT_S` have passed, or when whoever waits for it gives up."""
    limit = threading.Timer(LIMIT_S, process.kill)
    limit.start()
    try:
        yield
    finally:
        limit.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER
