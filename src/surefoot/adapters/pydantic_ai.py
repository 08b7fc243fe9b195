"""Pydantic AI agents, durable: model requests are decisions, tool calls are effects or reads, on its public contract.

    Durable        the capability: give it to an `Agent`, and runs of that agent inside a run of ours are journaled
    DurableAgent   what `app.agent(agent)` returns: starts runs of the agent under business ids

What holds: a model's response is recorded before any effect it causes is claimed; a tool call is identified by the
decision that asked for it and its `tool_call_id`, so parallel calls stay parallel; a declared effect guards itself, an
undeclared tool is an effect of the default class (a person resolves its doubts) unless it is declared a read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic_core import from_json, to_jsonable_python

from surefoot.adapters._requests import RequestDigests
from surefoot.effects import SPEC, EffectSpec, NotDone, bound_guard, told_to_model
from surefoot.effects.outcome import MEANING, Outcome, Telling
from surefoot.effects.perform import perform
from surefoot.journal import codec_of, current_frame
from surefoot.journal.records import Head
from surefoot.journal.values import canonical_bytes
from surefoot.problem import SurefootError
from surefoot.runs import AmbiguousStep, KindSpec, Run, register, start_run, take_step
from surefoot.runs.live import LiveRun
from surefoot.runs.replay import step_key
from surefoot.runs.strand import ToolCall, _parent

try:
    from pydantic_ai import Agent, AgentRunResult, FunctionToolset, RunContext, durable_exec
    from pydantic_ai.capabilities import WrapRunHandler
    from pydantic_ai.durable_exec import (
        JSON_CODEC,
        BaseDurabilityCapability,
        DurabilityCodec,
        DurabilityEngineSpec,
        DurableOperationId,
        EventStreamHandlerId,
        JournalCallableOperationBackend,
        ModelRequestId,
        RoleBasedOperationConfig,
        ToolsetCallToolId,
        ToolsetValidateToolArgumentsId,
    )
    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.usage import UsageLimits
except ImportError as missing:
    raise SurefootError(
        f"Pydantic AI 2.36 or newer is needed ({missing})", hint='pip install "surefoot[pydantic-ai]"'
    ) from missing

if TYPE_CHECKING:
    from surefoot.app import Surefoot

_PAYLOAD = codec_of(object, "Pydantic AI")

RETURNED = ("tool_return", "tool_content_result")
"""The kinds by which Pydantic AI marks the recorded value of a tool."""

_TOOL_RESULT = getattr(durable_exec, "CallToolResult", None)
"""The type of a tool's result or refusal; Pydantic AI did not tell it yet in 2.36, where each is encoded at once."""


class _Codec(DurabilityCodec):
    """Encodes what is to be recorded, as Pydantic AI does; a tool's result only when somebody records it.

    A declared tool records its own outcome and gives its caller the value as it will be read back. To encode and decode
    that once more would change nothing.
    """

    def dump(self, tp: Any, value: Any) -> Any:
        """See `DurabilityCodec.dump`."""
        return _Result(value) if tp is _TOOL_RESULT else JSON_CODEC.dump(tp, value)

    def load(self, tp: Any, payload: Any) -> Any:
        """See `DurabilityCodec.load`."""
        return payload.value if isinstance(payload, _Result) else JSON_CODEC.load(tp, payload)


class _Result(msgspec.Struct, frozen=True):
    """A tool's result or refusal, not yet encoded."""

    value: Any


def _encoded(payload: object) -> Any:
    """Return the payload as data that can be recorded."""
    return JSON_CODEC.dump(_TOOL_RESULT, payload.value) if isinstance(payload, _Result) else payload


class Durable(BaseDurabilityCapability[Any]):
    """Journals an agent's runs when they happen inside a run of Surefoot; transparent elsewhere.

    Args:
        reads: Names of tools that change nothing outside, for those not declared with `@sf.read`.
        name: The agent's durable name; None: `agent.name`. A name is data on disk.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="Surefoot",
        durable_unit_noun="step",
        durable_container_noun="run",
        codec=_Codec(),
        toolset_lifecycles={"function": "enter-always", "mcp": "enter-in-durable-unit", "dynamic": "enter-never"},
    )

    def __init__(self, *, reads: Iterable[str] = (), name: str | None = None) -> None:
        super().__init__(name=name)
        self._reads = frozenset(reads)
        self._backend: _Backend | None = None

    @property
    def in_durable_context(self) -> bool:
        """Whether the agent runs inside a run of Surefoot."""
        return isinstance(current_frame.get(), LiveRun)

    async def wrap_run(self, ctx: RunContext[Any], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Count the steps of one run of the agent apart from those of the next."""
        run = current_frame.get()
        if not isinstance(run, LiveRun):
            return await super().wrap_run(ctx, handler=handler)
        with _conversations(run).enter(run, self.name):
            return await super().wrap_run(ctx, handler=handler)

    def get_durable_operation_backend(self) -> JournalCallableOperationBackend[None]:
        """Return what executes Pydantic AI's durable operations."""
        made_for = (self.name, self.default_model_id)
        if self._backend is None or self._backend.made_for != made_for:  # asked for at every request; copied with us
            self._backend = _Backend(made_for, self._reads)
        return self._backend


