"""The seam to Pydantic AI: its Temporal backend, with our ledger inside the activities and our waits around them.

On the worker's side a tool call and a model request are performed by `performing`. On the workflow's side a call that
has to wait is waited for, and made again. All else is Pydantic AI's, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from pydantic_ai.durable_exec import (
    BoundDurableOperation,
    DurableOperation,
    DurableOperationBackend,
    ModelRequestId,
    ToolsetCallToolId,
)
from temporalio.exceptions import ActivityError, ApplicationError

from surefoot.adapters.temporal import here
from surefoot.adapters.temporal.parked import PARKED, loaded
from surefoot.adapters.temporal.performing import Performer
from surefoot.adapters.temporal.waiting import waits
from surefoot.problem import SurefootError


class LedgerBackend(DurableOperationBackend[Any]):
    """Binds Pydantic AI's operations as its own backend does, but for tool calls and model requests."""

    def __init__(self, inner: DurableOperationBackend[Any], performer: Performer) -> None:
        self._inner = inner
        self._performer = performer
        self.parameter_transports = inner.parameter_transports

    def bind(self, operation: DurableOperation[Any, Any, Any]) -> BoundDurableOperation[Any, Any, Any]:
        """See `DurableOperationBackend.bind`."""
        match operation.operation_id:
            case ToolsetCallToolId(toolset_kind=kind):
                handler = partial(self._performer.call_tool, operation.handler, kind)
                return _Call(self._inner.bind(replace(operation, handler=handler)))
            case ModelRequestId(model_name=name):
                handler = partial(self._performer.decide, operation.handler, name)
                return self._inner.bind(replace(operation, handler=handler))
            case _:
                return self._inner.bind(operation)

    def config_for_tool(
        self, operation: DurableOperation[Any, Any, Any], *, tool: object | None, tool_name: str
    ) -> Any:
        """See `DurableOperationBackend.config_for_tool`; a tool that would run in the workflow is refused."""
        refuse_in_workflow(tool, tool_name)
        return self._inner.config_for_tool(operation, tool=tool, tool_name=tool_name)

    def registrations(self) -> Sequence[Callable[..., object]]:
        """See `DurableOperationBackend.registrations`."""
        return self._inner.registrations()


class _Call(BoundDurableOperation[Any, Any, Any]):
    """A tool call, made again for as long as it has to wait."""

    def __init__(self, inner: BoundDurableOperation[Any, Any, Any]) -> None:
        self._inner = inner

    @property
    def operation(self) -> DurableOperation[Any, Any, Any]:
        """The operation."""
        return self._inner.operation

    def __getattr__(self, name: str) -> Any:
        """Return what Pydantic AI asks of its own operations."""
        return getattr(self._inner, name)

    async def __call__(self, params: Any, *, config: object | None = None) -> Any:
        """Make the call in an activity; it has one place in the run, however often it is made."""
        now = here.here.get()
        if now is None:
            return await self._inner(params, config=config)
        told = now.call(params.ctx.tool_call_id or params.name, params.name)
        token = here.calling.set(told)
        try:
            while True:
                try:
                    return await self._inner(params, config=config)
                except ActivityError as error:
                    cause = error.cause
                    if not isinstance(cause, ApplicationError) or cause.type != PARKED:
                        raise
                    wait = loaded(cause.details[0])
                await waits().until_woken(wait)
                here.calling.set(msgspec.structs.replace(told, is_again=True))
        finally:
            here.calling.reset(token)


def refuse_in_workflow(tool: object | None, name: str) -> None:
    """Refuse a tool that is told to run in the workflow's code, where each replay would run it again.

    Raises:
        SurefootError: It is.
    """
    metadata = getattr(getattr(tool, "tool_def", tool), "metadata", None) or {}
    told = metadata.get("temporal")
    if told is False or (isinstance(told, dict) and "child_workflow" in told):
        raise SurefootError(
            f"tool {name!r} has metadata={{'temporal': {told!r}}}: in workflow code it would act again at each replay",
            hint="remove it: the tool then runs in an activity, claimed in the ledger",
        )
