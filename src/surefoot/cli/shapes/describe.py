"""A document as JSON, and its fields in words for people."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct


def to_json(document: Struct) -> str:
    """Return the document as JSON of ASCII characters only, so that it is safe on any terminal and in any encoding."""
    return json.dumps(msgspec.to_builtins(document), indent=2)


def fields_of(shape: type[Struct]) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and meaning of a shape's fields, for people."""
    for name, hint in typing.get_type_hints(shape, include_extras=True).items():
        declared, meta = typing.get_args(hint)
        yield name, _type_words(declared), meta.description


def title_of(shape: type[Struct]) -> str:
    """Return the name of a shape as it is written in help and docs."""
    return shape.__name__.removesuffix("Shape").removesuffix("Document") + (
        " document" if shape.__name__.endswith("Document") else ""
    )


def _type_words(declared: Any) -> str:
    if declared is Any:
        return "any JSON"
    if declared is type(None):
        return "null"
    if typing.get_origin(declared) is list:
        return f"list of {_type_words(typing.get_args(declared)[0])}"
    if typing.get_origin(declared) is dict:
        return "object of numbers"
    parts = typing.get_args(declared)
    if parts:
        return " or ".join(_type_words(part) for part in parts)
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names[declared] if declared in names else title_of(declared)
