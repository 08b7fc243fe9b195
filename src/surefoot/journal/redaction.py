"""What is not shown: values that are secrets by their name, by declaration, or by their look. Pure.

What holds: what is shown is a copy, what is stored stays as it is; a value under a secret name is hidden whole, whatever is
in it; a text that has something like a key in it is shown without that. It is a net for carelessness, not a proof: a secret
under a harmless name that looks like a word is shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import pairwise
from typing import Any

HIDDEN = "[redacted]"

SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "authorization", "credential",
     "credentials", "apikey", "cookie", "cookies", "cvv", "cvc", "jwt", "otp"}
)  # fmt: skip
"""Words that make a name secret. "tokens", as in "prompt_tokens", is none: it counts."""

SECRET_PAIRS = frozenset(
    {("api", "key"), ("access", "key"), ("private", "key"), ("secret", "key"), ("signing", "key"), ("encryption", "key"),
     ("auth", "key"), ("card", "number"), ("pin", "code"), ("account", "key"), ("ssh", "key"), ("auth", "header")}
)  # fmt: skip
"""Pairs of words that do."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_LOOKS = re.compile(
    r"""-----BEGIN[ A-Z]*PRIVATE\ KEY-----.*?(?:-----END[ A-Z]*PRIVATE\ KEY-----|\Z)   # PEM
      | \b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{16,}                  # OpenAI, Anthropic, Stripe
      | \bgh[pousr]_[A-Za-z0-9]{20,} | \bgithub_pat_[A-Za-z0-9_]{20,}
      | \bglpat-[A-Za-z0-9_-]{16,}
      | \bxox[abeprs]-[A-Za-z0-9-]{10,}                       # Slack
      | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                         # AWS
      | \bAIza[A-Za-z0-9_-]{30,}                              # Google
      | \bey[A-Za-z0-9_-]{10,}\.ey[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*   # JSON web token
      | (?i:\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,})     # an Authorization header
      | (?<=://)[^/\s:@]+:[^/\s:@]+(?=@)                      # user:password@ in a URL
    """,
    re.VERBOSE | re.DOTALL,
)
"""Texts that look like keys, by the prefixes that their makers gave them to be found by."""


_NAMED = re.compile(
    r"""(?P<name>(?i:\b[\w-]*(?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key|token)))
        (?P<is>["']?\s*[:=]\s*)
        (?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,;&"'{}\[\]()]+)
    """,
    re.VERBOSE,
)
"""A secret name and its value inside a text: `password=...`, `"api_key": "..."`."""


def is_secret_name(name: str) -> bool:
    """Whether a name says that its value is a secret: by its words, in snake_case, camelCase or with dashes."""
    words = [word.lower() for word in _WORDS.findall(name)]
    return any(word in SECRET_WORDS for word in words) or any(pair in SECRET_PAIRS for pair in pairwise(words))


def redacted_text(text: str) -> str:
    """Return a text without what looks like a key in it."""
    return _NAMED.sub(_hide, _LOOKS.sub(HIDDEN, text))


def _hide(found: re.Match[str]) -> str:
    value = found[0][len(found["name"]) + len(found["is"]) :]
    is_count = found["name"].lower().endswith("token") and value.isdigit()
    return found[0] if is_count else f"{found['name']}{found['is']}{HIDDEN}"


def redacted(value: Any, names: Collection[str] = ()) -> Any:
    """Return a JSON value as it may be shown.

    Args:
        value: The value.
        names: Names that were declared to be hidden, wherever they stand.
    """
    if isinstance(value, str):
        return redacted_text(value)
    if isinstance(value, dict):
        return {
            redacted_text(name): HIDDEN if _is_hidden(name, item, names) else redacted(item, names)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [redacted(item, names) for item in value]
    return value


def _is_hidden(name: str, item: Any, names: Collection[str]) -> bool:
    if item is None or isinstance(item, bool):
        return False
    if name in names:
        return True
    return is_secret_name(name) and not (isinstance(item, int | float) and name.lower().endswith("token"))  # it counts


__all__ = ["HIDDEN", "is_secret_name", "redacted", "redacted_text"]
