"""A small real MCP server on the official SDK: a till. Its books are a file, so that they outlive it.

python server.py BOOKS [--keys] [--port N]      over stdio, or over streamable HTTP on a loopback port
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations

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

    @server.tool()
    def refuse(order: str) -> str:
        """Refuse an order."""
        raise ValueError(f"no such order: {order}")

    @server.tool()
    def die(order: str) -> str:
        """Pay an order, and die before the answer."""
        note({"what": "die", "order": order})
        os.kill(os.getpid(), signal.SIGKILL)
        return "never said"

    @server.tool()
    def hang(order: str) -> str:
        """Pay an order, and say so much later."""
        note({"what": "hang", "order": order})
        time.sleep(6)
        return "too late"

    return server


def main() -> None:
    """Serve until the client, or whoever started it, is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("books", type=Path)
    parser.add_argument("--keys", action="store_true")
    parser.add_argument("--port", type=int)
    chosen = parser.parse_args()
    server = build(chosen.books, has_keys=chosen.keys)
    if chosen.port is None:
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=chosen.port)


if __name__ == "__main__":
    main()
