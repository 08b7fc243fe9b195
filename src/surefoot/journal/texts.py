"""Texts that users give and that are kept as they are: names, ids, keys, and the words of people. Pure.

What holds: what comes into a row can be written and read back on every engine, and what can't be is refused where it is
given, with its name and its value. Words that nobody gave, as those of an error, are made writable instead.
"""

from __future__ import annotations

from surefoot.problem import SurefootError

NAME_CHARS_MAX = 512
"""Characters of a name, an id or a key: four bytes each still fit an index of PostgreSQL."""

WORDS_CHARS_MAX = 20_000
"""Characters of a reason: several pages. What is longer belongs where its address can be given."""


class BadText(SurefootError):
    """A text that can't be kept. Nothing was changed."""


def require_text(what: str, text: object, *, chars_max: int = NAME_CHARS_MAX, example: str = "") -> None:
    """Refuse what is no text that can be kept.

    Args:
        what: How the user calls it: "by", "dedupe".
        text: What was given.
        chars_max: How many characters it may have.
        example: What belongs there, for the hint; empty for nothing more.

    Raises:
        BadText: It is no text, empty, too long, or has something in it that can't be written.
    """
    problem = _problem(text, chars_max)
    if problem:
        shown = f"a text of {len(text)} characters" if isinstance(text, str) and len(text) > chars_max else repr(text)
        raise BadText(f"{what}={shown} {problem}", hint=f"a text of 1 to {chars_max} characters{example}")


def require_words(who: object, reason: object, *, words: str, error: type[SurefootError] = SurefootError) -> None:
    """Refuse a decision that doesn't say who decides and why.

    Args:
        who: Who.
        reason: Why.
        words: What is wrong, where either is empty.
        error: Its class then.

    Raises:
        BadText: Either can't be kept.
    """
    if "" in (_stripped(who), _stripped(reason)):
        raise error(words, hint='--by "name" --reason "..."')
    require_text("by", who, example=": a name")
    require_text("reason", reason, chars_max=WORDS_CHARS_MAX)


def has_half_characters(text: str) -> bool:
    """Whether a text has lone surrogates in it, which have no form in UTF-8: half an emoji, a byte that was no text."""
    return without_surrogates(text) != text


def without_surrogates(text: str) -> str:
    r"""Return text that can be written as UTF-8: a lone surrogate, as in odd file names, becomes "\udcff"."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _stripped(text: object) -> object:
    return text.strip() if isinstance(text, str) else text


def _problem(text: object, chars_max: int) -> str:
    """Return what is wrong with a text; empty for nothing."""
    if not isinstance(text, str):
        return "is no text"
    if not text.strip():
        return "is empty"
    if len(text) > chars_max:
        return "is too long"
    if "\0" in text:
        return "has a NUL character in it, which not every database keeps"
    if has_half_characters(text):
        return "has half a character in it: where was it cut or misread?"
    return ""
