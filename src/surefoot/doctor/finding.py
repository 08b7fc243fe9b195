"""One thing that was found, as data. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: How bad it is.
        words: What it is, with the values.
        next: What to do about it, as one sentence.
    """

    severity: Severity
    words: str
    next: tuple[str, ...] = ()
