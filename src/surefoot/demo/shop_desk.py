"""How one request is dealt with: the interpreter of the fault table, with its kill points and its log.

Always holds: a request that acts does so in one transaction, whoever is still listening; what the client could see of
it is logged next to what it did.
"""

import asyncio
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from surefoot.demo import shop_rules
from surefoot.demo.faults import LAST_WORDS, STEPS, Fault, Script, Step
from surefoot.demo.killing import KillDesk, KillOrder, Moment, pause_after_answer_s
from surefoot.demo.shop_rules import Answer, Ask, Refusal, Rule
from surefoot.demo.shop_store import Call, ShopStore

HANG_LIMIT_S = 30.0  # a client without a timeout is cut off then: nothing waits for ever


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One thing the shop offers.

    Attributes:
        method: HTTP method.
        path: Route with its parameters.
        rule: What it does.
        is_effect: Whether it acts on the world; such requests are the ones that kill orders count.
    """

    method: str
    path: str
    rule: Rule
    is_effect: bool

    @property
    def name(self) -> str:
        """What scripts and logs call it, e.g. `"POST /refunds"`."""
        return f"{self.method} {self.path}"


ENDPOINTS = (
    Endpoint("GET", "/orders/{order_id}", shop_rules.read_order, is_effect=False),
    Endpoint("POST", "/refunds", shop_rules.refund, is_effect=True),
    Endpoint("PUT", "/orders/{order_id}/address", shop_rules.change_address, is_effect=True),
    Endpoint("POST", "/emails", shop_rules.send_email, is_effect=True),
    Endpoint("GET", "/emails", shop_rules.find_emails, is_effect=False),
    Endpoint("POST", "/parcels", shop_rules.send_parcel, is_effect=True),
)


class Line(Protocol):
    """What the desk needs of the server it is behind: power over its connections."""

    def cut(self, scope: Scope) -> None:
        """Drop the connection a request came in by, without a word."""

    def go_dark(self, seconds: float) -> None:
        """Refuse new connections for a while, starting now."""


def shop_clock_s() -> float:
    """The shop's own clock, in seconds since 1970."""
    return time.time()  # noqa: TID251  the shop is another company's service: it has its own clock


@dataclass(slots=True)
class Visit:
    """One request while it is being dealt with."""

    endpoint: Endpoint
    request: Request
    send: Send
    raw_body: bytes
    call: Call
    number: int
    fault: Fault
    kill: KillOrder | None
    answer: Answer | None = None


