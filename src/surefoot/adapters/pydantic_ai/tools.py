"""One tool call as an effect or a read, and its outcome put into words for a model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_ai import FunctionToolset
from pydantic_core import to_jsonable_python

from surefoot.adapters.pydantic_ai.payloads import RETURNED, encoded
from surefoot.effects import SPEC, EffectSpec, NotDone, bound_guard, told_to_model
from surefoot.effects.outcome import MEANING, Outcome, Telling
from surefoot.effects.perform import perform


def declared(tool: object) -> EffectSpec | None:
    """Return the spec of a tool whose function carries @sf.effect or @sf.read."""
    schema = getattr(getattr(tool, "call_func", None), "__self__", None)
    spec = getattr(getattr(schema, "function", None), SPEC, None)
    return spec if isinstance(spec, EffectSpec) else None


def is_read(tool: object) -> bool:
    """Whether a tool's metadata says that it changes nothing outside."""
    metadata = getattr(getattr(tool, "tool_def", None), "metadata", None) or {}
    return metadata.get("surefoot") == "read"


async def call_declared(spec: EffectSpec, body: Callable[[], Awaitable[object]], tool: object) -> object:
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


async def call_undeclared(name: str, arguments: object, body: Callable[[], Awaitable[object]]) -> object:
    """Perform a tool that declares nothing as an effect of the default class."""

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
