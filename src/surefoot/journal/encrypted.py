"""The codec that encrypts: AES-256-GCM-SIV of the `cryptography` library, under keys that have names.

What holds: a value opens only at the place it was sealed for, so that one moved to another row is found. The nonce is
random; should two ever be the same, this cipher shows whether two values are equal and nothing more (RFC 8452), so one key
serves for more values than a store will ever hold. The key's name lies beside each value, readable.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import os
from collections.abc import Mapping
from typing import Any

from surefoot.journal.sealing import MissingKey
from surefoot.journal.values import Undecodable
from surefoot.problem import SurefootError

KEY_BYTES = 32
NONCE_BYTES = 12
NAME_BYTES_MAX = 64
ENVIRONMENT = "SUREFOOT_KEYS"


_MAKE_ONE = "python -c 'import secrets, base64; print(base64.b64encode(secrets.token_bytes(32)).decode())'"


class BadKeys(SurefootError):
    """The environment says keys that are none. Nothing of them is shown."""


class Encrypted:
    """Encrypts values on disk.

    Args:
        keys: Keys of 32 bytes, or as base64, by name; the first one writes, all read. Names are kept with the values.

    Raises:
        SurefootError: A key has another length, a name is empty or long, or the `cryptography` library is missing.
    """

    def __init__(self, keys: Mapping[str, bytes | str]) -> None:
        if not keys:
            raise SurefootError("Encrypted needs a key", hint='sf.Encrypted({"2026": key}): 32 random bytes, or base64')
        cipher = _cipher()
        self._ciphers = {_name(name): cipher(_key(name, key)) for name, key in keys.items()}
        self._current = _name(next(iter(keys)))
        self._prefix = bytes([1, len(self._current)]) + self._current

    @classmethod
    def from_environment(cls) -> Encrypted | None:
        """Return the codec that SUREFOOT_KEYS says ("name=base64", several with commas, the first one writes), or None.

        Raises:
            BadKeys: It says none.
            SurefootError: The `cryptography` library is missing.
        """
        text = os.environ.get(ENVIRONMENT, "").strip()
        if not text:
            return None
        keys = {}
        for number, part in enumerate(text.split(","), 1):
            name, separator, key = part.strip().partition("=")
            problem = _problem(name, key) if separator else "has no name"
            if problem:  # not the name either: where it was forgotten, the key stands in its place
                raise BadKeys(f"{ENVIRONMENT}: key {number} {problem}", hint=f"name=base64,older=base64; {_MAKE_ONE}")
            keys[name] = key
        return cls(keys)

    def __repr__(self) -> str:
        return f"<Encrypted under {self._current.decode()!r}, reads {len(self._ciphers)} keys>"

    def seal(self, value: bytes, place: bytes) -> bytes:
        """See `Codec.seal`."""
        nonce = os.urandom(NONCE_BYTES)
        return b"".join((self._prefix, nonce, self._ciphers[self._current].encrypt(nonce, value, place)))

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """See `Codec.open`.

        Raises:
            MissingKey: Its key is not among ours.
            Undecodable: It was changed, or belongs to another place.
        """
        end = 2 + sealed[1] if sealed[:1] == b"\x01" and len(sealed) > 2 else 0
        name, where = sealed[2:end], place.decode(errors="replace")
        cipher = self._ciphers.get(name)
        if cipher is None:
            shown, ours = name.decode(errors="replace"), ", ".join(one.decode() for one in self._ciphers)
            raise MissingKey(
                f"a value at {where} is encrypted under key {shown!r}, and the keys here are {ours}",
                hint=f"add the key {shown!r} to sf.Encrypted(...) or {ENVIRONMENT}, then wake what was blocked",
            )
        try:
            found: bytes = cipher.decrypt(sealed[end : end + NONCE_BYTES], sealed[end + NONCE_BYTES :], place)
        except Exception as error:  # the library says the same of a changed value, a wrong key and a foreign place
            raise Undecodable(
                f"the value at {where} can't be decrypted under key {name.decode()!r}: it was changed, or moved "
                "here from elsewhere, or the key is another one of that name",
                hint="surefoot doctor; restore a backup if the file was damaged",
            ) from error
        return found

    def is_current(self, sealed: bytes) -> bool:
        """See `Codec.is_current`."""
        return sealed.startswith(self._prefix)


def _cipher() -> Any:
    try:
        return importlib.import_module("cryptography.hazmat.primitives.ciphers.aead").AESGCMSIV
    except ImportError as error:
        raise SurefootError(
            "encryption needs the cryptography library", hint="pip install 'surefoot[encryption]'"
        ) from error


def _problem(name: str, key: str) -> str:
    """Return what is wrong with a key and its name, in words that have nothing of either; empty for nothing."""
    try:
        _name(name)
    except (SurefootError, UnicodeEncodeError):
        return f"has no name of 1 to {NAME_BYTES_MAX} bytes"
    try:
        _key("", key)
    except SurefootError:
        return f"is not {KEY_BYTES} bytes as base64"
    return ""


def _name(name: str) -> bytes:
    data = name.encode()
    if not 0 < len(data) <= NAME_BYTES_MAX:
        raise SurefootError(f"{name!r} is no name for a key", hint=f"1 to {NAME_BYTES_MAX} bytes, for example 2026-11")
    return data


def _key(name: str, key: bytes | str) -> bytes:
    if isinstance(key, str):
        try:
            key = base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError) as error:
            raise SurefootError(f"key {name!r} is no base64", hint="32 random bytes as base64") from error
    if len(key) != KEY_BYTES:
        raise SurefootError(
            f"key {name!r} has {len(key)} bytes; it must have {KEY_BYTES}",
            hint=_MAKE_ONE,
        )
    return key
