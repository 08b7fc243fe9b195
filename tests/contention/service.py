"""The service that agents contend for: accounts that are read and written, with a version each. It counts what is lost."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any


class Service:
    """Five accounts in this process, called over a socket. Each write is one update; a value that is behind their number
    says how many were overwritten unseen."""

    def __init__(self, accounts: int) -> None:
        self.values = {f"a{n}": 0 for n in range(accounts)}
        self.versions = dict.fromkeys(self.values, 1)
        self.writes: Counter[str] = Counter()
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def lost(self) -> int:
        """How many updates were lost."""
        return sum(self.writes[account] - value for account, value in self.values.items())

    async def __aenter__(self) -> Service:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            what, account, *rest = json.loads(line)
            answer = self._read(account) if what == "read" else self._write(account, *rest)
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    def _read(self, account: str) -> dict[str, int]:
        return {"value": self.values[account], "version": self.versions[account]}

    def _write(self, account: str, value: int, version: int | None) -> bool:
        if version is not None and version != self.versions[account]:
            return False
        self.values[account] = value
        self.versions[account] += 1
        self.writes[account] += 1
        return True


class Client:
    """One connection to it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, *asked: Any) -> Any:
        """Return the service's answer."""
        async with self._turn:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(json.dumps(asked).encode() + b"\n")
            return json.loads(await reader.readline())

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
