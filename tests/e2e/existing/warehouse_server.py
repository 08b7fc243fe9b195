"""A small MCP server: a warehouse that reserves stock. It keeps its books in a file beside it."""

import json
import sys
from pathlib import Path

from mcp.types import ToolAnnotations

from mcp.server import MCPServer

server = MCPServer("warehouse")
BOOKS = Path(sys.argv[1])


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def stock(article: str) -> int:
    """Return how many of an article are left."""
    return 7


@server.tool()
def reserve(article: str, count: int) -> str:
    """Reserve some of an article."""
    lines = BOOKS.read_text().splitlines() if BOOKS.exists() else []
    BOOKS.write_text("\n".join([*lines, json.dumps([article, count])]) + "\n")
    return f"reserved {count} of {article}"


server.run("stdio")
