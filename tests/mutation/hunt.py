"""Who kills a mutant: the tests that execute its line, quickest first, in a fork that has everything else imported.

Each worker has a copy of the engine of its own, puts one mutant after another into it, and forks: the fork imports the
engine and the tests from the copy, so that processes which tests start see the mutant too.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutants import Mutant

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0
"""One that takes longer has been found: it hangs."""


FATES = {0: "survived", 1: "killed", 2: "killed", 3: "killed"}
"""What pytest's exit codes mean: 2 is an error while collecting, as of a mutant that can't be imported, 3 one that pytest
itself stumbles over, as endless recursion."""

FOUND = re.compile(r"\A[.sx]|ERROR collecting|ERROR: not found|ImportError while loading conftest")
"""What the log says when a mutant has ended the process in another way: in the middle of the tests, or before the first one
that was asked for by name. Without it the hunt is wrong, not the mutant."""


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: "killed", "hangs", "survived", or "not executed" by any test."""

    mutant: Mutant
    fate: str
    took_s: float


class Worker:
    """Tries mutants in a copy of the engine."""

    def __init__(self, folder: Path) -> None:
        self._copy = folder / "src"
        shutil.copytree(ROOT / "src", self._copy, ignore=shutil.ignore_patterns("__pycache__"))
        self._log = folder / "log"
        self._bytecode = folder / "bytecode"  # of all that isn't changed: compiling it took most of a mutant's time

    def try_one(self, mutant: Mutant, tests: Sequence[str]) -> Verdict:
        """Return what tests say of a mutant."""
        if not tests:
            return Verdict(mutant, "not executed", 0.0)
        place, started_s = self._copy / mutant.path, time.monotonic()
        before = place.read_text()
        self._write(place, mutant.source)
        try:
            return Verdict(mutant, self._fate(tests), time.monotonic() - started_s)
        finally:
            self._write(place, before)

    def _write(self, place: Path, source: str) -> None:
        """Change a file, and forget its bytecode: two changes within a second and of one size would look the same."""
        place.write_text(source)
        for old in (self._bytecode / place.parent.relative_to("/")).glob(f"{place.stem}.*"):
            old.unlink()

    def _fate(self, tests: Sequence[str]) -> str:
        pid = os.fork()
        if pid == 0:
            _be(self._copy, self._bytecode, self._log, tests)
        until_s = time.monotonic() + PATIENCE_S
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                return "killed" if code < 0 else FATES.get(code) or self._fate_by_log()
            if time.monotonic() > until_s:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return "hangs"
            time.sleep(0.02)

    def _fate_by_log(self) -> str:
        said = self._log.read_text()
        if FOUND.search(said):
            return "killed"
        raise RuntimeError(f"the tests could not be run:\n{said[-3000:]}")


def _be(copy: Path, bytecode: Path, log: Path, tests: Sequence[str]) -> None:
    """Be the process that tries it."""
    code = 2
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(bytecode)
        os.environ.update(PYTHONPYCACHEPREFIX=str(bytecode), PYTHONPATH=os.pathsep.join((str(copy), str(ROOT))))
        sys.path[:0] = [str(copy), str(ROOT)]
        os.chdir(ROOT)
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header",
                   "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # fmt: skip
        code = int(pytest.main([*options, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def preload() -> None:
    """Import what all tests need, except the engine: forks have it then."""
    for name in ("pytest", "_pytest.assertion.rewrite", "pytest_asyncio.plugin", "hypothesis", "hypothesis.strategies",
                 "apsw", "msgspec", "pydantic", "pydantic_ai", "pydantic_ai.durable_exec", "pydantic_ai.models.function",
                 "pydantic_ai.models.test", "rich.console", "typer", "sqlite3", "asyncio", "anyio"):  # fmt: skip
        __import__(name)
    assert not any(name.partition(".")[0] == "surefoot" for name in sys.modules), "the forks import the engine"
