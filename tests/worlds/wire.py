"""How worker, service and harness talk: JSON frames with a four-byte length, over unix sockets.

A frame that is cut short reads as None, like the end of the stream: who was killed in the middle of a write said
nothing.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import suppress
from typing import Any, TypeAlias

Frame: TypeAlias = dict[str, Any]

_LENGTH = struct.Struct(">I")


def encode(frame: Frame) -> bytes:
    """A frame as bytes."""
    body = json.dumps(frame, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame, or None at the end of the stream."""
    try:
        head = await reader.readexactly(_LENGTH.size)
        body = await reader.readexactly(_LENGTH.unpack(head)[0])
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return _decode(body)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whether or not the other side is still alive."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def send(channel: socket.socket, frame: Frame) -> None:
    """Write a frame to a blocking socket."""
    channel.sendall(encode(frame))


def receive(channel: socket.socket) -> Frame | None:
    """The next frame of a blocking socket, or None at its end."""
    head = _exactly(channel, _LENGTH.size)
    body = _exactly(channel, _LENGTH.unpack(head)[0]) if head is not None else None
    return _decode(body) if body is not None else None


def _decode(body: bytes) -> Frame:
    frame: Frame = json.loads(body)
    return frame


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = channel.recv(count - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
