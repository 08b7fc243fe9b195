"""What an effect's own code can ask: its key, its token, until when it may land."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from surefoot.effects.receipts import Parameters
from surefoot.problem import SurefootError
from surefoot.store import Tx

T = TypeVar("T")

Execute = Callable[[str, Parameters], object]
ExecuteAsync = Callable[[str, Parameters], Awaitable[object]]
Receipt = tuple[str, Parameters, Callable[[], Any]]
"""A statement, its parameters, and what notes that it was executed and returns the value as it will be read back."""


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
        token: The fencing token: it grows with each claim; a service that compares tokens can refuse older senders. That of
            the lease of the first resource the effect declares, if it declares one, else of the effect itself.
        tokens: The tokens of all leases it acts under, by resource.
        versions: The versions of what it declares as `unchanged`, as its run has read them: send them as preconditions.
        expires_at_ms: Wall clock in milliseconds after which a service should refuse this request; None where the
            class of doubt sets none.
        run_id: The run, or None.
        transaction: For a `Transactional` effect in our store's own database, the open transaction; None otherwise.
    """

    name: str
    key: str
    idempotency_key: str
    generation: int
    attempt: int
    token: int
    expires_at_ms: int | None
    run_id: str | None
    tokens: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    transaction: Tx | None = None
    _write_receipt: Callable[[Any], Receipt] | None = None

    def execute(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a statement in the transaction of a `Transactional` effect; return its rows."""
        if self.transaction is None:
            raise SurefootError(
                f"effect {self.name} has no transaction",
                hint="declare in_doubt=sf.Transactional()",
            )
        return self.transaction.execute_apart(sql, bindings)

    def receipt(self, execute: Execute, value: T) -> T:
        """Leave the receipt of a `Transactional(receipts=...)` effect, in the transaction that does the effect.

        Let its errors through: they mean that this attempt is no longer wanted, and must roll back the transaction.

        Args:
            execute: Runs a statement in your open transaction: `cursor.execute`, or `connection.execute` where there is
                one. Called once, with SQL and parameters in the declared paramstyle.
            value: What the effect came to. This is its outcome, whatever the function returns.

        Returns:
            The value as it will be read back.

        Raises:
            Unserializable: The value can't be kept.
            Exception: Whatever the driver raises, above all that the key is taken: somebody has recovered this effect.
        """
        sql, parameters, note = self._receipt(value)
        answer = execute(sql, parameters)
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise SurefootError(
                f"effect {self.name}: this execute is asynchronous, so the receipt was not written",
                hint="await sf.current_effect().receipt_async(execute, value)",
            )
        copy: T = note()
        return copy

    async def receipt_async(self, execute: ExecuteAsync, value: T) -> T:
        """As `receipt`, for drivers whose `execute` is awaited."""
        sql, parameters, note = self._receipt(value)
        await execute(sql, parameters)
        copy: T = note()
        return copy

    def _receipt(self, value: Any) -> Receipt:
        if self._write_receipt is None:
            raise SurefootError(
                f"effect {self.name} leaves no receipts",
                hint="declare in_doubt=sf.Transactional(receipts=sf.Receipts(connect, paramstyle=...))",
            )
        return self._write_receipt(value)


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
