"""What a killed process and the test that kills it tell each other: messages with a length in front, over one socket.

What holds: a message is whole or not there, whenever its sender dies. Values of the user's own go as JSON under their
declared types, as in the journal: a process that died half way hands over data, never objects.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, TypeAlias

import msgspec

_LENGTH = struct.Struct("!I")


class Crossed(msgspec.Struct, tag="crossed"):
    """The process has crossed a boundary; `is_last`: it kills itself there."""

    side: str
    about: str
    nth: int
    is_last: bool = False


class Called(msgspec.Struct, tag="called"):
    """The process calls the world: a method, or (`is_look`) asks what is under a name.

    `is_late`: the caller is gone by now, and the call lands later.
    """

    number: int
    path: str
    args: list[msgspec.Raw] = []
    kwargs: dict[str, msgspec.Raw] = {}
    inside: str = ""
    is_look: bool = False
    is_late: bool = False


class Doubted(msgspec.Struct, tag="doubted"):
    """The run waits for a person to say what became of an effect."""

    number: int
    effect: int
    name: str
    key: str
    arguments: msgspec.Raw


class Ended(msgspec.Struct, tag="ended"):
    """The life of the process came to its end."""

    state: str
    waiting_for: str = ""
    reason: str = ""
    result: str = ""
    declared: list[str] = []
    imported: list[str] = []
    problem: str = ""


class Answer(msgspec.Struct, tag="answer"):
    """The answer to a call, a look, or a doubt."""

    number: int
    value: msgspec.Raw = msgspec.Raw(b"null")
    kind: str = "value"
    error_type: str = ""
    error_args: msgspec.Raw = msgspec.Raw(b"[]")


FromLife: TypeAlias = Crossed | Called | Doubted | Ended
_from_life = msgspec.json.Decoder(FromLife)
_answer = msgspec.json.Decoder(Answer)
_encode = msgspec.json.Encoder().encode


def send(channel: socket.socket, message: Any) -> None:
    """Send one message; the caller sees to it that nobody else sends meanwhile."""
    body = _encode(message)
    channel.sendall(_LENGTH.pack(len(body)) + body)


def receive(channel: socket.socket) -> Answer | None:
    """Return the next message to the process, or None when the test is gone."""
    head = _exactly(channel, _LENGTH.size)
    body = None if head is None else _exactly(channel, _LENGTH.unpack(head)[0])
    return None if body is None else _answer.decode(body)


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    parts = b""
    while len(parts) < size:
        part = channel.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return parts


class Inbox:
    """Puts the bytes of one process together to messages."""

    def __init__(self) -> None:
        self._bytes = b""

    def add(self, received: bytes) -> list[FromLife]:
        """Return the messages that are whole by now."""
        self._bytes += received
        messages = []
        while len(self._bytes) >= _LENGTH.size:
            (size,) = _LENGTH.unpack(self._bytes[: _LENGTH.size])
            if len(self._bytes) < _LENGTH.size + size:
                break
            messages.append(_from_life.decode(self._bytes[_LENGTH.size : _LENGTH.size + size]))
            self._bytes = self._bytes[_LENGTH.size + size :]
        return messages
