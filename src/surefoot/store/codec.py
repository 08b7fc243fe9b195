"""The hook for what lies on disk in place of values: a connection that carries a codec, and what a codec does.

What holds: without a codec nothing is done and nothing costs anything. With one, every value is sealed for its place before
it is written, and opened from there when it is read; values that were written before there was one are read as they are.
"""

from __future__ import annotations

from typing import Protocol

import apsw


class Codec(Protocol):
    """Seals values, and opens them. Called by several threads at once."""

    def seal(self, value: bytes, place: bytes) -> bytes:
        """Return what is written in place of a value.

        Args:
            value: JSON, UTF-8.
            place: Where it will lie; `open` is given the same.

        Returns:
            Bytes that begin with 1: no JSON does.
        """

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Return the value.

        Raises:
            Undecodable: It can't be opened, or does not belong there.
        """

    def is_current(self, sealed: bytes) -> bool:
        """Whether `seal` would write it the same way today; if not, `surefoot rotate-keys` writes it anew."""


class SqliteConnection(apsw.Connection):
    """A connection that knows how values are kept."""

    codec: Codec | None = None


SEALED = 1
"""The first byte of what a codec writes."""


def codec_of(connection: object) -> Codec | None:
    """Return the codec of a connection, if it has one."""
    return getattr(connection, "codec", None)


def is_sealed(stored: bytes) -> bool:
    """Whether stored bytes are a codec's."""
    return stored[:1] == b"\x01"
