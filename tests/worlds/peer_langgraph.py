"""LangGraph as an engine: a graph of one node that carries out one call per step, on its own SQLite saver, `sync`.

LangGraph records a step once it has ended, and runs a step again that was not recorded. What that is worth depends on
the tool: `nothing` is a tool that is called as it is, `keys` one whose author sends the `tool_call_id` as the key.
Runs in the environment of the bench's LangGraph; see `peers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver  # type: ignore[import-not-found]  # installed where this runs
from langgraph.graph import END, START, StateGraph  # type: ignore[import-not-found]
from tests.worlds.cases import Report, Work
from tests.worlds.client import InFlight, Refused
from tests.worlds.dojo import Call
from tests.worlds.kills import Point
from tests.worlds.service import Offer, Terms


class Progress(TypedDict):
    """The state of the graph."""

    turn: int
    told: dict[str, str]


@dataclass(frozen=True)
class LangGraph:
    """A task as a loop of one node."""

    name: str
    terms: Terms

    def run(self, work: Work) -> Report:
        """Start the run, or go on with it from its last checkpoint."""
        with SqliteSaver.from_conn_string(str(work.store_dir / "langgraph.sqlite")) as saver:
            runner = _Runner(self, work)
            runner.tap(saver)
            return Report(finished=True, told=runner.run(saver))

    def resolve(self, work: Work, landed: Mapping[str, bool]) -> Report:
        """Nothing is ever parked."""
        raise NotImplementedError


class _Runner:
    def __init__(self, engine: LangGraph, work: Work) -> None:
        self.engine = engine
        self.work = work
        self.label: str | None = None

    def tap(self, saver: Any) -> None:
        """Cross the trap after each write of the saver."""
        for name in ("put", "put_writes"):
            setattr(saver, name, self._crossing(getattr(saver, name)))

    def _crossing(self, write: Any) -> Any:
        def crossing(*args: Any, **kwargs: Any) -> Any:
            result = write(*args, **kwargs)
            self.work.trap.reached(Point.AFTER_RECORD, self.label)
            return result

        return crossing

    def run(self, saver: Any) -> dict[str, str]:
        graph = StateGraph(Progress)
        graph.add_node("act", self._act)
        graph.add_edge(START, "act")
        graph.add_conditional_edges("act", self._next, ["act", END])
        compiled = graph.compile(checkpointer=saver)
        config = {"configurable": {"thread_id": self.work.run_id}, "recursion_limit": 100}
        there = compiled.get_state(config)
        if there.values and there.values["turn"] == len(self.work.calls):
            return dict(there.values["told"])
        start = None if there.values else {"turn": 0, "told": {}}
        return dict(compiled.invoke(start, config, durability="sync")["told"])

    def _act(self, state: Progress) -> Progress:
        self.label = None
        call = self.work.calls[state["turn"]]
        said = asyncio.run(self._carry_out(call))
        told = {call.label: said} if call.effectful else {}
        return {"turn": state["turn"] + 1, "told": state["told"] | told}

    async def _carry_out(self, call: Call) -> str:
        if call.effectful:
            self.work.trap.reached(Point.BEFORE_CLAIM, call.label)
        while True:
            try:
                await self.work.client().call(call.tool, call.args, key=call.label, label=call.label)
            except Refused:
                said = "refused"
            except InFlight:
                await asyncio.sleep(0.02)
                continue
            else:
                said = "done"
            self.label = call.label if call.effectful else None
            return said

    def _next(self, state: Progress) -> str:
        return "act" if state["turn"] < len(self.work.calls) else str(END)


NOTHING = LangGraph("LangGraph, nothing", Terms(Offer.NOTHING))
KEYS = LangGraph("LangGraph, keys by hand", Terms(Offer.KEYS))
ALL = (NOTHING, KEYS)
