"""Waits of an agent for somebody outside: results of tools that run elsewhere, and answers to questions it asked.

What holds: the run waits as `waiting(signal)`, for as long as it takes and over any number of restarts; it is asked for
once; the first answer is used, and later ones are told so.

    deferred tools    `ExternalToolset`, `CallDeferred`: a signal named `tool CALL_ID` brings the result
    external events   `wait_for_external_event`, `RequestInput`: a token, resolved by `resolve_external_event`
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic_ai import DeferredToolRequests, ModelRetry, durable_exec
from pydantic_core import to_jsonable_python

from surefoot.adapters.pydantic_ai.payloads import PAYLOAD
from surefoot.problem import SurefootError
from surefoot.runs import branch, take_step, uuid, wait_signal
from surefoot.runs.live.run import LiveRun

if TYPE_CHECKING:
    from surefoot.app import Surefoot

ASKED = "asked elsewhere"
"""The step that says which calls an agent waits for."""

RETRY = "$retry"
"""In a signal's payload, instead of a result: what to tell the model so that it tries the call another way."""


class AskedCall(msgspec.Struct, frozen=True):
    """A tool call whose result is made elsewhere.

    Attributes:
        id: Its id; the signal that brings its result is named `tool ID`.
        tool: The tool.
        arguments: What it is called with.
        metadata: What the tool said when it deferred the call.
    """

    id: str
    tool: str
    arguments: Any
    metadata: Any = None


def signal_of(call_id: str) -> str:
    """Return the name of the signal that brings a call's result."""
    return f"tool {call_id}"


async def wait_for_results(requests: DeferredToolRequests) -> dict[str, Any]:
    """Wait for the results of the calls that are made elsewhere, and return them by the calls' ids."""
    if not requests.calls:
        return {}
    metadata = getattr(requests, "metadata", None) or {}
    asked = [
        AskedCall(part.tool_call_id, part.tool_name, part.args, metadata.get(part.tool_call_id))
        for part in requests.calls
    ]

    async def work() -> Any:
        return msgspec.to_builtins([to_jsonable_python(msgspec.to_builtins(call)) for call in asked])

    async with branch(asked[0].id):
        await take_step(ASKED, None, PAYLOAD, work)
        answers = await asyncio.gather(*(wait_signal(signal_of(call.id), key=call.id) for call in asked))
    return {call.id: _result(answer) for call, answer in zip(asked, answers, strict=True)}


def _result(answer: Any) -> Any:
    is_retry = isinstance(answer, dict) and answer.keys() == {RETRY}
    return ModelRetry(str(answer[RETRY])) if is_retry else answer


# -- external events --------------------------------------------------------------------------------------------------

_Waiter: Any = getattr(durable_exec, "ExternalEventWaiter", object)
_Error: Any = getattr(durable_exec, "ExternalEventError", SurefootError)
_scope: Any = getattr(durable_exec, "external_event_scope", None)

FAILED = "$failed"
"""In an event's payload: why it will not come."""


class _EventWaiter(_Waiter):  # type: ignore[misc]  # a class of newer versions of Pydantic AI
    """Waits for external events by signals of the run."""

    def __init__(self, run: LiveRun) -> None:
        self._run_id = run.run_id

    async def wait(self, name: str, *, ask: Callable[[str], Awaitable[Any]], timeout: timedelta | None) -> Any:
        """See `ExternalEventWaiter.wait`."""
        async with branch(f"event {name}"):
            event = str(await uuid())

            async def work() -> Any:
                return await ask(_token(self._run_id, event))

            answer = await take_step("ask", None, PAYLOAD, work)
            if answer is not None:
                return answer
            timeout_s = None if timeout is None else timeout.total_seconds()
            said = await wait_signal(f"event {event}", timeout=timeout_s)
        if said is None:
            raise _Error(f"No resolution arrived within {timeout}.")
        if FAILED in said:
            raise _Error(said[FAILED])
        return said["payload"]


@contextmanager
def waiting_for_events(run: LiveRun) -> Iterator[None]:
    """Let external events of the code inside be waited for by signals of the run, where the framework has such events."""
    if _scope is None:
        yield
        return
    with _scope(_EventWaiter(run)):
        yield


def _token(run_id: str, event: str) -> str:
    """Return a resume token: opaque to whoever carries it, and not to be guessed."""
    return base64.urlsafe_b64encode(msgspec.json.encode([run_id, event])).decode()


async def resolve_external_event(app: Surefoot, token: str, payload: object) -> bool:
    """End the wait of a run for an external event; the first answer is the one that counts.

    Args:
        app: An open app on the run's store, in any process.
        token: The resume token that the run handed out.
        payload: The answer, as JSON values or what has a JSON form.

    Returns:
        Whether it was the first answer.

    Raises:
        RunNotFound: There is no such run in this store.
    """
    return await _settle(app, token, {"payload": to_jsonable_python(payload)})


async def fail_external_event(app: Surefoot, token: str, reason: str) -> bool:
    """End the wait of a run for an external event that will not come; see `resolve_external_event`."""
    return await _settle(app, token, {FAILED: reason})


async def _settle(app: Surefoot, token: str, said: dict[str, Any]) -> bool:
    try:
        run_id, event = msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[str, str])
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise SurefootError(
            f"{token!r} is no resume token of Surefoot", hint="pass on the token that `ask` was called with, unchanged"
        ) from error
    run = await app.run(run_id)
    return await run.signal(f"event {event}", said, by="external event", dedupe="answer")
