"""Being told by other processes that there is something to do: PostgreSQL's LISTEN, on a connection of its own.

What holds: a notice is a hint and never a fact; whoever gets one looks. A notice that is lost, with a connection or with a
server, costs the time until the next look; after a break all is looked at anew. A process is not told of what it wrote
itself.

A notice says what a transaction has left for others (`Tx.ring`): its writer, then what it rang for, one word each.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Collection
from typing import Any

from surefoot.store.errors import UnusablePath
from surefoot.store.postgres_connection import TRY_AGAIN_S, Server
from surefoot.store.postgres_errors import driver

WORDS_BYTES_MAX = 7_000
"""Of one notice: PostgreSQL takes less than 8,000; a longer one says EVERYTHING."""

EVERYTHING = "*"

Ring = Callable[[Collection[str]], None]
"""Is called, in a thread of the listener's, with what was rung for; `EVERYTHING` among it when that is not known."""


def notice(writer: str, words: Collection[str]) -> str:
    """Return what a transaction's notice says."""
    said = " ".join([writer, *sorted(words)])
    return said if len(said) <= WORDS_BYTES_MAX else f"{writer} {EVERYTHING}"


class Listener:
    """Listens until it is closed.

    Attributes:
        is_hearing: Whether notices arrive now.
    """

    def __init__(self, server: Server, channel: str, writer: str, ring: Ring) -> None:
        self.is_hearing = False
        self._server = server
        self._channel = channel
        self._writer = writer
        self._ring = ring
        self._is_closing = threading.Event()
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="surefoot-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._is_closing.set()
        os.eventfd_write(self._end, 1)
        self._thread.join()
        os.close(self._end)

    def _run(self) -> None:
        pause_s, gone = 0.0, (UnusablePath, driver().OperationalError, driver().InterfaceError)
        while not self._is_closing.wait(pause_s):
            try:
                with self._server.connect() as real:
                    real.execute(f"LISTEN {self._channel}")
                    pause_s, self.is_hearing = 0.0, True
                    self._ring((EVERYTHING,))  # what came while nobody listened
                    self._hear(real.pgconn)
            except gone:
                pause_s = min(1.0, max(TRY_AGAIN_S, pause_s * 2))
            self.is_hearing = False

    def _hear(self, connection: Any) -> None:
        """Pass notices on until it is closed, or the way breaks."""
        waiting = select.poll()
        waiting.register(connection.socket, select.POLLIN)
        waiting.register(self._end, select.POLLIN)
        while not self._is_closing.is_set():
            connection.consume_input()
            words: set[str] = set()
            while (found := connection.notifies()) is not None:
                writer, *said = found.extra.decode().split(" ")
                if writer != self._writer:
                    words.update(said)
            if words:
                self._ring(words)
            waiting.poll()
