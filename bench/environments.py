"""Virtual environments for what is measured, one per set of pinned requirements, under `bench/.envs/`.

A stamp in each environment holds what it was built from; an environment whose stamp still fits is used again, any
other is built anew. Our own engine and the bare store run in the environment the bench was started with.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent


@dataclass(frozen=True)
class Environment:
    """A set of requirements.

    Attributes:
        name: The directory under `bench/.envs/`, and the middle of the requirements file's name.
        with_surefoot: Whether Surefoot is installed beside the requirements, from this repository.
    """

    name: str
    with_surefoot: bool = False

    @property
    def requirements(self) -> Path:
        return BENCH / f"requirements-{self.name}.txt"

    @property
    def directory(self) -> Path:
        return BENCH / ".envs" / self.name


DBOS = Environment("dbos")
LANGGRAPH = Environment("langgraph")
PYDANTIC_AI = Environment("pydantic-ai", with_surefoot=True)


def python_of(environment: Environment | None) -> Path:
    """Return the interpreter of an environment, which is built first if need be.

    Args:
        environment: None is the environment this process runs in.

    Raises:
        subprocess.CalledProcessError: It could not be built; pip has said why on stderr.
    """
    if environment is None:
        return Path(sys.executable)
    python = environment.directory / "bin" / "python"
    stamp = environment.directory / "built-from"
    wanted = _fingerprint(environment)
    if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
        _build(environment, python)
        stamp.write_text(wanted)
    return python


def _build(environment: Environment, python: Path) -> None:
    say(f"building the environment {environment.name} from {environment.requirements.name}")
    shutil.rmtree(environment.directory, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(environment.directory)])
    what = ["-r", str(environment.requirements)]
    if environment.with_surefoot:
        what += ["-e", f"{ROOT}[pydantic-ai]"]
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


def _fingerprint(environment: Environment) -> str:
    sources = [environment.requirements]
    if environment.with_surefoot:
        sources.append(ROOT / "pyproject.toml")
    parts = [sys.version.split()[0].encode(), *(source.read_bytes() for source in sources)]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


def say(progress: str) -> None:
    """Print a line of progress on stderr."""
    print(f"bench: {progress}", file=sys.stderr, flush=True)
