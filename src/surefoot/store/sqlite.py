"""Opening a SQLite store so that what it acknowledges is on disk: WAL, synchronous=FULL, no mmap, its own SQLite.

`Store` is all the other rooms see: append, commit, barrier, read, clock. Each room owns its tables and its SQL.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import apsw

from surefoot.store import checksums, preparing
from surefoot.store.checkpoint import Checkpointer, close_connection
from surefoot.store.clock import Clock, SystemClock
from surefoot.store.codec import Codec, SqliteConnection
from surefoot.store.errors import CorruptStore, StoreError, UnsafeSqlite, UnusablePath
from surefoot.store.log import Log
from surefoot.store.migrations import Migration
from surefoot.store.naming import SICK_FILE, named
from surefoot.store.sqlite_desk import BUSY_TIMEOUT_MS, SqliteDesk
from surefoot.store.store import Store
from surefoot.store.turnstile import PATIENCE_S, Turnstile
from surefoot.store.whereabouts import Whereabouts
from surefoot.store.writer import FLUSH_S, Writer

CACHE_KIB = 32_768  # the index of 500,000 effect keys is about 20 MiB: it stays in memory
READER_CACHE_KIB = 4_096  # reads are of few rows; what is written anew is dropped from this cache anyway


def parse_url(url: str) -> Path:
    """Return the file a `sqlite:///relative.db` or `sqlite:////absolute.db` URL names.

    Raises:
        UnusablePath: Another scheme, a host, or no file name.
    """
    scheme, separator, rest = url.partition("://")
    hint = (
        'use "sqlite:///agents.db" for a file here, "sqlite:////var/lib/agents.db" for an absolute path, '
        'or "postgresql://user@host/database"'
    )
    if scheme in ("postgres", "postgresql"):
        raise UnusablePath(
            f"{url.rsplit('@', maxsplit=1)[-1]!r} is on a PostgreSQL server, and this is for a store that is a file",
            hint="use the server's own tools: pg_dump for a backup, pg_restore, pg_amcheck; see docs/postgresql.md",
        )
    if scheme != "sqlite" or not separator:
        raise UnusablePath(f"{url!r} is not a database URL", hint=hint)
    if not rest.startswith("/") or rest in ("/", "/:memory:"):
        raise UnusablePath(f"{url!r} names no file (a store in memory could not survive a crash)", hint=hint)
    return Path(rest[1:])


class SqliteStore(Store):
    """A file, and its log beside it.

    Attributes:
        path: The file.
    """

    path: Path

    sick = (*SICK_FILE, UnicodeDecodeError)
    closed = (apsw.ConnectionClosedError,)

    def __init__(self, path: Path, clock: Clock, writer: Writer, checkpointer: Checkpointer, reader: apsw.Connection,
                 turnstile: Turnstile, log: Log, connection: apsw.Connection) -> None:  # fmt: skip
        super().__init__(path, Path(f"{path}-workers"), clock, writer, reader)
        self._checkpointer = checkpointer
        self._reader: apsw.Connection = reader
        self._turnstile = turnstile
        self._log = log
        self._connection = connection

    def named(self, error: BaseException, doing: str) -> StoreError:
        """See `Store`."""
        return named(error, self.path, doing)

    def listen(self, ring: Callable[[Collection[str]], None]) -> None:
        """See `Store`: a file tells nothing, and is looked into often."""

    def may_take(self, connection: apsw.Connection) -> bool:
        """See `Store`: a turn for nothing is cheap."""
        return True

    def has_taken(self, connection: apsw.Connection) -> None:
        """See `Store`."""

    def size_bytes(self, connection: apsw.Connection) -> int:
        """See `Store`."""
        return int(connection.pragma("page_count")) * int(connection.pragma("page_size"))

    def unused(self, connection: apsw.Connection) -> int:
        """See `Store`."""
        return int(connection.pragma("freelist_count"))

    def close(self) -> None:
        """Write what is queued and give everything back; the last process to close truncates the log."""
        self.writer.close()
        self._checkpointer.close()
        with self._reading:
            close_connection(self._reader, keeps_log=self._log.is_sick)
        close_connection(self._connection, keeps_log=self._log.is_sick)
        try:
            if self._turnstile.is_free():  # else somebody has the file open, and so the log
                self._log.note_closed()
        except OSError as error:
            raise self.named(error, "closing") from error
        finally:
            self._turnstile.close()


def open_sqlite(
    url: str,
    migrations: Sequence[Migration],
    *,
    clock: Clock | None = None,
    flush_s: float = FLUSH_S,
    codec: Codec | None = None,
) -> SqliteStore:
    """Open or create a store.

    Args:
        url: `sqlite:///path.db`.
        migrations: All rooms' formats, in order.
        clock: None for the host's.
        codec: How values lie on disk; None: as they are.
        flush_s: Seconds a record nobody waits for may stay in memory; 0 < flush_s.

    Raises:
        UnusablePath, UnsafeSqlite, NewerFormat, CorruptStore, StoreBusy: See each; the file is left as it was.
    """
    path = real_path(parse_url(url))
    refuse_unsafe_sqlite(apsw.sqlite_lib_version())
    with contextlib.ExitStack() as undo:
        try:
            _check_place(path)
            clock = clock or SystemClock()
            turnstile = Turnstile(path)
            undo.callback(turnstile.close)
            log = Log(path, turnstile)
            undo.callback(log.close)
            with turnstile:
                preparing.prepare(path, (*preparing.MIGRATIONS, *migrations), clock, log)
                connection = _connect(path, CACHE_KIB, undo)
                preparing.write_ahead(connection)
            # Only now: a connection that has not seen the log yet moves nothing of it.
            reader, checkpoints = (_connect(path, READER_CACHE_KIB, undo) for _ in range(2))
            connection.codec = reader.codec = codec
            log.open()
            whereabouts = Whereabouts(path)
            turnstile.wait_s = PATIENCE_S
        except (apsw.Error, OSError, UnicodeDecodeError) as error:
            raise named(error, path, "opening") from error
        undo.pop_all()
    checkpointer = Checkpointer(connection, checkpoints, log)
    desk = SqliteDesk(connection, clock, turnstile, checkpointer, whereabouts)
    writer = Writer(desk, flush_s=flush_s)
    return SqliteStore(path, clock, writer, checkpointer, reader, turnstile, log, connection)


def refuse_unsafe_sqlite(version: str) -> None:
    """Raise `UnsafeSqlite` for a library that can lose commits in WAL mode."""
    numbers = tuple(int(part) for part in version.split("."))
    is_fixed = numbers >= (3, 51, 3) or (3, 50, 7) <= numbers < (3, 51) or (3, 44, 6) <= numbers < (3, 45)
    if not is_fixed:
        raise UnsafeSqlite(
            f"SQLite {version} can lose commits in WAL mode (fixed in 3.51.3, 3.50.7 and 3.44.6)",
            hint="pip install -U apsw  (its wheels carry their own SQLite)",
        )


def real_path(path: Path) -> Path:
    """Return one name for one file, however it is spelled: its locks and its workers are found by that name."""
    try:
        real = path.resolve()
        if real.is_symlink():  # from Python 3.13 on a loop is no error
            raise RuntimeError("a loop of links")
        return real
    except (OSError, RuntimeError) as error:
        raise UnusablePath(f"{path}: leads nowhere ({error})", hint="name a file, not a loop of links") from error


def _check_place(path: Path) -> None:
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UnusablePath(f"{path}: there is no directory {folder}", hint=f"mkdir -p {folder}")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise UnusablePath(f"{path}: is not a file", hint="name a file, for example sqlite:///agents.db")
    if path.exists() and (names := path.stat().st_nlink) > 1:
        raise UnusablePath(
            f"{path}: is a file with {names} names (hard links), and would have a log beside each of them",
            hint=f"find the others with `find . -inum {path.stat().st_ino}` and remove them; copy a store instead",
        )
    for place in (folder, path) if path.exists() else (folder,):
        if not os.access(place, os.R_OK | os.W_OK):
            raise UnusablePath(
                f"{place}: not writable for this user (a store needs its log beside the file)",
                hint=f"chown or chmod {place}, or name another path",
            )


def connect_to_read(path: Path) -> SqliteConnection:
    """Return a connection that reads only.

    Raises:
        CorruptStore, StoreBusy, StoreFailed: It can't be read.
    """
    try:
        connection = checksums.connect(path, apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.Error as error:
        raise named(error, path, "opening") from error
    return connection


def _connect(path: Path, cache_kib: int, undo: contextlib.ExitStack) -> SqliteConnection:
    connection = checksums.connect(path)
    undo.callback(close_connection, connection)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    for pragma in ("mmap_size=0", f"cache_size=-{cache_kib}", "synchronous=FULL", "foreign_keys=OFF"):
        connection.execute(f"PRAGMA {pragma}")
    if not checksums.has_checksums(connection):
        raise CorruptStore(
            f"{path}: its header says that its pages have no checksums, and they have",
            hint="the file is damaged: keep a copy, and restore a backup (surefoot restore)",
        )
    return connection
