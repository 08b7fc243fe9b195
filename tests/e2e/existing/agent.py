"""An agent as its team wrote it: it answers tickets with a warehouse (MCP), refunds after an approval, and streams."""

import asyncio
import sys
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from fastmcp.client.transports import StdioTransport
from pydantic import BaseModel
from pydantic_ai import Agent, AgentStreamEvent, DeferredToolRequests, DeferredToolResults, RunContext
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import FunctionToolCallEvent, ModelMessage, PartDeltaEvent, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

HERE = Path(__file__).parent


@dataclass
class Desk:
    """What the tools work with."""

    customer: str


class Answer(BaseModel):
    """What the agent says in the end."""

    text: str
    refunded: float


SCRIPT = [
    [DeltaToolCall("stock", '{"article": "lamp"}', tool_call_id="c1")],
    [
        DeltaToolCall("reserve", '{"article": "lamp", "count": 1}', tool_call_id="c2"),
        DeltaToolCall("refund", '{"order": "A-4411", "amount": 12.5}', tool_call_id="c3"),
    ],
    [
        DeltaToolCall(
            "final_result",
            '{"text": "A lamp is on its way, the old one refunded.", "refunded": 12.5}',
            tool_call_id="c4",
        )
    ],
]


async def scripted(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[dict[int, DeltaToolCall]]:
    """Stand in for a model, so that this runs without a key."""
    told = sum(isinstance(part, ToolReturnPart) for message in messages for part in message.parts)
    for place, call in enumerate(SCRIPT[0 if told == 0 else 1 if told == 1 else 2]):
        yield {place: call}


agent = Agent(
    FunctionModel(stream_function=scripted, model_name="scripted"),
    name="support",
    deps_type=Desk,
    output_type=[Answer, DeferredToolRequests],
    toolsets=[
        MCPToolset(
            StdioTransport(sys.executable, [str(HERE / "warehouse_server.py"), str(HERE / "books.txt")]), id="warehouse"
        )
    ],
    instructions="You answer tickets of a lamp shop.",
)


@agent.tool
async def lookup_order(ctx: RunContext[Desk], order: str) -> dict[str, str]:
    """Look an order up."""
    return {"order": order, "customer": ctx.deps.customer, "total": "12.50"}


@agent.tool(requires_approval=True)
async def refund(ctx: RunContext[Desk], order: str, amount: float) -> str:
    """Give money back."""
    with (HERE / "refunds.txt").open("a") as books:
        books.write(f"{order} {amount}\n")
    return f"refunded {amount} to {ctx.deps.customer}"


async def show(ctx: RunContext[Desk], events: AsyncIterable[AgentStreamEvent]) -> None:
    """Show what happens while it happens."""
    async for event in events:
        if isinstance(event, FunctionToolCallEvent):
            print(f"  calls {event.part.tool_name}({event.part.args})")
        elif isinstance(event, PartDeltaEvent):
            print("  .", end="")


async def main() -> None:
    desk = Desk("ann")
    result = await agent.run("My lamp A-4411 arrived broken.", deps=desk, event_stream_handler=show)
    while isinstance(result.output, DeferredToolRequests):
        answers = DeferredToolResults()
        for call in result.output.approvals:
            answers.approvals[call.tool_call_id] = input(f"{call.tool_name}({call.args})? [y/n] ") == "y"
        result = await agent.run(
            message_history=result.all_messages(), deferred_tool_results=answers, deps=desk, event_stream_handler=show
        )
    print(result.output)


if __name__ == "__main__":
    asyncio.run(main())
