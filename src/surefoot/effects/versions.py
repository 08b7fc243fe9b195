"""Optimistic versions: what was read of the world, and whether it is still so when somebody acts on it.

A *versioned* read tells which thing it has read, and in which version: what the service calls it (an etag, the number of a
row), or a digest of its value. An effect that declares `unchanged=` is done only if the thing is still in the version that
the run has read last; otherwise its outcome is *stale*, with the difference, for whoever decides to decide again.

What holds: nothing is sent on what was never read, nor on what has changed before the last look; the look comes after the
claim, so of those who hold the thing as `resource=` too, nobody changes it in between. Others may: send them the version as
a precondition (`sf.current_effect().versions`).

Source: Kung and Robinson 1981 (optimistic validation); RFC 9110, section 13 (preconditions).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic_core import to_jsonable_python

from surefoot.effects.classify import NotDone
from surefoot.effects.keys import BadEffect
from surefoot.journal.values import canonical_bytes

T = TypeVar("T")

VersionOf: TypeAlias = Callable[[Any], "str | int"] | str
"""How a value's version is found: a function of it, or the name of its attribute or key."""

CHANGES_MAX = 20
"""So many differences are told; a model needs no more to look again."""

CHANGED_CHARS_MAX = 300
"""How much of each differing value is told."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a run has read last of a thing, and how to look again.

    Attributes:
        version: Its version.
        data: Its value as JSON data; None where it is not known any more.
        again: Reads it anew: its version now, and its value as JSON data.
    """

    version: str
    data: Any
    again: Callable[[], Awaitable[tuple[str, Any]]]


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """What was read of a thing outside runs.

    Attributes:
        name: The thing.
        version: Its version.
        value: What it was.
        look: How to look again.
        is_remembered: The thing couldn't be reached: it is what this process has read of it last.
    """

    name: str
    version: str
    value: T
    look: Look
    is_remembered: bool = False

    async def check(self) -> None:
        """Look again.

        Raises:
            Stale: It has changed; the error has the difference.
        """
        version, data = await self.look.again()
        if version != self.version:
            raise Stale(self.name, read=self.look.data, now=data, read_version=self.version, now_version=version)


class Stale(NotDone):
    """What was read has changed since, or was never read. Raise it from an effect's code, too, when its service says so.

    Attributes:
        name: The thing.
        difference: `{"name", "read", "now", "changes"}`: both versions, and what differs; kept as the outcome's detail.
    """

    def __init__(
        self, name: str, *, read: Any = None, now: Any = None, read_version: object = None, now_version: object = None
    ) -> None:
        """Say so.

        Args:
            name: The thing.
            read: Its value as it was read, if that is known.
            now: Its value as it is now, if that is known.
            read_version: Its version as it was read, if that is known.
            now_version: Its version now, if that is known.
        """
        before, after = (None if one is None else str(one) for one in (read_version, now_version))
        was, is_now = (to_jsonable_python(one, fallback=repr) for one in (read, now))
        changes = difference(was, is_now) if read is not None and now is not None else []
        self.name = name
        self.difference: dict[str, Any] = {"name": name, "read": before, "now": after, "changes": changes}
        super().__init__(_words(name, before, after, changes), hint="read it again, and decide anew")


def retold(reason: str, difference: Any) -> Stale:
    """Return a staleness as it was recorded."""
    detail = difference if isinstance(difference, dict) else {"name": "", "read": None, "now": None, "changes": []}
    stale = Stale(str(detail.get("name", "")))
    stale.reason = stale.message = reason
    stale.args = (reason,)
    stale.difference = detail
    return stale


def unread(name: str, why: str = "was not read in this run: read it first, then decide") -> Stale:
    """Return what says that an effect relies on something of which its run knows no version."""
    return retold(f"{name} {why}", {"name": name, "read": None, "now": None, "changes": []})


def _words(name: str, read: str | None, now: str | None, changes: list[dict[str, Any]]) -> str:
    versions = "" if read is None or now is None else f", from version {read} to {now}"
    told = "; ".join(f"{one['path'] or 'it'} was {one['read']!r}, is {one['now']!r}" for one in changes[:3])
    more = f"; and {len(changes) - 3} more" if len(changes) > 3 else ""
    return f"{name} has changed since it was read{versions}" + (f": {told}{more}" if told else "")


def difference(read: Any, now: Any) -> list[dict[str, Any]]:
    """Return where two JSON values differ: `{"path", "read", "now"}`, with None for what isn't there; the first 20."""
    found = []
    for change in _differences("", read, now):
        found.append(change)
        if len(found) == CHANGES_MAX:
            break
    return found


def _differences(path: str, read: Any, now: Any) -> Iterator[dict[str, Any]]:
    if isinstance(read, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*read, *now]):
            yield from _differences(f"{path}.{key}" if path else str(key), read.get(key), now.get(key))
    elif isinstance(read, list) and isinstance(now, list):
        for place in range(max(len(read), len(now))):
            pair = (one[place] if place < len(one) else None for one in (read, now))
            yield from _differences(f"{path}[{place}]", *pair)
    elif read != now or type(read) is not type(now):
        yield {"path": path, "read": _short(read), "now": _short(now)}


def _short(value: Any) -> Any:
    text = value if isinstance(value, str) else canonical_bytes(value).decode()
    if len(text) <= CHANGED_CHARS_MAX:
        return value
    return f"{text[:CHANGED_CHARS_MAX]}… ({len(text):,} characters)"


def version_of(value: Any, how: VersionOf | None, owner: str) -> str:
    """Return the version of a value: what the service calls it, or 16 hexadecimal digits of a digest of all of it.

    Raises:
        BadEffect: It has none where it is declared to.
    """
    if how is None:
        data = canonical_bytes(to_jsonable_python(value))
        return hashlib.blake2b(data, digest_size=8).hexdigest()
    found: Any
    match how, value:
        case str(), dict():
            found = value.get(how)
        case str(), _:
            found = getattr(value, how, None)
        case _:
            found = how(value)
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise BadEffect(
            f"read {owner}: its version is {found!r}", hint="version= must give a text or a whole number of every value"
        )
    return str(found)


_remembered: dict[str, Any] = {}

REMEMBERED_MAX = 1_000
"""Values that this process keeps for reads that may be `available`; the oldest goes first."""


def remember(name: str, body: bytes) -> None:
    """Keep what was read of a thing, for when it can't be reached."""
    _remembered.pop(name, None)
    _remembered[name] = body
    while len(_remembered) > REMEMBERED_MAX:
        del _remembered[next(iter(_remembered))]


def remembered(name: str) -> bytes | None:
    """Return what this process has read last of a thing, as JSON; None if it has read nothing of it."""
    found: bytes | None = _remembered.get(name)
    return found
