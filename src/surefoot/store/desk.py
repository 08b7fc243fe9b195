"""What the writer asks of an engine: its turn, a transaction, and what to make of a fault."""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Protocol

from surefoot.store.connection import Connection, Rows
from surefoot.store.errors import StoreError
from surefoot.store.tx import Turn, Waiting


class Desk(Protocol):
    """Where transactions are made, one at a time among all processes of a store. Only the writer's thread stands at it.

    Used as a context manager around one turn, in which one transaction begins, and ends by `commit` or `rollback`.

    Attributes:
        before_waiting: Called before another process is waited for, so that nobody waits for it with an answer that is
            there.
        is_far: Whether each statement costs a round trip, so that even a single unit is worth a hurry.
    """

    is_far: bool
    before_waiting: Callable[[], object]

    @property
    def connection(self) -> Connection:
        """The connection that is written through."""

    @property
    def execute(self) -> Callable[..., Rows]:
        """Its way to run a statement, the quickest there is."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def is_at_fault(self, error: BaseException) -> bool:
        """Whether the store, not a unit, is at fault for what was raised by a turn, or by the beginning or the end of a
        transaction."""

    def is_sick(self, error: BaseException, *, is_alone: bool) -> bool:
        """The same of what units raised; a unit that is alone is the user's code, which may raise anything."""

    def begin(self, numbered: Collection[str], *, is_owing: bool) -> Turn:
        """Begin a transaction.

        Args:
            numbered: The tables whose next ids may be told, if that costs nothing.
            is_owing: Whether answers are there that nobody was told of: then `before_waiting` is called before anybody is
                waited for.
        """

    def write(self, waiting: Waiting) -> None:
        """Write rows that were put, and check what was trusted.

        Raises:
            Mistrusted: See `Tx.flush`.
        """

    def query(self, waiting: Waiting, sql: str, bindings: Any) -> Rows:
        """Write rows that were put, check what was trusted, and run a statement.

        Raises:
            Mistrusted: See `Tx.flush`.
        """

    def finish(self, waiting: Waiting, rings: Collection[str]) -> None:
        """Write the last of them; what is left for `commit` is waiting.

        Args:
            waiting: As for `write`.
            rings: What other processes are told of with the commit, if there is a way.

        Raises:
            Mistrusted: See `Tx.flush`; `commit` may say so too.
            Exception: A unit has kept to itself an error after which nothing can be committed.
        """

    def commit(self, newest: int) -> None:
        """Make it durable.

        Args:
            newest: The highest id of a journal row in it; 0 for none.

        Raises:
            Mistrusted: It can't be, since what was finished was not so.
        """

    def rollback(self) -> None:
        """Undo it, if it has begun and not ended."""

    def has_landed(self, error: BaseException) -> bool | None:
        """Find out what became of a transaction that a fault has ended: True if it is durable, False if there is nothing
        of it and it may be done again, None if the store can be used no more."""

    def was_cut_off(self) -> bool:
        """Whether the transaction of which there is nothing was open for as long as any may be."""

    @property
    def is_due(self) -> bool:
        """Whether `after_commit` will take long."""

    def after_commit(self) -> None:
        """Do what the engine needs between two transactions."""

    def named(self, error: BaseException) -> StoreError:
        """Return a fault by its name."""
