"""The last look before an effect is sent: is what its run has read of the world still so?"""

from __future__ import annotations

from typing import Any

from surefoot.effects.classify import describe
from surefoot.effects.live.case import Case
from surefoot.effects.versions import Look, Stale, unread


async def find_stale(case: Case) -> Stale | None:
    """Return what has changed of the things that an effect declares as `unchanged`, or None if nothing has.

    Only before a first send: of a later one nobody could tell whether the first has made the change.
    """
    frame = case.frame
    if frame is None or case.is_resent:
        return None
    for name in case.spec.unchanged_of(case.bound):
        look: Look | None = frame.seen.get(name)
        if look is None:
            return unread(name)
        try:
            version, data = await look.again()
        except Exception as error:
            return unread(name, f"could not be looked at again, so nothing was sent: {describe(error)}")
        if version != look.version:
            frame.seen[name] = Look(version, data, look.again)
            return Stale(name, read=look.data, now=data, read_version=look.version, now_version=version)
    return None


def note_stale(case: Case, difference: dict[str, Any]) -> None:
    """Note, on replay, that the run has been told of a newer version."""
    frame, now = case.frame, difference["now"]
    assert frame is not None, "only runs replay"
    look: Look | None = frame.seen.get(difference["name"])
    if look is not None and now is not None:
        frame.seen[difference["name"]] = Look(now, None, look.again)
