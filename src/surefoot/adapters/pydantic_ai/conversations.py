"""The runs of agents inside one run of ours: which decisions they have taken, and which calls these asked for.

What holds: a decision's number counts within its agent run; a tool call knows which identical calls came before it, and
whether the model had their answers in front of it (`docs/decisions/0009`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic_ai.messages import ModelMessage
from pydantic_core import from_json

from surefoot.adapters.pydantic_ai.live import channel_of
from surefoot.adapters.pydantic_ai.names import Names, check_tools
from surefoot.adapters.pydantic_ai.payloads import PAYLOAD
from surefoot.adapters.pydantic_ai.refusals import MODEL_ERRORS, is_model_error, model_error, raise_model_error
from surefoot.adapters.pydantic_ai.requests import RequestDigests
from surefoot.journal.records import Head
from surefoot.journal.values import canonical_bytes
from surefoot.runs import AmbiguousStep, take_step
from surefoot.runs.live.replay import step_key
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import ToolCall, _parent


class Conversation:
    """One run of an agent inside a run: its decisions, and the tool calls they asked for.

    `gated` has the calls of the last decision that the framework says need approval.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.decisions = 0
        self.gated: set[str] = set()
        self._called: set[str] = set()
        self.deciding = ""
        self._decision = ""
        self._is_new = False
        self._new_calls: set[str] = set()
        self._were: dict[str, str] = {}
        self._calls: dict[str, ToolCall] = {}
        self._names: dict[str, str] = {}
        self._made: dict[tuple[str, bytes], list[ToolCall]] = {}

    def end(self, decision: str, *, is_new: bool) -> None:
        """Note whether the decision just taken was asked of the model now, or replayed."""
        self.deciding, self._is_new = decision, is_new

    def call(self, call_id: str) -> ToolCall:
        """Return a tool call of the last decision.

        One that has asked for approval by itself, and was let through, is called again: in a place of its own, for what it
        did the first time, which was to ask, is its outcome there.
        """
        call = self._calls.get(call_id) or ToolCall(self._decision or _parent.get(), call_id)
        if call_id in self.gated and call_id in self._called:
            return ToolCall(call.decision, f"{call_id} approved")
        self._called.add(call_id)
        return call

    def is_news(self, event: Any) -> bool:
        """Whether an event is of something that happens now, and not of a replay."""
        part = getattr(event, "part", None) or getattr(event, "result", None)
        call_id = getattr(event, "tool_call_id", None) or getattr(part, "tool_call_id", None)
        return self._is_new or call_id in self._new_calls

    def noting_news(self, call_id: str, body: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        """Return a tool call's body that notes that it is executed."""

        async def live() -> object:
            self._new_calls.add(call_id)
            return await body()

        return live

    def tool_name(self, call_id: str) -> str | None:
        """Return the name by which the last decision asked for a call; None if it didn't."""
        return self._names.get(call_id)

    def recorded_name(self, call_id: str, name: str) -> str:
        """Return the name under which the journal knows a tool call, whatever the tool is called today.

        The journal has the tool's own name, the model's answer the one with its toolset's prefix.
        """
        was = self._were.get(call_id)
        return name if was is None else was.removeprefix(self._names[call_id].removesuffix(name))

    def rename(self, payload: Any) -> Any:
        """Return a recorded response with its calls under today's names of their tools."""
        for part in payload.get("parts", ()) if self.names.tools_were else ():
            was = part.get("tool_name")
            if part.get("part_kind") == "tool-call" and was in self.names.tools_were:
                self._were[str(part.get("tool_call_id"))] = was
                part["tool_name"] = self.names.tools_were[was]
        return payload

    def note(self, decision: str, payload: Any, seen: Callable[[], frozenset[str]]) -> None:
        """Note a decision and, for each call it asks for, which identical calls came before.

        Args:
            decision: The decision's step.
            payload: The model's response, as recorded: the same on every replay.
            seen: Gives the ids of the calls whose answers the model had in front of it.
        """
        self._decision, self._calls, self._names, self.gated = decision, {}, {}, set()
        self._called = set()
        for part in payload.get("parts", ()) if isinstance(payload, dict) else ():
            if part.get("part_kind") == "tool-call":
                self._note_call(decision, part, seen)

    def calls_made(self) -> list[tuple[str, bytes, list[ToolCall]]]:
        """Return the calls that were asked for so far, by tool and arguments."""
        return [(tool, arguments, calls) for (tool, arguments), calls in self._made.items()]

    def go_on_from(self, decisions: int, made: list[tuple[str, bytes, list[ToolCall]]]) -> None:
        """Go on with the decisions and calls of an earlier part of the run."""
        self.decisions = decisions
        self._made = {(tool, arguments): calls for tool, arguments, calls in made}

    def _note_call(self, decision: str, part: Mapping[str, Any], seen: Callable[[], frozenset[str]]) -> None:
        call_id = str(part.get("tool_call_id") or part.get("tool_name"))
        made = self._made.setdefault((str(part.get("tool_name")), _arguments(part.get("args"))), [])
        call = ToolCall(decision, call_id)
        if made:
            answered = seen()
            twin = next((one.path for one in made if one.decision == decision or one.call_id not in answered), None)
            call = ToolCall(decision, call_id, twin, made[-1].path, len(made))
        made.append(call)
        self._names[call_id] = str(part.get("tool_name"))
        self._calls[call_id] = call


def _arguments(arguments: object) -> bytes:
    if isinstance(arguments, str):
        try:
            return canonical_bytes(from_json(arguments))
        except ValueError:
            return arguments.encode()
    return canonical_bytes(arguments)


class Conversations:
    """The agent runs inside one run, by the path their steps stand under.

    Pydantic AI takes each step of an agent run in a task of its own, so it is the agent run that counts its decisions, not
    a task. Two runs of one agent that overlap under one parent could not be told apart on replay, and are refused.
    """

    def __init__(self) -> None:
        self.digests = RequestDigests()
        self.by_path: dict[str, Conversation] = {}
        self._started: dict[str, int] = {}

    @contextmanager
    def enter(self, run: LiveRun, names: Names) -> Iterator[None]:
        """Take the steps inside as those of one more run of this agent."""
        parent = _parent.get()
        name = names.in_journal(run, parent)
        base = step_key(parent, name, None)
        if base in self._started and any(step_key(parent, name, None, n) in self.by_path
                                         for n in range(1, self._started[base] + 1)):  # fmt: skip
            raise AmbiguousStep(
                f"run {run.run_id}: two runs of agent {name!r} overlap",
                hint="put each into `async with sf.branch(...)`, so that a replay can tell them apart",
            )
        self._started[base] = self._started.get(base, 0) + 1
        path = step_key(parent, name, None, self._started[base])
        self.by_path[path] = Conversation(names)
        token = _parent.set(path)
        try:
            yield
        finally:
            _parent.reset(token)
            del self.by_path[path]

    def deciding(self) -> str:
        """Return the decision that is being taken or was taken last, in the code of an agent or of its model."""
        parent = _parent.get()
        found = self.by_path.get(parent)
        return parent if found is None else found.deciding

    def current(self) -> Conversation:
        """Return the agent run whose step is being taken."""
        return self.by_path.setdefault(_parent.get(), Conversation(Names("")))


def conversations_of(run: LiveRun) -> Conversations:
    """Return the agent runs inside a run."""
    found = run.notes.get(Conversations)
    if found is None:
        found = run.notes[Conversations] = Conversations()
    assert isinstance(found, Conversations)
    return found


async def decide(
    run: LiveRun, model: str, body: Callable[[], Awaitable[object]], cache_key: tuple[object, ...]
) -> object:
    """Take one model request as a decision."""
    conversations = conversations_of(run)
    conversation = conversations.current()
    messages: list[ModelMessage] = cache_key[1]  # type: ignore[assignment]  # the contract of model requests
    request = conversations.digests.digest(cache_key[0], messages, cache_key[3])

    def head(payload: Any) -> Head:
        return Head(name=model, request=request, cost=_cost(payload))

    is_new = False

    async def ask() -> object:
        nonlocal is_new
        is_new = True
        channel = channel_of(run)
        if channel is not None:
            channel.begin(_parent.get(), run.row.epoch)
        try:
            return await body()
        except MODEL_ERRORS as error:
            if is_model_error(error):
                return model_error(error)
            raise

    conversation.decisions += 1
    if run.history.steps and _is_other_model(run, conversation.decisions, model):
        request = conversations.digests.digest(f"{cache_key[0]} {model}", messages, cache_key[3])
    payload, taken = await take_step(
        "decision", str(conversation.decisions), PAYLOAD, ask, request=request, head=head, is_told_step=True
    )
    conversation.end(taken.key, is_new=is_new)
    if payload.get("kind") == "model_error":
        raise_model_error(payload)
    check_tools(run, taken.key, conversation.rename(payload), cache_key[3], is_drift=taken.key in run.history.drifts)
    conversation.note(taken.key, payload, lambda: conversations.digests.calls_seen(messages))
    return payload


def _is_other_model(run: LiveRun, number: int, model: str) -> bool:
    """Whether the recorded decision was taken by a model of another name."""
    recorded = run.history.steps.get(step_key(_parent.get(), "decision", str(number)))
    known = "" if recorded is None or recorded.ended is None else recorded.ended.head.name
    return known not in ("", model)


def _cost(payload: Any) -> dict[str, float] | None:
    usage = payload.get("usage") if isinstance(payload, dict) else None
    if not isinstance(usage, dict):
        return None
    return {key: value for key, value in usage.items() if isinstance(value, int | float) and value}
