"""Looking at a store without changing it: a read-only connection, and what can be said of its file.

What holds: nothing here writes to the database, brings its format forward, or keeps workers from their work. (A read-only
connection may leave SQLite's own `-wal` and `-shm` beside the file; they hold nothing.)
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from surefoot.store import preparing
from surefoot.store.checkpoint import INLINE_PAGES
from surefoot.store.clock import Clock, SystemClock
from surefoot.store.codec import SqliteConnection
from surefoot.store.finding import Finding, Severity
from surefoot.store.log import PAGE_BYTES, Log, NotedIn
from surefoot.store.migrations import Migration, versions_of
from surefoot.store.preparing import APPLICATION_ID, KINDS
from surefoot.store.sqlite import connect_to_read, parse_url, refuse_unsafe_sqlite

LOG_BYTES_MAX = 2 * INLINE_PAGES * PAGE_BYTES
"""Above this the log is not emptied as it should be: twice what a busy writer lets it grow to."""

FREE_BYTES_MIN = 256 * 1024 * 1024
"""Free room below which somebody should look: some minutes of a busy store."""

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "fuse.sshfs",
     "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "virtiofs"}
)  # fmt: skip
"""File systems on which locks and shared memory don't do what SQLite needs, or not for sure."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A store that is looked at.

    Attributes:
        url: As it was named.
        path: The database file.
        connection: Reads only.
        migrations: The formats this code knows.
        is_full: Whether to look at every page, which takes as long as reading the file.
        now_ms: Wall clock.
        clock: The host's clocks.
    """

    url: str
    path: Path
    connection: SqliteConnection
    migrations: Sequence[Migration]
    is_full: bool
    now_ms: int
    clock: Clock


def examined(url: str, migrations: Sequence[Migration], *, is_full: bool, clock: Clock | None = None) -> Examined:
    """Return a store to look at; close its connection in the end.

    Raises:
        UnusablePath, CorruptStore: There is nothing there that could be looked at.
    """
    path = parse_url(url).resolve()
    clock = clock or SystemClock()
    return Examined(
        url, path, connect_to_read(path), (*preparing.MIGRATIONS, *migrations), is_full, clock.wall_ms(), clock
    )


def pages(store: Examined) -> Iterator[Finding]:
    """Ask SQLite whether the pages of the file make sense."""
    for row in store.connection.execute(f"PRAGMA {'integrity_check' if store.is_full else 'quick_check'}"):
        if row[0] != "ok":
            yield Finding(Severity.ERROR, f"SQLite finds damage: {row[0]}", RESTORE)


RESTORE = ("stop its workers, keep a copy of the file, and restore a backup: surefoot restore FILE --to URL",)


def library(_store: Examined) -> Iterator[Finding]:
    """Say which SQLite this is; one that can lose commits is refused by all else."""
    version = apsw.sqlite_lib_version()
    refuse_unsafe_sqlite(version)
    yield Finding(Severity.NOTE, f"SQLite {version}, apsw {apsw.apsw_version()}")


def file_format(store: Examined) -> Iterator[Finding]:
    """Compare the file's format with the one this code knows."""
    owner = store.connection.pragma("application_id")
    if owner in KINDS:
        yield Finding(Severity.NOTE, f"it {KINDS[owner]}")
    else:
        yield Finding(Severity.ERROR, f"it is no Surefoot store (application_id {owner})")
    have = versions_of(store.connection)
    newest = {step.room: step.version for step in store.migrations}
    yield Finding(Severity.NOTE, "format: " + ", ".join(f"{room} {version}" for room, version in sorted(have.items())))
    for room, version in sorted(have.items()):
        if version > newest.get(room, 0):
            words = f"the {room} records have format {version}, this Surefoot knows up to {newest.get(room, 0)}"
            yield Finding(Severity.ERROR, words, ("upgrade Surefoot: pip install -U surefoot",))
    older = [room for room, version in newest.items() if have.get(room, 0) < version]
    if older:
        words = (
            f"the format of {', '.join(older)} is older than this Surefoot's; it is brought forward when it is opened"
        )
        yield Finding(Severity.NOTE, words, ("take a backup, stop the processes of the older version, then open it",))


