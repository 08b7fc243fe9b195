"""What a worker calls the world with. It knows no engine: whatever drives it, the calls look the same from outside.

An answer is a value or an exception that says what is known. `NotSent`, `Refused`, `Expired` and `StaleToken` are
known not to have acted; `KeyConflict` and `InFlight` speak about another request; `ReplyLost` knows nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from tests.worlds import wire
from tests.worlds.dojo import Json
from tests.worlds.kills import Point, Trap


class WorldError(Exception):
    """A call that did not end with a value."""


class NotSent(WorldError):
    """The connection was refused: nothing left this process."""


class ReplyLost(WorldError):
    """No answer, or none in time: the request may have acted, may act later, may never act."""


class Refused(WorldError):
    """The tool refused; nothing was changed. Said again when it was said under this key before."""


class KeyConflict(WorldError):
    """The key was used with another body."""


class InFlight(WorldError):
    """A request with this key is still at work."""


class Expired(WorldError):
    """The request arrived after its `expires_at` and was not carried out."""


class StaleToken(WorldError):
    """A newer token was seen for this reference; the request was not carried out."""


class Unsupported(WorldError):
    """The service does not offer this."""


_BY_STATUS: Mapping[str, type[WorldError]] = {
    "refused": Refused,
    "conflict": KeyConflict,
    "in_flight": InFlight,
    "expired": Expired,
    "stale": StaleToken,
    "unsupported": Unsupported,
}


@dataclass(frozen=True)
class Found:
    """What a look-up found: the request landed, and this was its answer."""

    value: Json = None
    refusal: str | None = None


class Client:
    """Calls into one world. Every call has a connection of its own, so parallel calls do not queue."""

    def __init__(self, socket_path: str, trap: Trap | None = None) -> None:
        self._socket_path = socket_path
        self._trap = trap or Trap()

    async def call(
        self,
        tool: str,
        args: Mapping[str, Json],
        *,
        key: str | None = None,
        reference: str | None = None,
        expires_at: float | None = None,
        token: int | None = None,
        timeout_s: float = 5.0,
        label: str | None = None,
    ) -> Json:
        """Perform a tool and return its value.

        Args:
            tool: The tool's name.
            args: Its arguments.
            key: An idempotency key, for services that keep keys.
            reference: The client's reference, for services that can be asked about it.
            expires_at: Unix time after which the service must not carry the request out.
            token: A fencing token.
            timeout_s: How long to wait for the answer before it counts as lost.
            label: Which call of the case this is; for arming faults and counting only, the service does not heed it.
        """
        request = {
            "operation": "call",
            "tool": tool,
            "args": dict(args),
            "key": key,
            "reference": reference,
            "expires_at": expires_at,
            "token": token,
            "label": label,
        }
        self._trap.reached(Point.AFTER_CLAIM, label)
        answer = await self._exchange(request, timeout_s)
        self._trap.reached(Point.AFTER_REPLY, label)
        return _value(answer)

    async def look_up(self, reference: str, *, timeout_s: float = 5.0, label: str | None = None) -> Found | None:
        """Ask what became of a reference; None: it has not landed (so far)."""
        self._trap.reached(Point.BEFORE_LOOK_UP, label)
        request = {"operation": "look_up", "reference": reference, "label": label}
        answer = await self._exchange(request, timeout_s)
        self._trap.reached(Point.AFTER_LOOK_UP, label)
        if answer["status"] == "not_found":
            return None
        if answer["status"] != "landed":
            raise _BY_STATUS[answer["status"]](answer["reason"])
        landed = answer["answer"]
        return Found(landed.get("value"), landed.get("reason"))

    async def _exchange(self, request: wire.Frame, timeout_s: float) -> wire.Frame:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket_path)
        except OSError as failure:
            raise NotSent(str(failure)) from failure
        try:
            async with asyncio.timeout(timeout_s):
                writer.write(wire.encode(request))
                await writer.drain()
                answer = await wire.read(reader)
        except (TimeoutError, ConnectionError) as failure:
            raise ReplyLost(f"{request['operation']}: no answer within {timeout_s} s") from failure
        finally:
            await wire.close(writer)
        if answer is None:
            raise ReplyLost(f"{request['operation']}: the connection ended without an answer")
        return answer


def _value(answer: wire.Frame) -> Json:
    if answer["status"] == "done":
        return answer["value"]
    raise _BY_STATUS[answer["status"]](answer["reason"])
