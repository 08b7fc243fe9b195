"""Opening a store only to look at it: no byte of it is written, no format is brought forward, no lock is taken.

Others may write meanwhile: each query sees a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import apsw

from surefoot.store import checksums, preparing
from surefoot.store.errors import NewerFormat, OlderFormat, StoreFailed
from surefoot.store.migrations import Migration, versions_of
from surefoot.store.naming import named
from surefoot.store.preparing import APPLICATION_ID
from surefoot.store.sqlite import parse_url, real_path, refuse_unsafe_sqlite
from surefoot.store.sqlite_desk import BUSY_TIMEOUT_MS


@contextmanager
def looking_at(url: str, migrations: Sequence[Migration]) -> Iterator[apsw.Connection]:
    """Yield a connection that can only read.

    Args:
        url: `sqlite:///path.db`.
        migrations: All rooms' versions_of: the store must be exactly of these.

    Raises:
        OlderFormat, NewerFormat: It is of another format.
        CorruptStore, StoreBusy, StoreFailed: See each.
    """
    path = real_path(parse_url(url))
    refuse_unsafe_sqlite(apsw.sqlite_lib_version())
    try:
        connection = checksums.connect(path, apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        if connection.pragma("application_id") != APPLICATION_ID:
            raise StoreFailed(
                f"{path}: is not a Surefoot store", hint="name the store that your worker was started with"
            )
        require_format(versions_of(connection), (*preparing.MIGRATIONS, *migrations), connection.filename)
    except apsw.Error as error:
        raise named(error, path, "reading") from error
    try:
        yield connection
    finally:
        connection.close()


def require_format(there: dict[str, int], migrations: Sequence[Migration], name: str) -> None:
    """Raise where a store is not of just the format that is known here.

    Args:
        there: The format of each of its rooms.
        migrations: The steps that are known here.
        name: The store's, for the message.
    """
    known = {step.room: max(one.version for one in migrations if one.room == step.room) for step in migrations}
    if any(version > known.get(room, 0) for room, version in there.items()):
        raise NewerFormat(f"{name}: has a newer format than this Surefoot", hint="upgrade Surefoot")
    if there != known:
        raise OlderFormat(
            f"{name}: has the format of an earlier Surefoot, and is only looked at here",
            hint="copy the store while no worker runs, open the copy once with this version, and look at that",
        )
