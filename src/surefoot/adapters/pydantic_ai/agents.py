"""An agent as a kind of run: what `app.agent(agent)` returns, the function behind it, and the handle of one of its runs."""

from __future__ import annotations

import inspect
import typing
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, UserContent
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.usage import RunUsage, UsageLimits

from surefoot.adapters.pydantic_ai import live, transcripts
from surefoot.adapters.pydantic_ai.capability import Durable
from surefoot.adapters.pydantic_ai.listing import ToolClass, tool_classes
from surefoot.adapters.pydantic_ai.live import LiveEvent
from surefoot.adapters.pydantic_ai.mcp import is_served
from surefoot.adapters.pydantic_ai.payloads import PAYLOAD
from surefoot.adapters.pydantic_ai.transcripts import Transcript
from surefoot.adapters.pydantic_ai.waits import ASKED, RETRY, AskedCall, signal_of, waiting_for_events
from surefoot.coordination.events import Topic
from surefoot.coordination.events.groups import Since, subscribe
from surefoot.journal import Kind, load_records
from surefoot.problem import SurefootError
from surefoot.runs import KindSpec, Run, register, start_run
from surefoot.runs.durable import ELSEWHERE
from surefoot.runs.queueing import deadline_of
from surefoot.runs.rows.tables import find_run
from surefoot.runs.steps import live_run

if TYPE_CHECKING:
    from surefoot.app import Surefoot

Prompt = str | Sequence[UserContent] | None
"""What is asked: words, or words, images, documents and more in order; None to go on from the message history."""

_LATER = frozenset({"conversation_id", "model"})
"""Parts of an agent's input that came after the first runs."""

_executing: dict[str, Agent[Any, Any]] = {}
"""The agent that executes the runs of each kind in this process: the last one that was made durable under its name."""


class NameTaken(UserWarning):
    """Another agent has been made durable under an agent's name, and executes its runs."""


class AgentRun(Run):
    """A handle of one run of an agent."""

    async def transcript(self) -> Transcript:
        """Wait for the run's end and return its own messages and its usage.

        Raises:
            RunFailed, RunCancelled: It ended so.
        """
        await self.result()
        records = await self._store.read(lambda connection: load_records(connection, self.row))
        return transcripts.read(self.id, list(records))

    async def messages(self) -> list[ModelMessage]:
        """Wait for the run's end and return the whole conversation: the history it was given, and its own messages.

        Give it to the next run: `start("And now?", id=..., message_history=await run.messages())`.
        """
        own = (await self.transcript()).messages
        records = await self._store.read(lambda connection: load_records(connection, self.row))
        return [*transcripts.history(list(records)), *own]

    async def asked_calls(self) -> list[AskedCall]:
        """Return the calls of tools that run elsewhere, whose results the run waits for now."""
        records = await self._store.read(lambda connection: load_records(connection, self.row))
        asked = [PAYLOAD.load(one.body) for one in records if one.body and one.step.rpartition("/")[2] == ASKED]
        came = {one.head.name for one in records if one.kind is Kind.SIGNAL}
        calls = [msgspec.convert(call, AskedCall) for batch in asked for call in batch]
        return [call for call in calls if signal_of(call.id) not in came]

    async def answer_call(self, call_id: str, result: Any = None, *, retry: str | None = None, by: str = "api") -> bool:
        """Give the result of a call that runs elsewhere; the first answer is the one that counts.

        Args:
            call_id: Which call: `AskedCall.id`.
            result: Its result, a JSON value.
            retry: Instead of a result: what to tell the model, so that it tries another way.
            by: Who says so.

        Returns:
            Whether it was the first answer.
        """
        payload = result if retry is None else {RETRY: retry}
        return await self.signal(signal_of(call_id), payload, by=by, dedupe="answer")

    async def stream(self) -> AsyncIterator[LiveEvent]:
        """Yield what the agent does, live, until its run has ended; in the process that executes it.

        From the next model request on, the model is asked for a stream. What is shown is provisional; see `LiveEvent`.

        Raises:
            Elsewhere: Another process executes the run.
        """
        with live.watching(self._worker, self.id) as queue:
            async for event in live.events(self._worker, self, queue):
                yield event

    async def usage(self) -> RunUsage:
        """Wait for the run's end and return what it used."""
        return (await self.transcript()).usage


