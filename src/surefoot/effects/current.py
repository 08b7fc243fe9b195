"""What an effect's own code can ask: its key, its token, until when it may land."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from surefoot.problem import SurefootError
from surefoot.store import Tx


@dataclass(frozen=True, slots=True)
class CurrentEffect:
    """The attempt that is running.

    Attributes:
        name: The effect's name.
        key: Its key, readable.
        idempotency_key: What to send to a service that dedupes, or as the client's reference: the same for every
            attempt of this effect.
        generation: 1, or more after a refusal or a compensation.
        attempt: How many times this generation was claimed, from 1.
        token: The fencing token: it grows with each claim; a service that compares tokens can refuse older senders.
        expires_at_ms: Wall clock in milliseconds after which a service should refuse this request; None where the
            class of doubt sets none.
        run_id: The run, or None.
        transaction: For a `Transactional` effect, the open transaction; None otherwise.
    """

    name: str
    key: str
    idempotency_key: str
    generation: int
    attempt: int
    token: int
    expires_at_ms: int | None
    run_id: str | None
    transaction: Tx | None = None

    def execute(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a statement in the transaction of a `Transactional` effect; return its rows."""
        if self.transaction is None:
            raise SurefootError(
                f"effect {self.name} has no transaction",
                hint="declare in_doubt=sf.Transactional()",
            )
        return list(self.transaction.connection.execute(sql, bindings))


_current: ContextVar[Callable[[], CurrentEffect] | None] = ContextVar("surefoot_effect", default=None)
"""Builds the description when it is asked for: most effects ask for their key at most once."""


def current_effect() -> CurrentEffect:
    """Return the effect whose code is running.

    Raises:
        SurefootError: Called outside an effect.
    """
    describe = _current.get()
    if describe is None:
        raise SurefootError(
            "current_effect() was called outside an effect", hint="call it in the body of a function with @sf.effect"
        )
    return describe()
