"""Output functions and output validators: what turns a model's last answer into the run's result, recorded once.

What holds: their code runs once, however often the run is replayed; `ModelRetry` out of them is recorded and raised again.
An output function that is an effect is guarded like a tool; what became of it, when it is not done, is told to the model.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic_ai import NativeOutput, PromptedOutput, RunContext, TextOutput, ToolOutput
from pydantic_ai.capabilities import WrapOutputProcessHandler
from pydantic_ai.output import OutputContext

from surefoot.adapters.pydantic_ai.conversations import conversations_of
from surefoot.adapters.pydantic_ai.refusals import CONTROL, raise_refusal, refused
from surefoot.adapters.pydantic_ai.tools import tell
from surefoot.adapters.pydantic_ai.units import BESIDE, copy_of, done_beside, redo
from surefoot.effects import NotDone
from surefoot.effects.outcome import EffectError, Outcome
from surefoot.journal import codec_of
from surefoot.journal.values import ValueCodec
from surefoot.runs import take_step
from surefoot.runs.live.run import LiveRun

OUTPUT = "output"
"""The step's name; beside it stands the decision whose answer it turns into the result."""


async def process_output(
    run: LiveRun,
    agent: Any,
    ctx: RunContext[Any],
    output_context: OutputContext,
    output: Any,
    handler: WrapOutputProcessHandler,
) -> Any:
    """Run an output function and the output's validators, or return what is recorded of them."""
    if ctx.partial_output or not (output_context.has_function or has_validators(agent)):
        return await handler(output)
    call = output_context.tool_call
    call_id = OUTPUT if call is None else call.tool_call_id
    name = output_context.function_name or OUTPUT
    values = _Values(_type_of(agent, output_context), f"output function {name}")
    before, queued, did_run = copy_of(ctx.usage), len(ctx.pending_messages or ()), False

    async def work() -> Any:
        nonlocal did_run
        did_run = True
        try:
            value = await handler(output)
        except (NotDone, EffectError) as error:  # an effect that is not done: the model is told, as by a tool
            return beside({"refused": {"kind": "model_retry", "message": _told(error)}})
        except CONTROL as error:
            refusal = refused(error)
            if refusal is None:
                raise
            return beside({"refused": refusal})
        return beside(values.dump(value))

    def beside(payload: dict[str, Any]) -> dict[str, Any]:
        did = done_beside(ctx, before, queued)
        return {**payload, BESIDE: did} if did else payload

    with run.tool_call(conversations_of(run).current().call(call_id)):
        payload = await take_step(OUTPUT, None, _PAYLOAD, work)
    if not did_run:
        redo(ctx, payload.get(BESIDE))
    if "refused" in payload:
        raise_refusal(payload["refused"])
    return values.load(payload)


class _Values:
    """Writes and reads what an output pipeline gives.

    Where that is one of several types, it is recorded which: their JSON forms may be the same, and by `NativeOutput` and
    `PromptedOutput` it was the model that said which it meant.
    """

    def __init__(self, declared: Any, owner: str) -> None:
        self._declared = declared
        self._owner = owner
        members = typing.get_args(declared) if typing.get_origin(declared) in (typing.Union, types.UnionType) else ()
        self._members = {one.__qualname__: one for one in members if isinstance(one, type)}

    def dump(self, value: Any) -> dict[str, Any]:
        name = type(value).__qualname__
        member = name if self._members.get(name) is type(value) else None
        payload = {"output": json.loads(self._codec(member).dump(value)[0])}
        return payload if member is None else {**payload, "type": member}

    def load(self, payload: Mapping[str, Any]) -> Any:
        return self._codec(payload.get("type")).load(json.dumps(payload["output"]).encode())

    def _codec(self, member: str | None) -> ValueCodec:
        return codec_of(self._members.get(member or "", self._declared), self._owner)


_PAYLOAD = codec_of(object, "the output of an agent")


def has_validators(agent: Any) -> bool:
    """Whether an agent has output validators; where it doesn't say, it may."""
    return bool(getattr(agent, "_output_validators", True))


def gives(agent: Any, kind: type) -> bool:
    """Whether an agent may give this type as its output."""
    return kind in _leaves(getattr(agent, "output_type", ()))


def _told(error: NotDone | EffectError) -> str:
    outcome = error.outcome if isinstance(error, EffectError) else Outcome("not_done", reason=error.reason)
    return json.dumps(tell(outcome))


def _type_of(agent: Any, context: OutputContext) -> Any:
    """Return the type of what an output pipeline gives: the function's, or one of all that the agent may give."""
    if not context.has_function and context.output_type is not None:
        return context.output_type
    leaves = list(_leaves(getattr(agent, "output_type", ())))
    named = [one for one in leaves if getattr(one, "__name__", "") == context.function_name]
    found = [_returned(one) if inspect.isroutine(one) else one for one in (named or leaves)]
    return typing.Union[tuple(found)] if found else object  # noqa: UP007  built from a list


def _leaves(declared: Any) -> Iterator[Any]:
    """Return what an agent's `output_type` is made of: types and functions, out of markers and lists."""
    if isinstance(declared, ToolOutput):
        yield from _leaves(declared.output)
    elif isinstance(declared, TextOutput):
        yield from _leaves(declared.output_function)
    elif isinstance(declared, NativeOutput | PromptedOutput):
        yield from _leaves(declared.outputs)
    elif isinstance(declared, Iterable) and not isinstance(declared, type | str):
        for one in declared:
            yield from _leaves(one)
    elif typing.get_origin(declared) is not None or isinstance(declared, type) or callable(declared):
        yield declared


def _returned(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(inspect.unwrap(function)).get("return", object)
    except (NameError, TypeError):  # a name only known to type checkers: treat as not annotated
        return object
