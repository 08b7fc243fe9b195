"""The world outside: services that are called over a bad network, and that count for themselves what they did.

Requests belong to the network, not to the process that sent them: they arrive after it was killed. Each request has a
fate, drawn when it is sent; `Fate` says which. What the engine's guarantees assume of a service and of the network is
kept to, whatever the fate:

* *keys*: dedupes on the idempotency key for ever, and answers a known key with its first answer, a refusal too;
* *look-up*: answers truthfully; no request lands later than `LONGEST_LIFE_S` after it was sent; it may refuse one that is
  past its expiry, or whose fencing token is older than one it has seen, a look-up's included;
* *nothing*: neither.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.support.simulated import Host, HostClock

LONGEST_LIFE_S = 2.0
"""How long a request to the look-up service can live. The network is given nine tenths of it."""


class Refused(Exception):
    """The service's answer: not done."""


class Fate(Enum):
    """What becomes of one request and its answer."""

    GOOD = "arrives, and its answer too"
    SLOW = "arrives, and its answer too, but seconds later"
    LOST = "never arrives; the client sees a time-out"
    UNANSWERED = "arrives; the answer is lost, and the client sees a time-out"
    RESET = "arrives; the client sees a reset connection before"
    LATE = "the client sees an error first; then it arrives, after all"
    LATEST = "the same, as late as can be"
    TWICE = "arrives, and arrives again later"
    BROKEN = "arrives, is done, and the client sees a server error"
    FAILS = "arrives, is not done, and the client sees a server error that doesn't say so"
    REFUSED = "arrives, is refused, and the client is told so"
    NEVER_SENT = "the connection is refused"


MEAN = (*(fate for fate in Fate if fate is not Fate.GOOD), Fate.LATE)
"""The fates that hurt; what comes late hurts most."""


@dataclass(frozen=True)
class Sent:
    """One request on its way.

    Attributes:
        service: Which service.
        item: What it is about: what may be done once. Of the caller's own making, not the engine's.
        key: The idempotency key, also the reference.
        token: The fencing token.
        expires_at_ms: Until when it may be carried out, by the wall clock.
        text: Words that the caller chose freely.
    """

    service: str
    item: str
    key: str
    token: int
    expires_at_ms: int | None
    text: str


@dataclass
class Service:
    """One service's own books."""

    name: str
    has_keys: bool = False
    has_look_up: bool = False
    checks: str = ""
    landed: dict[str, list[str]] = field(default_factory=dict)
    receipts: dict[str, str] = field(default_factory=dict)
    answers: dict[str, tuple[str, bool, str]] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def act(self, sent: Sent, is_refusing: bool, now_ms: int) -> tuple[str, bool]:
        """Carry a request out; return the answer and whether it is a refusal."""
        if self.has_keys and sent.key in self.answers:
            text, is_refusal, first = self.answers[sent.key]
            if first != f"{sent.item} {sent.text}":
                self.complaints.append(f"key {sent.key} came with {first!r}, then with {sent.item!r} {sent.text!r}")
            return text, is_refusal
        if self.checks == "token" and sent.token < self.newest.get(sent.key, 0):
            raise ConnectionAbortedError("stale token")
        if self.checks == "expiry" and sent.expires_at_ms is not None and now_ms > sent.expires_at_ms:
            raise ConnectionAbortedError("expired")
        self.newest[sent.key] = max(sent.token, self.newest.get(sent.key, 0))
        if is_refusing:
            answer, is_refusal = "refused", True
        else:
            many = self.landed.setdefault(sent.item, [])
            many.append(sent.key)
            answer, is_refusal = f"{self.name} {sent.item} {len(many)}", False
            self.receipts.setdefault(sent.key, answer)
        if self.has_keys:
            self.answers[sent.key] = (answer, is_refusal, f"{sent.item} {sent.text}")
        return answer, is_refusal

    def look_up(self, key: str, token: int) -> str | None:
        """Return the receipt under a reference; older tokens than the one that asks are refused from now on."""
        self.newest[key] = max(token, self.newest.get(key, 0))
        return self.receipts.get(key)


