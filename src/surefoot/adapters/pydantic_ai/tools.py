"""One tool call as an effect or a read, and its outcome put into words for a model."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic_ai import FunctionToolset
from pydantic_core import PydanticSerializationError, to_jsonable_python

from surefoot.adapters.pydantic_ai.mcp import ReplyLost, Sending, ToolRefused, reading
from surefoot.adapters.pydantic_ai.payloads import PAYLOAD, RETURNED, Returned, encoded, loaded
from surefoot.adapters.pydantic_ai.refusals import DEFERRED, RETRIES, is_refusal, raise_refusal
from surefoot.adapters.pydantic_ai.units import BESIDE, call_step, redo_or_take
from surefoot.effects import SPEC, BadEffect, EffectSpec, NotDone, OpenSpec, OwnGate, bound_guard, told_to_model
from surefoot.effects.classify import describe
from surefoot.effects.live.perform import perform
from surefoot.effects.outcome import MEANING, Outcome, Telling
from surefoot.effects.spec import Bound
from surefoot.journal.values import Unserializable
from surefoot.runs import take_step
from surefoot.runs.steps import is_step, step_itself

if TYPE_CHECKING:
    from surefoot.adapters.pydantic_ai.declarations import Declarations
    from surefoot.adapters.pydantic_ai.units import Unit


async def perform_call(
    call: Call,
    tool: object,
    body: Callable[[], Awaitable[object]],
    declarations: Declarations,
    *,
    is_served: bool,
    gate: Callable[[EffectSpec | None], OwnGate | None],
    unit: Unit | None = None,
) -> object:
    """Perform one tool call, in its place in the run, and return its payload.

    Args:
        call: Which tool is called with what.
        tool: The framework's tool.
        body: Calls it; gives a payload, encoded or not.
        declarations: What the agent's owner says of tools that don't say it themselves.
        is_served: Whether an MCP server does it.
        gate: Gives what the call waits for, beside what its effect's declaration asks; None for nothing.
        unit: What its code does beside the result; None where that is not known.
    """
    function = function_of(tool)
    spec = declared(function)
    if spec is None and unit is not None and (title := step_itself(function)) is not None:
        return await call_step(unit, title, body)
    is_read_by_name = spec is None and (call.seen_name in declarations.reads or is_marked_read(tool))
    if not is_step(function) and not is_read_by_name and (place := _no_number(call.arguments)):
        return {"kind": "model_retry", "message": f"{place} is no number that JSON has; nothing was done"}
    if spec is not None or is_step(function):
        payload = await (body() if spec is None else call_declared(spec, body, tool, gate(spec)))
        if unit is not None:
            await redo_or_take(unit)
        return payload
    if is_read_by_name:

        async def read() -> Any:
            return _with_beside(_written(await reading(body)), unit)

        payload = await take_step(call.name, None, PAYLOAD, read)
    else:
        answer = partial(answer_of, body, tool, is_served=is_served, unit=unit)
        open_spec = declarations.effects.get(call.seen_name)
        if open_spec is None:
            payload = await call_undeclared(call.name, call.arguments, answer, gate(None))
        else:
            payload = await call_open(open_spec, call.arguments, answer, gate(open_spec))
    if unit is not None and isinstance(payload, dict):
        unit.redo(payload.pop(BESIDE, None))
    return payload


def _no_number(value: object, place: str = "") -> str:
    """Return where among a call's arguments is a NaN or an infinity, which some models write and no record can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((found for name, item in items if (found := _no_number(item, f"{place}.{name}".lstrip(".")))), "")


class Call(msgspec.Struct, frozen=True):
    """A tool call.

    Attributes:
        name: The tool, as the journal knows it.
        seen_name: The tool, as the model sees it.
        arguments: What it is called with.
    """

    name: str
    seen_name: str
    arguments: dict[str, Any]


def _with_beside(payload: Any, unit: Unit | None) -> Any:
    did = None if unit is None else unit.did()
    return payload if did is None else {**payload, BESIDE: did}


def _written(payload: object) -> Any:
    """Return a payload as data; a value that has no JSON form stays, to be refused by name once its act is recorded."""
    try:
        return encoded(payload)
    except Unserializable:
        assert isinstance(payload, Returned), "other payloads are encoded by the framework"
        return {"kind": RETURNED[0], "result": payload.value}


def result_of(name: str, payload: Any) -> Any:
    """Return what a tool call gives to the framework, or raise what it said instead."""
    if isinstance(payload, Returned):
        return payload.value
    if payload["kind"] in RETURNED:
        return loaded(name, payload)
    raise_refusal(payload)
    return payload


def function_of(tool: object) -> object:
    """Return the user's function behind a tool, if it is one."""
    return getattr(getattr(getattr(tool, "call_func", None), "__self__", None), "function", None)


def declared(function: object) -> EffectSpec | None:
    """Return what a tool's function declares with `@sf.effect` or `@sf.read`."""
    spec = getattr(function, SPEC, None)
    return spec if isinstance(spec, EffectSpec) else None


def is_marked_read(tool: object) -> bool:
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
    telling = Telling(_tell_tool, timeout_s, is_patient=is_patient, approve=gate)
    token = told_to_model.set(telling)
    try:
        payload = await body()
        if isinstance(payload, Returned) and isinstance(payload.value, Said):
            return payload.value.refusal
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


