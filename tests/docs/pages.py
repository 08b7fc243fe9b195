"""What the tests of the documentation share: the pages, their headings, code blocks and tables."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS_SERVERS = frozenset({"20_temporal"})
"""Examples that are run where their servers are: tests/temporal."""

MADE_ELSEWHERE = frozenset(
    {
        "docs/benchmarks.md",
        "docs/contention.md",
        "docs/crash-table.md",
        "docs/disk-and-power.md",
        "docs/mcp-crash-table.md",
        "docs/planted-bugs.md",
    }
)
"""Pages that a measurement writes: a link to one that has not been written yet is no mistake."""


def name_of(path: Path) -> str:
    """Return a path as the repository has it."""
    return path.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    """Return a page's text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def headings(text: str) -> list[tuple[int, str]]:
    """Return the level and text of a page's headings."""
    found = re.findall(r"^(#{1,6}) (.+)$", without_code(text), flags=re.MULTILINE)
    return [(len(marks), title.strip()) for marks, title in found]


def anchor(title: str) -> str:
    """Return a heading's anchor, as the usual renderers make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def python_blocks(text: str) -> list[str]:
    """Return a page's blocks of Python."""
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def rows(text: str, heading: str, *, first: str) -> list[tuple[str, ...]]:
    """Return the rows of the table under a heading whose first column is called `first`."""
    section = re.split(rf"^#+ {re.escape(heading)}$", text, maxsplit=1, flags=re.MULTILINE)[1]
    table = re.split(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\|\n", section, maxsplit=1, flags=re.MULTILINE)[1]
    lines = table.split("\n\n")[0].splitlines()
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def run_as_program(code: Path, folder: Path, patch: pytest.MonkeyPatch, **environment: str) -> None:
    """Run a file as `python FILE` would, in a directory of its own, but in this process, where all is imported already."""
    patch.chdir(folder)
    patch.delenv("SUREFOOT_URL", raising=False)
    for name, value in environment.items():
        patch.setenv(name, value)
    patch.setattr(sys, "argv", [str(code)])
    runpy.run_path(str(code), run_name="__main__")
