"""PostgreSQL: one store for workers on several machines.

What holds:

* *One writer at a time.* Each transaction begins by counting up one row (`surefoot_turn`), whose lock is the turn:
  everybody waits for that row and for nothing else, so there is no deadlock, and what a transaction reads is what is there.
  PostgreSQL hands the lock on in the order in which it was asked for. Group commit makes the turn cheap: see `writer`.
* *A lost answer is looked up.* Each transaction leaves its number in a row of its writer (`surefoot_writers`). When the
  connection breaks, a new one takes the turn, which it gets when the server has ended the old transaction, and reads there
  what became of it. So a broken connection, or a server that starts again, costs time and nothing else.
* *One clock.* Times are the server's, read with each turn; between two turns this host's boot clock goes on from there.
  A server whose clock has gone back is not written to.
* What was acknowledged is on the server's disk: `synchronous_commit` is asserted. A failover to a replica that lags behind
  is outside of the promise.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from surefoot.store import highest, postgres_connection
from surefoot.store.clock import Clock, SystemClock, new_id
from surefoot.store.codec import Codec
from surefoot.store.errors import StoreClosed, StoreError, StoreFailed, UnusablePath
from surefoot.store.migrations import Migration, missing_of
from surefoot.store.postgres_clock import ServerClock
from surefoot.store.postgres_connection import PostgresConnection, Server, in_dialect
from surefoot.store.postgres_desk import NOW_MS, PostgresDesk
from surefoot.store.postgres_errors import driver, named, sick
from surefoot.store.postgres_listening import Listener, Ring
from surefoot.store.readonly import require_format
from surefoot.store.store import Store
from surefoot.store.writer import FLUSH_S, OPEN_AGAIN, Writer

T = TypeVar("T")

_TABLES = """CREATE TABLE IF NOT EXISTS surefoot_turn (one INTEGER PRIMARY KEY CHECK (one = 1), turn INTEGER NOT NULL,
        at_ms INTEGER NOT NULL);
    INSERT INTO surefoot_turn VALUES (1, 0, 0) ON CONFLICT DO NOTHING;
    CREATE TABLE IF NOT EXISTS surefoot_writers (writer TEXT PRIMARY KEY, batch INTEGER NOT NULL, at_ms INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS surefoot_format (room TEXT NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL,
        applied_at_ms INTEGER NOT NULL, PRIMARY KEY (room, version))"""
OPENING_TRIES = 5
"""How often opening begins anew because a connection broke meanwhile; a server that can't be reached is said at once."""

_KEPT_MS = 7 * 24 * 3_600_000
"""Rows of writers that were not heard of for so long are deleted."""


class PostgresStore(Store):
    """A database of a server."""

    def __init__(
        self,
        desk: PostgresDesk,
        clock: ServerClock,
        writer: Writer,
        reader: PostgresConnection,
        place: tuple[Path, str],
        server: Server,
        channel: str,
    ) -> None:
        self.sick = sick()
        self.closed = ()
        folder, host = place
        super().__init__(desk.connection.filename, folder, clock, writer, reader, host=host)
        self._desk = desk
        self._is_closed = False
        self._server = server
        self._channel = channel
        self._listeners: list[Listener] = []

    def _ask(self, query: Callable[[Any], T]) -> T:
        """Ask again after a break, whatever the query made of it."""
        while True:
            try:
                return super()._ask(query)
            except Exception as error:
                if self._is_closed:
                    raise StoreClosed("the store is closed", hint=OPEN_AGAIN) from error
                if isinstance(error.__cause__, driver().errors.QueryCanceled):
                    continue
                if not self._reader.is_broken:
                    raise
                self._reader.connect_again(0.0 if self.writer.failure else postgres_connection.PATIENCE_S)

    def listen(self, ring: Ring) -> None:
        """See `Store`."""
        self._listeners.append(Listener(self._server, self._channel, self._desk.writer, ring))

    @property
    def is_hearing(self) -> bool:
        """See `Store`."""
        return bool(self._listeners) and all(listener.is_hearing for listener in self._listeners)

    def may_take(self, connection: PostgresConnection) -> bool:
        """See `Store`: a lock that goes with its connection."""
        return bool(connection.execute("SELECT pg_try_advisory_lock(hashtext(?))", (self._channel,)).fetchall()[0][0])

    def has_taken(self, connection: PostgresConnection) -> None:
        """See `Store`."""
        connection.execute("SELECT pg_advisory_unlock(hashtext(?))", (self._channel,)).fetchall()

    def named(self, error: BaseException, doing: str) -> StoreError:
        """See `Store`."""
        return named(error, str(self.path), doing)

    def size_bytes(self, connection: PostgresConnection) -> int:
        """See `Store`."""
        found = connection.execute(
            "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class"
            " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
        )
        return int(found.fetchall()[0][0])

    def unused(self, connection: PostgresConnection) -> int:
        """See `Store`: the server's vacuum does that."""
        return 0

    def close(self) -> None:
        """See `Store`."""
        while self._listeners:
            self._listeners.pop().close()
        self.writer.close()
        self._desk.forget()
        self._is_closed = True
        with self._reading:
            self._reader.close()
        self._desk.connection.close()


def open_postgres(
    url: str,
    migrations: Sequence[Migration],
    *,
    clock: Clock | None = None,
    flush_s: float = FLUSH_S,
    codec: Codec | None = None,
) -> PostgresStore:
    """Open a store, and create its tables where there are none.

    Args:
        url: `postgresql://user:password@host/database`; a schema by `?options=-csearch_path%3DNAME`.
        migrations: All rooms' formats, in order.
        clock: This host's clocks; None for the real ones.
        flush_s: See `open_store`.
        codec: See `open_store`.

    Raises:
        UnusablePath, NewerFormat, StoreFailed: See each.
    """
    server = Server(url)
    for tries_left in reversed(range(OPENING_TRIES)):
        connections: list[PostgresConnection] = []
        try:
            return _open(server, connections, migrations, clock or SystemClock(), flush_s, codec)
        except BaseException as error:
            is_broken = any(connection.is_broken for connection in connections)
            for connection in connections:
                connection.close()
            if not isinstance(error, driver().Error):
                raise
            if not (is_broken and tries_left):
                raise named(error, server.name, "opening") from error
    raise AssertionError("the last try returns or raises")


def _open(
    server: Server,
    connections: list[PostgresConnection],
    migrations: Sequence[Migration],
    clock: Clock,
    flush_s: float,
    codec: Codec | None,
) -> PostgresStore:
    """Open it; whoever calls closes the connections that were made, if it comes to nothing."""
    for _ in range(2):
        connections.append(PostgresConnection(server, codec))
    writing, reading = connections
    identity = _prepare(writing, migrations)
    server_clock = ServerClock(clock, identity)
    asked_ms = server_clock.ask()
    server_clock.learn(writing.execute(f"SELECT {NOW_MS}").fetchall()[0][0], asked_ms)
    store = f"{identity} {writing.execute('SELECT current_database(), current_schema()').fetchall()}"
    channel = f"surefoot_{hashlib.sha256(store.encode()).hexdigest()[:16]}"
    desk = PostgresDesk(writing, server_clock, channel)
    writer = Writer(desk, flush_s=flush_s)
    return PostgresStore(desk, server_clock, writer, reading, _place_of(store), server, channel)


def is_made(url: str) -> bool:
    """Whether there is a store.

    Raises:
        UnusablePath: The URL leads nowhere.
    """
    with contextlib.closing(PostgresConnection(Server(url, is_to_write=False), None)) as connection:
        return _schema_of(connection) is not None


@contextlib.contextmanager
def looking_at_postgres(url: str, migrations: Sequence[Migration]) -> Iterator[PostgresConnection]:
    """See `opening.looking_at`: what is seen is of one moment."""
    server = Server(url, is_to_write=False)
    with contextlib.closing(PostgresConnection(server, None)) as connection:
        try:
            with connection:
                if _schema_of(connection) is None:
                    raise StoreFailed(
                        f"{server.name}: has no Surefoot store", hint="name the store that your worker was started with"
                    )
                require_format(_versions(connection), migrations, server.name)
                yield connection
        except driver().Error as error:
            raise named(error, server.name, "reading") from error


def _schema_of(connection: PostgresConnection) -> str | None:
    """Return the schema of the store: the first one of the search path, in which its tables would be made; None where it
    has none.

    Raises:
        UnusablePath: The path leads to no schema, or to a store of another one.
    """
    asked = (
        "SELECT current_schema()::text, (SELECT nspname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE pg_class.oid = to_regclass('surefoot_writers')), current_setting('search_path')"
    )
    first, found, path = connection.execute(asked).fetchall()[0]
    if first is None:
        raise UnusablePath(f"{connection.filename}: search_path is {path!r}, and there is no such schema",
                           hint="CREATE SCHEMA ...; then try again")  # fmt: skip
    if found not in (None, first):
        raise UnusablePath(
            f"{connection.filename}: schema {first} has no Surefoot store, and {found}, behind it in search_path, has one",
            hint=f"say which one is meant: ?options=-csearch_path%3D{found}, or {first} alone",
        )
    return None if found is None else str(found)


def _versions(connection: PostgresConnection) -> dict[str, int]:
    rows = connection.execute("SELECT room, max(version) FROM surefoot_format GROUP BY room").fetchall()
    return dict(rows)


def _prepare(connection: PostgresConnection, migrations: Sequence[Migration]) -> str:
    """Make the tables, if they are not there; return what tells this server from all others."""
    if connection.execute("SHOW fsync").fetchall() != [("on",)]:
        raise StoreFailed(f"{connection.filename}: the server runs with fsync=off, and can lose what it acknowledged",
                          hint="set fsync = on in postgresql.conf")  # fmt: skip
    with connection.real.transaction():
        schema = _schema_of(connection)
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('surefoot ' || current_schema()))")
        if schema is None:
            connection.execute(in_dialect(f"{_TABLES}; {highest.TABLE}"))
        missing = missing_of(_versions(connection), migrations, connection.filename)
        if missing:  # nobody writes meanwhile, and whoever did knows afterwards that somebody has
            connection.execute("UPDATE surefoot_turn SET turn = turn + 1")
        for step in missing:
            connection.execute(in_dialect(step.sql))
            connection.execute(
                f"INSERT INTO surefoot_format VALUES (?, ?, ?, {NOW_MS})", (step.room, step.version, step.name)
            )
        connection.execute(f"DELETE FROM surefoot_writers WHERE at_ms < {NOW_MS} - {_KEPT_MS}")
        identity = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchall()[0][0]
    return f"postgres {identity}"


def _place_of(store: str) -> tuple[Path, str]:
    """Return where processes of this host lock files for a store, and what the files' names begin with.

    A lock proves something only among those who see the same file through the same kernel: a random name in the folder and
    the kernel's boot stand for that. Others' locks are never looked at: they may live until their lease has run out.
    """
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    folder = state / "surefoot" / hashlib.sha256(store.encode()).hexdigest()[:16]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = folder / "place"
        with contextlib.suppress(FileExistsError):
            made = folder / f"place-{new_id()}"
            made.write_text(new_id())
            os.link(made, place)
        for left in folder.glob("place-*"):
            left.unlink(missing_ok=True)
        known = (
            f"{place.read_text()} {place.stat().st_dev} {place.stat().st_ino}"  # a container's copy is another place
        )
    except OSError:  # no home: then nobody can prove that we are dead
        folder, known = Path(tempfile.mkdtemp(prefix="surefoot-")), new_id()
    return folder, hashlib.sha256(f"{known} {SystemClock().boot_id()}".encode()).hexdigest()[:12] + "-"
