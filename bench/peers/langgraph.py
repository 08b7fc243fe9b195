"""LangGraph: a graph of two nodes in a loop over `MessagesState`, on its own SQLite saver.

`MessagesState` is the documented state of an agent, and what it needs after a restart: all messages so far. Variant
`sync` (measured by default) waits for the checkpoint of each step before the next begins, as the other systems do;
`async` is LangGraph's own default, which lets the next step begin while the checkpoint is still being written.

LangGraph has no recovery of its own: somebody must know the thread ids. Here the harness does.
"""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

from bench import driver
from bench.observer import observer
from bench.workload import act, compact_json, decide

MESSAGES_PER_CYCLE = 2


def _cycle(state: MessagesState) -> int:
    return len(state["messages"]) // MESSAGES_PER_CYCLE


async def decide_node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
    run, cycle = config["configurable"]["run"], _cycle(state)
    if cycle:
        observer.cycle_ended(run)  # only now is the checkpoint of the last act awaited
    await observer.gate(cycle)
    return {"messages": [AIMessage(compact_json(decide(run, cycle)).decode())]}


async def act_node(state: MessagesState) -> dict[str, Any]:
    decision = json.loads(state["messages"][-1].content)
    result = compact_json(act(decision, observer.world)).decode()
    return {"messages": [ToolMessage(result, tool_call_id=decision["tool_call"]["id"])]}


def _next(state: MessagesState, config: RunnableConfig) -> str:
    return "decide" if _cycle(state) < config["configurable"]["cycles"] else END


class LangGraph:
    """LangGraph as a `driver.System`."""

    def __init__(self, variant: str) -> None:
        self._durability: Literal["sync", "async"] = "async" if variant == "async" else "sync"

    async def open(self, directory: Path) -> None:
        self._connection = AsyncSqliteSaver.from_conn_string(str(directory / "langgraph.sqlite"))
        self._saver = await self._connection.__aenter__()
        await self._saver.setup()
        graph = StateGraph(MessagesState)
        graph.add_node("decide", decide_node)
        graph.add_node("act", act_node)
        graph.add_edge(START, "decide")
        graph.add_edge("decide", "act")
        graph.add_conditional_edges("act", _next, ["decide", END])
        self._graph = graph.compile(checkpointer=self._saver)

    async def durability(self) -> dict[str, str]:
        async def look_up(what: str) -> str:
            async with self._saver.conn.execute(what) as cursor:
                return str((await cursor.fetchone())[0])

        return {
            "journal_mode": await look_up("PRAGMA journal_mode"),
            "synchronous": await look_up("PRAGMA synchronous"),
            "sqlite_version": await look_up("SELECT sqlite_version()"),
            "awaited": "every step" if self._durability == "sync" else "the end of the run",
            "versions": f"langgraph {version('langgraph')}, "
            f"langgraph-checkpoint-sqlite {version('langgraph-checkpoint-sqlite')}",
        }

    async def run(self, run: int, cycles: int) -> None:
        observer.run_began(run)
        await self._invoke(run, cycles, {"messages": []})

    async def resume(self, runs: range, cycles: int) -> None:
        for run in runs:
            observer.run_began(run)
        await asyncio.gather(*(self._invoke(run, cycles, None) for run in runs))

    async def _invoke(self, run: int, cycles: int, state: dict[str, Any] | None) -> None:
        config: RunnableConfig = {
            "configurable": {"thread_id": f"run-{run}", "run": run, "cycles": cycles},
            "recursion_limit": cycles * MESSAGES_PER_CYCLE + 5,
        }
        await self._graph.ainvoke(state, config, durability=self._durability)
        observer.cycle_ended(run)
        observer.run_ended(run)

    async def close(self) -> None:
        await self._connection.__aexit__(None, None, None)


if __name__ == "__main__":
    driver.main(lambda options: LangGraph(options.variant), variants=("sync", "async"))
