"""Moves the write-ahead log into the database, beside the writer, so that no commit waits for it.

A passive checkpoint on a connection of its own runs while commits go on. Under unbroken load it never catches up, and
the log would grow: above `INLINE_PAGES` the writer finishes the few remaining pages itself, between two batches, after
which SQLite starts the log from the beginning. (Overlapping checkpoints and commits of two connections are what the
SQLite versions refused in `sqlite` could lose commits by; the bundled library is free of it.)
"""

from __future__ import annotations

import contextlib
import threading

import apsw

from surefoot.store.log import Log

START_PAGES = 4_000
"""Log pages (4 KiB each) from which a checkpoint runs beside the writer: four times SQLite's own default, since a page that
many commits have written is moved once."""

INLINE_PAGES = 8_000
"""Log pages from which the writer finishes the checkpoint itself: 32 MiB, the bound of the log under load."""


class Checkpointer:
    """A thread that sleeps until the log is long enough."""

    def __init__(self, writer: apsw.Connection, own: apsw.Connection, log: Log) -> None:
        self._writer = writer
        self._own = own
        self._log = log
        self._pages = 0
        self._is_running = False
        self._has_run = False
        self._wake = threading.Event()
        self._is_closing = False
        self.failure: apsw.Error | None = None
        writer.wal_autocheckpoint(0)
        writer.set_wal_hook(self._on_commit)
        self._thread = threading.Thread(target=self._run, name="surefoot-checkpoint", daemon=True)
        self._thread.start()

    def _on_commit(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._pages = pages
        self._log.note_commit(pages)
        return apsw.SQLITE_OK

    @property
    def is_due(self) -> bool:
        """Whether the writer itself must finish a checkpoint now."""
        return self._pages >= INLINE_PAGES and self._has_run and not self._is_running

    def before_commit(self, newest: int) -> None:
        """Called by the writer: the commit that comes has written records up to this one, or none."""
        self._log.newest = max(self._log.newest, newest)
        if self._writer.txn_state("main") == apsw.SQLITE_TXN_WRITE:  # not if a unit has swallowed what ended it
            self._log.make_room()

    def after_commit(self) -> None:
        """Called by the writer between two batches."""
        if self._pages < START_PAGES or self._is_running or self._log.is_sick:
            return
        if self.is_due:
            self._has_run = False
            self._move(self._writer)
        else:
            self._has_run = self._is_running = True
            self._wake.set()

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.wait()
            self._wake.clear()
            if self._is_closing:
                return
            self._move(self._own)
            self._is_running = False

    def _move(self, connection: apsw.Connection) -> None:
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.BusyError, apsw.LockedError):  # another process is at it: then ours comes later
            pass
        except apsw.FullError:  # nothing was lost; where the writer itself moves the log, it stops
            if connection is self._writer:
                raise
        except apsw.Error as error:
            self._log.is_sick = True
            self.failure = error
        self._log.may_begin_anew()

    def close(self) -> None:
        """Stop the thread and close its connection."""
        self._is_closing = True
        self._wake.set()
        self._thread.join()
        close_connection(self._own, keeps_log=self._log.is_sick)
        self._log.close()


def close_connection(connection: apsw.Connection, *, keeps_log: bool = False) -> None:
    """Close a connection. Closing moves the log into the database if it can; if not, all is in the log, and stays there.

    Args:
        connection: Which.
        keeps_log: Don't move it.
    """
    with contextlib.suppress(apsw.Error):
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(keeps_log))
        connection.close()
