"""How foreign text, values and times become words on a terminal. Pure.

What holds: text from a model, a tool or the web is data. Nothing of it reaches a terminal as a control sequence, a
change of writing direction or markup: such characters are shown by their number, so that nothing is hidden either.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

_HIDDEN = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, with escape and the 8-bit forms of it; not tab and newline
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff"  # no width, or another direction of writing
    "\u2028\u2029"  # line breaks that only some programs see
    "\ud800-\udfff"  # half characters, which can't be written
    "\U000e0000-\U000e007f"  # tags: letters nobody sees
    "]"
)

VALUE_CHARS_MAX = 400
"""Longest value shown in the detail of a run or an effect. About five lines; `--full` and `--json` show all."""

CELL_CHARS_MAX = 80
"""Longest value shown in one cell of a table: one line of a terminal."""


def clean(text: str) -> str:
    """Return text that may be shown: unseen and controlling characters by their number, lines as they are."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text).replace("\t", "  ")


def one_line(text: str) -> str:
    """Return text for one line: as `clean`, with line breaks turned into spaces."""
    return clean(" ".join(text.split()))


def shorten(text: str, limit: int | None) -> str:
    """Return at most about `limit` characters, and how many there were; all for None."""
    if limit is None or len(text) <= limit:
        return text
    return f"{text[:limit].rstrip()}… ({len(text):,} characters)"


def value_words(value: Any, limit: int | None = VALUE_CHARS_MAX) -> str:
    """Return a value as one line of JSON, cleaned and shortened."""
    return shorten(clean(json.dumps(value, ensure_ascii=False)), limit)


def state_words(state: str) -> str:
    """Return the name of a state as it is said."""
    return state.replace("_", " ")


def moment(ms: int | None) -> str | None:
    """Return a wall-clock time as ISO 8601 in UTC with milliseconds, which sorts as text; None for None."""
    if ms is None:
        return None
    try:
        return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:  # further away than calendars go
        return "9999-12-31T23:59:59.999Z"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def span_words(ms: int) -> str:
    """Return a length of time in its largest fitting unit: "3 s", "12 min", "5 h", "4 d"."""
    seconds = max(0, ms) / 1_000
    for unit, length_s, limit in (("s", 1, 120), ("min", 60, 120), ("h", 3_600, 48)):
        if seconds / length_s < limit:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def offset_words(ms: int) -> str:
    """Return a place on a timeline: "+0.120 s", "+12 min"."""
    return f"+{ms / 1_000:.3f} s" if ms < 60_000 else f"+{span_words(ms)}"


def count_words(count: int, singular: str, plural: str | None = None) -> str:
    """Return "1 run", "3 runs"."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
