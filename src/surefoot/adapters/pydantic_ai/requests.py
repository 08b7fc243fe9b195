"""Digests of what a model was asked, for drift: cheap at every step, however long the history.

A message is digested once, when it first appears; a request is the chain of its messages' digests. Times, ids and usage
are left out: they differ on replay though the question is the same.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_SKIPPED = frozenset({"timestamp", "usage", "run_id", "conversation_id", "provider_response_id", "metadata"})


class RequestDigests:
    """The digests of the messages of one run; holds the messages, so that their ids stay theirs."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, bytes, tuple[str, ...]]] = {}
        self._chain: tuple[str, list[Any], hashlib.blake2b] | None = None

    def digest(self, model: object, messages: Sequence[Any], parameters: object) -> str:
        """Return 16 hexadecimal digits that stand for a request."""
        chain = self._chain_of(str(model), messages).copy()
        chain.update(self._of_tools(parameters))
        return chain.hexdigest()

    def _chain_of(self, model: str, messages: Sequence[Any]) -> hashlib.blake2b:
        """Return the digest of the messages so far, going on from the last request where this one only adds to it."""
        known = self._chain
        is_longer = known is not None and known[0] == model and len(known[1]) <= len(messages)
        if known is None or not is_longer or not all(map(operator.is_, known[1], messages)):
            known = (model, [], hashlib.blake2b(model.encode(), digest_size=8))
        _, seen, chain = self._chain = known
        for message in messages[len(seen) :]:
            chain.update(self._of(message)[1])
            seen.append(message)
        return chain

    def calls_seen(self, messages: Iterable[Any]) -> frozenset[str]:
        """Return the ids of the tool calls whose answers are among these messages."""
        return frozenset(call for message in messages for call in self._of(message)[2])

    def _of(self, message: Any) -> tuple[Any, bytes, tuple[str, ...]]:
        known = self._known.get(id(message))
        if known is None:
            parts = getattr(message, "parts", ())
            text = f"[{', '.join(map(_facts, parts))}]{getattr(message, 'instructions', None)!r}"
            answered = tuple(part.tool_call_id for part in parts if getattr(part, "part_kind", "") == "tool-return")
            known = self._known[id(message)] = (message, _digest(text), answered)
        return known

    def _of_tools(self, parameters: object) -> bytes:
        tools = getattr(parameters, "function_tools", None) or []
        return _digest("\0".join([f"{tool.name}\1{tool.description}" for tool in tools]))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _facts(part: Any) -> str:
    """Return the part's fields in words: the `repr` of a list of name and value."""
    kind = type(part)
    describe = _DESCRIBE.get(kind)
    if describe is None:
        describe = _DESCRIBE[kind] = _description(kind)
    return describe(part)


_DESCRIBE: dict[type, Callable[[Any], str]] = {}
"""How parts of each kind are put into words: their fields are looked up once, and not at every message."""


def _description(kind: type) -> Callable[[Any], str]:
    names = [name for name in getattr(kind, "__dataclass_fields__", {}) if name not in _SKIPPED]
    if len(names) < 2:  # `attrgetter` returns a tuple for two names or more only
        return lambda part: repr([(name, getattr(part, name)) for name in names])
    values, template = operator.attrgetter(*names), ", ".join(f"({name!r}, %r)" for name in names)
    return lambda part: f"[{template % values(part)}]"
