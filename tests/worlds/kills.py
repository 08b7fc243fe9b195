"""Where a worker is killed: the points of an effectful call's life, and the trap that springs at one of them.

Kills are real SIGKILLs. The service sends those that hit while a request is in its hands; a `Trap` in the worker sends
the others, from wrappers around what the engine calls (its store, its client), so that no engine needs a switch for it.

==============  ===================================================  =====================================
point           what is durable and what has happened                who kills
==============  ===================================================  =====================================
before_claim    nothing of this call                                 the engine's adapter, around its store
after_claim     the intent, if the engine writes one; nothing sent   the client, before it sends
lost_call       sent, arrived nowhere                                the service
during_call     sent and acted, not answered                         the service
during_call +   sent, not acted yet: the act lands that much later   the service
straggles_s
after_reply     acted and answered, the answer not recorded          the client, when the answer is read
after_record    the outcome                                          the engine's adapter, around its store
==============  ===================================================  =====================================
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from enum import StrEnum

from tests.worlds.service import Fault


class Point(StrEnum):
    """A moment in the life of an effectful call."""

    BEFORE_CLAIM = "before_claim"
    AFTER_CLAIM = "after_claim"
    LOST_CALL = "lost_call"
    DURING_CALL = "during_call"
    AFTER_REPLY = "after_reply"
    AFTER_RECORD = "after_record"
    BEFORE_LOOK_UP = "before_look_up"
    DURING_LOOK_UP = "during_look_up"
    AFTER_LOOK_UP = "after_look_up"
    ANY = "any"
    """Whichever crossing of the trap is the n-th: sweeps a recovery without knowing its steps."""


@dataclass(frozen=True)
class Kill:
    """One SIGKILL: where, at which call, and what its request does afterwards."""

    point: Point
    label: str | None = None
    """The call; None: whichever gets there first."""
    nth: int = 1
    """At which crossing, from 1, of those that match."""
    straggles_s: float | None = None
    """With `during_call`: the act lands that many seconds after the kill instead of before it."""
    claims_on_arrival: bool = False
    """With `straggles_s`: whether the service holds the request already, or the network still does."""

    @property
    def fault(self) -> Fault | None:
        """The fault to arm, when it is the service that kills."""
        match self.point:
            case Point.LOST_CALL:
                return Fault(self.label, kill="arrival", lands_after_s=None)
            case Point.DURING_CALL if self.straggles_s is not None:
                late = self.claims_on_arrival
                return Fault(self.label, kill="arrival", lands_after_s=self.straggles_s, claims_on_arrival=late)
            case Point.DURING_CALL:
                return Fault(self.label, kill="acted")
            case Point.DURING_LOOK_UP:
                return Fault(self.label, "look_up", kill="acted")
            case _:
                return None

    def __str__(self) -> str:
        if self.point is Point.ANY:
            return "each crossing"
        late = f"+{self.straggles_s * 1000:.0f}ms" if self.straggles_s is not None else ""
        inside = " inside" if self.claims_on_arrival else ""
        return f"{self.point.value}{late}{inside}"


@dataclass
class Trap:
    """Kills this process when it crosses the point it is set to. Unset, it does nothing."""

    kill: Kill | None = None
    _crossings: int = field(default=0, init=False)

    def reached(self, point: Point, label: str | None = None) -> None:
        """Say that this process is at a point of a call; does not return if the trap is set to it."""
        kill = self.kill
        if kill is None or kill.fault is not None:
            return
        if kill.point not in (point, Point.ANY) or kill.label not in (None, label):
            return
        self._crossings += 1
        if self._crossings == kill.nth:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()
