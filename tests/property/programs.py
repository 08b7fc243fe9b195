"""What is run in a schedule: effects of every class against the simulated services, and runs that are made of data.

A run's input is a list of operations, so that any program can be drawn, kept in the journal and made smaller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from tests.support.services import LONGEST_LIFE_S, Network, Refused, Sent, Service

import surefoot as sf
from surefoot.effects.binding import bound_guard
from surefoot.effects.guard import Guard
from surefoot.effects.keys import BadEffect

Operation: TypeAlias = list[Any]


class Outside:
    """The world of one schedule: the services, and what was asked of live code."""

    def __init__(self, network: Network, services: dict[str, Service]) -> None:
        self.network = network
        self.services = services
        self.decisions = 0
        self.booked: list[str] = []


_outside: list[Outside] = []


def enter(outside: Outside) -> None:
    """Make this the world that effects act on."""
    _outside[:] = [outside]


def outside() -> Outside:
    """Return the world that effects act on."""
    return _outside[0]


async def _send(service: str, item: str, text: str) -> str:
    now = sf.current_effect()
    sent = Sent(service, item, now.idempotency_key, now.token, now.expires_at_ms, text)
    return await outside().network.call(outside().services[service], sent)


async def _ask(service: str, item: str) -> sf.Landed | sf.NotLanded | sf.CannotTell:
    now, network = sf.current_effect(), outside().network
    await asyncio.sleep(0.001)
    if network._draw.random() < network.is_bad / 3:
        raise ConnectionResetError("reset by peer")
    network.on_ask(service, item)
    found = outside().services[service].look_up(now.idempotency_key, now.token)
    return sf.NotLanded() if found is None else sf.Landed(found)


async def _ask_mail(item: str) -> Any:
    return await _ask("look-up", item)


_KEYS = sf.Resend(key_ttl="1h")
_PROBE = sf.Probe(_ask_mail, longest_life=f"{LONGEST_LIFE_S}s")


@sf.effect(key="charge:{item}", free_text=("because",), in_doubt=_KEYS, refused_on=(Refused,), one_request=True)
async def scheduled_charge(item: str, because: str) -> str:
    return await _send("keys", item, because)


@sf.effect(in_doubt=_KEYS, refused_on=(Refused,), one_request=True)
async def scheduled_post(item: str, because: str) -> str:
    return await _send("keys", item, because)


@sf.effect(key="mail:{item}", free_text=("because",), in_doubt=_PROBE, refused_on=(Refused,), one_request=True)
async def scheduled_mail(item: str, because: str) -> str:
    return await _send("look-up", item, because)


@sf.effect(in_doubt=_PROBE, refused_on=(Refused,), one_request=True)
async def scheduled_note(item: str, because: str) -> str:
    return await _send("look-up", item, because)


@sf.effect(key="ship:{item}", free_text=("because",), refused_on=(Refused,), one_request=True)
async def scheduled_ship(item: str, because: str) -> str:
    return await _send("nothing", item, because)


@sf.effect(refused_on=(Refused,), one_request=True)
async def scheduled_parcel(item: str, because: str) -> str:
    return await _send("nothing", item, because)


@sf.effect(when_unknown="tell_model", refused_on=(Refused,), one_request=True)
async def scheduled_letter(item: str, because: str) -> str:
    return await _send("nothing", item, because)


@sf.effect(key="book:{item}", free_text=("because",), in_doubt=sf.Transactional())
def scheduled_booking(item: str, because: str) -> str:
    sf.current_effect().execute("INSERT INTO bookings (item) VALUES (?)", (item,))
    return f"booked {item}"


EFFECTS: dict[str, tuple[Any, str, bool]] = {
    "charge": (scheduled_charge, "keys", True),
    "post": (scheduled_post, "keys", False),
    "mail": (scheduled_mail, "look-up", True),
    "note": (scheduled_note, "look-up", False),
    "ship": (scheduled_ship, "nothing", True),
    "parcel": (scheduled_parcel, "nothing", False),
    "letter": (scheduled_letter, "nothing", False),
    "book": (scheduled_booking, "bookings", True),
}
"""By operation: the effect, its service, and whether its key is a business key, shared by all who ask for the item."""


@sf.step(name="scheduled decision")
async def decide() -> str:
    """A decision of the model: never the same twice, so that only the record of it can be the reason of an effect."""
    outside().decisions += 1
    return f"decision {outside().decisions}"


@sf.read(name="scheduled look")
async def look() -> int:
    outside().decisions += 1
    return outside().decisions


async def _act(operation: Operation, because: str) -> list[Any]:
    what, item = operation
    try:
        outcome = await EFFECTS[what][0].outcome(item, because)
    except BadEffect as error:
        return ["bad", str(error)]
    return [outcome.told, what, item, outcome.value]


OUTSIDE = "no run asks"
"""Why an effect is called outside runs: no journal gives a reason."""


class StillUnknown(Exception):
    """A caller outside runs was told that the outcome is unknown: it asks again."""


async def call_outside(guard: Guard, operation: Operation) -> list[Any]:
    """Call an effect outside runs, with one app's store; return what was told.

    Raises:
        StillUnknown: Nobody knows yet.
    """
    bound_guard.set(guard)
    try:
        told = await _act(operation, OUTSIDE)
    except sf.SurefootError:
        await asyncio.sleep(0.5)  # whoever asks again at once is told the same
        raise
    if told[0] == "unknown":
        await asyncio.sleep(0.5)
        raise StillUnknown
    return told


async def perform(operation: Operation, because: str) -> Any:
    """Take one operation; return what was learned by it."""
    what, *rest = operation
    if what in EFFECTS:
        return await _act(operation, because)
    return await _OTHERS[what](because, *rest)


async def _both(because: str, place: str, *operations: Operation) -> list[Any]:
    async def side(number: int, operation: Operation) -> Any:
        async with sf.branch(f"side {number}", place):
            return await perform(operation, because)

    return list(await asyncio.gather(*(side(number, operation) for number, operation in enumerate(operations))))


async def _hurried(because: str, patience_s: float, operation: Operation) -> Any:
    try:
        async with asyncio.timeout(patience_s), sf.branch("hurried"):
            return await perform(operation, because)
    except TimeoutError:
        return ["gave up", operation]


async def _sleep(_because: str, duration_s: float) -> str:
    await sf.sleep(duration_s)
    return "slept"


async def _signal(_because: str) -> Any:
    return ["signal", await sf.wait_signal("go", int)]


async def _look(_because: str) -> Any:
    return await look()


async def _child(_because: str, operations: list[Operation]) -> Any:
    try:
        return await sf.child(program, operations)
    except sf.StepFailed as error:
        return ["child", error.error_type]


_OTHERS: dict[str, Callable[..., Any]] = {
    "both": _both,
    "hurried": _hurried,
    "sleep": _sleep,
    "signal": _signal,
    "look": _look,
    "child": _child,
}


@sf.durable(name="scheduled program")
async def program(operations: list[Operation]) -> list[Any]:
    """Take each operation because of a decision of its own."""
    return [await perform(operation, await decide()) for operation in operations]


def flat(operations: list[Any]) -> list[Operation]:
    """Return all operations, those inside others too."""
    found = []
    for operation in operations:
        found.append(operation)
        inner = [part for part in operation[1:] if isinstance(part, list)]
        nested = inner[0] if operation[0] == "child" else inner
        found += flat(nested)
    return found
