"""The command line as a person uses it: real processes in a directory of their own, over a store made by `floor`."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.e2e.cli import floor

import surefoot as sf
from surefoot.cli import main
from surefoot.runs.life import RunState

WAIT_S = 30.0
"""When a test gives up. Far above what a loaded machine needs: reaching it is a failure, never a pace."""

sys.modules["floor"] = floor  # in this process it is known under the name it has in the directory


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed with `--json`."""
        return json.loads(self.out)


@dataclass
class Shell:
    """A directory with `floor.py` and a store, and ways to type commands in it."""

    place: Path
    capture: pytest.CaptureFixture[str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return "sqlite:///agents.db"

    def environment(self, **more: str) -> dict[str, str]:
        hidden = {"SUREFOOT_URL", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "PYTHONPATH"}
        return {**{name: value for name, value in os.environ.items() if name not in hidden}, **more}

    def type(self, *words: str) -> Done:
        """Run a command in a process of its own, to its end."""
        process = self.start(*words)
        out, err = process.communicate(timeout=WAIT_S)
        return Done(process.returncode, out, err)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command in a process of its own."""
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        process = subprocess.Popen(
            [sys.executable, "-m", "surefoot", *words], cwd=self.place, env=self.environment(), text=True, **given
        )
        self.started.append(process)
        return process

    def here(self, *words: str) -> Done:
        """Run a command in this process: the same code without the second that a Python needs to start."""
        self.capture.readouterr()
        with pytest.raises(SystemExit) as end:
            main(words)
        shown = self.capture.readouterr()
        return Done(int(end.value.code or 0), shown.out, shown.err)

    def submit(self, kind: str, *args: Any, id: str) -> None:
        """Start a run without executing it."""

        async def work() -> None:
            async with sf.Surefoot(self.url, is_worker=False) as app:
                await app.start(kind, *args, id=id)

        asyncio.run(work())

    def state(self, run: str) -> str | None:
        """Return a run's state with a query of its own, cheap enough to ask again and again."""
        if not (self.place / "agents.db").exists():
            return None
        connection = apsw.Connection("agents.db", flags=apsw.SQLITE_OPEN_READONLY)
        try:
            found = [row[0] for row in connection.execute("SELECT state FROM runs WHERE run_id = ?", (run,))]
        except apsw.Error:  # not made yet
            return None
        finally:
            connection.close()
        return RunState(found[0]).name.lower() if found else None

    def world(self) -> list[str]:
        path = self.place / "world"
        return path.read_text().splitlines() if path.exists() else []

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let acts and steps begin and not end."""
        (self.place / "hold").touch()
        try:
            yield
        finally:
            (self.place / "hold").unlink(missing_ok=True)


def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds."""
    for _ in range(int(WAIT_S / 0.02)):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("the condition did not come true in time")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    importlib.reload(floor)  # its effects are the newest of their names, whatever another test has declared
    shutil.copy(str(floor.__file__), tmp_path / "floor.py")
    monkeypatch.chdir(tmp_path)
    for name in ("SUREFOOT_URL", "COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    made = Shell(tmp_path, capsys)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.communicate()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
