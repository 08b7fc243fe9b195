"""Pydantic AI on DBOS as an engine: `DBOSDurability` inside a `@DBOS.workflow`, each tool a `@DBOS.step`, on SQLite.

DBOS records a step once it has ended, and runs a step again that was not recorded. What that is worth depends on the
tool: `nothing` is a tool that is called as it is, `keys` one whose author sends the `tool_call_id` as the key.
Banking only. Runs in the environment of the bench's Pydantic AI; see `peers`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dbos import DBOS, SetWorkflowID  # type: ignore[import-not-found]  # installed where this runs
from pydantic_ai import Agent, Tool
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_core import to_jsonable_python
from tests.worlds import dojo, tools
from tests.worlds.cases import Report, Work
from tests.worlds.client import InFlight, Refused
from tests.worlds.dojo import Call
from tests.worlds.kills import Point
from tests.worlds.service import Offer, Terms

SUITE = "banking"

_given: list[Work] = []
"""What this worker process was given."""

_recording: list[str | None] = [None]
"""The call that has been carried out and is to be recorded next."""


def _tool(function: Any) -> Any:
    name: str = function.name

    async def call(**arguments: Any) -> Any:
        work, sent = _given[0], to_jsonable_python(arguments)
        decided = _decided(name, sent)
        if name in dojo.EFFECTFUL:
            work.trap.reached(Point.BEFORE_CLAIM, decided.label)
        while True:
            try:
                value = await work.client().call(name, sent, key=decided.label, label=decided.label)
            except Refused as refusal:
                value = {"refused": str(refusal)}
            except InFlight:
                await asyncio.sleep(0.02)
                continue
            _recording[0] = decided.label if name in dojo.EFFECTFUL else None
            return value

    return Tool(DBOS.step(name=name)(tools.pose(call, name, tools.parameters(function))))


def _decided(name: str, sent: Mapping[str, Any]) -> Call:
    """Return which decision a call is; no task makes two calls of the same."""
    for call in _given[0].calls:
        if call.tool == name and all(sent[parameter] == value for parameter, value in call.args.items()):
            return call
    raise LookupError(f"no call of this case is {name}({sent})")


def _respond(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    work, turn = _given[0], sum(isinstance(message, ModelResponse) for message in messages)
    if turn < len(work.calls):
        call = work.calls[turn]
        return ModelResponse([ToolCallPart(call.tool, dict(call.args), tool_call_id=call.label)])
    returns = [part for message in messages for part in message.parts if part.part_kind == "tool-return"]
    told = {part.tool_call_id: "refused" if _is_refusal(part.content) else "done" for part in returns}
    return ModelResponse([TextPart(json.dumps(told))])


def _is_refusal(content: Any) -> bool:
    return isinstance(content, dict) and content.keys() == {"refused"}


_agent = Agent(
    FunctionModel(_respond),
    name="clerk",
    tools=[_tool(function) for function in tools.functions(SUITE).values()],
    capabilities=[DBOSDurability()],
)


async def _task(prompt: str) -> str:
    return (await _agent.run(prompt)).output


_workflow = DBOS.workflow(name="task")(_task)


@dataclass(frozen=True)
class PydanticAIOnDbos:
    """A task as a workflow around one run of an agent."""

    name: str
    terms: Terms

    def run(self, work: Work) -> Report:
        """Start the workflow, or wait for the end of the one that `launch` has recovered."""
        _given[:] = [work]
        told = asyncio.new_event_loop().run_until_complete(self._run(work))
        return Report(finished=True, told=told)

    async def _run(self, work: Work) -> dict[str, str]:
        url = f"sqlite:///{work.store_dir / 'dbos.sqlite'}"
        app = DBOS(config={"name": "world", "system_database_url": url, "log_level": "ERROR"})
        DBOS.launch()
        _tap(app._sys_db, work)
        with SetWorkflowID(work.run_id):
            handle = await DBOS.start_workflow_async(_workflow, f"Do {work.run_id}.")
        told: dict[str, str] = json.loads(await handle.get_result())
        return {call.label: told[call.label] for call in work.calls if call.effectful}

    def resolve(self, work: Work, landed: Mapping[str, bool]) -> Report:
        """Nothing is ever parked."""
        raise NotImplementedError


def _tap(system_database: Any, work: Work) -> None:
    """Cross the trap after the record of a tool's step."""
    record = system_database.record_operation_result

    def recorded(*args: Any, **kwargs: Any) -> None:
        record(*args, **kwargs)
        label, _recording[0] = _recording[0], None
        work.trap.reached(Point.AFTER_RECORD, label)

    system_database.record_operation_result = recorded


NOTHING = PydanticAIOnDbos("Pydantic AI on DBOS, nothing", Terms(Offer.NOTHING))
KEYS = PydanticAIOnDbos("Pydantic AI on DBOS, keys by hand", Terms(Offer.KEYS))
ALL = (NOTHING, KEYS)
