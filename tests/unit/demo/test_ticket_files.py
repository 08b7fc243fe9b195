"""Tickets of the user's own: read whole, or refused by line and field."""

import json
from pathlib import Path

import pytest

from surefoot.demo.ticket_files import MAX_TEXT, TicketFileError, load_tickets
from surefoot.demo.tickets import Ticket


def _file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_csv_is_read(tmp_path: Path) -> None:
    """Would catch trouble with what spreadsheets write: a byte order mark, CRLF, quotes, line breaks, more columns."""
    content = '\ufeffid,created,text,order_id\r\n1,May,"Hello, my lamp\r\nis broken",A-1\r\n\r\n2,June,Thanks!,\r\n'
    read = load_tickets(_file(tmp_path, "mine.csv", content))
    assert read.tickets == (Ticket("1", "Hello, my lamp\r\nis broken", "A-1"), Ticket("2", "Thanks!"))
    assert read.notice == "not used: created"


def test_a_jsonl_is_read(tmp_path: Path) -> None:
    """Would catch trouble with what exports write: numbers as ids, empty lines, a line separator inside a text."""
    rows = [{"id": 7, "text": "a\u2028b"}, {"id": "8", "text": "c", "order_id": None}]
    read = load_tickets(_file(tmp_path, "mine.JSONL", "\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows)))
    assert read.tickets == (Ticket("7", "a\u2028b"), Ticket("8", "c"))
    assert read.notice is None


def test_at_most_twelve_are_used_and_it_is_said(tmp_path: Path) -> None:
    """Would catch tickets dropped in silence."""
    content = "id,text\n" + "".join(f"{number},help\n" for number in range(15))
    read = load_tickets(_file(tmp_path, "mine.csv", content))
    assert [len(read.tickets), read.left_out] == [12, 3]
    assert read.notice == "the first 12 of 15 tickets are used; the demo takes 12"


# Each row: file name, content, what the message must say after the path.
REFUSED: list[tuple[str, str | bytes, str]] = [
    ("t.csv", "id,text\n1,ok\n,help\n", ", line 3, field 'id': is missing or empty"),
    ("t.csv", 'id,text\n1,"two\nlines"\n2,  \n', ", line 4, field 'text': is missing or empty"),
    ("t.csv", "id,words\n1,help\n", ", line 1, field 'text': is missing in the header line, which has id, words"),
    ("t.csv", "", ", line 1, field 'id': is missing in the header line, which has nothing"),
    ("t.csv", "id,text\n", ": holds no ticket"),
    ("t.csv", "id,text\n1,Hello, you\n", ", line 2: has 3 cells, the header has 2; quote texts that hold a comma"),
    ("t.csv", "id,text\n1,a\n1,b\n", ", line 3, field 'id': '1' is the id of line 2 too"),
    ("t.csv", 'id,text\n1,"never ends\n', ", line 2: is no CSV: unexpected end of data"),
    ("t.csv", b"id,text\n1,caf\xe9\n", ", line 2: byte 0xe9 is no UTF-8; save it as UTF-8"),
    ("t.csv", "id,text\na\x1b[2J,b\n", ", line 2, field 'id': 'a\\x1b[2J' has unprintable characters"),
    (
        "t.csv",
        f"id,text\n1,{'x' * (MAX_TEXT + 1)}\n",
        f", line 2, field 'text': has {MAX_TEXT + 1} characters",
    ),
    ("t.jsonl", '{"id": "1", "text": "a"}\n{"id"\n', ", line 2: is no JSON: "),
    ("t.jsonl", "[" * 100_000, ", line 1: is no JSON: "),
    ("t.jsonl", '{"id": "1", "text": "a\\ud83d"}\n', ", line 1, field 'text': has half a character"),
    (
        "t.jsonl",
        '{"id": "1", "text": "a", "order_id": "\\ud83d"}\n',
        ", line 1, field 'order_id': has half a character",
    ),
    ("t.jsonl", "[1]\n", ", line 1: is no object; expected"),
    ("t.jsonl", '{"id": "1", "text": 5}\n', ", line 1, field 'text': expected text, found 5"),
    ("t.jsonl", '{"id": true, "text": "a"}\n', ", line 1, field 'id': expected text, found True"),
    ("t.jsonl", '{"id": "1"}\n', ", line 1, field 'text': is missing or empty"),
    ("t.jsonl", "", ": holds no ticket"),
    ("t.xlsx", "", ": ends in '.xlsx'; expected .csv or .jsonl"),
    ("tickets", "", ": ends in 'nothing'; expected .csv or .jsonl"),
]


@pytest.mark.parametrize(("name", "content", "message"), REFUSED)
def test_a_faulty_file_is_refused_by_line_and_field(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    """Would catch an error that does not lead to the cell that has to be mended."""
    path = _file(tmp_path, name, content)
    with pytest.raises(TicketFileError) as refused:
        load_tickets(path)
    assert str(refused.value).startswith(f"{path}{message}")


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    """Would catch a stack trace in place of a sentence."""
    with pytest.raises(TicketFileError, match="cannot be read: No such file"):
        load_tickets(tmp_path / "none.csv")
