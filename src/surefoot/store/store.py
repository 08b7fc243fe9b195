"""A store that is open: one ordered writer, a reader, a clock. What engines do differently: `sqlite` and `postgres`."""

from __future__ import annotations

import asyncio
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from surefoot.store.clock import Clock
from surefoot.store.connection import Connection
from surefoot.store.errors import StoreClosed, StoreError
from surefoot.store.writer import OPEN_AGAIN, Writer

T = TypeVar("T")


class Store(ABC):
    """One open database.

    Attributes:
        path: Where it is, for messages: a file, or a URL without its password.
        workers: The folder in which processes of this host show that they live (see `leases`).
        host: What the names of their locks begin with, where processes of other hosts use the store too.
        clock: Its time.
        writer: Its writer.
    """

    sick: tuple[type[BaseException], ...]
    """What says that the database, not the query, is at fault."""

    closed: tuple[type[BaseException], ...]
    """What says that the connection was closed by us."""

    def __init__(
        self, path: Path | str, workers: Path, clock: Clock, writer: Writer, reader: Connection, *, host: str = ""
    ) -> None:
        self.path: Path | str = path
        self.workers = workers
        self.host = host
        self.clock = clock
        self.writer = writer
        self.append = writer.append
        self.commit = writer.commit
        self._reader: Any = reader
        self._reading = threading.Lock()
        # A thread of its own: those of the loop may all be busy with users' code, which may hang.
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="surefoot-read")

    @property
    def is_hearing(self) -> bool:
        """Whether other processes' rings arrive now, so that looking by oneself is a safety net; see `listen`."""
        return False

    @abstractmethod
    def listen(self, ring: Callable[[Collection[str]], None]) -> None:
        """Be told of what other processes have rung for (`Tx.ring`), in a thread of the store's, until it is closed; where
        the engine has a way."""

    @abstractmethod
    def may_take(self, connection: Any) -> bool:
        """Whether this process, of all that see the same work now, is the one that should take it; ask again soon if not.

        A hint, so that one process takes a turn for it and not each: whoever loses patience takes it all the same.

        Args:
            connection: What the work was seen through, inside `read`.
        """

    @abstractmethod
    def has_taken(self, connection: Any) -> None:
        """Let others take what comes next."""

    async def barrier(self) -> None:
        """Return once everything appended so far is on disk."""
        await self.commit(_nothing, label="barrier")

    async def read(self, query: Callable[[Any], T]) -> T:
        """Run a query on what is committed, not what is queued, off the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._reads, self.read_now, query)

    def read_now(self, query: Callable[[Any], T]) -> T:
        """Run a query in this thread; for the command line and for bulk loads at start."""
        with self._reading:
            return self._ask(query)

    def _ask(self, query: Callable[[Any], T]) -> T:
        try:
            return query(self._reader)
        except self.closed as error:
            raise StoreClosed("the store is closed", hint=OPEN_AGAIN) from error
        except self.sick as error:
            traceback.clear_frames(error.__traceback__)
            raise self.named(error, "reading") from error
        except BaseException as error:
            # A query that raises half way leaves its cursor to the traceback, and with it the snapshot open: every
            # later read would see the past for as long as somebody keeps the error.
            traceback.clear_frames(error.__traceback__)
            raise

    @abstractmethod
    def named(self, error: BaseException, doing: str) -> StoreError:
        """Return an error of the database by its name."""

    @abstractmethod
    def size_bytes(self, connection: Any) -> int:
        """Return how much room all records take, read through one of its connections."""

    @abstractmethod
    def unused(self, connection: Any) -> int:
        """Return how many pages could be given back to the file system; 0 where that is not ours to do."""

    @abstractmethod
    def close(self) -> None:
        """Write what is queued and give everything back."""


def _nothing(_tx: object) -> None:
    return None
