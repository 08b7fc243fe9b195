"""What SQLite and the operating system say of a sick file, in the names of `errors`, with what to do about it.

One table, for opening, reading and writing alike, so that a full disk is `DiskFull` and a damaged page is `CorruptStore`
wherever they are met.
"""

from __future__ import annotations

import errno

import apsw

from surefoot.store.errors import CorruptStore, DiskFull, StoreBusy, StoreError, StoreFailed

SICK_FILE = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.FullError,
    apsw.IOError,
    apsw.NoMemError,
    apsw.NotADBError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
)
"""What says, out of a statement, that the file, not the statement, is at fault."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_AGAIN = "start the process again; all that was acknowledged is recorded"


def named(error: BaseException, path: object, doing: str) -> StoreError:
    """Return an error by its name.

    Args:
        error: What was raised.
        path: The file.
        doing: What failed: "opening", "reading", "writing" or "closing".
    """
    if isinstance(error, StoreError):
        return error
    said = f"{type(error).__name__}: {error}"
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, apsw.FullError) or number in _NO_ROOM:
        found: StoreError = DiskFull(f"{path}: no room on the device ({said})", hint=f"free some room and {_AGAIN}")
    elif _is_damage(error):
        found = CorruptStore(
            f"{path}: the file is damaged or no SQLite database ({said})",
            hint="stop all processes and keep a copy; restore a backup (surefoot restore), or try "
            f"`sqlite3 {path} .recover`; nothing was changed",
        )
    elif isinstance(error, apsw.BusyError | apsw.LockedError):
        found = StoreBusy(
            f"{path}: another program holds the write lock ({said})",
            hint=f"close it (an open transaction in a SQLite shell?) and {_AGAIN}",
        )
    elif number in _NO_DESCRIPTORS:
        found = StoreFailed(
            f"{path}: {doing} failed: this process may open no more files ({said})",
            hint=f"raise its limit (`ulimit -n`), or find what keeps files open, and {_AGAIN}",
        )
    else:
        ending = "; this process records nothing more" if doing == "writing" else ""
        found = StoreFailed(
            f"{path}: {doing} failed ({said}){ending}",
            hint=f"check the disk, the path and its permissions, then {_AGAIN}",
        )
    found.__cause__ = error
    return found


def _is_damage(error: BaseException) -> bool:
    """Whether the file says something that nobody has written: its structure, a page's checksum, or a text is broken."""
    if isinstance(error, apsw.IOError):
        return bool(getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA)
    return isinstance(error, apsw.NotADBError | apsw.CorruptError | UnicodeDecodeError)
