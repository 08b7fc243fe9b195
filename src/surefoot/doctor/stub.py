"""What to write above a tool that nobody has declared, proposed from its name and parameters. Pure.

A proposal, never more: only a person knows what a tool changes and what its service offers.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

LOOKS = re.compile(r"^(get|list|find|search|look_?up|read|fetch|show|count|check|describe|query)(_|$)")
"""Names that sound as if nothing were changed."""

TEXT = re.compile(
    r"(^|_)(reason|message|text|body|note|notes|comment|description|content|subject|prompt|summary|title)$"
)
"""Parameters that a model words anew each time."""

IDENTIFIES = re.compile(r"(^|_)(id|key|number|no|uuid|ref|reference|code|email|name|sku|iban)$")
"""Parameters that say which one is meant."""

SCALARS = ("str", "int", "UUID", "date", "Decimal", "")


def stub(name: str, function: Callable[..., Any] | None) -> str:
    """Return a declaration to begin with."""
    if LOOKS.match(name):
        return "@sf.read"
    if function is None:
        return f'effects={{"{name}": sf.effect(key="{name}:{{...}}", in_doubt=...)}}'
    parameters = _parameters(function)
    key, free = proposed_key(name, parameters), [one for one, _ in parameters if TEXT.search(one)]
    parts = [f'key="{key}"'] if key else []
    parts += [f"free_text=({', '.join(map(repr, free))},)".replace("'", '"')] if free else []
    return f"@sf.effect({', '.join([*parts, 'in_doubt=sf.AskPerson()'])})"


def proposed_key(name: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Return a key of the parameters that say which one is meant, else of all that are short; empty if there is none."""
    short = [one for one, kind in parameters if kind in SCALARS and not TEXT.search(one)]
    named = [one for one in short if IDENTIFIES.search(one)] or short
    return ":".join([name, *(f"{{{one}}}" for one in named)]) if named else ""


def _parameters(function: Callable[..., Any]) -> list[tuple[str, str]]:
    """Return the parameters that belong to the request, with the names of their types."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = [(one.name, _kind(one.annotation)) for one in parameters if one.kind is not one.VAR_KEYWORD]
    return [(name, kind) for name, kind in kinds if not kind.startswith("RunContext")]


def _kind(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.rpartition(".")[2] if "[" not in text else text.partition("[")[0].rpartition(".")[2] + "["
