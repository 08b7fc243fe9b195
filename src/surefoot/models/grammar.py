"""Grammars: what the small model may write next, in the words of the constrained decoder.

Owns: the grammar texts. What always holds: every text that a grammar allows ends within a known length (`schema` sees
to that for JSON).

Pure: no model, no I/O. Source: llguidance (Microsoft), whose Lark dialect embeds `%json`.
"""

import json
import re
from collections.abc import Mapping

from surefoot.models.schema import JsonValue, Schema

MAX_IDS = 40
_COMPACT: dict[str, JsonValue] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
_ID_NAME = re.compile(r"(?:^|_)id$|[a-z]I[dD]$")
_WORD_WITH_DIGIT = re.compile(r"(?=\D*\d)[\w-]{1,40}")


def lark(schema: Schema, *, before: str = "", after: str = "") -> str:
    """Return the grammar of one JSON value, as the decoder wants it.

    Args:
        schema: A schema that `schema.bounded` returned: the decoder drops, without a word, what it does not know.
        before: Literal text in front of the value.
        after: Literal text behind it.
    """
    body = json.dumps({**schema, "x-guidance": _COMPACT}, ensure_ascii=False)
    start = " ".join(part for part in (_literal(before), "value", _literal(after)) if part)
    return f"%llguidance {{}}\nstart: {start}\nvalue: %json {body}\n"


def lark_quoted(min_chars: int, max_chars: int, *, after: str = "") -> str:
    """Return the grammar of what follows an open quote: plain text, the closing quote, and literal text behind it."""
    text = f'/[^"\\\\\\x00-\\x1f]{{{min_chars},{max_chars}}}"/'
    return f"%llguidance {{}}\nstart: {' '.join(part for part in (text, _literal(after)) if part)}\n"


def lark_literal(text: str) -> str:
    """Return the grammar that allows exactly this text."""
    return f"%llguidance {{}}\nstart: {_literal(text)}\n"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""


def grounded(schema: Schema, text: str) -> Schema:
    """Return a schema whose ids are copied from a text, never invented.

    An id is a top-level string property called `id` or `..._id`/`...Id`, without a pattern, format or list of values of
    its own; it may then be any word of the text with a digit in it (not a decimal number). No such word: no change.
    """
    words = _words_with_digit(text)
    properties = schema.get("properties")
    if not words or not isinstance(properties, Mapping):
        return schema
    told = {name: {"enum": words} if _is_free_id(name, part) else part for name, part in properties.items()}
    return {**schema, "properties": told}


def _words_with_digit(text: str) -> list[JsonValue]:
    words = (word.strip(".,;:!?") for word in re.split(r"[\s\"'(){}\[\]<>]+", text))
    return list(dict.fromkeys(word for word in words if _WORD_WITH_DIGIT.fullmatch(word)))[:MAX_IDS]


def _is_free_id(name: str, part: JsonValue) -> bool:
    return (
        _ID_NAME.search(name) is not None
        and isinstance(part, Mapping)
        and part.get("type") == "string"
        and not part.keys() & {"pattern", "format", "enum", "const"}
    )
