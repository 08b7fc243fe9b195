"""The effects of schedules: every class of doubt and every guard, each against one simulated service.

`EFFECTS` says of each what the laws and the plans have to know. What an effect is about, its *thing*, are the words of its
arguments; that is also how the services' own books call it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from tests.property.outside import outside
from tests.support.services import LONGEST_LIFE_S, Refused, Sent, Service

import surefoot as sf

OUTSIDE = "no run asks"
"""Why an effect is called outside runs, and what an effect says that takes no words: no journal gives a reason."""

VALID_FOR_S = 3
"""Seconds for which an approval stands."""


def services(checks: str) -> dict[str, Service]:
    """Return the services of a new world; `checks` is what those with a look-up compare, see `Service`."""
    all_of_them = (
        Service("keys", has_keys=True),
        Service("look-up", has_look_up=True, checks=checks),
        Service("nothing"),
        Service("bank", has_keys=True),
        Service("store", has_keys=True),
        Service("hire"),
        Service("desk", has_look_up=True, checks=checks),
        Service("shelf", has_keys=True),
        Service("register"),
    )
    return {one.name: one for one in all_of_them}


async def _send(service: str, thing: str, text: str) -> str:
    now = sf.current_effect()
    outside().note_act(now)
    sent = Sent(service, thing, now.idempotency_key, now.token, now.expires_at_ms, text)
    return await outside().network.call(outside().services[service], sent)


def _asking(service: str) -> sf.Probe:
    async def ask(item: str, desk: str = "") -> sf.Landed | sf.NotLanded | sf.CannotTell:
        now, network = sf.current_effect(), outside().network
        thing = f"{desk} {item}".strip()
        await asyncio.sleep(0.001)
        if network._draw.random() < network.is_bad / 3:
            raise ConnectionResetError("reset by peer")
        network.on_ask(service, thing)
        found = outside().services[service].look_up(now.idempotency_key, now.token)
        return sf.NotLanded() if found is None else sf.Landed(found)

    return sf.Probe(ask, longest_life=f"{LONGEST_LIFE_S}s")


_KEYS = sf.Resend(key_ttl="1h")
_PROBE = _asking("look-up")

# -- the classes of doubt ----------------------------------------------------------------------------------------------


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


class _Kept:
    """A connection of recovery to the register, which stays open."""

    def __init__(self) -> None:
        self.cursor, self.commit, self.rollback = (
            getattr(outside().register, name) for name in ("cursor", "commit", "rollback")
        )

    def close(self) -> None:
        """The register is one of its world's."""


RECEIPTS = sf.Receipts(_Kept, paramstyle=sqlite3.paramstyle)
"""Where the register has them; each world makes the table."""


@sf.effect(key="enrol:{item}", free_text=("because",), in_doubt=sf.Transactional(receipts=RECEIPTS))
async def scheduled_enrolment(item: str, because: str) -> str:
    """Write to another database, which has receipts; the answer may be lost after its commit."""
    world, now = outside(), sf.current_effect()
    await world.network.connect()
    try:
        value = now.receipt(world.register.execute, f"register {item} 1")
        world.register.commit()
    except BaseException:
        world.register.rollback()
        raise
    world.services["register"].landed.setdefault(item, []).append(now.idempotency_key)
    await asyncio.sleep(0.01)
    if world.network._draw.random() < world.network.is_bad:
        raise ConnectionResetError("reset by peer")
    return value


# -- keys and people ---------------------------------------------------------------------------------------------------


@sf.effect(key="transfer:{account}:{item}", free_text=("because",), in_doubt=_KEYS, refused_on=(Refused,),
           one_request=True)  # fmt: skip
async def scheduled_transfer(account: str, item: str, total: int, because: str) -> str:
    """One of two parts of a key, and an amount that must agree."""
    return await _send("bank", f"{account} {item} {total}", because)


def _is_for_people(item: str, total: int) -> bool:
    """Say whether somebody must approve; of all items but the first it depends on the mood of the day."""
    is_asked = item == "A" or outside().is_strict
    if not is_asked:
        outside().waived.add(f"{item} {total}")
    return is_asked


@sf.effect(key="pay:{item}", in_doubt=_KEYS, refused_on=(Refused,), one_request=True,
           approve=sf.Approve(when=_is_for_people, valid_for=VALID_FOR_S))  # fmt: skip
async def scheduled_payment(item: str, total: int) -> str:
    """Approved by people; an answer to one amount is none to another."""
    return await _send("bank", f"{item} {total}", OUTSIDE)


# -- what is undone ----------------------------------------------------------------------------------------------------


