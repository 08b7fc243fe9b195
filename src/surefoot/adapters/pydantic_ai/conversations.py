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

from surefoot.adapters.pydantic_ai.payloads import PAYLOAD
from surefoot.adapters.pydantic_ai.requests import RequestDigests
from surefoot.journal.records import Head
from surefoot.journal.values import canonical_bytes
from surefoot.runs import AmbiguousStep, take_step
from surefoot.runs.live import LiveRun
from surefoot.runs.replay import step_key
from surefoot.runs.strand import ToolCall, _parent


class Conversation:
    """One run of an agent inside a run: its decisions, and the tool calls they asked for.

    `gated` has the calls of the last decision that the framework says need approval.
    """

    def __init__(self) -> None:
        self.decisions = 0
        self.gated: set[str] = set()
        self._decision = ""
        self._calls: dict[str, ToolCall] = {}
        self._names: dict[str, str] = {}
        self._made: dict[tuple[str, bytes], list[ToolCall]] = {}

    def call(self, call_id: str) -> ToolCall:
        """Return a tool call of the last decision."""
        return self._calls.get(call_id) or ToolCall(self._decision or _parent.get(), call_id)

    def tool_name(self, call_id: str) -> str | None:
        """Return the name by which the last decision asked for a call; None if it didn't."""
        return self._names.get(call_id)

    def note(self, decision: str, payload: Any, seen: Callable[[], frozenset[str]]) -> None:
        """Note a decision and, for each call it asks for, which identical calls came before.

        Args:
            decision: The decision's step.
            payload: The model's response, as recorded: the same on every replay.
            seen: Gives the ids of the calls whose answers the model had in front of it.
        """
        self._decision, self._calls, self._names, self.gated = decision, {}, {}, set()
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
    def enter(self, run: LiveRun, name: str) -> Iterator[None]:
        """Take the steps inside as those of one more run of this agent."""
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
        self.by_path[path] = Conversation()
        token = _parent.set(path)
        try:
            yield
        finally:
            _parent.reset(token)
            del self.by_path[path]

    def current(self) -> Conversation:
        """Return the agent run whose step is being taken."""
        return self.by_path.setdefault(_parent.get(), Conversation())


def conversations_of(run: LiveRun) -> Conversations:
    """Return the agent runs inside a run."""
    found = run.notes.get(Conversations)
    if found is None:
        found = run.notes[Conversations] = Conversations()
    assert isinstance(found, Conversations)
    return found


async def decide(run: LiveRun, body: Callable[[], Awaitable[object]], cache_key: tuple[object, ...]) -> object:
    """Take one model request as a decision."""
    conversations = conversations_of(run)
    conversation = conversations.current()
    messages: list[ModelMessage] = cache_key[1]  # type: ignore[assignment]  # the contract of model requests
    request = conversations.digests.digest(cache_key[0], messages, cache_key[3])

    def head(payload: Any) -> Head:
        return Head(request=request, cost=_cost(payload))

    conversation.decisions += 1
    payload, taken = await take_step(
        "decision", str(conversation.decisions), PAYLOAD, body, request=request, head=head, is_told_step=True
    )
    conversation.note(taken.key, payload, lambda: conversations.digests.calls_seen(messages))
    return payload


def _cost(payload: Any) -> dict[str, float] | None:
    usage = payload.get("usage") if isinstance(payload, dict) else None
    if not isinstance(usage, dict):
        return None
    return {key: value for key, value in usage.items() if isinstance(value, int | float) and value}
