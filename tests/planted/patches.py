"""Planted bugs: small patches against the engine, each a mistake that somebody could make, and has made elsewhere.

A patch is a unified diff whose first line says what the mistake is. It is applied to a copy of `src`, by what its hunks
say and not by where: a hunk that fits nowhere, or in two places, is an error, so that a patch can't rot in silence.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"


class PatchRotten(Exception):
    """A planted bug no longer fits the engine: mend the patch."""


@dataclass(frozen=True)
class Bug:
    """One planted bug: its name, what it is in words, and its diff."""

    name: str
    title: str
    diff: str


def bugs() -> list[Bug]:
    """Return all planted bugs."""
    found = []
    for path in sorted(HERE.glob("*.patch")):
        title, _, diff = path.read_text().partition("\n")
        found.append(Bug(path.stem, title, diff))
    return found


def plant(bug: Bug | None, folder: Path) -> Path:
    """Copy the engine to a folder, plant a bug in it, and return the copy; None plants nothing.

    Raises:
        PatchRotten: It fits nowhere.
    """
    copy = folder / "src"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    if bug is not None:
        _apply(bug, copy)
    return copy


def _apply(bug: Bug, copy: Path) -> None:
    for path, old, new in _hunks(bug.diff):
        text = (copy / path).read_text()
        if text.count(old) != 1:
            raise PatchRotten(f"{bug.name}: {text.count(old)} places in {path} look like this:\n{old}")
        (copy / path).write_text(text.replace(old, new))


def _hunks(diff: str) -> list[tuple[str, str, str]]:
    """Return each hunk as a path below `src`, what must be there, and what is put in its place."""
    hunks: list[tuple[str, str, str]] = []
    path = ""
    for line in diff.splitlines(keepends=True):
        if line.startswith("+++ "):
            path = line.removeprefix("+++ b/src/").strip()
        elif line.startswith("@@"):
            hunks.append((path, "", ""))
        elif hunks and line[0] in " +-" and not line.startswith("--- "):
            where, old, new = hunks[-1]
            hunks[-1] = (where, old + line[1:] * (line[0] in " -"), new + line[1:] * (line[0] in " +"))
    return hunks
