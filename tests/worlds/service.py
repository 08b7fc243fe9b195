"""The world outside: a service in a process of its own that acts, remembers who asked, and fails on demand.

It listens on a unix socket and hosts any world that can `perform` a tool and show its `state`. What it offers to a
careful client are its `Terms`, after what real services do:

========  ==========================================================================================================
keys      one act per idempotency key within the key's life: the first answer, refusals included, is given again;
          another body under the key is a conflict; a request that is still at work is answered `in_flight`
probe     a truthful look-up by the client's reference; requests past their `expires_at` or with a token older than
          the newest seen for that reference are not carried out
nothing   every request that arrives is carried out, whatever else it says
========  ==========================================================================================================

Faults are armed over the control channel and strike once each. A fault may kill the client (a real SIGKILL, to the
process that opened the connection, as the kernel names it), let the act land late or never, and withhold the answer.
The service itself never dies and never loses a request it accepted: that is another test.

Its log is append-only: what arrived, what acted and with which result, who was killed, what was answered.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Protocol

from tests.worlds import wire
from tests.worlds.dojo import Json, canonical, digest


class Offer(StrEnum):
    """What the service gives a client that is in doubt."""

    KEYS = "keys"
    PROBE = "probe"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Terms:
    """The service's side of the bargain."""

    offer: Offer
    key_life_s: float = 86_400.0
    """How long a key is remembered, from its first use."""
    enforces_expiry: bool = True
    """Whether a probe service refuses requests past their `expires_at`."""
    refuses_older_tokens: bool = True
    """Whether a probe service refuses a token older than the newest seen for the reference."""
    clock_ahead_s: float = 0.0
    """How far the service's clock is ahead of this machine's."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request: the first of its operation and label that arrives once it is armed."""

    label: str | None = None
    """The call it strikes; None: whichever comes first."""
    operation: str = "call"
    """`call` or `look_up`."""
    kill: str | None = None
    """SIGKILL the client on `arrival` (nothing acted yet), when `acted` (no answer yet) or when `answered` (a race)."""
    lands_after_s: float | None = 0.0
    """How long after arrival the act happens; None: the request is lost."""
    claims_on_arrival: bool = False
    """Whether a late act is already inside the service, so that its key is taken, or still on the way to it."""
    answer: str = "send"
    """`send` it, `cut` the connection instead, or `hang`."""


class Hosted(Protocol):
    """A world this service can host."""

    def perform(self, tool: str, args: Mapping[str, Json]) -> tuple[Json, str | None]:
        """Run a tool; its value, and why it refused if it did."""

    def state(self) -> Json:
        """The whole state, canonical."""


@dataclass
class _Keyed:
    fingerprint: str
    since_s: float
    answer: wire.Frame | None = None