class _Backend(JournalCallableOperationBackend[None]):
    """Executes each operation as a step of the current run."""

    def __init__(self, made_for: tuple[str, str | None], reads: frozenset[str]) -> None:
        config = RoleBasedOperationConfig[None](model=None, event=None, capability=None, tool=None)
        super().__init__(agent_name=made_for[0], default_model_id=made_for[1], config=config)
        self.made_for = made_for
        self._reads = reads

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: None,
    ) -> object:
        """Run one operation durably; see `CallableOperationBackend.execute`."""
        run = current_frame.get()
        if not isinstance(run, LiveRun):
            return await body()
        match operation_id:
            case ModelRequestId():
                return await _decide(run, body, cache_key)
            case ToolsetCallToolId():
                return await self._call_tool(run, body, cache_key)
            case ToolsetValidateToolArgumentsId() | EventStreamHandlerId():
                return await body()  # pure, or told live: nothing to remember
            case _:
                return await take_step(name, None, _PAYLOAD, body)

    async def _call_tool(
        self, run: LiveRun, body: Callable[[], Awaitable[object]], cache_key: tuple[object, ...]
    ) -> object:
        tool_name, arguments, context, tool = str(cache_key[0]), cache_key[1], cache_key[2], cache_key[3]
        call_id = str(getattr(context, "tool_call_id", "") or tool_name)
        with run.tool_call(_conversations(run).current().call(call_id)):
            spec = _declared(tool)
            if spec is not None:
                return await _call_declared(spec, body, tool)

            async def work() -> Any:
                return _encoded(await body())

            if tool_name in self._reads or _is_read(tool):
                return await take_step(tool_name, None, _PAYLOAD, work)
            return await _call_undeclared(tool_name, arguments, work)


# -- decisions --------------------------------------------------------------------------------------------------------


class _Conversation:
    """One run of an agent inside a run: its decisions, and the tool calls they asked for."""

    def __init__(self) -> None:
        self.decisions = 0
        self._decision = ""
        self._calls: dict[str, ToolCall] = {}
        self._made: dict[tuple[str, bytes], list[ToolCall]] = {}

    def call(self, call_id: str) -> ToolCall:
        """Return a tool call of the last decision."""
        return self._calls.get(call_id) or ToolCall(self._decision or _parent.get(), call_id)

    def note(self, decision: str, payload: Any, seen: Callable[[], frozenset[str]]) -> None:
        """Note a decision and, for each call it asks for, which identical calls came before.

        Args:
            decision: The decision's step.
            payload: The model's response, as recorded: the same on every replay.
            seen: Gives the ids of the calls whose answers the model had in front of it.
        """
        self._decision, self._calls = decision, {}
        for part in payload.get("parts", ()) if isinstance(payload, dict) else ():
            if part.get("part_kind") == "tool-call":
                self._note_call(decision, part, seen)

    def _note_call(self, decision: str, part: Mapping[str, Any], seen: Callable[[], frozenset[str]]) -> None:
        call_id = str(part.get("tool_call_id") or part.get("tool_name"))
        made = self._made.setdefault((str(part.get("tool_name")), _arguments(part.get("args"))), [])
        call = ToolCall(decision, call_id)
        if made:
            answered = seen()
            twin = next((one.path for one in made if one.decision == decision or one.call_id not in answered), None)
            call = ToolCall(decision, call_id, twin, made[-1].path, len(made))
        made.append(call)
        self._calls[call_id] = call


def _arguments(arguments: object) -> bytes:
    if isinstance(arguments, str):
        try:
            return canonical_bytes(from_json(arguments))
        except ValueError:
            return arguments.encode()
    return canonical_bytes(arguments)


