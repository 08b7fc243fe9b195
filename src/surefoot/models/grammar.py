"""Grammars: what the small model may write next, in the words of the constrained decoder.

Owns: the grammar texts. What always holds: every text that a grammar allows ends within a known length (`schema` sees
to that for JSON).

Pure: no model, no I/O. Source: llguidance (Microsoft), whose Lark dialect embeds `%json`.
"""

import json
import re
from collections.abc import Mapping

from surefoot.models.schema import JsonValue, Schema, bounded

MAX_IDS = 40
_COMPACT: dict[str, JsonValue] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
_ID_NAME = re.compile(r"(?:^|_)id$|[a-z]I[dD]$")
_WORD_WITH_DIGIT = re.compile(r"(?=\D*\d)[\w-]{1,40}")


def lark(schema: Schema, *, before: str = "") -> str:
    """Return the grammar of one JSON value of this schema, as the decoder wants it.

    Args:
        schema: A JSON schema, as a tool or an output type carries it.
        before: Literal text in front of the value.
    """
    body = json.dumps({**bounded(schema), "x-guidance": _COMPACT}, ensure_ascii=False)
    start = f"{json.dumps(before)} value" if before else "value"
    return f"%llguidance {{}}\nstart: {start}\nvalue: %json {body}\n"


def lark_quoted(max_chars: int) -> str:
    """Return the grammar of what follows an open quote: plain text, not empty, and the closing quote."""
    return f'%llguidance {{}}\nstart: /[^"\\\\\\n]{{1,{max_chars}}}"/\n'


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


def lark_literal(text: str) -> str:
    """Return the grammar that allows exactly this text."""
    return f"%llguidance {{}}\nstart: {json.dumps(text, ensure_ascii=False)}\n"