class Network:
    """Requests on their way, in the order of their arrival."""

    def __init__(
        self,
        host: Host,
        draw: random.Random,
        is_bad: float,
        connecting: tuple[float, ...],
        on_act: Callable[[], None],
        on_send: Callable[[Sent], None],
        on_ask: Callable[[str, str], None],
    ) -> None:
        self._host = host
        self._clock = HostClock(host)
        self._draw = draw
        self._connecting = connecting
        self._on_act = on_act
        self._on_send = on_send
        self.on_ask = on_ask
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.is_bad = is_bad
        self.next_fate: Fate | None = None
        self.sends = 0
        self.on_way: dict[tuple[str, str], int] = {}

    def next_s(self) -> float | None:
        """Return when something arrives next."""
        return self._events[0][0] if self._events else None

    def is_busy(self) -> bool:
        """Whether something arrives now."""
        return bool(self._events) and self._events[0][0] <= self._host.now_s

    def run_one(self) -> None:
        """Let one thing arrive."""
        heapq.heappop(self._events)[2]()

    def _after(self, delay_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._host.now_s + delay_s, next(self._numbers), event))

    def _fate(self) -> Fate:
        if self.next_fate is not None:
            fate, self.next_fate = self.next_fate, None
            return fate
        return self._draw.choice(MEAN) if self._draw.random() < self.is_bad else Fate.GOOD

    async def call(self, service: Service, sent: Sent) -> str:
        """Send a request and wait for its answer; raises whatever the client of such a service would."""
        await self.connect()
        self.sends += 1
        self._on_send(sent)
        fate = self._fate()
        if fate is Fate.NEVER_SENT:
            raise ConnectionRefusedError("connection refused")
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._route(service, sent, fate, answer)
        value = await answer
        if self._draw.random() < 0.2:
            await asyncio.sleep(0.01)  # reading the answer
        return value

    async def connect(self) -> None:
        """Begin an effect's code: what it does before the last moment at which it can be stopped from sending."""
        self._on_act()
        if (connecting_s := self._draw.choice(self._connecting)) > 0:
            await asyncio.sleep(connecting_s)

    def _route(self, service: Service, sent: Sent, fate: Fate, answer: asyncio.Future[str]) -> None:
        quick_s, late_s = self._draw.uniform(0.001, 0.05), LONGEST_LIFE_S * self._draw.choice((0.15, 0.5, 0.9))
        latest_s = LONGEST_LIFE_S * 0.9
        delay_s = {Fate.LATE: late_s, Fate.LATEST: latest_s, Fate.SLOW: late_s}.get(fate, quick_s)
        if fate is not Fate.LOST:
            self._travel(service, sent, fate, answer, delay_s)
        if fate is Fate.TWICE and service.has_keys:  # elsewhere nobody could help
            self._travel(service, sent, Fate.UNANSWERED, answer, late_s)
        errors: dict[Fate, tuple[float, BaseException]] = {
            Fate.LOST: (0.5, TimeoutError("read timed out")),
            Fate.UNANSWERED: (0.5, TimeoutError("read timed out")),
            Fate.RESET: (quick_s / 2, ConnectionResetError("reset by peer")),
            Fate.LATE: (quick_s, OSError("broken pipe")),
            Fate.LATEST: (quick_s, OSError("broken pipe")),
        }
        if fate in errors:
            after_s, error = errors[fate]
            self._after(after_s, lambda: _raise(answer, error))

    def _travel(self, service: Service, sent: Sent, fate: Fate, answer: asyncio.Future[str], delay_s: float) -> None:
        place = (service.name, sent.item)
        self.on_way[place] = self.on_way.get(place, 0) + 1

        def arrive() -> None:
            self.on_way[place] -= 1
            try:
                if fate is Fate.FAILS:
                    raise RuntimeError("500 internal server error")
                text, is_refusal = service.act(sent, fate is Fate.REFUSED, self._clock.wall_ms())
            except (ConnectionAbortedError, RuntimeError) as error:
                lost: BaseException = error
                self._after(0.001, lambda: _raise(answer, lost))
                return
            if fate is Fate.BROKEN:
                self._after(0.001, lambda: _raise(answer, RuntimeError("502 bad gateway")))
            elif fate in (Fate.GOOD, Fate.SLOW, Fate.REFUSED, Fate.TWICE):
                self._after(delay_s / 2, lambda: _answer(answer, text, is_refusal))

        self._after(delay_s, arrive)


def _answer(answer: asyncio.Future[str], text: str, is_refusal: bool) -> None:
    if not answer.done():
        if is_refusal:
            answer.set_exception(Refused(text))
        else:
            answer.set_result(text)


def _raise(answer: asyncio.Future[Any], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
