"""Page checksums: every page of the file carries one, so that silent damage is an error when it is read.

SQLite's own checksum VFS does it (https://sqlite.org/cksumvfs.html), which comes with apsw: 8 bytes at the end of each
page, computed when a page goes into the database file and verified when it is read from there. Commits go to the log,
whose frames have checksums of SQLite's own, so they cost nothing more; see `log` for what those don't notice.
"""

from __future__ import annotations

import importlib
import threading
from pathlib import Path

import apsw

from surefoot.store.codec import SqliteConnection
from surefoot.store.errors import UnsafeSqlite

VFS = "cksmvfs"
"""The name under which SQLite knows it."""

RESERVED_BYTES = 8
"""What a page keeps for its checksum; the VFS takes exactly this as the sign that there is one."""

_registering = threading.Lock()


def connect(path: Path, flags: int = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE) -> SqliteConnection:
    """Return a connection that verifies and writes checksums, where the file has them.

    Raises:
        UnsafeSqlite: This apsw has no checksum VFS.
    """
    _register()
    return SqliteConnection(str(path), flags=flags, vfs=VFS)


def has_checksums(connection: apsw.Connection) -> bool:
    """Whether the file's pages have checksums, and they are verified."""
    return bool(connection.pragma("checksum_verification"))


def reserve(connection: apsw.Connection) -> None:
    """Ask for room for checksums: in a new file at once, in an old one by its next VACUUM. From then on unused pages can be
    given back to the file system, too."""
    connection.reserve_bytes(None, RESERVED_BYTES)
    connection.pragma("auto_vacuum", "incremental")


def is_laid_out(connection: apsw.Connection) -> bool:
    """Whether the file has the room that `reserve` asks for."""
    return bool(connection.pragma("auto_vacuum") == 2 and has_checksums(connection))


def _register() -> None:
    """Make the VFS known in this process; the default for other connections stays what it was."""
    with _registering:
        known = apsw.vfs_names()
        if VFS in known:
            return
        carrier = apsw.Connection(":memory:")
        try:
            importlib.import_module("apsw.sqlite_extra").load(carrier, "cksumvfs")
        except Exception as error:  # which one depends on how this apsw was built
            raise UnsafeSqlite(
                f"this apsw ({apsw.apsw_version()}) comes without SQLite's checksum VFS ({error})",
                hint="pip install -U apsw  (its wheels carry it)",
            ) from error
        finally:
            carrier.close()
        apsw.set_default_vfs(known[0])