class DurableAgent:
    """An agent whose runs are durable. Made by `app.agent(agent)`.

    Args:
        app: The app.
        agent: The agent.
        name: Its durable name.
        capability: What makes it durable, by each name under which open runs know it; the first is today's.
        deps: Makes the dependencies of one execution, in the process that executes it; None: they are the run's input.
        concurrency: As for `@sf.durable`.
        concurrency_per_key: As for `@sf.durable`.
    """

    def __init__(
        self,
        app: Surefoot,
        agent: Agent[Any, Any],
        name: str,
        *,
        was: Iterable[str] = (),
        deps: Callable[..., Any] | None = None,
        concurrency: int | None = None,
        concurrency_per_key: int | None = None,
        **options: Any,
    ) -> None:
        self._app = app
        self._agent = agent
        self.name = name
        self._make_deps = deps
        self._is_warned = False
        capabilities = [Durable(name=known, waits_for_tools=True, **options) for known in (name, *_names(was))]
        self._capability = capabilities[0]
        self._declarations = capabilities[0].declarations
        self._kinds = [
            KindSpec(
                f"agent {one.name}",
                self._function(one),
                later=_LATER,
                concurrency=concurrency,
                concurrency_per_key=concurrency_per_key,
            )
            for one in capabilities
        ]
        for kind in self._kinds:
            register(kind)
            _executing[kind.name] = agent

    def _function(self, capability: Durable) -> Callable[..., Awaitable[Any]]:
        agent, make_deps = self._agent, self._make_deps
        output_type = getattr(agent, "output_type", object)

        async def run_agent(  # type: ignore[no-untyped-def]  # its types are those of the agent
            prompt, deps=None, usage_limits=None, message_history=None, *, conversation_id=None, model=None
        ):
            given = {} if conversation_id is None else {"conversation_id": conversation_id}
            run = live_run("an agent")
            with waiting_for_events(run):
                result = await agent.run(
                    prompt,
                    deps=deps if make_deps is None else await _made(make_deps, deps),
                    usage_limits=usage_limits,
                    message_history=message_history,
                    model=model,
                    capabilities=[capability],
                    run_id=run.run_id,  # the same on replay, and in the messages
                    **given,
                )
            await transcripts.keep(result)
            return result.output

        run_agent.__qualname__ = f"agent.<locals>.{capability.name}"
        run_agent.__annotations__ = {
            "prompt": str | list[UserContent] | None,
            "deps": self._type_of_deps(),
            "usage_limits": UsageLimits | None,
            "message_history": list[ModelMessage] | None,
            "conversation_id": str | None,
            "model": str | None,
            "return": output_type if isinstance(output_type, type) else object,
        }
        return run_agent

    def _type_of_deps(self) -> Any:
        if self._make_deps is not None:
            parameter = next(iter(inspect.signature(self._make_deps).parameters), "")
            return _hints(self._make_deps).get(parameter, object)
        declared = getattr(self._agent, "deps_type", type(None))
        return object if declared is type(None) else declared | None

    async def start(
        self,
        prompt: Prompt = None,
        *,
        id: str,
        deps: Any = None,
        usage_limits: UsageLimits | None = None,
        message_history: Sequence[ModelMessage] | None = None,
        conversation_id: str | None = None,
        model: str | None = None,
        deadline_s: float | None = None,
        **when: Any,
    ) -> AgentRun:
        """Start a run of the agent, or return the run of that id.

        Args:
            prompt: What is asked of it: words, or a list of words, images, documents; None: go on from the history.
            id: The business id: the same id with the same input is the same run.
            deps: Its dependencies, which become part of the run's input: JSON values or what `deps_type` declares. With
                `app.agent(..., deps=make)`, what `make` is called with.
            usage_limits: Limits on requests, tool calls and tokens; they hold across replays.
            message_history: Earlier messages: `await run.messages()` of the run before.
            conversation_id: The conversation it belongs to; None: the framework's choice.
            model: Another model, by name; None: the agent's.
            deadline_s: As for `Surefoot.start`.
            when: priority, delay, at and key, as for `Surefoot.start`.

        Raises:
            RunConflict: The id belongs to a run with another input.
        """
        store = self._app.store
        kind, body, digest = await self._asked(
            id, prompt, deps, usage_limits, message_history, conversation_id=conversation_id, model=model
        )
        deadline_ms = deadline_of(store.clock.wall_ms(), deadline_s)
        how = self._app.queueing(kind, **when)
        run = await start_run(store, self._app.worker, kind, body, digest, run_id=id, deadline_ms=deadline_ms, how=how)
        return AgentRun(store, self._app.worker, run.row, run.id, run.kind)

    def on(
        self,
        topic: Topic[Any],
        *,
        group: str,
        since: Since,
        prompt: Callable[[Any], Prompt],
        concurrency: int | None = None,
    ) -> None:
        """Let the agent act on the events of a topic, as one of a group; see `surefoot.on`.

        Args:
            topic: The topic.
            group: The group's name.
            since: Where a new group begins: "beginning" or "now".
            prompt: What is asked of the agent about what an event says; must give the same for the same.
            concurrency: How many of its runs are executed at a time, by all workers together; None for any number.
        """
        run_agent = self._function(self._capability)

        async def act(event: Any) -> Any:
            return await run_agent(_plain(prompt(event)))

        act.__qualname__ = f"agent.<locals>.{self.name} on {topic.name}"
        act.__annotations__ = {"event": topic.type, "return": run_agent.__annotations__["return"]}
        subscribe(topic, act, group=group, since=since, concurrency=concurrency)

    async def _asked(
        self,
        id: str,
        prompt: Prompt,
        deps: Any,
        usage_limits: UsageLimits | None,
        message_history: Sequence[ModelMessage] | None,
        **options: Any,
    ) -> tuple[KindSpec, bytes, bytes]:
        """Return the kind of what is asked, its input, and the digest by which the same input is known."""
        kind = self._kinds[0] if len(self._kinds) == 1 else await self._kind_of(id)
        if _executing[kind.name] is not self._agent and not self._is_warned:
            self._is_warned = True
            warnings.warn(
                f"two agents are called {kind.name.removeprefix('agent ')!r}: another one was made durable under this name"
                " later, and executes the runs of both. Give one of them a name of its own: app.agent(..., name=...)",
                NameTaken,
                stacklevel=3,
            )
        history = None if message_history is None else list(message_history)
        return kind, *kind.dump_input((_plain(prompt), deps, usage_limits, history), options)

    async def stream(self, prompt: Prompt = None, *, id: str, **options: Any) -> AsyncIterator[LiveEvent]:
        """Start a run, or join the run of that id, and yield what it does, live, from its first request on.

        Args:
            prompt: As for `start`.
            id: As for `start`.
            options: As for `start`.
        """
        with live.watching(self._app.worker, id) as queue:
            run = await self.start(prompt, id=id, **options)
            async for event in live.events(self._app.worker, run, queue):
                yield event

    async def run(self, id: str) -> AgentRun:
        """Return the handle of an existing run of this agent.

        Raises:
            RunNotFound: There is none.
        """
        run = await self._app.run(id)
        if run.kind.removeprefix(ELSEWHERE) not in [kind.name for kind in self._kinds]:
            raise SurefootError(f"run {id!r} is one of {run.kind}, not of agent {self.name}", hint="app.run(id)")
        return AgentRun(self._app.store, self._app.worker, run.row, run.id, run.kind)

    async def _kind_of(self, run_id: str) -> KindSpec:
        """Return the kind of a run that exists, which may be an earlier name of ours, or else today's."""
        row = await self._app.store.read(lambda connection: find_run(connection, run_id))
        known = None if row is None else row.kind.removeprefix(ELSEWHERE)
        return next((kind for kind in self._kinds if kind.name == known), self._kinds[0])

    async def tools(self) -> list[ToolClass]:
        """Return the agent's tools, each with its declared class, or the one that its server's hints propose.

        MCP servers are started, or connected to, and asked. A proposal changes nothing until it is declared.
        """
        return await tool_classes(self._agent, self._declarations)


