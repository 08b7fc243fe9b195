"""Tickets of the user's own, from a `.csv` or `.jsonl` file.

Columns (or fields): `id`, `text` and, if known, `order_id`. Always holds: a file that has any fault is refused with its
name, the line, the field and what was expected there; what is left unused (tickets beyond the limit, other columns) is
said.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from surefoot.demo.tickets import MAX_TICKETS, Ticket
from surefoot.journal.texts import has_half_characters

MAX_TEXT = 2_000  # characters: the small local model reads the ticket and its instructions in one short context
MAX_ID = 64  # characters: ids name runs, and stand in tables
_FIELDS = ("id", "text", "order_id")
_Row = tuple[int, Mapping[str, object]]


class TicketFileError(ValueError):
    """A ticket file cannot be used; the message says where and why. The file's fault: mend it and start again."""

    def __init__(self, path: Path, problem: str, *, line: int | None = None, field: str | None = None) -> None:
        place = [str(path), *([f"line {line}"] if line is not None else []), *([f"field {field!r}"] if field else [])]
        super().__init__(f"{', '.join(place)}: {problem}")
        self.path = path
        self.line = line
        self.field = field


@dataclass(frozen=True, slots=True)
class TicketFile:
    """What was read.

    Attributes:
        tickets: At most `MAX_TICKETS`, in the file's order.
        left_out: How many more the file holds.
        unused_fields: Names that mean nothing to the demo.
    """

    tickets: tuple[Ticket, ...]
    left_out: int
    unused_fields: tuple[str, ...]

    @property
    def notice(self) -> str | None:
        """What the user should know about what was not used; None if all was."""
        said = []
        if self.left_out:
            total = len(self.tickets) + self.left_out
            said.append(f"the first {len(self.tickets)} of {total} tickets are used; the demo takes {MAX_TICKETS}")
        if self.unused_fields:
            said.append(f"not used: {', '.join(self.unused_fields)}")
        return "; ".join(said) or None


def load_tickets(path: Path) -> TicketFile:
    """Read a user's tickets.

    Args:
        path: A file that ends in `.csv` (with a header line) or `.jsonl` (one object a line), in UTF-8.

    Raises:
        TicketFileError: If anything in it is not as described.
    """
    text = _read(path)
    match path.suffix.lower():
        case ".csv":
            rows = _csv_rows(path, text)
        case ".jsonl":
            rows = _json_rows(path, text)
        case suffix:
            raise TicketFileError(path, f"ends in {suffix or 'nothing'!r}; expected .csv or .jsonl")
    tickets: list[Ticket] = []
    unused: dict[str, None] = {}
    seen: dict[str, int] = {}
    for line, row in rows:
        ticket = _ticket(path, line, row)
        if ticket.ticket_id in seen:
            first = seen[ticket.ticket_id]
            raise TicketFileError(path, f"{ticket.ticket_id!r} is the id of line {first} too", line=line, field="id")
        seen[ticket.ticket_id] = line
        tickets.append(ticket)
        unused.update(dict.fromkeys(name for name in row if name not in _FIELDS))
    if not tickets:
        raise TicketFileError(path, "holds no ticket")
    return TicketFile(tuple(tickets[:MAX_TICKETS]), max(0, len(tickets) - MAX_TICKETS), tuple(unused))


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TicketFileError(path, f"cannot be read: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise TicketFileError(
            path, f"byte 0x{raw[error.start]:02x} is no UTF-8; save it as UTF-8", line=line
        ) from error


def _csv_rows(path: Path, text: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        for name in ("id", "text"):
            if name not in header:
                found = ", ".join(header) or "nothing"
                raise TicketFileError(path, f"is missing in the header line, which has {found}", line=1, field=name)
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                if len(cells) != len(header):
                    problem = f"has {len(cells)} cells, the header has {len(header)}; quote texts that hold a comma"
                    raise TicketFileError(path, problem, line=line)
                yield line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1  # a quoted text may span lines: a row is named by its first
    except csv.Error as error:
        raise TicketFileError(path, f"is no CSV: {error}", line=line) from error


def _json_rows(path: Path, text: str) -> Iterator[_Row]:
    for line, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        try:
            row = json.loads(source)
        except (ValueError, RecursionError) as error:
            raise TicketFileError(path, f"is no JSON: {error}", line=line) from error
        if not isinstance(row, dict):
            raise TicketFileError(
                path, f'is no object; expected {{"id": "...", "text": "..."}}, found {row!r}', line=line
            )
        yield line, row


def _ticket(path: Path, line: int, row: Mapping[str, object]) -> Ticket:
    ticket_id = _field(path, line, row, "id", MAX_ID)
    text = _field(path, line, row, "text", MAX_TEXT)
    if not ticket_id or not text:
        raise TicketFileError(path, "is missing or empty", line=line, field="text" if ticket_id else "id")
    if not ticket_id.isprintable():
        raise TicketFileError(path, f"{ticket_id!r} has unprintable characters", line=line, field="id")
    return Ticket(ticket_id, text, _field(path, line, row, "order_id", MAX_ID) or None)


def _field(path: Path, line: int, row: Mapping[str, object], name: str, longest: int) -> str:
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and name != "text":
        value = str(value)  # numbers are common as ids in exports
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TicketFileError(path, f"expected text, found {value!r}", line=line, field=name)
    value = value.strip()
    if has_half_characters(value):
        raise TicketFileError(path, "has half a character, which is no UTF-8", line=line, field=name)
    if len(value) > longest:
        raise TicketFileError(path, f"has {len(value)} characters; at most {longest} fit", line=line, field=name)
    return value