class _Conversations:
    """The agent runs inside one run, by the path their steps stand under.

    Pydantic AI takes each step of an agent run in a task of its own, so it is the agent run that counts its decisions, not
    a task. Two runs of one agent that overlap under one parent could not be told apart on replay, and are refused.
    """

    def __init__(self) -> None:
        self.digests = RequestDigests()
        self.by_path: dict[str, _Conversation] = {}
        self._started: dict[str, int] = {}

    @contextmanager
    def enter(self, run: LiveRun, name: str) -> Iterator[None]:
        parent = _parent.get()
        base = step_key(parent, name, None)
        if base in self._started and any(step_key(parent, name, None, n) in self.by_path
                                         for n in range(1, self._started[base] + 1)):  # fmt: skip
            raise AmbiguousStep(
                f"run {run.run_id}: two runs of agent {name!r} overlap",
                hint="put each into `async with sf.branch(...)`, so that a replay can tell them apart",
            )
        self._started[base] = self._started.get(base, 0) + 1
        path = step_key(parent, name, None, self._started[base])
        self.by_path[path] = _Conversation()
        token = _parent.set(path)
        try:
            yield
        finally:
            _parent.reset(token)
            del self.by_path[path]

    def current(self) -> _Conversation:
        """Return the agent run whose step is being taken."""
        return self.by_path.setdefault(_parent.get(), _Conversation())


def _conversations(run: LiveRun) -> _Conversations:
    found = run.notes.get(_Conversations)
    if found is None:
        found = run.notes[_Conversations] = _Conversations()
    assert isinstance(found, _Conversations)
    return found


async def _decide(run: LiveRun, body: Callable[[], Awaitable[object]], cache_key: tuple[object, ...]) -> object:
    conversations = _conversations(run)
    conversation = conversations.current()
    messages: list[ModelMessage] = cache_key[1]  # type: ignore[assignment]  # the contract of model requests
    request = conversations.digests.digest(cache_key[0], messages, cache_key[3])

    def head(payload: Any) -> Head:
        return Head(request=request, cost=_cost(payload))

    conversation.decisions += 1
    payload, taken = await take_step(
        "decision", str(conversation.decisions), _PAYLOAD, body, request=request, head=head, is_told_step=True
    )
    conversation.note(taken.key, payload, lambda: conversations.digests.calls_seen(messages))
    return payload


def _cost(payload: Any) -> dict[str, float] | None:
    usage = payload.get("usage") if isinstance(payload, dict) else None
    if not isinstance(usage, dict):
        return None
    return {key: value for key, value in usage.items() if isinstance(value, int | float) and value}


# -- tool calls -------------------------------------------------------------------------------------------------------


def _declared(tool: object) -> EffectSpec | None:
    """Return the spec of a tool whose function carries @sf.effect or @sf.read."""
    schema = getattr(getattr(tool, "call_func", None), "__self__", None)
    spec = getattr(getattr(schema, "function", None), SPEC, None)
    return spec if isinstance(spec, EffectSpec) else None


def _is_read(tool: object) -> bool:
    metadata = getattr(getattr(tool, "tool_def", None), "metadata", None) or {}
    return metadata.get("surefoot") == "read"


async def _call_declared(spec: EffectSpec, body: Callable[[], Awaitable[object]], tool: object) -> object:
    """The function guards itself; what is left is to put its outcome into words.

    When the framework's own timeout fires first, the effect goes on, and what is told is what became of it: never the
    framework's "timed out", which a model reads as a failure to try again.
    """
    timeout_s = _timeout_of(tool)
    is_patient = timeout_s is None and spec.is_async and _is_plain(tool)  # who is cancelled leaves a thread behind
    telling = Telling(tell, timeout_s, is_patient=is_patient)
    token = told_to_model.set(telling)
    try:
        payload = await body()
        if telling.task is None or _refusal(_encoded(payload)) is None:
            return payload
        return _returned(to_jsonable_python(tell(await asyncio.shield(telling.task))))
    except asyncio.CancelledError:
        if telling.task is not None:
            telling.task.cancel()
            await asyncio.wait([telling.task])
        raise
    finally:
        told_to_model.reset(token)


def _timeout_of(tool: object) -> float | None:
    """Return the framework's timeout of a tool: it becomes the effect's own where that declares none."""
    timeout_s = getattr(getattr(tool, "tool_def", None), "timeout", None)
    return timeout_s if timeout_s is not None else getattr(getattr(tool, "toolset", None), "timeout", None)


def _is_plain(tool: object) -> bool:
    """Whether a tool is called by the framework's own toolset, which waits as long as the tool's timeout says."""
    return getattr(type(getattr(tool, "toolset", None)), "call_tool", None) is FunctionToolset.call_tool


async def _call_undeclared(name: str, arguments: object, body: Callable[[], Awaitable[object]]) -> object:
    async def call(arguments: Any) -> Any:
        payload = await body()
        refusal = _refusal(payload)
        if refusal is not None:
            raise NotDone(refusal)
        return payload

    spec = EffectSpec(call, name=name)
    guard = bound_guard.get()
    assert guard is not None, "a run has a guard"
    outcome = await perform(guard, spec, spec.bind((arguments,), {}), None)
    if outcome.told in ("done", "repeated"):
        is_recorded = isinstance(outcome.value, dict) and outcome.value.get("kind") in RETURNED
        return outcome.value if is_recorded else _returned(outcome.value)  # else by a person, who gives the plain value
    return _returned(tell(outcome))


