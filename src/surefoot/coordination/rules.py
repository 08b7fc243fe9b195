"""Who comes next at a resource. Pure rules; no clock, no store.

Whoever wants something stands in line under a number, and the numbers are drawn in the order of asking. It is the turn of
whoever has fewer than `places` others before it: those who hold the resource, whatever their number, and those who asked
earlier. One ask for several resources stands in all their lines under one number, and is granted all of them or none, so
the lowest number that waits anywhere waits only for holders: among single asks there can be no deadlock.

Source: Lamport 1974 (the bakery); the lock recipe of ZooKeeper (Hunt et al. 2010); taking all locks at once, in one order
(Havender 1968).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from surefoot.problem import SurefootError

NAME_CHARS_MAX = 512
"""Longest name of a resource, as for keys: names are for people and indexes."""

TTL_MIN_MS = 1_000
"""Shortest life of a lease without renewal: ten times what a busy machine may keep a thread waiting."""

KEEP_MS = 10_000
"""How long a run that was told that what it relied on has changed keeps the resource, to decide again: as long as a model
takes for it, and a third of what others wait at the longest."""

PLACES_MAX = 1_000_000
"""Most places of a semaphore: more than a line that is looked at as a whole could have."""

RESOURCES_MAX = 16
"""Most resources of one ask: each is a row, and all are looked at in one transaction."""


class BadResource(SurefootError):
    """A resource, a limit or a time that means nothing. Nothing was taken."""


@dataclass(frozen=True, slots=True)
class InLine:
    """One that stands at a resource.

    Attributes:
        number: Drawn when it asked.
        is_holding: Whether it has been granted.
    """

    number: int
    is_holding: bool


def canonical(resources: Iterable[str]) -> tuple[str, ...]:
    """Return names in the order in which everybody takes them, each once.

    Raises:
        BadResource: There are none, too many, or one is no name.
    """
    names = tuple(resources)
    if not names:
        raise BadResource("no resource was named", hint='sf.lease("order/7")')
    for name in names:
        if not isinstance(name, str) or not name or len(name) > NAME_CHARS_MAX:
            shown = repr(name) if not isinstance(name, str) or not name else f"a name of {len(name)} characters"
            raise BadResource(
                f"{shown} names no resource", hint=f"a name has 1 to {NAME_CHARS_MAX} characters: order/7"
            )
        if not name.isprintable():
            raise BadResource(f"{name!r} names no resource", hint="a name is printable text: order/7")
    found = tuple(sorted(set(names)))
    if len(found) > RESOURCES_MAX:
        raise BadResource(
            f"{len(found)} resources at once, beginning with {found[0]!r}",
            hint=f"at most {RESOURCES_MAX}; take one lease of what they have in common",
        )
    return found


def checked_ttl_ms(ttl_ms: int, longest_ms: int) -> int:
    """Return the life of a lease without renewal.

    Raises:
        BadResource: It is too short to be renewed in time, or longer than its process keeps anything.
    """
    if not TTL_MIN_MS <= ttl_ms <= longest_ms:
        raise BadResource(
            f"ttl={ttl_ms / 1_000:g} s",
            hint=f"{TTL_MIN_MS / 1_000:g} to {longest_ms / 1_000:g} s: it is renewed as long as its process runs, so it "
            "needn't cover the work",
        )
    return ttl_ms


def before(line: Sequence[InLine], number: int | None) -> list[InLine]:
    """Return who is before the one of that number; None stands for one that has just come."""
    return [one for one in line if one.number != number and (one.is_holding or number is None or one.number < number)]


def is_turn(line: Sequence[InLine], number: int | None, places: int) -> bool:
    """Whether the resource may be granted to the one of that number."""
    return len(before(line, number)) < places


def margin_ms(ttl_ms: int) -> int:
    """Return by how much a holder counts its own lease shorter than the others do."""
    return ttl_ms // 10


def is_expired(*, renewed_boot_ms: int, ttl_ms: int, now_boot_ms: int) -> bool:
    """Whether others may take what was last renewed then."""
    return now_boot_ms >= renewed_boot_ms + ttl_ms


def may_act(*, renewed_boot_ms: int, ttl_ms: int, now_boot_ms: int) -> bool:
    """Whether the holder itself may still rely on it; stricter than what `is_expired` grants it."""
    return now_boot_ms < renewed_boot_ms + ttl_ms - margin_ms(ttl_ms)
