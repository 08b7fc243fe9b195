"""Where a scenario is played: one app on one engine, a world outside that counts, and the books that are compared.

What holds: two engines play the same scenario if they leave the same ledger, the same runs, the same world, and the models
were told the same.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import surefoot as sf
from surefoot.adapters.pydantic_ai import AgentRun, DurableAgent
from surefoot.adapters.pydantic_ai.transcripts import RESULT
from surefoot.effects.states import State
from surefoot.journal import Kind
from surefoot.store.connection import Connection

PATIENCE_S = 120.0
"""How long a scenario waits for what must come; never reached on a machine that works."""

Call = tuple[str, dict[str, Any], str]
"""A tool call of a scripted model: tool, arguments, id."""


@dataclass
class Books:
    """What is compared.

    Attributes:
        told: What the scenario's author wants compared: results, errors, what models were told.
        ledger: Effect, scope, key, generation, state and number of claims of each row.
        runs: Id, agent, state and reason of each run.
        facts: For each run, the kinds of its records about effects, reads and decisions of the model, by step.
        world: What was done outside, in no order.
    """

    told: Any
    ledger: list[tuple[Any, ...]]
    runs: list[tuple[Any, ...]]
    facts: list[tuple[Any, ...]]
    world: list[Any]


@dataclass
class Stage:
    """One scenario on one engine.

    Attributes:
        app: The app; agents are added before `open`.
        world: What was done outside; scenarios append to it.
        tag: What ids of runs end with, where stores share a namespace of ids; it is not compared.
    """

    app: sf.Surefoot
    world: list[Any] = field(default_factory=list)
    tag: str = ""
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack)

    def agent(self, script: Sequence[Sequence[Call]], tools: Sequence[Any], name: str = "clerk", **options: Any) -> Any:
        """Add an agent whose model makes these calls, one list a turn, and then says what it was told."""
        own = {key: options.pop(key) for key in ("reads", "effects", "deps") if key in options}
        return self.app.agent(Agent(scripted(script), name=name, tools=tools, **options), **own)

    async def open(self) -> None:
        """Open the app."""
        await self._opened.enter_async_context(self.app)

    async def close(self) -> None:
        """Close it."""
        await self._opened.aclose()

    async def result(self, agent: DurableAgent, id: str, prompt: str = "go", **options: Any) -> Any:
        """Start a run, and return its result, or the error it ended in."""
        return await self.end(await self.start(agent, id, prompt, **options))

    async def start(self, agent: DurableAgent, id: str, prompt: str = "go", **options: Any) -> AgentRun:
        """Start a run."""
        return await agent.start(prompt, id=f"{id}{self.tag}", **options)

    async def end(self, run: AgentRun) -> Any:
        """Return a run's result, or the error it ended in."""
        try:
            return await run.result(timeout_s=PATIENCE_S)
        except sf.RunFailed as error:
            return f"failed: {error.error_type}: {error.error}"
        except sf.RunCancelled as error:
            return f"cancelled: {error}"

    async def until(self, found: Callable[[], Awaitable[Any]]) -> Any:
        """Wait until there is something, and return it."""
        async with asyncio.timeout(PATIENCE_S):
            while not (there := await found()):
                await asyncio.sleep(0.02)
            return there

    async def waiting(self, run: AgentRun, wait_for: str) -> None:
        """Wait until a run waits for something."""

        async def is_waiting() -> bool:
            return (await run.status()).waiting_for == wait_for

        await self.until(is_waiting)

    async def books(self, told: Any) -> Books:
        """Return what is compared."""
        ledger, runs, facts = [await self.app.store.read(query) for query in (_ledger, _runs, _facts)]
        plain = self._without_tag
        return Books(plain(told), plain(ledger), plain(runs), plain(facts), sorted(map(repr, self.world)))

    def _without_tag(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(self.tag, "") if self.tag else value
        if isinstance(value, list | tuple):
            return type(value)(self._without_tag(one) for one in value)
        if isinstance(value, dict):
            return {key: self._without_tag(one) for key, one in value.items()}
        return value


def scripted(script: Sequence[Sequence[Call]]) -> FunctionModel:
    """Return a model that makes these calls, a list a turn, and then says what it was told of each, as JSON."""

    def answer(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        parts = [part for message in messages for part in message.parts]
        turns = sum(isinstance(message, ModelResponse) for message in messages)
        before = sum(isinstance(part, TextPart) for part in parts)  # turns of the history that was given
        if turns - before < len(script):
            return ModelResponse([ToolCallPart(name, asked, id) for name, asked, id in script[turns - before]])
        told = {part.tool_call_id: part.content for part in parts if isinstance(part, ToolReturnPart | RetryPromptPart)}
        return ModelResponse([TextPart(json.dumps(told, sort_keys=True, default=str))])

    return FunctionModel(answer, model_name="scripted")


def _ledger(connection: Connection) -> list[tuple[Any, ...]]:
    rows = connection.execute(
        "SELECT l.generation, l.state, l.token, j.body FROM ledger l JOIN journal j ON j.id = l.claim"
    ).fetchall()
    found = []
    for generation, state, token, body in rows:
        call = msgspec.json.decode(bytes(body))
        found.append((call["effect"], call["scope"], call["key"], generation, State(state).name, token))
    return sorted(found)


def _runs(connection: Connection) -> list[tuple[Any, ...]]:
    rows = connection.execute("SELECT run_id, kind, state, reason FROM runs").fetchall()
    return sorted((run, kind.removeprefix("temporal "), state, reason) for run, kind, state, reason in rows)


def _facts(connection: Connection) -> list[tuple[Any, ...]]:
    rows = connection.execute(
        "SELECT r.run_id, j.step, j.kind FROM journal j JOIN runs r ON r.id = j.run WHERE j.step != ''"
    ).fetchall()
    return sorted((run, step, kind) for run, step, kind in rows if kind != Kind.DECIDED or _is_model_s(step))


def _is_model_s(step: str) -> bool:
    """Whether it is a decision of the model, or the run's result; others are in Temporal's history alone."""
    return step.rpartition("/")[2].startswith(("decision[", RESULT))
