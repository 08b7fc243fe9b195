"""A small real MCP server on the official SDK: a till. Its books are a file, so that they outlive it.

python -m tests.mcp.server WORLD [--keys]          over stdio
python -m tests.mcp.server WORLD [--keys] --http   over streamable HTTP, on a free port that it writes beside the world
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from tests.mcp.faults import Books

KEY = "surefoot/idempotencyKey"


def build(books: Path, *, has_keys: bool) -> MCPServer:
    """Return the server; `has_keys`: it dedupes on the key in `_meta`, as a server of one's own would."""
    server = MCPServer("till", instructions="A till. Amounts are in cents.")

    def entries() -> list[dict[str, Any]]:
        return [json.loads(line) for line in books.read_text().splitlines()] if books.exists() else []

    def note(entry: dict[str, Any]) -> None:
        with books.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    @server.tool(annotations=ToolAnnotations(destructive_hint=True, idempotent_hint=True))
    def pay(order: str, cents: int, ctx: Context) -> str:
        """Pay an order."""
        meta = dict(ctx.request_context.meta or {})
        key = meta.get(KEY)
        if has_keys and key is not None and any(entry.get("key") == key for entry in entries()):
            return f"paid {order}"
        note({"what": "pay", "order": order, "cents": cents, "key": key, "meta": meta})
        return f"paid {order}"

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def payments(order: str) -> int:
        """Return how often an order was paid."""
        return sum(entry["order"] == order for entry in entries() if entry["what"] == "pay")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def meta(ctx: Context) -> dict[str, Any]:
        """Return what came along with this very call."""
        return dict(ctx.request_context.meta or {})

    @server.tool()
    def refuse(order: str) -> str:
        """Refuse an order."""
        raise ValueError(f"no such order: {order}")

    @server.tool(annotations=ToolAnnotations(idempotent_hint=True))
    def price(item: str, cents: int) -> str:
        """Set a price."""
        note({"what": "price", "item": item, "cents": cents})
        return f"{item} costs {cents}"

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def costs(item: str) -> int | None:
        """Return a price."""
        return next((entry["cents"] for entry in reversed(entries()) if entry.get("item") == item), None)

    @server.tool()
    def die(order: str) -> str:
        """Pay an order, and die before the answer."""
        note({"what": "die", "order": order})
        os.kill(os.getpid(), signal.SIGKILL)
        return "never said"

    @server.tool()
    async def hang(order: str) -> str:
        """Pay an order, and never say so."""
        note({"what": "hang", "order": order})
        await asyncio.Event().wait()
        return "never said"

    return server


class Faults:
    """Stands before the server over HTTP, as `relay.py` does over stdio."""

    def __init__(self, app: Any, books: Books) -> None:
        self._app = app
        self._books = books

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or spring the fault."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = b""
        while (part := await receive())["type"] == "http.request":
            body += part["body"]
            if not part["more_body"]:
                break
        message = json.loads(body)
        if message.get("method") != "tools/call":
            await self._app(scope, _Once(body, receive), send)
            return
        await self._call(message["params"], scope, body, receive, send)

    async def _call(self, call: dict[str, Any], scope: Any, body: bytes, receive: Any, send: Any) -> None:
        fault = self._books.take(call)
        if fault is not None and fault.what != "acted":
            self._books.kill()
            await asyncio.sleep(fault.straggles_s)
            if fault.what == "lost":
                raise ConnectionAbortedError("lost on the way")
        said: list[Any] = []

        async def keep(part: Any) -> None:
            said.append(part)

        await self._app(scope, _Once(body, None), keep)
        self._books.note(call, _result(b"".join(part.get("body", b"") for part in said)))
        if fault is not None and fault.what == "acted":
            self._books.kill()
            raise ConnectionAbortedError("answered nobody")
        for part in said:
            await send(part)


class _Once:
    """Gives a body that was read already; then, what comes after it."""

    def __init__(self, body: bytes, after: Any) -> None:
        self._body: bytes | None = body
        self._after = after

    async def __call__(self) -> Any:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await (asyncio.Event().wait() if self._after is None else self._after())


def _result(said: bytes) -> dict[str, Any] | None:
    """Return the result in an answer, plain or as an event stream."""
    for line in said.splitlines():
        text = line.removeprefix(b"data:").strip()
        if text.startswith(b"{"):
            result: dict[str, Any] | None = json.loads(text).get("result")
            return result
    return None


def main() -> None:
    """Serve until the client, or whoever started it, is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("world", type=Path)
    parser.add_argument("--keys", action="store_true")
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    server = build(chosen.world / "till.jsonl", has_keys=chosen.keys)
    (chosen.world.parent / "pid").write_text(str(os.getpid()))
    if not chosen.http:
        server.run("stdio")
        return
    listener = socket.create_server(("127.0.0.1", chosen.port))
    app = Faults(server.streamable_http_app(), Books(chosen.world.parent))
    (chosen.world.parent / "port.new").write_text(str(listener.getsockname()[1]))
    (chosen.world.parent / "port.new").rename(chosen.world.parent / "port")
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run([listener])


if __name__ == "__main__":
    main()