@dataclass
class Service:
    """One world behind one socket."""

    world: Hosted
    terms: Terms
    log: list[wire.Frame] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _keys: dict[str, _Keyed] = field(default_factory=dict)
    _references: dict[str, wire.Frame] = field(default_factory=dict)
    _tokens: dict[str, int] = field(default_factory=dict)
    _connections: int = 0
    _closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client connection until it ends."""
        client = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid = struct.unpack("3i", client)[0]
        self._connections += 1
        try:
            while (request := await wire.read(reader)) is not None:
                if not await self._serve(request, pid, reader, writer):
                    break
        except ConnectionError:
            pass  # the client is dead: what it asked for has been done all the same
        finally:
            await wire.close(writer)
            self._connections -= 1
            self._closed.set()

    async def settled(self) -> None:
        """Wait until every client is gone and everything they had sent is done, late acts included."""
        for _ in range(3):
            await asyncio.sleep(0)  # lets connections that wait in the backlog be accepted
        while self._connections:
            self._closed.clear()
            await self._closed.wait()

    async def _serve(
        self, request: wire.Frame, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Serve one request; False when the connection is to be closed."""
        fault = self._strike(request)
        self._note("arrived", request, pid=pid)
        self._kill_if(fault, "arrival", request, pid)
        if fault.lands_after_s is None:
            return False
        if fault.lands_after_s:
            if fault.claims_on_arrival and request.get("key") is not None:
                self._keys.setdefault(request["key"], _Keyed(_fingerprint(request), time.monotonic()))
            await asyncio.sleep(fault.lands_after_s)
        answer = self._call(request, fault) if request["operation"] == "call" else self._look_up(request)
        self._kill_if(fault, "acted", request, pid)
        if fault.kill is not None and fault.kill != "answered":
            return False
        if fault.answer == "hang":
            await reader.read()  # until the client gives up
        if fault.answer != "send":
            return False
        writer.write(wire.encode(answer | {"now": self._now()}))
        await writer.drain()
        self._note("answered", request, status=answer["status"])
        self._kill_if(fault, "answered", request, pid)
        return True

    def _call(self, request: wire.Frame, fault: Fault) -> wire.Frame:
        if self.terms.offer is Offer.KEYS and request.get("key") is not None:
            return self._call_keyed(request, late=fault.claims_on_arrival)
        if self.terms.offer is Offer.PROBE and request.get("reference") is not None:
            return self._call_referenced(request)
        return self._act(request)

    def _call_keyed(self, request: wire.Frame, late: bool) -> wire.Frame:
        known = self._keys.get(request["key"])
        if known is not None and time.monotonic() - known.since_s > self.terms.key_life_s:
            known = None
        if known is not None and known.fingerprint != _fingerprint(request):
            return {"status": "conflict", "reason": f"key {request['key']!r} was used with another body"}
        if known is not None and known.answer is not None:
            return known.answer | {"replayed": True}
        if known is not None and not late:
            return {"status": "in_flight", "reason": f"a request with key {request['key']!r} is at work"}
        answer = self._act(request)
        self._keys[request["key"]] = _Keyed(_fingerprint(request), time.monotonic(), answer)
        return answer

    def _call_referenced(self, request: wire.Frame) -> wire.Frame:
        reference, token, expires_at = request["reference"], request.get("token"), request.get("expires_at")
        if self.terms.enforces_expiry and expires_at is not None and self._now() > expires_at:
            return {"status": "expired", "reason": f"the request was good until {expires_at}, it is {self._now()}"}
        if self.terms.refuses_older_tokens and token is not None:
            newest = self._tokens.setdefault(reference, token)
            if token < newest:
                return {"status": "stale", "reason": f"token {token} is older than {newest}"}
            self._tokens[reference] = token
        answer = self._act(request)
        self._references.setdefault(reference, answer)
        return answer

    def _act(self, request: wire.Frame) -> wire.Frame:
        value, refusal = self.world.perform(request["tool"], request["args"])
        self._note("acted", request, refusal=refusal)
        return {"status": "done", "value": value} if refusal is None else {"status": "refused", "reason": refusal}

    def _look_up(self, request: wire.Frame) -> wire.Frame:
        if self.terms.offer is not Offer.PROBE:
            return {"status": "unsupported", "reason": "this service has no look-up"}
        if (answer := self._references.get(request["reference"])) is None:
            return {"status": "not_found"}
        return {"status": "landed", "answer": answer}

    def _strike(self, request: wire.Frame) -> Fault:
        for fault in self.faults:
            if fault.operation == request["operation"] and fault.label in (None, request.get("label")):
                self.faults.remove(fault)
                return fault
        return Fault()

    def _kill_if(self, fault: Fault, moment: str, request: wire.Frame, pid: int) -> None:
        if fault.kill == moment:
            self._note("killed", request, pid=pid, moment=moment)
            os.kill(pid, signal.SIGKILL)

    def _note(self, what: str, request: wire.Frame, **more: Json) -> None:
        kept = {name: request.get(name) for name in ("operation", "label", "tool", "key", "reference", "token")}
        if what == "acted":
            kept["args"] = request["args"]
        self.log.append({"what": what, "at_s": time.monotonic()} | kept | more)

    def _now(self) -> float:
        return time.time() + self.terms.clock_ahead_s


def _fingerprint(request: wire.Frame) -> str:
    return canonical([request["tool"], request["args"]])


async def serve(listener: socket.socket, control: socket.socket, service: Service) -> None:
    """Serve clients on a listening unix socket until the control channel ends.

    The control channel takes `arm` (faults), `collect` (once clients are gone and late acts are done: digest and log)
    and `state`.
    """
    server = await asyncio.start_unix_server(service.handle, sock=listener)
    reader, writer = await asyncio.open_connection(sock=control)
    while (order := await wire.read(reader)) is not None:
        answer: wire.Frame = {}
        if order["order"] == "arm":
            service.faults[:] = [Fault(**fault) for fault in order["faults"]]
        elif order["order"] == "collect":
            await service.settled()
            answer = {"digest": digest(service.world.state()), "log": service.log}
        elif order["order"] == "state":
            answer = {"state": service.world.state()}
        writer.write(wire.encode(answer))
    server.close()
    await wire.close(writer)


@dataclass
class Control:
    """The harness' end of the control channel."""

    channel: socket.socket

    def arm(self, *faults: Fault) -> None:
        """Replace the armed faults."""
        self._ask({"order": "arm", "faults": [asdict(fault) for fault in faults]})

    def collect(self) -> tuple[str, list[wire.Frame]]:
        """Wait until clients are gone and late acts are done; the digest of the state, and the log."""
        answer = self._ask({"order": "collect"})
        return answer["digest"], answer["log"]

    def state(self) -> Json:
        """The whole state."""
        return self._ask({"order": "state"})["state"]

    def _ask(self, order: wire.Frame) -> wire.Frame:
        wire.send(self.channel, order)
        answer = wire.receive(self.channel)
        if answer is None:
            raise ConnectionError("the service has died; its traceback is on stderr")
        return answer
