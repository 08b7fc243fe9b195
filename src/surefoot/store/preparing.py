"""Making a file ready to be opened: it is ours, undamaged, and has the newest format known here.

What holds: called at the turnstile, so that one process at a time does it. A file that is refused is left as it was. The
format is brought forward by a process that has the file alone: whoever has it open with older code would go on writing what
it knows. A crash in between leaves either the old format or the new one, and the next process goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import apsw

from surefoot.store import checksums
from surefoot.store.clock import Clock
from surefoot.store.errors import CorruptStore, StoreBusy, StoreFailed, UnusablePath
from surefoot.store.log import Log
from surefoot.store.migrations import Migration, migrate, missing_steps

APPLICATION_ID = 0x53464F54  # "SFOT": lets `file` and us tell a Surefoot store from another database

_logger = logging.getLogger("surefoot")

BACKUP_ID = 0x5346424B  # "SFBK": to be restored, not worked with
RETIRED_ID = 0x53465254  # "SFRT": another store has taken its place

KINDS = {
    APPLICATION_ID: "is a store",
    BACKUP_ID: "is a backup: keys used since it was taken would be free again",
    RETIRED_ID: "was retired: another store was restored in its place",
}
"""What a file is, by its application_id, in words."""

CLOSING_MS = 10_000
"""How long another process is waited for that closes the file, and has it for itself while it moves the log into it."""

ALONE_MS = 1_000
"""How long a process that wants to bring the format forward waits for others to close the file."""

MIGRATIONS = (
    # What SQL can't say is done by `_lay_out`: every page has a checksum, and unused pages can be given back.
    Migration("store", 1, "page checksums", ""),
)


def prepare(path: Path, migrations: Sequence[Migration], clock: Clock, log: Log) -> None:
    """Make the file, or bring it to the newest format known here.

    Raises:
        CorruptStore: It is another program's database, or damaged.
        NewerFormat: It was written by a newer Surefoot.
        StoreBusy: Its format is older, and another process has it open.
    """
    if log.was_taken_away() and path.exists() and path.stat().st_size:
        _stamp(path)
    connection = checksums.connect(path)
    connection.set_busy_timeout(CLOSING_MS)
    # Were we the last to close it, SQLite would throw away what is unreadable of a damaged log.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    try:
        is_new = _refuse_foreign(connection)
        missing = missing_steps(connection, migrations)
        damage = log.damage(connection)
        if damage is not None:
            raise CorruptStore(
                f"{path}: {damage}",
                hint=f"keep copies of {path} and {path}-wal; restore a backup, or what can be read: "
                f"surefoot restore {path} --to URL",
            )
    finally:
        connection.close()
    if log.is_sick:
        _take_anew(path)
        log.is_sick = False
    if missing:
        _bring_forward(path, migrations, missing, clock, is_new=is_new)
    log.note_closed()


def _take_anew(path: Path) -> None:
    """Move all of the log into the database, from its beginning, after a checkpoint has failed.

    Alone, for with the index of the log that processes share it would begin where the failed one had come.
    """
    connection = checksums.connect(path)
    try:
        connection.set_busy_timeout(ALONE_MS)
        connection.pragma("locking_mode", "exclusive")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreBusy(
            f"{path}: a sync of the database has failed, and others of its processes have it open still",
            hint="check the disk; stop all processes of this store, then start them again",
        ) from error
    finally:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.close()


def _stamp(path: Path) -> None:
    """Give all pages their checksums, after another program has written the log of a killed process back without.

    The file's structure is looked at as a whole first; that the values in it are what they were is taken on trust.
    """
    connection = checksums.connect(path)
    try:
        connection.set_busy_timeout(ALONE_MS)
        connection.pragma("locking_mode", "exclusive")
        if not checksums.has_checksums(connection):
            return  # of an older format
        try:
            connection.execute("PRAGMA integrity_check").fetchall()
            _logger.warning(
                "%s: its log is gone, and nothing is missing but what was in it alone, if it was deleted", path
            )
            return
        except apsw.IOError:
            connection.pragma("checksum_verification", "off")
        found = connection.execute("PRAGMA integrity_check").fetchall()
        if found != [("ok",)]:
            raise CorruptStore(f"{path}: another program has written to it, and left it damaged ({found[0][0]})",
                               hint="keep a copy; restore a backup (surefoot restore)")  # fmt: skip
        connection.execute("VACUUM")
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        _logger.warning("%s: another program has written its log back; its pages have their checksums again", path)
    finally:
        connection.close()


def _refuse_foreign(connection: apsw.Connection) -> bool:
    """Return whether the file is new. Asked first: a file that is not ours is left as it was."""
    owner = connection.pragma("application_id")
    is_new = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()[0][0] == 0
    if owner in (BACKUP_ID, RETIRED_ID):
        hint = f"surefoot restore {connection.filename} --to URL" if owner == BACKUP_ID else "work with that one"
        raise UnusablePath(f"{connection.filename}: {KINDS[owner]}", hint=hint)
    if owner != APPLICATION_ID and not (is_new and owner == 0):
        raise CorruptStore(
            f"{connection.filename}: is a SQLite database of something else (application_id {owner})",
            hint="name another file; Surefoot keeps its store to itself",
        )
    return is_new


def _bring_forward(
    path: Path, migrations: Sequence[Migration], missing: Sequence[Migration], clock: Clock, *, is_new: bool
) -> None:
    connection = checksums.connect(path)
    try:
        connection.set_busy_timeout(ALONE_MS)
        connection.pragma("locking_mode", "exclusive")
        connection.pragma("synchronous", "full")
        if is_new:
            checksums.reserve(connection)
        write_ahead(connection)
        if not checksums.is_laid_out(connection):
            checksums.reserve(connection)
            connection.execute("VACUUM")  # one commit to the log: a crash leaves the old pages or the new ones
        with connection:
            connection.pragma("application_id", APPLICATION_ID)
            migrate(connection, migrations, clock.wall_ms())
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except (apsw.BusyError, apsw.LockedError) as error:
        rooms = ", ".join(dict.fromkeys(step.room for step in missing))
        raise StoreBusy(
            f"{path}: its format is older ({rooms}) and is brought forward only while no other process has it open",
            hint="stop the processes that have it open (surefoot doctor names them), open it once, then start them anew",
        ) from error
    finally:
        connection.close()


def write_ahead(connection: apsw.Connection) -> None:
    """Give the file a write-ahead log.

    Raises:
        StoreFailed: The file system can't.
    """
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise StoreFailed(
            f"{connection.filename}: the file system gives no write-ahead log (journal_mode={mode})",
            hint="put the store on a local disk, not on a network share",
        )