@sf.effect(in_doubt=_KEYS, refused_on=(Refused,), one_request=True)
async def scheduled_release(item: str) -> str:
    return await _send("store", f"undo {item}", OUTSIDE)


@sf.effect(key="hold:{item}", free_text=("because",), in_doubt=_KEYS, refused_on=(Refused,), one_request=True,
           compensate=scheduled_release)  # fmt: skip
async def scheduled_hold(item: str, because: str) -> str:
    return await _send("store", item, because)


@sf.effect(refused_on=(Refused,), one_request=True)
async def scheduled_return(item: str) -> str:
    return await _send("hire", f"undo {item}", OUTSIDE)


@sf.effect(refused_on=(Refused,), one_request=True, compensate=scheduled_return)
async def scheduled_hire(item: str, because: str) -> str:
    """Only a person can say whether it was done, or undone."""
    return await _send("hire", item, because)


# -- what is shared ----------------------------------------------------------------------------------------------------


@sf.effect(in_doubt=_asking("desk"), refused_on=(Refused,), one_request=True, resource="desk/{desk}",
           resource_timeout_s=1.0)  # fmt: skip
async def scheduled_work(desk: str, item: str, because: str) -> str:
    """Nobody else works at the desk meanwhile."""
    return await _send("desk", f"{desk} {item}", because)


@sf.versioned("shelf/{shelf}", version="version")
async def scheduled_shelf(shelf: str) -> dict[str, Any]:
    """Look at what others change."""
    await asyncio.sleep(0.001)
    return outside().look_at(shelf)


@sf.effect(in_doubt=_KEYS, refused_on=(Refused,), one_request=True, unchanged="shelf/{shelf}")
async def scheduled_order(item: str, shelf: str, because: str) -> str:
    """Rely on what was seen of a shelf."""
    return await _send("shelf", f"{item} {shelf}", because)


async def _look(arguments: Mapping[str, Any]) -> None:
    await scheduled_shelf.outcome(arguments["shelf"])  # what could not be read is stale, and the effect says so


# -- what is known of them ---------------------------------------------------------------------------------------------


class Declared(NamedTuple):
    """What laws and plans know of an effect.

    Attributes:
        effect: The effect.
        service: Whose books it is in; "bookings" for our own database.
        key_words: How many words of its thing are its key, shared by all who ask; 0: each call is its own.
        parameters: Those that say what it is about, in order.
        says_why: Whether it takes words, which differ from call to call.
        undo: What undoes it, or None.
        before: Awaited before it is called, with its arguments; None for nothing.
    """

    effect: Any
    service: str
    key_words: int = 0
    parameters: tuple[str, ...] = ("item",)
    says_why: bool = True
    undo: Any = None
    before: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None


EFFECTS: dict[str, Declared] = {
    "charge": Declared(scheduled_charge, "keys", 1),
    "post": Declared(scheduled_post, "keys"),
    "mail": Declared(scheduled_mail, "look-up", 1),
    "note": Declared(scheduled_note, "look-up"),
    "ship": Declared(scheduled_ship, "nothing", 1),
    "parcel": Declared(scheduled_parcel, "nothing"),
    "letter": Declared(scheduled_letter, "nothing"),
    "book": Declared(scheduled_booking, "bookings", 1),
    "enrol": Declared(scheduled_enrolment, "register", 1),
    "transfer": Declared(scheduled_transfer, "bank", 2, ("account", "item", "total")),
    "pay": Declared(scheduled_payment, "bank", 1, ("item", "total"), says_why=False),
    "hold": Declared(scheduled_hold, "store", 1, undo=scheduled_release),
    "hire": Declared(scheduled_hire, "hire", undo=scheduled_return),
    "work": Declared(scheduled_work, "desk", 0, ("desk", "item")),
    "order": Declared(scheduled_order, "shelf", 0, ("item", "shelf"), before=_look),
}

UNDOABLE = tuple(what for what, declared in EFFECTS.items() if declared.undo is not None)


def thing(arguments: list[Any] | tuple[Any, ...]) -> str:
    """Return what a call is about, in words."""
    return " ".join(map(str, arguments))


def about(call: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what a claim is about: operation, service and thing; for an undo, "undo"."""
    for what, (effect, service, _, parameters, *_rest) in EFFECTS.items():
        if effect.__name__ == call["effect"]:
            return what, service, thing([call["arguments"][name] for name in parameters])
    what = next(what for what in UNDOABLE if EFFECTS[what].undo.__name__ == call["effect"])
    return "undo", EFFECTS[what].service, f"undo {call['arguments']['item']}"
