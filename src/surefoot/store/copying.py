"""Copies of a store: a backup taken while workers write, and a file made of one.

What holds: a copy is one snapshot; it has its name only once it is whole, verified and synced; nothing is ever overwritten.
A backup carries another `application_id` than a store, so that nobody works with it by mistake: keys that were used after
it was taken are not in it. What restoring means to runs and effects is decided above this room.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw

from surefoot.store import checksums
from surefoot.store.clock import Clock, new_id
from surefoot.store.errors import CorruptStore, UnusablePath
from surefoot.store.finding import Invariant, Severity, broken
from surefoot.store.log import Log, NotedIn
from surefoot.store.naming import named
from surefoot.store.preparing import APPLICATION_ID, BACKUP_ID, KINDS, RETIRED_ID
from surefoot.store.sqlite import connect_to_read

PAGES_AT_ONCE = 1_000
"""Pages between two words about how far it is: 4 MiB."""

MINUTE_MS = 60_000

BESIDE = ("-wal", "-journal", "-desk")
"""What lies beside a store and tells of it: logs, which SQLite would read as those of whatever has the store's name, and
the note of how far the log reached."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that was made.

    Attributes:
        path: Where it is.
        pages: How many pages it has.
        size: Its size in bytes.
        taken_at_ms: Wall clock: all that was acknowledged before is in it.
    """

    path: Path
    pages: int
    size: int
    taken_at_ms: int


Tell = Callable[[int, int], object]
"""Told how many pages are copied, and of how many."""


def backup(source: Path, target: Path, invariants: Iterable[Invariant], clock: Clock, tell: Tell) -> Copied:
    """Copy a store, while others work with it, to a file that can be restored.

    Raises:
        UnusablePath: The target is there already, or can't be made.
        CorruptStore: The store, or the copy, is damaged. No copy was made.
    """
    refuse_existing(target)
    with scratch(target) as copy:
        taken_at_ms = clock.wall_ms()
        pages = copy_pages(source, copy, tell)
        with contextlib.closing(checksums.connect(copy)) as connection:
            connection.pragma("user_version", taken_at_ms // MINUTE_MS)
            connection.pragma("application_id", BACKUP_ID)
        verify(copy, invariants)
        put_in_place(copy, target)
    return Copied(target, pages, target.stat().st_size, taken_at_ms)


def taken_at_ms(connection: apsw.Connection) -> int | None:
    """Return when a backup was taken, rounded down to a minute; None for what is no backup."""
    if connection.pragma("application_id") != BACKUP_ID:
        return None
    return int(connection.pragma("user_version")) * MINUTE_MS


def refuse_existing(target: Path) -> None:
    """Refuse a place that is taken, or that nothing can be put in; and one where another store has left files beside it."""
    for there in (target, *(target.with_name(f"{target.name}{ending}") for ending in BESIDE)):
        if there.exists() or there.is_symlink():
            hint = (
                "name another file" if there == target else "move it to where its database is now, or name another file"
            )
            raise UnusablePath(f"{there}: is there already, and nothing is ever overwritten", hint=hint)
    if not target.parent.is_dir():
        raise UnusablePath(f"{target}: there is no directory {target.parent}", hint=f"mkdir -p {target.parent}")


@contextlib.contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """Give a name beside the target for a file that is not whole yet; whatever is left of it goes in the end."""
    copy = target.with_name(f".{target.name}.{new_id()}.partial")
    try:
        yield copy
    finally:
        for left in copy.parent.glob(f"{copy.name}*"):
            left.unlink()


def copy_pages(source: Path, copy: Path, tell: Tell, *, is_salvage: bool = False) -> int:
    """Copy one snapshot of a database to a new file, and return how many pages it has.

    Raises:
        CorruptStore: A page is damaged; or acknowledged commits can't be read from the log, unless it is a salvage.
    """
    try:
        with (
            contextlib.closing(connect_to_read(source)) as reading,
            contextlib.closing(checksums.connect(copy)) as made,
        ):
            damage = Log(source, NotedIn(source)).damage(reading)
            if damage is not None and not is_salvage:
                raise CorruptStore(f"{source}: {damage}", hint="surefoot doctor")
            made.pragma("page_size", reading.pragma("page_size"))
            if checksums.has_checksums(reading):
                checksums.reserve(made)
            made.pragma("journal_mode", "off")  # a file that is not whole is thrown away
            made.pragma("synchronous", "off")
            made.execute("CREATE TABLE first (page)")  # from the first page in the file the VFS knows about checksums
            with reading, made.backup("main", reading, "main") as copying:
                reading.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # from here on it is one snapshot
                while not copying.done:
                    copying.step(PAGES_AT_ONCE)
                    tell(copying.page_count - copying.remaining, copying.page_count)
                pages = copying.page_count
            made.pragma("journal_mode", "delete")
            return pages
    except apsw.Error as error:
        raise named(error, source, "reading") from error


def verify(path: Path, invariants: Iterable[Invariant]) -> None:
    """Read every page of a copy, and look whether all holds that always should.

    Raises:
        CorruptStore: Something doesn't.
    """
    with contextlib.closing(connect_to_read(path)) as connection:
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            found += [one.words for one in broken(connection, invariants) if one.severity is Severity.ERROR]
        except apsw.Error as error:
            raise named(error, path, "reading") from error
    if found:
        raise CorruptStore(f"what was copied is damaged: {found[0]}", hint="surefoot doctor --full says more")


def refuse_cut_off(source: Path, copy: Path) -> None:
    """Refuse a backup that ends within its last page: SQLite takes what is missing for zeros, and asks for no checksum.

    Raises:
        CorruptStore: It does.
    """
    found, whole = source.stat().st_size, copy.stat().st_size
    if found < whole:
        raise CorruptStore(f"{source}: is cut off: {found:,} bytes of {whole:,}", hint="copy it again, or take another")


def put_in_place(copy: Path, target: Path) -> None:
    """Give a file its name, durably; refuse if something has come there meanwhile."""
    _sync(copy)
    try:
        os.link(copy, target)
    except FileExistsError:
        refuse_existing(target)
    except OSError:  # a file system without links
        refuse_existing(target)
        copy.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def retire(path: Path) -> None:
    """Mark a store so that no process opens it again; refused while one has it open."""
    try:
        with contextlib.closing(checksums.connect(path, apsw.SQLITE_OPEN_READWRITE)) as connection:
            connection.pragma("locking_mode", "exclusive")
            owner = connection.pragma("application_id")
            if owner not in (APPLICATION_ID, RETIRED_ID):
                raise UnusablePath(f"{path}: {KINDS.get(owner, 'is no Surefoot store')}", hint="name the store itself")
            connection.pragma("application_id", RETIRED_ID)
    except apsw.Error as error:
        raise named(error, path, "reading") from error
