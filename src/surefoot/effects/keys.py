"""Identities: which effect a call means, and whether two calls mean the same. Pure.

Two identities (DESIGN, section 5): the *call* (run and step) serves crash replay; the *effect*, from a declared business
key, serves a model that forgot, a second agent, a second run. Arguments alone are never an identity.
"""

from __future__ import annotations

import hashlib
import inspect
import string
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec

from surefoot.journal.values import canonical, canonical_bytes
from surefoot.problem import SurefootError

KEY_CHARS_MAX = 512
"""Longest key. Keys are for people and indexes; a value that long belongs in an argument."""


class BadEffect(SurefootError):
    """The declaration of an effect can't mean anything: an unknown parameter, an empty key, a class that can't work."""


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Which effect this is.

    Attributes:
        scope: Where the key is unique: "app", or "run <id>" for a call without a key, or what `once_for` said.
        name: The effect's name.
        key: The key, readable.
        digest: 16 bytes of scope, name and key.
        fingerprint: 16 bytes of the arguments that must agree.
    """

    scope: str
    name: str
    key: str
    digest: bytes
    fingerprint: bytes

    def idempotency_key(self, generation: int) -> str:
        """Return what goes out to the service: the same for every attempt of one generation, opaque, 34+ characters."""
        text = f"sf-{self.digest.hex()}"
        return text if generation == 1 else f"{text}-{generation}"


def identify(scope: str, name: str, key: str, fingerprint: bytes) -> Identity:
    """Return the identity of a call."""
    if not key or len(key) > KEY_CHARS_MAX:
        raise BadEffect(
            f"effect {name}: its key is {'empty' if not key else f'{len(key)} characters long'}",
            hint=f"a key has 1 to {KEY_CHARS_MAX} characters, for example refund:A-4411",
        )
    # Lengths are hashed too, so that the parts can't run into each other.
    text = f"{len(scope)},{len(name)},{len(key)}:{scope}{name}{key}"
    return Identity(scope, name, key, hashlib.blake2b(text.encode(), digest_size=16).digest(), fingerprint)


def call_key(step: str) -> str:
    """Return the key of a call that has none of its own: its step's identity, a long one by its beginning and a digest.

    Nobody chose that length: some services write pages into the ids of their models' calls.
    """
    if len(step) <= KEY_CHARS_MAX:
        return step
    digest = hashlib.blake2b(step.encode(), digest_size=16).hexdigest()
    return f"{step[: KEY_CHARS_MAX - len(digest) - 1]}…{digest}"


def fingerprint(canonical_arguments: bytes) -> bytes:
    """Return 16 bytes that stand for arguments in their canonical form (`journal.values.canonical_bytes`)."""
    return hashlib.blake2b(canonical_arguments, digest_size=16).digest()


def call_digest(identity: bytes, generation: int, canonical_arguments: bytes) -> bytes:
    """Return 16 bytes that stand for one call: which effect, which life of its key, and all its arguments."""
    return fingerprint(b"%s %d " % (identity, generation) + canonical_arguments)


class KeyTemplate:
    """A key as declared: "refund:{order_id}". Different values never render to the same key.

    For that, the text between two fields must not be empty, and its first character is escaped in the value before it.
    Without a signature it is for calls that may have any arguments.
    """

    def __init__(
        self, template: str, signature: inspect.Signature | None, owner: str, occurrence: str | None = None
    ) -> None:
        self.text = f"{template}@{{{occurrence}}}" if occurrence is not None else template
        self._owner = owner
        parts = []
        for literal, field, form, conversion in string.Formatter().parse(self.text):
            if form or conversion:
                raise BadEffect(
                    f"effect {owner}: its key {template!r} formats {{{field}}}",
                    hint="name the parameter alone; a key shows the value in its canonical form",
                )
            parts.append((literal, field))
        self._parts: list[tuple[str, str | None, list[tuple[str, str]]]] = []
        for (literal, field), (separator, following) in pairwise([*parts, ("", None)]):
            if field is not None and not separator and following is not None:
                raise BadEffect(
                    f"effect {owner}: its key {template!r} has nothing between {{{field}}} and {{{following}}}",
                    hint="put a separator between them, or two different pairs can make one key",
                )
            self._parts.append((literal, field, _escapes(separator[:1])))
            if field is not None:
                self._check_field(field, template, signature)

    def _check_field(self, field: str, template: str, signature: inspect.Signature | None) -> None:
        root = field.replace("[", ".").split(".")[0]
        if signature is not None and root not in signature.parameters:
            raise BadEffect(
                f"effect {self._owner}: its key {template!r} names {root!r}, which is no parameter",
                hint=f"use one of: {', '.join(signature.parameters)}",
            )
        if root != field:
            raise BadEffect(
                f"effect {self._owner}: its key {template!r} reaches into {root!r}",
                hint="name plain parameters only; a key must not depend on how a value is built",
            )

    @property
    def fields(self) -> list[str]:
        """The parameters it names."""
        return [field for _, field, _ in self._parts if field is not None]

    def key(self, arguments: Mapping[str, Any]) -> str:
        """Return the key of these arguments; each value in its canonical form.

        Raises:
            BadEffect: A value is empty or None: it would make different effects share a key.
        """
        key = ""
        for literal, field, escapes in self._parts:
            if field is None:
                key += literal
                continue
            value = arguments[field]
            if type(value) is not str:
                value = canonical(value)
            if not value and value in (None, "", [], {}):
                raise BadEffect(
                    f"effect {self._owner}: {field}={arguments[field]!r} is empty, so the key {self.text!r} means "
                    "nothing",
                    hint=f"pass a {field}; an effect without it has no identity",
                )
            text = value if isinstance(value, str) else canonical_bytes(value).decode()
            for character, escape in escapes:
                text = text.replace(character, escape)
            key += literal + text
        return key


def _escapes(end: str) -> list[tuple[str, str]]:
    """Return what to replace in a value, in this order, so that its end is seen and no other value is written the same."""
    if not end:
        return []
    # "%" for all but itself and the characters whose own escape would begin as that of "%" does, U+2500 and those after it.
    mark = "~" if f"{ord(end):02X}".startswith("25") else "%"
    return [(one, f"{mark}{ord(one):02X}") for one in (mark, end)]
