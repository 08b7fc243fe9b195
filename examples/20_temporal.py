"""The same agent on a Temporal cluster: its history says what comes next, the ledger in PostgreSQL what was done.

temporal server start-dev
SUREFOOT_URL=postgresql://user@localhost/app python examples/20_temporal.py
"""

import asyncio
import os

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import surefoot as sf

CLUSTER = os.environ.get("TEMPORAL_URL", "temporal://localhost:7233/default?task_queue=example")
books: list[str] = []


async def was_refunded(order_id: str) -> sf.Landed | sf.NotLanded:
    print("  the shop is asked, once nothing of the first request can come any more")
    return sf.Landed("receipt r-1") if order_id in books else sf.NotLanded()


@sf.effect(key="refund:{order_id}", in_doubt=sf.Probe(was_refunded, longest_life="500ms"))
async def refund(order_id: str) -> str:
    books.append(order_id)
    print("  the shop refunds", order_id, "and its answer is lost")
    raise ConnectionResetError("no answer")


def scripted(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Stand in for a model: refund, and say what came of it."""
    told = [part.content for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    if not told:
        return ModelResponse([ToolCallPart("refund", {"order_id": "A-4411"})])
    return ModelResponse([TextPart(f"told: {told[0]}")])


async def main() -> None:
    app = sf.Surefoot(os.environ["SUREFOOT_URL"], engine=CLUSTER)
    support = app.agent(Agent(FunctionModel(scripted), name="support", tools=[refund]))
    async with app:  # this process is a worker, too; `surefoot worker` makes more
        for _ in range(2):  # the id is the workflow's: the same one is the same run, now and next year
            run = await support.start("Order A-4411 arrived broken, refund it", id="ticket-991")
            print(await run.result(timeout_s=60))
    print("refunds:", len(books))


asyncio.run(main())

#   the shop refunds A-4411 and its answer is lost
#   the shop is asked, once nothing of the first request can come any more
# told: receipt r-1
# told: receipt r-1
# refunds: 1
