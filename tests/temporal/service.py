"""A payment service in a process of its own, which counts what it did: lines of JSON over TCP.

    keys     dedupes on the idempotency key, and answers a known one with its first answer
    look-up  answers truthfully what it did, and refuses what has expired
    nothing  neither

What holds: a request that has arrived is done, though its sender is dead; what was done stands in the books for ever.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from time import time
from typing import Any

HOLD_S = 0.5
"""How long an answer is held back when the sender asks for it: time to die in."""


class Books:
    """What the service has done."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.paid: list[str] = []
        self.answers: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []

    def serve(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request."""
        match asked["do"]:
            case "books":
                return {"paid": self.paid, "requests": self.requests}
            case "look":
                return {"found": asked["order"] in self.paid}
        self.requests.append(asked)
        if self.kind == "keys" and asked["key"] in self.answers:
            return {"receipt": self.answers[asked["key"]]}
        if self.kind == "look-up" and time() * 1_000 > asked["expires_at_ms"]:
            return {"refused": "expired"}
        self.paid.append(asked["order"])
        receipt = self.answers[asked["key"]] = f"paid {asked['order']}"
        return {"receipt": receipt}


async def main(kind: str, place: Path) -> None:
    """Serve for ever; write the port to a file once it listens."""
    books = Books(kind)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked = json.loads(line)
            answer = books.serve(asked)
            if asked.get("hold"):
                await asyncio.sleep(HOLD_S)
            try:
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
            except ConnectionError:
                return

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    new = place.with_suffix(".new")
    new.write_text(str(server.sockets[0].getsockname()[1]))
    new.rename(place)
    await server.serve_forever()


async def ask(port: int, request: dict[str, Any]) -> dict[str, Any]:
    """Make one request, and return its answer.

    Raises:
        ConnectionError: The service's end is gone.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
        if not line:
            raise ConnectionResetError("the service closed the connection")
        answer: dict[str, Any] = json.loads(line)
        return answer
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
