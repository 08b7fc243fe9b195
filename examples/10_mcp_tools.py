"""Tools of an MCP server, declared by whoever uses them: the answer to a payment is lost, and the same server is asked."""

import asyncio
import sys
import tempfile
from pathlib import Path

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.test import TestModel

import surefoot as sf

TILL = """
import os, pathlib, sys
from mcp.server.mcpserver import MCPServer
till, books = MCPServer("till"), pathlib.Path(sys.argv[1])

@till.tool()
def pay(order: str) -> str:
    books.write_text(f"{order}\\n")
    os._exit(1)  # paid, and never said so

@till.tool()
def payments(order: str) -> int:
    return books.read_text().split().count(order) if books.exists() else 0

till.run("stdio")
"""


async def main(folder: Path) -> None:
    where = StdioTransport(sys.executable, ["-c", TILL, f"{folder}/books"])
    till = MCPToolset(where, id="till", init_timeout=60)

    async def was_paid(order: str) -> sf.Landed | sf.NotLanded:
        count = await till.direct_call_tool("payments", {"order": order})
        print("the till says:", count)
        return sf.Landed("paid") if count else sf.NotLanded()

    pay = sf.effect(key="pay:{order}", in_doubt=sf.Probe(was_paid, longest_life="500ms"))
    agent = Agent(TestModel(call_tools=["pay"]), name="clerk", toolsets=[till])
    async with sf.Surefoot(f"sqlite:///{folder}/agents.db") as app:
        clerk = app.agent(agent, reads=["payments"], effects={"pay": pay})
        run = await clerk.start("Pay the order", id="order-1")
        print(await run.result())
        print({tool.name: tool.declared for tool in await clerk.tools()})
    print("paid:", (folder / "books").read_text().split())
    await till.client.close()


with tempfile.TemporaryDirectory() as name:
    asyncio.run(main(Path(name)))

# the till says: 1
# {"pay":"paid"}
# {'pay': 'probe', 'payments': 'read'}
# paid: ['a']
