"""What a document shows: everything but secrets, by name, by declaration, and by look; and who asked to see them.

What holds: a document is redacted as a whole, so that text and `--json` show the same; `--show-secrets` names a reason, and
is part of the trail before anything is shown.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from surefoot.journal.redaction import HIDDEN, redacted, redacted_text

S = TypeVar("S", bound=Struct)

RETURN = "return"
"""The name by which an effect declares that its own value is not shown."""


class Secrets(Struct, frozen=True):
    """That somebody wants to see secrets: of what, who, and why."""

    target: str
    by: str
    reason: str


def seen(document: S) -> S:
    """Return the document as it may be shown."""
    return _seen(document, ())


def _seen(shape: S, names: tuple[str, ...]) -> S:
    names = (*names, *getattr(shape, "redact", ()))
    changed = {
        field: _seen_value(getattr(shape, field), names) for field in shape.__struct_fields__ if field != "redact"
    }
    if RETURN in names and "value" in changed and _is_outcome(shape):
        changed["value"] = None if changed["value"] is None else HIDDEN
    return msgspec.structs.replace(shape, **changed)


def _is_outcome(shape: Struct) -> bool:
    """Whether a shape's value is what came of it: always of an effect, of a step once it has ended."""
    return getattr(shape, "outcome", "done") is not None


def _seen_value(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, Struct):
        return _seen(value, names)
    if isinstance(value, list) and value and isinstance(value[0], Struct):
        return [_seen(one, names) for one in value]
    if isinstance(value, str):
        return redacted_text(value)
    return redacted(value, names)
