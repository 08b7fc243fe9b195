"""Histories as files: a process writes a line when it calls and one when it is answered, so that a kill loses nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surefoot.testing import Operation


def now_s() -> float:
    """Return the time by a clock that all processes of the machine share, and that nobody sets."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) / 1e9


class Recorder:
    """Writes one process's part of a history."""

    def __init__(self, file: Path, process: str) -> None:
        self.process = process
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._calls = 0

    def call(self, action: str, key: str, argument: Any = None) -> int:
        """Note that something is called now; return its number."""
        self._calls += 1
        self._write([self._calls, now_s(), action, key, argument])
        return self._calls

    def answer(self, call: int, result: Any) -> None:
        """Note that it has returned."""
        self._write([call, now_s(), result])

    def _write(self, line: list[Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


def read(file: Path) -> Iterator[Operation]:
    """Return what a process has recorded, as far as it came."""
    calls: dict[int, Operation] = {}
    answers: dict[int, tuple[float, Any]] = {}
    for line in file.read_text().splitlines():
        try:
            number, at, *rest = json.loads(line)
        except ValueError:  # cut off by a kill
            continue
        if len(rest) == 1:
            answers[number] = (at, rest[0])
        else:
            action, key, argument = rest
            calls[number] = Operation(file.stem, action, argument, at, None, None, key)
    for number, one in calls.items():
        returned, result = answers.get(number, (None, None))
        yield Operation(one.process, one.action, one.argument, one.called, returned, result, one.key)
