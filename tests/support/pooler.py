"""A pooler in transaction mode, as PgBouncer is: each transaction of a client is any connection's of the server.

Which one is drawn by whoever holds the pooler (`next_one`), so that a test can have what a busy pool does now and then. It
knows of the protocol what it needs: lengths of messages, the end of the greeting, and `ReadyForQuery`.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from pathlib import Path

from tests.support.in_front import InFront

CONNECTIONS = 3
_READY = b"Z"
_ASKS_FOR_READY = b"QS"
"""What the server answers with `ReadyForQuery`: a query, and a sync."""

_GREETING = (
    b"R" + struct.pack("!ii", 8, 0)
    + b"".join(
        b"S" + struct.pack("!i", 4 + len(each)) + each
        for each in (b"server_version\x0018.0\0", b"client_encoding\0UTF8\0", b"standard_conforming_strings\0on\0")
    )
    + b"K" + struct.pack("!iii", 12, 4_711, 0)
    + b"Z" + struct.pack("!i", 5) + b"I"
)  # fmt: skip


class _Server:
    """One connection to the server, greeted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return a message's kind, and all of it."""
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)


class TransactionPooler(InFront):
    """A socket in a folder.

    Attributes:
        next_one: The number of the connection that the next transaction gets.
        is_rotating: Whether each transaction gets another one.
    """

    def __init__(self, target: Path, folder: Path, *, is_rotating: bool) -> None:
        self.next_one = 0
        self.is_rotating = is_rotating
        super().__init__(target, folder)
        self._pool: dict[int, asyncio.Future[_Server]] = {}

    async def _listen(self, is_listening: threading.Event) -> None:
        await super()._listen(is_listening)
        for server in self._pool.values():
            (await server).writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            size = await reader.readexactly(4)
            startup = size + await reader.readexactly(struct.unpack("!i", size)[0] - 4)
            writer.write(_GREETING)
            while await self._transaction(reader, writer, startup):
                self.next_one += self.is_rotating

    async def _transaction(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, startup: bytes) -> bool:
        """Pass on one transaction; return whether the client goes on."""
        kind, message = await _message(reader)
        if kind == b"X":
            return False
        server = await self._server(self.next_one % CONNECTIONS, startup)
        state = b"T"
        while True:
            server.writer.write(message)
            if kind in _ASKS_FOR_READY:
                state = await self._answers(server, writer)
            if state == b"I" and kind in _ASKS_FOR_READY:
                return True
            kind, message = await _message(reader)

    async def _answers(self, server: _Server, writer: asyncio.StreamWriter) -> bytes:
        """Pass on answers until the server is ready; return whether it is in a transaction."""
        while True:
            kind, answer = await _message(server.reader)
            writer.write(answer)
            if kind == _READY:
                return answer[5:6]

    async def _server(self, number: int, startup: bytes) -> _Server:
        if number not in self._pool:
            self._pool[number] = asyncio.ensure_future(self._connect(startup))
        return await self._pool[number]

    async def _connect(self, startup: bytes) -> _Server:
        reader, writer = await asyncio.open_unix_connection(self._target)
        writer.write(startup)
        while (await _message(reader))[0] != _READY:
            pass
        return _Server(reader, writer)
