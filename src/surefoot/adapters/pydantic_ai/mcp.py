"""Calls of MCP tools: the key that goes along, what an answer or its absence says, and sessions that are opened anew.

What holds: each call of an effect carries the effect's idempotency key, token and attempt in `_meta`; a call whose answer
is lost is unknown, whatever the framework or a `process_tool_call` makes of the error, and is not sent again; only what
the server itself said, or what failed before the first byte, counts as not done. Opening a session may be repeated:
nothing was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.toolsets import AbstractToolset

from surefoot.effects import CurrentEffect, current_effect
from surefoot.effects.classify import NeverSent, describe
from surefoot.problem import SurefootError

KEY, TOKEN, ATTEMPT, EXPIRES_AT_MS = (
    "surefoot/idempotencyKey",
    "surefoot/fencingToken",
    "surefoot/attempt",
    "surefoot/expiresAtMs",
)
"""What an effect's call carries in `_meta`. Servers read these names: they are compatibility data."""

OPEN_PAUSES_S = (0.2, 0.8, 2.0)
"""Pauses between tries to open a session: a server that is being restarted is back within seconds."""

REFUSALS = frozenset({-32700, -32600, -32601, -32602, -32042})
"""JSON-RPC errors by which a server says that it did not act: what it can't parse, an invalid request, an unknown method,
invalid parameters, and MCP's "ask the user first". An internal error (-32603) or one of the server's own may come after the
act; a closed connection (-32000) and a timeout (-32001) are the client's words."""

CLOSED = -32000
"""The client's word for a connection that is gone, and with it every later call of that session."""

Call = Callable[..., Awaitable[Any]]
"""What `process_tool_call` calls: `call(name, arguments, metadata=None)`."""


class ToolRefused(Exception):
    """The server's answer is an error: it did not do it. What an effect's `refused_on` names unless it says otherwise."""


class ReplyLost(SurefootError):
    """The call was sent, and its answer is lost: nobody knows whether it was done."""


