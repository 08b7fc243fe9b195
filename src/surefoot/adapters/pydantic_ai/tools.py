"""One tool call as an effect or a read, and its outcome put into words for a model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_ai import FunctionToolset
from pydantic_core import to_jsonable_python

from surefoot.adapters.pydantic_ai.mcp import ReplyLost, Sending, ToolRefused
from surefoot.adapters.pydantic_ai.payloads import RETURNED, encoded
from surefoot.effects import SPEC, BadEffect, EffectSpec, NotDone, OpenSpec, OwnGate, bound_guard, told_to_model
from surefoot.effects.classify import describe
from surefoot.effects.outcome import MEANING, Outcome, Telling
from surefoot.effects.perform import perform
from surefoot.effects.spec import Bound


def declared(tool: object) -> EffectSpec | None:
    """Return the spec of a tool whose function carries @sf.effect or @sf.read."""
    schema = getattr(getattr(tool, "call_func", None), "__self__", None)
    spec = getattr(getattr(schema, "function", None), SPEC, None)
    return spec if isinstance(spec, EffectSpec) else None


def is_read(tool: object) -> bool:
    """Whether a tool's metadata says that it changes nothing outside."""
    metadata = getattr(getattr(tool, "tool_def", None), "metadata", None) or {}
    return metadata.get("surefoot") == "read"


async def call_declared(
    spec: EffectSpec, body: Callable[[], Awaitable[object]], tool: object, gate: OwnGate | None
) -> object:
    """The function guards itself; what is left is to put its outcome into words.

    When the framework's own timeout fires first, the effect goes on, and what is told is what became of it: never the
    framework's "timed out", which a model reads as a failure to try again.
    """
    timeout_s = _timeout_of(tool)
    is_patient = timeout_s is None and spec.is_async and _is_plain(tool)  # who is cancelled leaves a thread behind
    telling = Telling(tell, timeout_s, is_patient=is_patient, approve=gate)
    token = told_to_model.set(telling)
    try:
        payload = await body()
        if telling.task is None or _refusal(encoded(payload)) is None:
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


async def answer_of(body: Callable[[], Awaitable[object]], tool: object, *, is_served: bool) -> Any:
    """Call a tool inside its effect; return its value, or raise what the lack of one says about the world.

    Args:
        body: Makes the call; again whenever it is called.
        tool: The tool.
        is_served: Whether an MCP server does it.
    """
    sending = Sending(is_served=is_served)
    try:
        payload = encoded(await sending.through(body))
    except Exception as error:
        found = sending.verdict(describe(error))
        if found is None:
            raise
        raise found from error
    sending.check()
    refusal = _refusal(payload)
    if refusal is None:
        return _value(payload)
    if sending.has_landed:  # whoever stands around the call doesn't like the answer; it was done all the same
        return refusal
    if _is_timeout(payload, tool):
        raise ReplyLost(refusal)
    raise sending.verdict(refusal) or NotDone(refusal)


Answer = Callable[[], Awaitable[Any]]
"""Calls a tool, as `answer_of` does."""


async def call_undeclared(name: str, arguments: object, answer: Answer, gate: OwnGate | None) -> object:
    """Perform a tool that declares nothing as an effect of the default class."""

    async def call(arguments: Any) -> Any:
        return await answer()

    spec = EffectSpec(call, name=name, refused_on=(ToolRefused,), approve=gate)
    return await _perform(spec, spec.bind((arguments,), {}))


async def call_open(spec: OpenSpec, arguments: dict[str, Any], answer: Answer, gate: OwnGate | None) -> object:
    """Perform a tool that its author declared nothing about, as the agent's declaration says."""

    async def call(**sent: Any) -> Any:
        arguments.clear()  # what the framework calls with: in a doubt, what was sent first is sent again
        arguments.update(sent)
        return await answer()

    open_spec = spec.doing(call)
    open_spec.approve = gate or open_spec.approve
    try:
        return await _perform(open_spec, open_spec.bind((), dict(arguments)))
    except BadEffect as problem:  # the model has left out by what the effect is known: nothing was claimed or sent
        return _returned(tell(Outcome("not_done", reason=str(problem))))


async def _perform(spec: EffectSpec, bound: Bound) -> object:
    guard = bound_guard.get()
    assert guard is not None, "a run has a guard"
    outcome = await perform(guard, spec, bound, None)
    if outcome.told != "done":
        return _returned(tell(outcome))
    return outcome.value if _is_payload(outcome.value) else _returned(outcome.value)


def _refusal(payload: object) -> str | None:
    """Return why a tool refused the call by its framework's own means, or None."""
    if not isinstance(payload, dict) or payload.get("kind") in RETURNED:
        return None
    return f"{payload.get('kind')}: {payload.get('message') or payload.get('title') or ''}".strip()


def _is_timeout(payload: Any, tool: object) -> bool:
    """Whether the framework refuses because its own patience has ended: that says nothing of what the tool did."""
    timeout_s = _timeout_of(tool)
    return timeout_s is not None and payload.get("message") == f"Timed out after {timeout_s} seconds."


def _is_payload(value: object) -> bool:
    return isinstance(value, dict) and value.get("kind") in RETURNED


def _value(payload: Any) -> Any:
    """Return a tool's value as its effect's outcome; one that looks like a payload stays inside its own."""
    is_plain = payload["kind"] == RETURNED[0] and not _is_payload(payload["result"])
    return payload["result"] if is_plain else payload


def _returned(value: object) -> object:
    """Return a tool's value as Pydantic AI records it."""
    return {"kind": RETURNED[0], "result": value}


def tell(outcome: Outcome) -> Any:
    """Put an outcome for a model: the value of what is done; for all else a type, in words it can't mistake."""
    if outcome.told == "done":
        return outcome.value
    told: dict[str, Any] = {"outcome": outcome.told, "meaning": MEANING[outcome.told]}
    if outcome.told == "repeated":
        first = outcome.value["result"] if _is_payload(outcome.value) else outcome.value
        told["first_outcome"] = to_jsonable_python(first)
    if outcome.reason:
        told["reason"] = outcome.reason
    return told