async def answer_of(
    body: Callable[[], Awaitable[object]], tool: object, *, is_served: bool, unit: Unit | None = None
) -> Any:
    """Call a tool inside its effect; return its value, or raise what the lack of one says about the world.

    Args:
        body: Makes the call; again whenever it is called.
        tool: The tool.
        is_served: Whether an MCP server does it.
        unit: What its code does beside the result; None where that is not known.
    """
    sending = Sending(is_served=is_served)
    try:
        payload = _written(await sending.through(body))
    except Exception as error:
        found = sending.verdict(describe(error))
        if found is None:
            raise
        raise found from error
    sending.check()
    refusal = None if payload["kind"] == DEFERRED else _refusal(payload)  # deferred: done, as far as this call goes
    if refusal is None:
        return _value(_with_beside(payload, unit))
    if sending.has_landed:  # whoever stands around the call doesn't like the answer; it was done all the same
        return refusal
    if _is_timeout(payload, tool):
        raise ReplyLost(refusal)
    raise sending.verdict(refusal) or NotDone(refusal)


Answer = Callable[[], Awaitable[Any]]
"""Calls a tool, as `answer_of` does."""


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return validated arguments as the JSON values they came from; what has no such form is refused by its record."""
    try:
        return {name: to_jsonable_python(value, bytes_mode="base64") for name, value in arguments.items()}
    except PydanticSerializationError:
        return arguments


async def call_undeclared(name: str, arguments: dict[str, Any], answer: Answer, gate: OwnGate | None) -> object:
    """Perform a tool that declares nothing as an effect of the default class."""

    async def call(arguments: Any) -> Any:
        return await answer()

    spec = EffectSpec(call, name=name, refused_on=(ToolRefused,), approve=gate)
    return await _perform(spec, spec.bind((_plain(arguments),), {}))


async def call_open(spec: OpenSpec, arguments: dict[str, Any], answer: Answer, gate: OwnGate | None) -> object:
    """Perform a tool that its author declared nothing about, as the agent's declaration says."""

    given, plain = dict(arguments), _plain(arguments)

    async def call(**sent: Any) -> Any:
        arguments.clear()  # what the framework calls with: in a doubt, what was sent first is sent again
        arguments.update({name: given[name] if plain.get(name) == sent[name] else sent[name] for name in sent})
        return await answer()

    open_spec = spec.doing(call)
    open_spec.approve = gate or open_spec.approve
    try:
        return await _perform(open_spec, open_spec.bind((), dict(plain)))
    except BadEffect as problem:  # the model has left out by what the effect is known: nothing was claimed or sent
        return _returned(tell(Outcome("not_done", reason=str(problem))))


async def _perform(spec: EffectSpec, bound: Bound) -> object:
    guard = bound_guard.get()
    assert guard is not None, "a run has a guard"
    outcome = await perform(guard, spec, bound, None)
    if outcome.told != "done":
        return _refused_again(outcome) or _returned(tell(outcome))
    return outcome.value if _is_payload(outcome.value) else _returned(outcome.value)


def _refusal(payload: object) -> str | None:
    """Return why a tool refused the call by its framework's own means, or None."""
    if not isinstance(payload, dict) or payload.get("kind") in RETURNED:
        return None
    text = payload.get("message") or payload.get("title") or json.dumps(payload.get("metadata"))
    return f"{payload.get('kind')}: {text}"


def _refused_again(outcome: Outcome) -> Mapping[str, Any] | None:
    """Return a tool's own refusal as it was said, from the reason by which the ledger keeps it."""
    kind, _, text = outcome.reason.partition(": ")
    if outcome.told != "not_done" or not is_refusal(kind):
        return None
    return {"kind": kind, "message": text, "metadata": _metadata(text)}


def _metadata(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _is_timeout(payload: Any, tool: object) -> bool:
    """Whether the framework refuses because its own patience has ended: that says nothing of what the tool did."""
    timeout_s = _timeout_of(tool)
    return timeout_s is not None and payload.get("message") == f"Timed out after {timeout_s} seconds."


def _is_payload(value: object) -> bool:
    return isinstance(value, dict) and value.get("kind") in (*RETURNED, DEFERRED)


def _value(payload: Any) -> Any:
    """Return a tool's value as its effect's outcome; one that looks like a payload stays inside its own."""
    is_plain = payload.keys() == {"kind", "result"} and payload["kind"] == RETURNED[0]
    return payload["result"] if is_plain and not _is_payload(payload["result"]) else payload


def _returned(value: object) -> object:
    """Return a tool's value as Pydantic AI records it."""
    return {"kind": RETURNED[0], "result": value}


def _tell_tool(outcome: Outcome) -> Any:
    """Put an outcome for a tool call; what the function itself said to the framework stays what it said."""
    kind, _, text = outcome.reason.partition(": ")
    if outcome.told == "not_done" and kind in RETRIES:
        return Said({"kind": RETRIES[kind], "message": text})
    return tell(outcome)


class Said(msgspec.Struct, frozen=True):
    """What a declared function has said to the framework, by an exception of the framework's."""

    refusal: dict[str, Any]


def tell(outcome: Outcome) -> Any:
    """Put an outcome for a model: the value of what is done; for all else a type, in words it can't mistake."""
    if outcome.told == "done":
        return outcome.value
    told: dict[str, Any] = {"outcome": outcome.told, "meaning": MEANING[outcome.told]}
    if outcome.told == "repeated":
        first = outcome.value.get("result") if _is_payload(outcome.value) else outcome.value
        told["first_outcome"] = to_jsonable_python(first)
    if outcome.reason:
        told["reason"] = outcome.reason
    if outcome.told == "stale" and isinstance(outcome.detail, dict):
        told["changes"] = outcome.detail.get("changes", [])
    return told