def _plain(prompt: Prompt) -> str | list[UserContent] | None:
    return prompt if prompt is None or isinstance(prompt, str) else list(prompt)


def _names(was: Iterable[str]) -> tuple[str, ...]:
    return (was,) if isinstance(was, str) else tuple(was)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # a name only known to type checkers: treat as not annotated
        return {}


async def _made(make: Callable[..., Any], given: Any) -> Any:
    """Return what a factory of dependencies makes; it takes what the run was started with, or nothing."""
    made = make(given) if inspect.signature(make).parameters else make()
    return await made if inspect.isawaitable(made) else made


def durable_agent(
    app: Surefoot,
    agent: Any,
    *,
    name: str | None = None,
    made: Callable[..., DurableAgent] | None = None,
    **options: Any,
) -> DurableAgent:
    """Return a durable form of an agent, made by `made`; the agent itself is not changed."""
    if not isinstance(agent, Agent):
        raise SurefootError(f"{agent!r} is no Pydantic AI Agent", hint="app.agent(Agent(..., name='support'))")
    durable_name = name or agent.name
    if not durable_name:
        raise SurefootError(
            "the agent has no name, and a name is what its runs are found by after a restart",
            hint='Agent(..., name="support"), or app.agent(agent, name="support")',
        )
    for toolset in agent.toolsets:
        toolset.apply(_require_id)
    return (made or DurableAgent)(app, agent, durable_name, **options)


def _require_id(leaf: AbstractToolset[Any]) -> None:
    """Refuse an MCP toolset without an id now, and not in its first run: what a server offered is recorded under it."""
    if is_served(leaf) and leaf.id is None:
        raise SurefootError(
            f"an {type(leaf).__name__} of the agent has no id, by which its server is known after a restart",
            hint='MCPToolset(..., id="warehouse")',
        )
