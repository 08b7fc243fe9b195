"""Servers, and worker processes that are killed, stopped and continued."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.temporal import Temporal, missing, server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def temporal() -> Iterator[Temporal]:
    """A Temporal server of this test process."""
    if why := missing():
        pytest.skip(why)
    with server() as running:
        yield running


class Crew:
    """The processes of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def spawn(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a process; what it says goes to a file beside it."""
        log = (self.folder / f"{len(self.processes)}.log").open("ab")
        found = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, stdout=log, stderr=log)
        log.close()
        self.processes.append(found)
        return found

    def said(self) -> str:
        """Return what they have said, for a test that fails."""
        return "\n".join(path.read_text()[-4_000:] for path in sorted(self.folder.glob("*.log")))


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    """Processes that end with the test."""
    found = Crew(tmp_path)
    yield found
    for process in found.processes:
        process.kill()
        process.wait(10)
