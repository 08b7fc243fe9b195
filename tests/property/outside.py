"""The world of one schedule as effects see it: the services, what others change, and what was asked of live code."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import weakref
from collections import Counter
from typing import Any

from tests.support.services import Network, Service

import surefoot as sf
from surefoot.testing.laws import LawBroken, require

OTHERS_CHANGE = 0.3
"""How often a shelf is changed right after somebody has looked."""


class Outside:
    """The world of one schedule.

    Attributes:
        is_strict: Whether people want to be asked today, where that depends on the day.
        waived: What nobody needed to approve, at least once.
        shelves: How often somebody has changed each shelf.
        register: Another database.
        recoded: The runs of which the code is another today: it takes the operations in reverse.
        broken: The first law that was broken while an effect acted; the engine would take it for an error of the effect.
    """

    def __init__(self, network: Network, services: dict[str, Service]) -> None:
        self.network = network
        self.services = services
        self.decisions = 0
        self.is_strict = True
        self.waived: set[str] = set()
        self.shelves: Counter[str] = Counter()
        self.register = sqlite3.connect(":memory:", check_same_thread=False)
        weakref.finalize(self, self.register.close)
        self.recoded: frozenset[str] = frozenset()
        self.broken: LawBroken | None = None
        self._others = random.Random(0)
        self._looked: dict[tuple[object, str], str] = {}
        self._workers: dict[tuple[str, int], object] = {}

    def look_at(self, shelf: str) -> dict[str, Any]:
        """Return what is on a shelf. Others may change it at once; which version was seen last is noted for `note_act`."""
        changes = self.shelves[shelf]
        self._looked[asyncio.current_task(), f"shelf/{shelf}"] = f"v{changes}"
        self.shelves[shelf] += self._others.random() < OTHERS_CHANGE
        return {"version": f"v{changes}", "changes": changes}

    def note_act(self, now: sf.CurrentEffect) -> None:
        """Note that an effect's code begins, and check what it was begun on."""
        try:
            for name, version in now.versions.items():
                seen = self._looked.get((asyncio.current_task(), name))
                is_first = now.attempt == 1
                require(not is_first or seen == version, "nothing is sent on what has changed since it was read",
                        effect=now.key, relies_on=version, last_look=seen)  # fmt: skip
            for name, token in now.tokens.items():
                worker = self._workers.setdefault((name, token), asyncio.get_running_loop())
                require(worker is asyncio.get_running_loop(), "a token is one worker's", resource=name, token=token)
        except LawBroken as error:
            self.broken = self.broken or error


_outside: list[Outside] = []


def enter(outside: Outside) -> None:
    """Make this the world that effects act on."""
    _outside[:] = [outside]


def outside() -> Outside:
    """Return the world that effects act on."""
    return _outside[0]