class Sending:
    """The calls that one act of an effect makes, and what is known of them."""

    def __init__(self, *, is_served: bool) -> None:
        self._is_served = is_served
        self._has_come = False
        self._could_open = True
        self._sent = 0
        self._accepted = 0
        self._refused = ""
        self._lost = ""

    async def through(self, body: Callable[[], Awaitable[Any]]) -> Any:
        """Let the framework make the call, again while no session could be opened; return what it came to."""
        token = _sending.set(self)
        try:
            for pause_s in OPEN_PAUSES_S:
                with contextlib.suppress(_Unopened):
                    return await self._once(body)
                await asyncio.sleep(pause_s)
            return await body()
        finally:
            _sending.reset(token)

    async def _once(self, body: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await body()
        except Exception as error:
            if self._is_served and self._sent == 0 and not (self._has_come and self._could_open):
                raise _Unopened from error
            raise

    def come(self) -> None:
        """Note that the framework has a session, and is about to call."""
        self._is_served = self._has_come = True

    async def call(self, call_tool: Call, name: str, arguments: dict[str, Any], metadata: dict[str, Any] | None) -> Any:
        """Send one call. After one whose answer is lost there is no other."""
        if self._lost:
            raise ReplyLost(f"an earlier call of this effect has no answer: {self._lost}")
        self._could_open = False
        async with _connected(_client_of(call_tool)) as client:
            self._could_open = True
            self._sent += 1
            try:
                value = await call_tool(name, arguments, metadata={**(metadata or {}), **_meta(self._sent)})
            except BaseException as error:
                self._note(error)
                await _forget_closed(client, error)
                raise
        self._accepted += 1
        return value

    def _note(self, error: BaseException) -> None:
        if _is_refusal(error):
            self._refused = str(error)
        else:
            self._lost = describe(error)

    def check(self) -> None:
        """Raise if an answer is lost, whatever was made of that.

        Raises:
            ReplyLost: It is.
        """
        if self._lost:
            raise ReplyLost(f"no answer from the server: {self._lost}")

    def verdict(self, reason: str) -> Exception | None:
        """Return what an act that came to nothing is: the error to raise, or None when it is not for us to say."""
        self.check()
        if not self._is_served:
            return None
        if self._sent == 0:
            return NeverSent(f"nothing was sent: {reason}")
        return None if self._accepted else ToolRefused(self._refused or reason)

    @property
    def has_landed(self) -> bool:
        """Whether the server said that it has done what was asked."""
        return self._accepted > 0


class _Unopened(Exception):
    """No session could be opened, and nothing was sent."""


_sending: ContextVar[Sending | None] = ContextVar("surefoot_sending", default=None)
"""The act whose calls are made; None: a read, or no business of ours."""

_is_reading: ContextVar[bool] = ContextVar("surefoot_reading", default=False)


async def reading(body: Callable[[], Awaitable[Any]]) -> Any:
    """Let the framework make a call that changes nothing: in a session that has died, it is made again in a new one."""
    token = _is_reading.set(True)
    try:
        return await body()
    finally:
        _is_reading.reset(token)


class _Carrier:
    """A toolset's `process_tool_call`, which sees each call before the user's own. Outside effects it changes nothing."""

    def __init__(self, process: Callable[..., Awaitable[Any]] | None) -> None:
        self._process = process

    async def __call__(self, context: Any, call_tool: Call, name: str, arguments: dict[str, Any]) -> Any:
        sending, is_reading = _sending.get(), _is_reading.get()
        if sending is not None:
            sending.come()

        async def call(name: str, arguments: dict[str, Any], *, metadata: dict[str, Any] | None = None) -> Any:
            if sending is not None:
                return await sending.call(call_tool, name, arguments, metadata)
            if is_reading:
                return await _read(call_tool, name, arguments, metadata)
            return await call_tool(name, arguments, metadata=metadata)

        return await (call(name, arguments) if self._process is None else self._process(context, call, name, arguments))


async def _read(call_tool: Call, name: str, arguments: dict[str, Any], metadata: dict[str, Any] | None) -> Any:
    client = _client_of(call_tool)
    try:
        async with _connected(client):
            return await call_tool(name, arguments, metadata=metadata)
    except Exception as error:
        if not _is_closed(error):
            raise
        await _forget_closed(client, error)
    async with _connected(client):
        return await call_tool(name, arguments, metadata=metadata)


def is_served(toolset: AbstractToolset[Any]) -> bool:
    """Whether the calls of a toolset's tools are made by an MCP server."""
    mcp = sys.modules.get("pydantic_ai.mcp")
    return mcp is not None and isinstance(toolset, mcp.MCPToolset)


def carry(toolset: AbstractToolset[Any]) -> None:
    """See to it that the calls of an MCP toolset, or of one that a factory makes, go through us."""
    from pydantic_ai.mcp import MCPToolset
    from pydantic_ai.toolsets import DynamicToolset

    if isinstance(toolset, MCPToolset):
        if not isinstance(toolset.process_tool_call, _Carrier):
            toolset.process_tool_call = _Carrier(toolset.process_tool_call)
    elif isinstance(toolset, DynamicToolset) and not isinstance(toolset.toolset_func, _Factory):
        toolset.toolset_func = _Factory(toolset.toolset_func)


class _Factory:
    """A factory of toolsets whose MCP toolsets carry."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    async def __call__(self, context: Any) -> Any:
        made = self._make(context)
        toolset = await made if isinstance(made, Awaitable) else made
        if toolset is not None:
            toolset.apply(carry)
        return toolset


async def discover(body: Callable[[], Awaitable[Any]], toolset: Any) -> Any:
    """Ask a server what it offers; a session that can't be opened, or has died, is opened anew."""
    client = getattr(toolset, "client", None)
    for pause_s in OPEN_PAUSES_S:
        try:
            return await body()
        except Exception as error:
            await _forget_closed(client, error)
        await asyncio.sleep(pause_s)
    async with _connected(client):
        return await body()


# -- what goes along ----------------------------------------------------------------------------------------------------


def _meta(nth: int) -> dict[str, Any]:
    """Return what the n-th call of an act carries: a second call of one act is not a repetition of the first."""
    current: CurrentEffect = current_effect()
    key = current.idempotency_key if nth == 1 else f"{current.idempotency_key}/{nth}"
    meta: dict[str, Any] = {KEY: key, TOKEN: current.token, ATTEMPT: current.attempt}
    if current.expires_at_ms is not None:
        meta[EXPIRES_AT_MS] = current.expires_at_ms
    return meta


# -- what an error says -------------------------------------------------------------------------------------------------


def _is_refusal(error: BaseException) -> bool:
    """Whether the server said by it that it did nothing: an error result, or a protocol error before any act."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_refusal, error.exceptions))
    if isinstance(error, ModelRetry | ToolFailed):  # the framework's form: of an error result, unless it has a cause
        return error.__cause__ is None or _is_refusal(error.__cause__)
    return type(error).__name__ == "ToolError" or _code_of(error) in REFUSALS


def _is_closed(error: BaseException) -> bool:
    """Whether the session is gone, so far as the error tells: any error but the server's own word or a timeout."""
    if isinstance(error, ModelRetry | ToolFailed):
        return error.__cause__ is not None and _is_closed(error.__cause__)
    code = _code_of(error)
    return not _is_refusal(error) if code is None else code == CLOSED


def _code_of(error: BaseException) -> int | None:
    """Return the code of a JSON-RPC error; the class has another name in each generation of the SDK."""
    code = getattr(getattr(error, "error", None), "code", None)
    return code if isinstance(code, int) else None


# -- sessions -----------------------------------------------------------------------------------------------------------


def _client_of(call_tool: Call) -> Any:
    """Return the client by which the framework calls; None where it doesn't show."""
    method = getattr(call_tool, "func", call_tool)
    return getattr(getattr(method, "__self__", None), "client", None)


@contextlib.asynccontextmanager
async def _connected(client: Any) -> AsyncIterator[Any]:
    """Hold a session for one call: the one that is open, if its server still answers, or a new one.

    The question costs a round trip. Without it a server that went away between two calls would be noticed by the call, and
    nobody could tell whether it had arrived.
    """
    if client is None:
        yield None
        return
    is_held = client.is_connected()
    try:
        await client.__aenter__()
        is_there = await _is_there(client)
    except Exception:  # a session that has failed stands in the way of a new one
        is_there = False
    if not is_there:
        await _close(client)
        try:
            await client.__aenter__()
        except BaseException:
            await _close(client)  # or the framework, at the end of the run, finds the failure and takes it for its own
            raise
    try:
        yield client
    except asyncio.CancelledError:
        is_held = False
        raise
    finally:
        with contextlib.suppress(Exception):  # of a session that has failed meanwhile
            await client.__aexit__(None, None, None)
        if is_held and not client.is_connected():
            with contextlib.suppress(Exception):  # a new one for whoever held it: the framework, and probes beside it
                await client.__aenter__()


async def _is_there(client: Any) -> bool:
    """Whether the server answers. What it answers says nothing: newer ones know no ping."""
    try:
        await client.ping()
    except Exception as error:
        return not _is_closed(error)
    return True


async def _forget_closed(client: Any, error: BaseException) -> None:
    if client is not None and isinstance(error, Exception) and _is_closed(error):
        await _close(client)


async def _close(client: Any) -> None:
    """End a session for whoever holds it; the next call opens another."""
    with contextlib.suppress(Exception):  # it has failed already; this says so once more
        await client.close()
