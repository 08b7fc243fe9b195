"""What can go wrong with the file underneath, each by its own name, and what is still safe then."""

from __future__ import annotations

from surefoot.problem import SurefootError


class StoreError(SurefootError):
    """The store could not do what was asked. What was acknowledged before stays recorded."""


class UnusablePath(StoreError):
    """The database URL names a place that can't be opened: no such directory, no permission, not a file."""


class UnsafeSqlite(StoreError):
    """The linked SQLite can lose commits in WAL mode (3.7.0 to 3.51.2, fixed in 3.51.3, 3.50.7 and 3.44.6)."""


class OlderFormat(StoreError):
    """The file was written by an earlier Surefoot, and may not be brought forward by whoever only looks at it."""


class NewerFormat(StoreError):
    """The file was written by a newer Surefoot; opening it could damage it."""


class CorruptStore(StoreError):
    """The file is damaged or is not a Surefoot store."""


class StoreBusy(StoreError):
    """Another program holds the write lock of the file for longer than the limit."""

    is_retryable = True


class DiskFull(StoreError):
    """No room left on the device. Nothing of the refused batch was recorded; all that was acknowledged before is."""

    is_retryable = True


class StoreFailed(StoreError):
    """A write or sync failed; the writer has stopped, because after a failed sync nobody knows what is on disk.

    Nothing more is acknowledged by this process. What was acknowledged before is recorded; a new process reads it back
    from disk (Rebello et al., ATC 2020: after a failed fsync a retry can report success without the data).
    """


class StoreClosed(StoreError):
    """The store was closed, or this process is a fork of the one that opened it."""


class UnitFailed(SurefootError):
    """What was to be written raised something that is no ordinary error (a cancellation, an exit), or is too large or too
    long for the server. Nothing was written."""


class InsideTransaction(SurefootError):
    """The store was asked to write by something that runs inside one of its own transactions: it would wait for itself."""
