"""One call of an effect on its way to an outcome: what is asked, what the ledger has answered, and the act in progress."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from surefoot.effects.gates import AroundGate, OwnGate, Request
from surefoot.effects.keys import Identity, call_digest
from surefoot.effects.rows.ledger import Row
from surefoot.effects.spec import Bound, EffectSpec
from surefoot.journal import Frame, Kind, Record, Step
from surefoot.journal.values import canonical_bytes


class Case(msgspec.Struct):
    """One call of an effect on its way to an outcome.

    `resources` is what it must take for itself, `around` what the code around it holds; `leads` is the resource it declares
    first, whoever holds it. `asking` is the record that its last claim has written instead: that it asks for approval.
    """

    spec: EffectSpec
    bound: Bound
    arguments: bytes
    identity: Identity
    frame: Frame | None
    step: Step | None
    row: Row | None = None
    is_resent: bool = False
    sends: int = 0
    asks: int = 0
    is_precondition_failed: bool = False
    patience_s: float | None = None
    is_wanted: bool = True
    is_awaited: bool = True
    why_unknown: str = ""
    receipt: tuple[bytes, Any] | None = None
    is_gate_needed: bool | None = None
    asking: Record | None = None
    approve: OwnGate | None = None
    around: tuple[AroundGate, ...] = ()
    tokens: tuple[tuple[str, int], ...] = ()
    resources: tuple[str, ...] = ()
    leads: str = ""
    waited_s: float = 0.0

    @property
    def has_gates(self) -> bool:
        """Whether it has gates of its own."""
        return self.approve is not None or bool(self.resources) or bool(self.around)

    @property
    def run_id(self) -> str | None:
        """The run this call belongs to."""
        return None if self.frame is None else self.frame.run_id

    @property
    def request(self) -> dict[str, Any]:
        """The arguments as data."""
        asked: dict[str, Any] = msgspec.json.decode(self.arguments)
        return asked

    def call(self, generation: int) -> bytes:
        """See `Request.call`."""
        return call_digest(self.identity.digest, generation, canonical_bytes(self.request))

    def gate_request(self, generation: int = 0, session: int = 0, asked: Callable[[], Record] | None = None) -> Request:
        """What gates are shown; those that only give back need no more than the effect's name, key and arguments."""
        if asked is None:
            return Request(
                self.spec.name,
                self.identity.key,
                self.request,
                self.run_id,
                run=None if self.frame is None else self.frame.run,
                session=session,
                identity=self.identity.digest,
                resources=self.resources,
            )
        step, frame = self.step, self.frame
        return Request(
            name=self.spec.name,
            key=self.identity.key,
            arguments=self.request,
            run_id=self.run_id,
            call=self.call(generation),
            run=None if frame is None else frame.run,
            step="" if step is None else step.key,
            session=session,
            is_keyed=self.spec.template is not None or step is not None,
            is_needed=bool(self.is_gate_needed),
            is_asked=step is not None and step.opened is not None and step.opened.kind is Kind.ASKED,
            asked=asked,
            identity=self.identity.digest,
            resources=self.resources,
            resource_timeout_s=self.spec.resource_timeout_s,
            waited_s=self.waited_s,
        )


class Acting(msgspec.Struct, eq=False):
    """An effect this process acts on, or looks into, right now, and who waits for it: in any loop of the process.

    `is_in_thread` says that its caller has left and a thread still runs it.
    """

    is_in_thread: bool = False
    has_ended: bool = False
    _waits: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return when it has ended."""
        future = asyncio.get_running_loop().create_future()
        self._waits.append(future)
        if not self.has_ended:  # asked after we stand in the list: who ends it in another thread sees us, or we the end
            await future

    def end(self) -> None:
        """Tell who waits; the act is no longer among those in progress."""
        self.has_ended = True
        for future in self._waits:
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits in it any more
                future.get_loop().call_soon_threadsafe(_come, future)


def _come(future: asyncio.Future[None]) -> None:
    if not future.done():  # who waited may have lost patience
        future.set_result(None)


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What the ledger answered: the row, and whether we may act on it."""

    row: Row
    is_ours: bool
