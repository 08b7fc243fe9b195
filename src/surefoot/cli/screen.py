"""The two consoles: data on stdout, words on stderr; tables that fit the terminal they are shown on.

What holds: everything shown is a `Text`, never markup, and has passed `words.clean`; without a terminal there is no
colour, no line is cut or wrapped, and a row stays one line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO

from msgspec import Struct
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from surefoot.cli.exits import ReaderLeft, Unwritten
from surefoot.cli.shapes.describe import to_json
from surefoot.cli.words import clean, one_line

WIDE = 10_000
"""Columns of something that is no terminal: a pipe or a file doesn't wrap."""

GAP = 2
"""Blanks between columns."""

VALUE_MIN = 24
"""Below this a column of values is harder to read than values below their names."""

FLEXIBLE_MIN = 12
"""Below this a shortened column says nothing any more, and rows are shown as blocks."""


@contextmanager
def to_stdout() -> Iterator[None]:
    """Name what it means when stdout takes no more.

    Raises:
        ReaderLeft: Its reader has closed it.
        Unwritten: It can't be written for another reason.
    """
    try:
        yield
    except BrokenPipeError:
        raise ReaderLeft from None
    except OSError as error:
        raise Unwritten(
            f"the output could not be written: {error.strerror or error}", hint="what was recorded stays; ask again"
        ) from error


class _Data(Console):
    def on_broken_pipe(self) -> None:
        raise ReaderLeft

    def print(self, *objects: Any, **options: Any) -> None:
        with to_stdout():
            super().print(*objects, **options)


class _Words(Console):
    """Goes on when it can't write: work doesn't end because nobody listens to what is said about it."""

    def on_broken_pipe(self) -> None:
        return

    def print(self, *objects: Any, **options: Any) -> None:
        with suppress(OSError):
            super().print(*objects, **options)


def _console(console: type[Console], file: TextIO) -> Console:
    columns = os.environ.get("COLUMNS", "")
    width = None if file.isatty() else int(columns) if columns.isdigit() and int(columns) > 0 else WIDE
    return console(file=file, markup=False, highlight=False, emoji=False, width=width, safe_box=True)


def data() -> Console:
    """Return the console for what was asked for."""
    return _console(_Data, sys.stdout)


def words() -> Console:
    """Return the console for all else."""
    return _console(_Words, sys.stderr)


def _text(text: str, style: str = "") -> Text:
    """Return text that may be shown; the only way for foreign text into a console."""
    return Text(clean(text), style=style)


def emit(document: Struct) -> None:
    """Print a document as JSON."""
    with to_stdout():
        sys.stdout.write(to_json(document) + "\n")
        sys.stdout.flush()


def say(text: str, style: str = "") -> None:
    """Tell the person something that is no data."""
    words().print(_text(text, style), soft_wrap=True)


def heading(text: str) -> None:
    """Print the title of a part."""
    data().print(_text(text, "bold"))


def line(text: str, style: str = "") -> None:
    """Print one line or paragraph of data."""
    data().print(_text(text, style))


def to_type(text: str) -> None:
    """Print a command that the person may copy: the terminal wraps it, we don't."""
    data().print(_text(text, "cyan"), soft_wrap=True)


def raw(text: str) -> None:
    """Print text of many lines as it is, cleaned, never wrapped."""
    with to_stdout():
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
    widths = fitting_widths(columns, texts, console.width)
    if widths is None:
        for row in texts:
            console.print(_text(row[0], "bold"))
            fields([(f"  {column.title}", cell) for column, cell in zip(columns[1:], row[1:], strict=True) if cell])
        return
    _row(console, [column.title for column in columns], widths, ["bold"] * len(columns))
    for row in texts:
        _row(console, row, widths, [column.style for column in columns])


def _row(console: Console, cells: Sequence[str], widths: Sequence[int], styles: Sequence[str]) -> None:
    shown = Text()
    for cell, width, style in zip(cells, widths, styles, strict=True):
        text = _text(cell, style)
        text.truncate(width, overflow="ellipsis", pad=True)
        shown.append(text).append(" " * GAP)
    shown.rstrip()
    console.print(shown, soft_wrap=True)


def fitting_widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], limit: int) -> list[int] | None:
    """Return the columns' widths, the widest flexible ones shortened until all fit; None if they can't."""
    widths = [
        max([cell_len(column.title), *(cell_len(row[place]) for row in rows)]) for place, column in enumerate(columns)
    ]
    flexible = [place for place, column in enumerate(columns) if column.is_flexible]
    over = sum(widths) + GAP * (len(columns) - 1) - limit
    for _ in range(max(0, over)):
        widest = max(flexible, key=lambda place: widths[place])
        if widths[widest] <= FLEXIBLE_MIN:
            return None
        widths[widest] -= 1
    return widths


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values beside each other, values wrapped in their own column; on a narrow terminal, below."""
    console = data()
    names = max((cell_len(name) for name, _ in pairs), default=0)
    if names + GAP + VALUE_MIN > console.width:
        for name, value in pairs:
            console.print(_text(one_line(name), "dim"))
            console.print(Padding(_text(value), (0, 0, 0, 4)))
        return
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(_text(name.replace("\n", " ")), _text(value))
    _print(console, grid)


@to_stdout()
def _print(console: Console, table: Table) -> None:
    """Print a table; into a pipe without the blanks that fill its last column."""
    if console.is_terminal:
        return console.print(table)
    with console.capture() as capture:
        console.print(table)
    return console.print(Text("\n".join(row.rstrip() for row in capture.get().splitlines())), soft_wrap=True)