def is_current(store: Examined) -> bool:
    """Whether the tables are those that this code knows."""
    newest = {step.room: step.version for step in store.migrations}
    try:
        return versions_of(store.connection) == newest
    except apsw.Error:  # the check of the format has said so
        return False


def journal_mode(store: Examined) -> Iterator[Finding]:
    """See that the file has a write-ahead log."""
    mode = store.connection.pragma("journal_mode")
    if mode != "wal" and store.connection.pragma("application_id") == APPLICATION_ID:
        yield Finding(Severity.ERROR, f"journal_mode is {mode}, not wal: another program has changed it")


def size(store: Examined) -> Iterator[Finding]:
    """Say how large the file is, how much of it is free, and how much room the disk has left."""
    file_bytes = store.path.stat().st_size
    unused = int(store.connection.pragma("freelist_count")) * PAGE_BYTES
    free = shutil.disk_usage(store.path.parent).free
    yield Finding(Severity.NOTE, f"{file_bytes:,} bytes, {unused:,} of them unused; {free:,} bytes free on the device")
    if free < FREE_BYTES_MIN:
        yield Finding(Severity.WARNING, f"only {free:,} bytes are free on the device", ("gc", "--older-than", "90d"))


def log_size(store: Examined) -> Iterator[Finding]:
    """See that all that was acknowledged can be read from the log, and that it doesn't grow without end."""
    noted = Log(store.path, NotedIn(store.path))
    damage = noted.damage(store.connection)
    if damage is not None:
        yield Finding(Severity.ERROR, damage, RESTORE)
    elif noted.was_taken_away():
        words = "its log is gone: another program has written it back, or it was deleted with the last commits in it"
        yield Finding(Severity.WARNING, words, ("open the store once: pages get their checksums again",))
    log = Path(f"{store.path}-wal")
    log_bytes = log.stat().st_size if log.exists() else 0
    if log_bytes > LOG_BYTES_MAX:
        words = f"the log has {log_bytes:,} bytes: a reader or a backup keeps it from being emptied"
        yield Finding(Severity.WARNING, words, ("look for a process that has a transaction open, and end it",))


def permissions(store: Examined) -> Iterator[Finding]:
    """See who else may read or change the file."""
    mode = store.path.stat().st_mode
    if mode & stat.S_IWOTH:
        yield Finding(Severity.ERROR, "anybody on this host may write to the file", (f"chmod o-w {store.path}",))
    elif mode & stat.S_IROTH:
        yield Finding(
            Severity.NOTE, "anybody on this host may read the file, and all values in it", (f"chmod o-r {store.path}",)
        )
    for place in (store.path, store.path.parent):
        if not os.access(place, os.R_OK | os.W_OK):
            yield Finding(Severity.WARNING, f"{place} is not writable for this user, who can't work with the store")


def file_system(store: Examined) -> Iterator[Finding]:
    """See that the file is on a local disk."""
    kind = file_system_of(store.path, _mounts())
    if kind in NETWORK:
        words = f"the file is on {kind}: locks and shared memory don't work there as they must"
        yield Finding(Severity.ERROR, words, ("move it to a local disk",))
    elif kind == "tmpfs":
        yield Finding(Severity.WARNING, "the file is in memory (tmpfs): it is gone after a reboot")


def _mounts() -> str:
    mounts = Path("/proc/self/mounts")
    return mounts.read_text(errors="replace") if mounts.exists() else ""


def file_system_of(path: Path, mounts: str) -> str:
    """Return the kind of file system a path is on, by the longest mount point above it; empty if it can't be told."""
    found, longest = "", -1
    for mount in mounts.splitlines():
        _, point, kind, *_ = mount.split(" ")
        point = point.replace("\\040", " ")
        if path.is_relative_to(point) and len(point) > longest:
            found, longest = kind, len(point)
    return found