class Desk:
    """Deals with the requests to the shop's endpoints.

    Args:
        store: The shop's database.
        script: What goes wrong.
        kills: Who is to die, and when.
        line: The connections.
        seed: For the pause before a kill after an answer.
        key_ttl_s: How long idempotency keys are remembered, in seconds.
    """

    def __init__(
        self, store: ShopStore, script: Script, kills: KillDesk, line: Line, *, seed: int, key_ttl_s: float
    ) -> None:
        self._store = store
        self._script = script
        self._kills = kills
        self._line = line
        self._seed = seed
        self._key_ttl_s = key_ttl_s
        self._effectful = store.effectful_calls()
        self._taken_in: dict[str, int] = {}  # idempotency key -> the call that is working on it
        self._open_visits = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def in_flight(self) -> int:
        """How many requests are being dealt with, clients gone or not."""
        return self._open_visits

    async def quiet(self) -> None:
        """Wait until no request is being dealt with, so that the books have nothing more to come."""
        await self._quiet.wait()

    async def deal_with(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request from its arrival to its end."""
        request = Request(scope, receive)
        try:
            raw_body = await request.body()
        except ClientDisconnect:
            return  # it died while sending: nothing arrived that could be acted on
        self._open_visits += 1
        self._quiet.clear()
        try:
            visit = self._arrive(endpoint, request, raw_body, send)
            try:
                await self._follow(visit)
            finally:
                self._release_key(visit)
                self._store.update_call(visit.number, visit.call)
        finally:
            self._open_visits -= 1
            if not self._open_visits:
                self._quiet.set()

    def _arrive(self, endpoint: Endpoint, request: Request, raw_body: bytes, send: Send) -> Visit:
        fault = self._script.next_fault(endpoint.name)
        pid = request.headers.get("x-worker-pid", "")
        call = Call(
            at=shop_clock_s(),
            endpoint=endpoint.name,
            effectful_n=None,
            fault=json.dumps(asdict(fault)),
            key=_key_of(request, raw_body),
            body_digest=hashlib.blake2b(raw_body, digest_size=16).hexdigest(),
            worker_pid=int(pid) if pid.isdecimal() else None,
        )
        kill = None
        if endpoint.is_effect:
            self._effectful += 1
            call.effectful_n = self._effectful
            kill = self._kills.due(self._effectful, call.worker_pid)
        number = self._store.open_call(call)
        return Visit(endpoint, request, send, raw_body, call, number, fault, kill)

    async def _follow(self, visit: Visit) -> None:
        self._strike(visit, Moment.ON_ARRIVAL)
        for step in STEPS[visit.fault.kind]:
            if step in LAST_WORDS:  # nothing acted, or it will only after the client has left
                self._strike(visit, Moment.AFTER_ACT_BEFORE_ANSWER)
            await self._take(step, visit)
            if step is Step.ACT:
                self._strike(visit, Moment.AFTER_ACT_BEFORE_ANSWER)
            if step in LAST_WORDS and visit.kill is not None:
                await asyncio.sleep(pause_after_answer_s(self._seed, visit.call.effectful_n or 0))
                self._strike(visit, Moment.AFTER_ANSWER)

    async def _take(self, step: Step, visit: Visit) -> None:
        match step:
            case Step.TAKE_IN:
                key = visit.request.headers.get("idempotency-key")
                if key is not None:
                    self._taken_in.setdefault(key, visit.number)
            case Step.WAIT:
                await asyncio.sleep(visit.fault.wait_s)
            case Step.ACT:
                self._act(visit)
            case Step.ANSWER:
                assert visit.answer is not None, "the fault table acts before it answers"
                await self._answer(visit, visit.answer)
            case Step.SAY_BUSY:
                await self._answer(visit, Refusal(503, "unavailable", "the shop is busy, nothing was done").as_answer())
            case Step.CUT:
                self._line.cut(visit.request.scope)
                self._ended(visit, "cut")
                await _client_gone(visit)
            case Step.HANG:
                self._ended(visit, await self._hang(visit))
            case Step.CLOSE:
                self._script.close_for(visit.fault.for_requests)
            case Step.VANISH:
                self._line.go_dark(visit.fault.for_s)

    def _act(self, visit: Visit) -> None:
        with self._store.transaction():
            try:
                answer = visit.endpoint.rule(self._store, self._ask(visit))
            except Refusal as refusal:
                answer = refusal.as_answer()
            visit.answer = answer
            visit.call.acted = answer.acted
            visit.call.did = answer.did
            self._store.update_call(visit.number, visit.call)
        self._release_key(visit)

    def _release_key(self, visit: Visit) -> None:
        self._taken_in = {key: call for key, call in self._taken_in.items() if call != visit.number}

    def _ask(self, visit: Visit) -> Ask:
        headers = visit.request.headers
        key = headers.get("idempotency-key")
        return Ask(
            call=visit.number,
            now=shop_clock_s(),
            body=_decoded(visit.raw_body),
            params={**visit.request.query_params, **visit.request.path_params},
            key=key,
            if_match=headers.get("if-match"),
            body_digest=visit.call.body_digest,
            key_ttl_s=self._key_ttl_s,
            is_key_elsewhere=key is not None and self._taken_in.get(key, visit.number) != visit.number,
        )

    async def _answer(self, visit: Visit, answer: Answer) -> None:
        if await visit.request.is_disconnected():
            self._ended(visit, "left")
            return
        # One request per connection: a fault then hits its own request, never the next one on a kept connection.
        headers = {"connection": "close", **({"etag": answer.etag} if answer.etag else {})}
        if answer.did == "replayed":
            headers["idempotent-replayed"] = "true"
        response = JSONResponse(answer.body, answer.status, headers)
        await response(visit.request.scope, visit.request.receive, visit.send)
        self._ended(visit, str(answer.status))

    async def _hang(self, visit: Visit) -> str:
        try:
            async with asyncio.timeout(HANG_LIMIT_S):
                await _client_gone(visit)
        except TimeoutError:
            self._line.cut(visit.request.scope)
            await _client_gone(visit)
            return "cut"
        return "left"

    def _ended(self, visit: Visit, answered: str) -> None:
        visit.call.answered = answered
        visit.call.answered_at = shop_clock_s()

    def _strike(self, visit: Visit, moment: Moment) -> None:
        if visit.kill is None or visit.kill.moment is not moment:
            return
        pid, number = visit.call.worker_pid, visit.call.effectful_n
        assert pid is not None, "an order is due only for a registered process"
        assert number is not None, "an order is due only in a request that acts"
        if self._kills.strike(visit.kill, pid, number):
            visit.call.killed = moment
        visit.kill = None


async def _client_gone(visit: Visit) -> None:
    while (await visit.request.receive())["type"] != "http.disconnect":
        pass


def _key_of(request: Request, raw_body: bytes) -> str | None:
    for header in ("idempotency-key", "if-match"):
        if header in request.headers:
            return request.headers[header]
    try:
        reference = request.query_params.get("client_reference") or _decoded(raw_body).get("client_reference")
    except Refusal:
        return None
    return reference if isinstance(reference, str) else None


def _decoded(raw_body: bytes) -> dict[str, object]:
    if not raw_body:
        return {}
    try:
        body = json.loads(raw_body)
    except ValueError as error:
        raise Refusal(422, "bad_request", f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refusal(422, "bad_request", "the body is no JSON object")
    return body
