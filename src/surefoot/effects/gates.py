"""Gates: what must agree before an effect is claimed. `effects` knows nothing else of leases, budgets or approvals.

A gate admits, asks to wait, or refuses, in a fixed order wired by `app`. Its writes join the claim's transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from surefoot.journal import Record
from surefoot.problem import SurefootError
from surefoot.store import Tx
from surefoot.store.connection import Connection

if TYPE_CHECKING:
    from surefoot.effects.spec import EffectSpec


@dataclass(frozen=True, slots=True)
class Request:
    """The effect that asks to pass.

    Attributes:
        name: The effect's name.
        key: Its key.
        arguments: Its arguments, canonical.
        run_id: The run it belongs to, or None.
        call: 16 bytes of what exactly is asked: the effect, its key and generation, and all its arguments. Claims that were
            left before the act count as one generation with the next.
        run: The run's row, or None.
        step: The step that asks, in its run; empty outside runs.
        session: The session that asks.
        is_keyed: Whether a later call of the same can be known for the same: it has a key, or a step.
        is_needed: What the effect's own gate has said of these arguments (`OwnGate.is_needed`).
        is_asked: Whether the journal has it already that this step asks.
        asked: Returns the record that says so.
        identity: Digest of the effect's identity: the same for all that is asked and given back for one effect.
        resources: What it is declared to hold while it acts, in canonical order.
        resource_timeout_s: How long it may wait for them.
        waited_s: How long this call has waited at gates so far.
    """

    name: str
    key: str
    arguments: Mapping[str, Any]
    run_id: str | None
    call: bytes = b""
    run: int | None = None
    step: str = ""
    session: int = 0
    is_keyed: bool = True
    is_needed: bool = False
    is_asked: bool = False
    asked: Callable[[], Record] | None = None
    identity: bytes = b""
    resources: tuple[str, ...] = ()
    resource_timeout_s: float = 0.0
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pass:
    """Go on.

    Attributes:
        tokens: Counters of the leases it acts under, by resource; they go out with the act, below the incarnation.
    """

    tokens: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Come again after `retry_ms`, `reason` says for what; or, with a `target`, once that has happened.

    Attributes:
        target: A row that somebody will decide about, as ("approval", 7): a run is parked for it, and wakes when it is.
        is_over: Whether it has happened, for callers outside runs, who look again and again.
        problem: What callers outside runs are told instead of waiting; None to let them wait.
        comes: Returns when it is worth asking again, where the gate knows better than `retry_ms`.
    """

    reason: str
    retry_ms: int = 0
    target: tuple[str, int] | None = None
    is_over: Callable[[Connection], bool] | None = None
    problem: SurefootError | None = None
    comes: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Don't; `reason` is told to the caller, as "denied" by us, or as "not_done" where trying again may help."""

    reason: str
    told: Literal["denied", "not_done"] = "denied"


Admission: TypeAlias = Pass | Wait | Refuse


class Gate(Protocol):
    """One condition before an effect."""

    @property
    def name(self) -> str:
        """What it is called."""

    def admit(self, tx: Tx, request: Request) -> Admission:
        """Decide in the claim's transaction; write only when the answer is `Pass`."""

    def release(self, tx: Tx, request: Request) -> None:
        """Give back what `admit` took; joins the settlement's transaction."""


class OwnGate(Gate, Protocol):
    """A condition that one effect declares for itself; asked last, when all others have passed."""

    def check(self, spec: EffectSpec) -> None:
        """Refuse a declaration that fits the effect badly, with `BadEffect`."""

    def is_needed(self, spec: EffectSpec, arguments: Mapping[str, Any]) -> bool:
        """Whether these arguments need it; asked in the caller's own task, before the claim. Must be pure."""

    def give_back(self, tx: Tx, call: bytes) -> None:
        """Let the next claim of this call pass by what the last one has used: that was left before the act."""


class HoldingGate(Gate, Protocol):
    """The condition that an effect holds its resources. Asked after all gates of the app; it may let callers wait."""

    def retake(self, tx: Tx, request: Request) -> Pass:
        """Go on for an effect that was taken over, in that transaction; return its new tokens."""

    def keep(self, tx: Tx, request: Request) -> None:
        """Leave what `admit` took to the run, in the transaction that settles the effect as stale: it decides again."""

    def leave(self, tx: Tx, request: Request) -> None:
        """Forget a caller that was told to wait and waits no more."""


class AroundGate(Gate, Protocol):
    """What the asking code holds around all that it asks for: each effect inside needs it."""

    @property
    def resources(self) -> tuple[str, ...]:
        """What effects inside need not take for themselves."""

    def require(self) -> None:
        """Raise `LeaseLost` unless this process may rely on it; asked right before an act."""

    def retake(self, tx: Tx, request: Request) -> Pass:
        """See `HoldingGate.retake`."""


around: ContextVar[tuple[AroundGate, ...]] = ContextVar("surefoot_around", default=())
"""What the code that is running holds, the outermost first."""
