"""What the demo shows while it runs, on stderr: the tickets with their states, and the kills as they happen.

Always holds: text from tickets, models and files is shown without markup and without characters that steer a terminal;
without a terminal every change is one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from surefoot.runs import RunState
from surefoot.runs.rows.tables import RunRow

WIDE = 10_000
"""Columns of something that is no terminal: a pipe or a file does not wrap."""

_STYLES = {"done": "green", "gave up": "yellow", "blocked": "bold red", "works": "cyan"}


def state_of(row: RunRow) -> str:
    """Return in words where a ticket is."""
    match row.state:
        case RunState.PENDING:
            return "waits its turn"
        case RunState.RUNNING:
            return "works"
        case RunState.COMPLETED:
            return "done"
        case RunState.FAILED:
            return "gave up"
        case RunState.CANCELLED:
            return "cancelled"
    if row.waiting_for == "blocked":
        return "blocked"
    return "waits for a person" if row.wake_at_ms is None else "in doubt, waits to find out"


@dataclass(frozen=True, slots=True)
class Line:
    """One ticket as the list shows it: its name, where it is, and its last act."""

    name: str
    state: str
    act: str


class Screen:
    """The list of tickets, kept up to date; use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _console()
        self._live: Live | None = None
        self._lines: dict[str, Line] = {}
        self._head = ""
        self._killed = 0

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, words: str, style: str = "") -> None:
        """Say one thing, above the list."""
        self.console.print(Text(words, style=style), soft_wrap=True)

    def show(self, head: str, lines: Sequence[Line], killed: int) -> None:
        """Show the list as it is now."""
        if killed > self._killed:
            self.say(f"SIGKILL: {killed} so far", "red")
        self._killed = killed
        if self._live is None:
            for line in lines:
                if self._lines.get(line.name) != line:
                    self.say(f"{line.name}: {line.state}{f' ({line.act})' if line.act else ''}")
        else:
            self._live.update(_table(head, lines))
        self._lines = {line.name: line for line in lines}


def _table(head: str, lines: Sequence[Line]) -> Table:
    table = Table(title=Text(head), title_justify="left", box=None, padding=(0, 2, 0, 0), show_header=False)
    for line in lines:
        table.add_row(
            Text(line.name), Text(line.state, style=_STYLES.get(line.state, "")), Text(line.act, overflow="ellipsis")
        )
    return table


def _console() -> Console:
    width = None if sys.stderr.isatty() else WIDE
    return Console(file=sys.stderr, markup=False, highlight=False, emoji=False, width=width)
