"""Opens a store by its URL: the engine is the URL's scheme."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from surefoot.store import readonly
from surefoot.store.clock import Clock
from surefoot.store.codec import Codec
from surefoot.store.connection import Connection
from surefoot.store.errors import UnusablePath
from surefoot.store.migrations import Migration
from surefoot.store.sqlite import open_sqlite, parse_url
from surefoot.store.store import Store
from surefoot.store.writer import FLUSH_S

POSTGRES = ("postgresql://", "postgres://")

_PASSWORD = re.compile(r"(://[^:@/]*:)[^/]*(?=@)|([?&](?:ssl)?password=)[^&]*")
"""As libpq reads it: whatever stands between the first colon and the @, be it another colon, a # or a ?."""


def is_on_postgres(url: str) -> bool:
    """Whether a URL names a database of a PostgreSQL server."""
    return url.startswith(POSTGRES)


def shown(url: str) -> str:
    """Return a URL as it may be seen: without its password."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", url) if is_on_postgres(url) else url


def require_url(url: str) -> None:
    """Refuse what names no database.

    Raises:
        UnusablePath: It is no URL of a file or a PostgreSQL database.
    """
    if not isinstance(url, str):
        raise UnusablePath(f"{url!r} is not a database URL", hint=f'"sqlite:///{url}"')
    if not is_on_postgres(url):
        parse_url(url)


def open_store(
    url: str,
    migrations: Sequence[Migration],
    *,
    clock: Clock | None = None,
    flush_s: float = FLUSH_S,
    codec: Codec | None = None,
) -> Store:
    """Open or create a store.

    Args:
        url: `sqlite:///path.db`, or `postgresql://user@host/database`.
        migrations: All rooms' formats, in order.
        clock: None for the host's.
        flush_s: Seconds a record nobody waits for may stay in memory; 0 < flush_s.
        codec: How values lie on disk; None: as they are.

    Raises:
        UnusablePath, UnsafeSqlite, NewerFormat, CorruptStore, StoreBusy, StoreFailed: See each; it is left as it was.
    """
    if is_on_postgres(url):
        from surefoot.store.postgres import open_postgres

        return open_postgres(url, migrations, clock=clock, flush_s=flush_s, codec=codec)
    return open_sqlite(url, migrations, clock=clock, flush_s=flush_s, codec=codec)


def is_there(url: str) -> bool:
    """Whether a URL names a store that was made already.

    Raises:
        UnusablePath: It leads nowhere.
    """
    if is_on_postgres(url):
        from surefoot.store.postgres import is_made

        return is_made(url)
    return parse_url(url).exists()


@contextmanager
def looking_at(url: str, migrations: Sequence[Migration]) -> Iterator[Connection]:
    """Yield a connection that can only read; see `readonly`.

    Args:
        url: As for `open_store`.
        migrations: All rooms' formats: the store must be exactly of these.

    Raises:
        OlderFormat, NewerFormat: It is of another format.
        UnusablePath, CorruptStore, StoreBusy, StoreFailed: See each.
    """
    if is_on_postgres(url):
        from surefoot.store.postgres import looking_at_postgres

        with looking_at_postgres(url, migrations) as connection:
            yield connection
        return
    with readonly.looking_at(url, migrations) as file:
        yield file
