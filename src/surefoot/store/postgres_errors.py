"""Psycopg, and what it says by the names of `errors`."""

from __future__ import annotations

from typing import Any

from surefoot.store.errors import DiskFull, StoreBusy, StoreError, StoreFailed, UnitFailed, UnusablePath

LOCK_TIMEOUT_MS = 60_000
"""Longest wait for a turn, which takes milliseconds: whoever has it is stopped, or cut off and not missed yet."""


def named(error: BaseException, name: str, doing: str) -> StoreError:
    """Return what psycopg says by the names of `errors`."""
    psycopg = driver()
    if isinstance(error, StoreError):
        return error
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, psycopg.errors.LockNotAvailable):
        found: StoreError = StoreBusy(
            f"{name}: another process has held the turn for over {LOCK_TIMEOUT_MS // 1_000} s ({said})",
            hint="find it with `SELECT * FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'` and end it",
        )
    elif isinstance(error, psycopg.errors.DiskFull):
        found = DiskFull(f"{name}: no room on the server ({said})", hint="free some room, and start the process again")
    elif isinstance(error, psycopg.errors.InsufficientPrivilege):
        found = StoreFailed(
            f"{name}: {doing} failed ({said})",
            hint="open it once as the owner of its schema, which makes the tables; then GRANT what docs/postgresql.md says",
        )
    else:
        ending = "; this process records nothing more" if doing == "writing" else ""
        found = StoreFailed(
            f"{name}: {doing} failed ({said}){ending}", hint="look into the server's log, and start again"
        )
    found.__cause__ = error
    return found


def error_of(result: Any) -> Exception | None:
    """Return what the server said was wrong with a statement of a pipeline; None if it was done."""
    psycopg = driver()
    status = psycopg.pq.ExecStatus
    if result.status in (status.COMMAND_OK, status.TUPLES_OK):
        return None
    code = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) if result.status == status.FATAL_ERROR else None
    if code is None:  # skipped, since one before it failed
        return psycopg.errors.InFailedSqlTransaction("an earlier statement failed")  # type: ignore[no-any-return]
    kind, said = psycopg.errors.lookup(code.decode()), result.get_error_message()
    if kind is psycopg.errors.ProgramLimitExceeded:  # which psycopg counts as the server's fault
        return UnitFailed(
            f"too large for the server: {said.strip()}", hint="is an id, or a name, no longer than 2,000 bytes?"
        )
    return kind(said)  # type: ignore[no-any-return]


def sick() -> tuple[type[BaseException], ...]:
    """Return what says that the server or the way to it is at fault."""
    psycopg = driver()
    return (psycopg.OperationalError, psycopg.InterfaceError)


def driver() -> Any:
    """Return psycopg.

    Raises:
        UnusablePath: It is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        raise UnusablePath("PostgreSQL needs psycopg", hint='pip install "surefoot[postgres]"') from error
    return psycopg
