"""The two consoles: data on stdout, words on stderr; tables that fit the terminal they are shown on.

What holds: everything shown is a `Text`, never markup, and has passed `words.clean`; without a terminal there is no colour,
no line is cut or wrapped, and a row stays one line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from msgspec import Struct
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from surefoot.cli.exits import ReaderLeft
from surefoot.cli.shapes import to_json
from surefoot.cli.words import clean, one_line

WIDE = 10_000
"""Columns of something that is no terminal: a pipe or a file doesn't wrap."""

FLEXIBLE_MIN = 12
"""Below this a shortened column says nothing any more, and rows are shown as blocks."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise ReaderLeft


def _console(file: TextIO) -> Console:
    columns = os.environ.get("COLUMNS", "")
    width = None if file.isatty() else int(columns) if columns.isdigit() and int(columns) > 0 else WIDE
    return _Console(file=file, markup=False, highlight=False, emoji=False, width=width, safe_box=True)


def data() -> Console:
    """Return the console for what was asked for."""
    return _console(sys.stdout)


def words() -> Console:
    """Return the console for all else."""
    return _console(sys.stderr)


def emit(document: Struct) -> None:
    """Print a document as JSON."""
    with reader_may_leave():
        sys.stdout.write(to_json(document) + "\n")
        sys.stdout.flush()


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Name what it means when stdout is closed."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderLeft from None


def say(text: str, style: str = "") -> None:
    """Tell the person something that is no data."""
    words().print(Text(clean(text), style=style), soft_wrap=True)


def heading(text: str) -> None:
    """Print the title of a part."""
    data().print(Text(text, style="bold"))


def line(text: str, style: str = "") -> None:
    """Print one line or paragraph of data."""
    data().print(Text(clean(text), style=style))


def to_type(text: str) -> None:
    """Print a command that the person may copy: the terminal wraps it, we don't."""
    data().print(Text(clean(text), style="cyan"), soft_wrap=True)


def raw(text: str) -> None:
    """Print text of many lines as it is, cleaned, never wrapped."""
    with reader_may_leave():
        sys.stdout.write(clean(text) + "\n")
        sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a listing.

    Attributes:
        title: Its head.
        is_flexible: Whether it may be shortened to fit.
        style: For its cells.
    """

    title: str
    is_flexible: bool = False
    style: str = ""


def listing(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a table, or, where that is too wide for the terminal, as blocks."""
    console = data()
    texts = [[one_line(cell) for cell in row] for row in rows]
    if _least_width(columns, texts) > console.width:
        return _blocks(console, columns, texts)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    for column, width in zip(columns, _natural_widths(columns, texts), strict=True):
        least = None if column.is_flexible else width
        table.add_column(column.title, style=column.style, no_wrap=True, overflow="ellipsis", min_width=least)
    for row in texts:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    return None


def _least_width(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    widths = [
        min(FLEXIBLE_MIN, width) if column.is_flexible else width
        for column, width in zip(columns, _natural_widths(columns, rows), strict=True)
    ]
    return sum(widths) + 2 * (len(columns) - 1)


def _natural_widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    return [
        max([cell_len(column.title), *(cell_len(row[place]) for row in rows)]) for place, column in enumerate(columns)
    ]


def _blocks(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        console.print(Text(row[0], style="bold"))
        fields([(column.title, cell) for column, cell in zip(columns[1:], row[1:], strict=True) if cell], indent=2)


def fields(pairs: Sequence[tuple[str, str]], *, indent: int = 0) -> None:
    """Print names and values below each other; long values are wrapped in their own column."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(" " * indent + name), Text(clean(value)))
    data().print(grid)
