"""Opens a store by its URL: the engine is the URL's scheme."""

from __future__ import annotations

from collections.abc import Sequence

from surefoot.store.clock import Clock
from surefoot.store.codec import Codec
from surefoot.store.migrations import Migration
from surefoot.store.sqlite import open_sqlite
from surefoot.store.store import Store
from surefoot.store.writer import FLUSH_S

POSTGRES = ("postgresql://", "postgres://")


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
    if url.startswith(POSTGRES):
        from surefoot.store.postgres import open_postgres

        return open_postgres(url, migrations, clock=clock, flush_s=flush_s, codec=codec)
    return open_sqlite(url, migrations, clock=clock, flush_s=flush_s, codec=codec)
