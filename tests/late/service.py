"""A service in a process of its own that keeps the highest token it has seen: `python -m tests.late.service FILE`.

A request is a line of JSON: the resource, the token, and what else its sender wants to be known. It is answered "ok", or
"refused" if a higher token has come before it; both are kept in the file, in the order in which requests came. The token is
all that it judges by; who was late, its readers find out from the rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, as it came.

    Attributes:
        resource: What it is about.
        token: What it was sent with.
        more: What its sender has said of itself.
        is_refused: Whether a higher token had come before.
    """

    resource: str
    token: int
    more: Any
    is_refused: bool


@dataclass(frozen=True, slots=True)
class Service:
    """A running service, as the tests see it.

    Attributes:
        port: Where it listens.
        file: What came to it.
    """

    port: int
    file: Path

    def arrivals(self) -> list[Arrival]:
        """Return all requests so far, in the order of their arrival."""
        return [Arrival(*json.loads(line)) for line in self.file.read_text().splitlines()]


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[Service]:
    """Start a service, and end it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.late.service", str(file), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield Service(int(await process.stdout.readline()), file)
    finally:
        process.kill()
        await process.wait()


def send(port: int, resource: str, token: int, more: Any = None) -> str:
    """Send a request, as a synchronous client does; return the answer."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(json.dumps([resource, token, more]).encode() + b"\n")
        return connection.makefile().readline().strip()


async def main(file: str) -> None:
    """Serve until killed."""
    highest: dict[str, int] = {}
    kept = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if line := await reader.readline():  # none, if its sender was killed before it said anything
            resource, token, more = json.loads(line)
            is_refused = token < highest.get(resource, 0)
            highest[resource] = max(token, highest.get(resource, 0))
            os.write(kept, json.dumps([resource, token, more, is_refused]).encode() + b"\n")
            writer.write(b"refused\n" if is_refused else b"ok\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