def _refusal(payload: object) -> str | None:
    """Return why a tool refused the call by its framework's own means, or None."""
    if not isinstance(payload, dict) or payload.get("kind") in RETURNED:
        return None
    return f"{payload.get('kind')}: {payload.get('message') or payload.get('title') or ''}".strip()


def _returned(value: object) -> object:
    """Return a tool's value as Pydantic AI records it."""
    return {"kind": "tool_return", "result": value}


def tell(outcome: Outcome) -> Any:
    """Put an outcome for a model: the value of what is done; for all else a type, in words it can't mistake."""
    if outcome.told == "done":
        return outcome.value
    told: dict[str, Any] = {"outcome": outcome.told, "meaning": MEANING[outcome.told]}
    if outcome.told == "repeated":
        told["first_outcome"] = to_jsonable_python(outcome.value)
    if outcome.reason:
        told["reason"] = outcome.reason
    return told


# -- agents as runs -----------------------------------------------------------------------------------------------------


class DurableAgent:
    """An agent whose runs are durable. Made by `app.agent(agent)`."""

    def __init__(self, app: Surefoot, agent: Agent[Any, Any], name: str, reads: Iterable[str]) -> None:
        self._app = app
        self._agent = agent
        self.name = name
        self._capability = Durable(reads=reads, name=name)
        self._kind = KindSpec(f"agent {name}", self._function())
        register(self._kind)

    def _function(self) -> Callable[..., Awaitable[Any]]:
        agent, capability = self._agent, self._capability
        deps_type = getattr(agent, "deps_type", type(None))
        output_type = getattr(agent, "output_type", object)

        async def run_agent(prompt, deps=None, usage_limits=None, message_history=None):  # type: ignore[no-untyped-def]
            result = await agent.run(
                prompt,
                deps=deps,
                usage_limits=usage_limits,
                message_history=message_history,
                capabilities=[capability],
                run_id=_run_id(),
            )
            return result.output

        run_agent.__qualname__ = f"agent.<locals>.{self.name}"
        run_agent.__annotations__ = {
            "prompt": str,
            "deps": object if deps_type is type(None) else deps_type | None,
            "usage_limits": UsageLimits | None,
            "message_history": list[ModelMessage] | None,
            "return": output_type if isinstance(output_type, type) else object,
        }
        return run_agent

    async def start(
        self,
        prompt: str,
        *,
        id: str,
        deps: Any = None,
        usage_limits: UsageLimits | None = None,
        message_history: list[ModelMessage] | None = None,
        deadline_s: float | None = None,
    ) -> Run:
        """Start a run of the agent, or return the run of that id.

        Args:
            prompt: What is asked of it.
            id: The business id: the same id with the same input is the same run.
            deps: Its dependencies, which become part of the run's input: JSON values or what `deps_type` declares.
            usage_limits: Limits on requests, tool calls and tokens; they hold across replays.
            message_history: Earlier messages.
            deadline_s: As for `Surefoot.start`.

        Raises:
            RunConflict: The id belongs to a run with another input.
        """
        body, digest = self._kind.dump_input((prompt, deps, usage_limits, message_history), {})
        store = self._app.store
        deadline_ms = None if deadline_s is None else store.clock.wall_ms() + int(deadline_s * 1_000)
        return await start_run(store, self._app.worker, self._kind, body, digest, run_id=id, deadline_ms=deadline_ms)


def _run_id() -> str:
    """Return the agent run's id: the run's own, so that replays and their messages carry the same."""
    run = current_frame.get()
    assert run is not None, "called inside a run"
    return run.run_id


def durable_agent(app: Surefoot, agent: Any, *, name: str | None = None, reads: Iterable[str] = ()) -> DurableAgent:
    """Return a durable form of an agent; the agent itself is not changed."""
    if not isinstance(agent, Agent):
        raise SurefootError(f"{agent!r} is no Pydantic AI Agent", hint="app.agent(Agent(..., name='support'))")
    durable_name = name or agent.name
    if not durable_name:
        raise SurefootError(
            "the agent has no name, and a name is what its runs are found by after a restart",
            hint='Agent(..., name="support"), or app.agent(agent, name="support")',
        )
    return DurableAgent(app, agent, durable_name, reads)


__all__ = ["Durable", "DurableAgent", "durable_agent", "tell"]
