"""Gates: what must agree before an effect is claimed. `effects` knows nothing else of leases, budgets or approvals.

A gate admits, asks to wait, or refuses, in a fixed order wired by `app`. Its writes join the claim's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from surefoot.store import Tx


@dataclass(frozen=True, slots=True)
class Request:
    """The effect that asks to pass.

    Attributes:
        name: The effect's name.
        key: Its key.
        arguments: Its arguments, canonical.
        run_id: The run it belongs to, or None.
    """

    name: str
    key: str
    arguments: Mapping[str, Any]
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Pass:
    """Go on."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Come again after `retry_ms`, `reason` says for what."""

    reason: str
    retry_ms: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Don't; `reason` is told to the caller."""

    reason: str


Admission: TypeAlias = Pass | Wait | Refuse


class Gate(Protocol):
    """One condition before an effect."""

    name: str

    def admit(self, tx: Tx, request: Request) -> Admission:
        """Decide in the claim's transaction; write only when the answer is `Pass`."""

    def release(self, tx: Tx, request: Request) -> None:
        """Give back what `admit` took; joins the settlement's transaction."""
