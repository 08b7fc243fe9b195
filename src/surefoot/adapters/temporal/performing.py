"""What an activity does with what it was asked for: a tool call goes through the ledger, a decision is recorded.

What holds: an activity ends with a result only when all that the result stands on is on disk in our store; what was
recorded by an earlier attempt is given back and not done again, whatever Temporal knows of that attempt.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic_ai.durable_exec import JSON_CODEC, CallToolResult
from pydantic_ai.messages import ModelResponse
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from surefoot.adapters.pydantic_ai.approving import ask_anybody
from surefoot.adapters.pydantic_ai.conversations import _cost
from surefoot.adapters.pydantic_ai.declarations import Declarations
from surefoot.adapters.pydantic_ai.mcp import reading
from surefoot.adapters.pydantic_ai.payloads import PAYLOAD, RETURNED, Returned, encoded, writable
from surefoot.adapters.pydantic_ai.tools import Call, declared, function_of, is_marked_read, perform_call
from surefoot.adapters.temporal.calls import CallFrame, enter, goes_on, inside, look
from surefoot.adapters.temporal.here import Told, heard
from surefoot.adapters.temporal.parked import PARKED, Parked, Wait, dumped
from surefoot.effects import Guard, bound_guard
from surefoot.effects.spec import EffectSpec
from surefoot.journal import Kind, Record, Undecodable, current_frame, insert_record
from surefoot.journal.records import NEXT, Head
from surefoot.leases import LeaseLost
from surefoot.problem import SurefootError
from surefoot.runs import Divergence
from surefoot.runs.errors import name_of
from surefoot.runs.live.replay import step_key
from surefoot.runs.live.strand import ToolCall
from surefoot.runs.steps import is_step
from surefoot.store import StoreError, Tx

if TYPE_CHECKING:
    from surefoot.approvals import Approve

Handler = Callable[[Any], Awaitable[Any]]
"""What Pydantic AI does in an activity, with what it was asked for."""

_BLOCKING = (Divergence, Undecodable)
"""What somebody must mend before the call can go on."""

_PASSING = (LeaseLost, StoreError)
"""What the next attempt may not meet."""


class Performer:
    """Does what the activities of one agent are asked for.

    Args:
        guard: Gives where effects are claimed, now.
        declarations: What the agent's owner says of its tools.
        make_deps: Makes the dependencies of a tool call; None: they are what the run was started with.
    """

    def __init__(
        self, guard: Callable[[], Guard], declarations: Declarations, make_deps: Callable[..., Any] | None
    ) -> None:
        self._guard = guard
        self._declarations = declarations
        self._make_deps = make_deps

    async def call_tool(self, handler: Handler, kind: str, params: Any) -> Any:
        """Perform one tool call, and return its result in Pydantic AI's own form."""
        told = heard(params.ctx)
        if told is None or told.call is None:
            return await handler(params)
        if self._make_deps is not None:
            params.ctx.deps = await _made(self._make_deps, params.ctx.deps)
        guard, now = self._guard(), activity.info()
        place = partial(CallFrame, guard.store, told.run, now.workflow_id or "")
        work = partial(self._perform, handler, kind, params, told)
        try:
            if now.attempt == 1 and not told.is_again:
                frame = place({})
                try:
                    return await self._in_frame(guard, told.call, frame, work)
                except Exception:
                    if not frame.is_mistaken:
                        raise
            seen = await guard.store.read(partial(look, run=told.run, path=told.call.path))
            return await self._in_frame(guard, told.call, place(seen), work)
        except BaseException as error:
            said = _said(error)
            if said is None:
                raise
            raise said from (None if isinstance(error, Parked) else error)

    async def _in_frame(
        self, guard: Guard, call: ToolCall, frame: CallFrame, work: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Do it as a part of the run, and wait until what it has recorded is on disk."""
        frame_token, guard_token = current_frame.set(frame), bound_guard.set(guard)
        enter(call, asyncio.current_task())
        try:
            result = await work()
            await guard.store.barrier()
        finally:
            bound_guard.reset(guard_token)
            current_frame.reset(frame_token)
        if frame.refused is not None:
            raise frame.refused
        return result

    async def _perform(self, handler: Handler, kind: str, params: Any, told: Told) -> Any:
        tool = getattr(params, "tool", None)
        function = function_of(tool)
        is_declared = declared(function) is not None
        if not is_declared and (is_step(function) or told.tool in self._declarations.reads or is_marked_read(tool)):
            assert told.call is not None, "asked for a tool call"
            with inside(step_key(told.call.path, params.name, None)):
                return await reading(partial(handler, params))

        async def body() -> object:
            result = await handler(params)
            if getattr(result, "kind", None) in RETURNED:
                return Returned(params.name, result.result)
            return JSON_CODEC.dump(CallToolResult, result)

        call = Call(params.name, told.tool, params.tool_args)
        gate = partial(_gate, is_gated=told.is_gated)
        payload = await perform_call(call, tool, body, self._declarations, is_served=kind == "mcp", gate=gate)
        return JSON_CODEC.load(CallToolResult, encoded(payload))

    async def decide(self, handler: Handler, name: str, params: Any) -> Any:
        """Ask the model, and record its answer; or return the answer that is recorded. The first one that is counts."""
        told = heard(params.run_context)
        if told is None:
            return await handler(params)
        store = self._guard().store
        try:
            recorded = await store.read(partial(_decision, run=told.run, step=told.step))
            if recorded is not None:
                return JSON_CODEC.load(ModelResponse, PAYLOAD.load(recorded))
            response = await handler(params)
            if not isinstance(response, ModelResponse):
                return response
            response = writable(response)
            data = JSON_CODEC.dump(ModelResponse, response)
            body = PAYLOAD.dump(data)[0]
            head = Head(name=response.model_name or name, cost=_cost(data))
            record = Record(told.run, NEXT, Kind.DECIDED, told.step, 0, head, body)
            first = await store.commit(partial(_record_first, record), label="decision", size=len(body))
        except BaseException as error:
            said = _said(error)
            if said is None:
                raise
            raise said from error
        return response if first is None else JSON_CODEC.load(ModelResponse, PAYLOAD.load(first))


def _decision(connection: Any, run: int, step: str) -> bytes | None:
    found = look(connection, run, step).get(step, ())
    return next((record.body for record in found if record.kind is Kind.DECIDED), None)


def _record_first(record: Record, tx: Tx) -> bytes | None:
    """Write a decision, unless there is one: then return that."""
    assert record.run is not None, "a decision of a run"
    is_first = goes_on(tx, record.run, record.step, 0)
    there = None if is_first else _decision(tx.connection, record.run, record.step)
    if there is None:
        insert_record(tx, record)
    return there


def _gate(spec: EffectSpec | None, *, is_gated: bool) -> Approve | None:
    return ask_anybody(spec) if is_gated else None


async def _made(make: Callable[..., Any], given: Any) -> Any:
    made = make(given) if inspect.signature(make).parameters else make()
    return await made if inspect.isawaitable(made) else made


def _said(error: BaseException) -> ApplicationError | None:
    """Return what Temporal is told of an error of ours, which says whether trying again helps; None for others' errors."""
    if isinstance(error, _BLOCKING):
        error = Parked(Wait("blocked", str(error)))
    if isinstance(error, Parked):
        return ApplicationError(
            error.wait.reason,
            dumped(error.wait),
            type=PARKED,
            non_retryable=True,
            category=ApplicationErrorCategory.BENIGN,
        )
    if isinstance(error, _PASSING):
        return ApplicationError(str(error), type=name_of(error))
    if isinstance(error, SurefootError):
        return ApplicationError(str(error), type=name_of(error), non_retryable=True)
    return None
