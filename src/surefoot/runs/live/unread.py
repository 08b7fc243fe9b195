"""What a run was sent and has not taken: its unread signals, oldest first, and how far its code has looked through them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from surefoot.journal.texts import without_surrogates
from surefoot.runs.rows.inbox import Letter
from surefoot.runs.signals import Signal


@dataclass(slots=True)
class Looked:
    """How far a run's code has looked through its unread signals of one name for payloads of one type.

    Attributes:
        type: The type; kept so that its identity stays its own.
        after: The last letter up to which there is none left that fits.
        unfit: How many there are that don't.
        last: The last of these.
        words: Why it doesn't.
    """

    type: Any
    after: int = 0
    unfit: int = 0
    last: int = 0
    words: str = ""


class Unread:
    """The unread signals of one run."""

    def __init__(self) -> None:
        self._letters: list[Letter] = []
        self._looked: dict[tuple[str, int], Looked] = {}

    def add(self, letter: Letter) -> None:
        """Take in a signal that is newer than all that are here."""
        self._letters.append(letter)

    def looked(self, signal: Signal[Any]) -> Looked:
        """Return how far they were looked through for a signal."""
        return self._looked.setdefault((signal.name, id(signal.type)), Looked(signal.type))

    def take(self, signal: Signal[Any], looked: Looked) -> Letter | None:
        """Return the oldest that fits a signal, and remove it; what did not fit is not looked at again."""
        first = bisect_right(self._letters, looked.after, key=_id) if looked.after else 0
        for place in range(first, len(self._letters)):
            letter = self._letters[place]
            looked.after = letter.id
            if letter.name != signal.name:
                continue
            problem = signal.problem(letter.payload or b"null")
            if not problem:
                del self._letters[place]
                return letter
            looked.unfit, looked.last, looked.words = looked.unfit + 1, letter.id, without_surrogates(problem)
        return None


def _id(letter: Letter) -> int:
    return letter.id
