"""The base of every error Surefoot raises: what happened, and what to do next.

A message has three parts: what happened, with the values; what was expected against what was found; and a hint, the
next command or line of code. `is_retryable` says whether doing the same again may help.
"""

from __future__ import annotations


class SurefootError(Exception):
    """An error of Surefoot itself. `str()` gives the message and, on a line of its own, the hint.

    Attributes:
        hint: The next step to take, one sentence or a command; empty when there is none.
        is_retryable: Whether the same call may succeed later without a change.
    """

    is_retryable: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message
