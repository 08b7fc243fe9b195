"""Sessions: one lease per process, held by a kernel file lock and a row that is renewed.

The file lock makes death visible at once; the row's renewal makes a stopped process lose its place after `TTL_MS`. All
that a process holds (runs, claims) is held by its session, so renewing costs one write per process, not one per thing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from surefoot.leases.rules import TTL_MS, Life, SessionFacts, judge, may_act
from surefoot.problem import SurefootError
from surefoot.store import Clock, Store, StoreError, Tx, new_id
from surefoot.store.connection import Connection
from surefoot.store.naming import named

KEPT = 1_000
"""So many of the newest sessions are kept whatever they are, so that recent outcomes still name their process."""

PRUNED_AT_ONCE = 100
"""Rows of ended sessions that one opening looks at, closes or deletes: a bound for its work, and how many must have come
together before any is deleted."""

_OWN_LOCKS: set[str] = set()
"""Lock files of this process. POSIX locks never conflict within a process, and opening the file again would drop one."""

os.register_at_fork(after_in_child=_OWN_LOCKS.clear)


class LeaseLost(SurefootError):
    """This process no longer holds what it wanted to write for; another may act already. Nothing was recorded."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A session as others see it."""

    session: int
    name: str
    pid: int
    life: Life


class Session:
    """This process's own session. Opened by `Sessions.open`."""

    def __init__(self, store: Store, session: int, name: str, lock: int, lock_file: Path, facts: SessionFacts) -> None:
        self.id = session
        self.name = name
        self.is_lost = False
        self._store = store
        self._lock = lock
        self._lock_file = lock_file
        self._facts = facts
        self._shorter: list[int] = []
        self._is_closing = False
        self._tick = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="surefoot-lease", daemon=True)
        self._thread.start()

    def may_act(self) -> bool:
        """Whether this process may still rely on its session: checked right before something is sent.

        Once it may not, it never may again: others can have taken over what it held, so a later renewal would only make
        two holders of one thing. The process opens a new session and holds nothing at first.
        """
        if not self.is_lost and not may_act(self._facts, now_boot_ms=self._store.clock.boot_ms()):
            self.is_lost = True
        return not self.is_lost

    @property
    def renewed_boot_ms(self) -> int:
        """Boot time of its last renewal, from before that was asked for."""
        return self._facts.renewed_boot_ms

    def hasten(self, ttl_ms: int) -> None:
        """Renew as often as something that lives for so long without renewal needs it, until `relax`."""
        self._shorter.append(ttl_ms)
        if ttl_ms < self._facts.ttl_ms:
            self._tick.set()

    def relax(self, ttl_ms: int) -> None:
        """Undo one `hasten`."""
        self._shorter.remove(ttl_ms)

    def _pause_s(self) -> float:
        return min([self._facts.ttl_ms, *self._shorter]) / 3_000

    def _renew(self) -> None:
        """Renew three times per life. Counted from before the request, so that a slow write shortens our own view."""
        while True:
            if self._tick.wait(self._pause_s()):
                self._tick.clear()
                if self._is_closing:
                    return
            facts, asked_boot_ms = self._facts, self._store.clock.boot_ms()
            try:
                is_renewed = self.may_act() and self._store.writer.commit_blocking(self._renewal, label="renew")
            except StoreError:  # the writer has stopped and told all who wait; without it we hold nothing
                is_renewed = False
            if not is_renewed:
                self.is_lost = True
                return
            self._facts = SessionFacts(facts.boot_id, asked_boot_ms, facts.ttl_ms, is_closed=False)

    def _renewal(self, tx: Tx) -> bool:
        """Renew what others see: from now on, which is later than what we count from, however far the store is."""
        now_boot_ms = self._store.clock.boot_ms()
        tx.execute(
            "UPDATE sessions SET renewed_boot_ms = ? WHERE id = ? AND closed_at_ms IS NULL"
            " AND renewed_boot_ms + ttl_ms > ?",
            (now_boot_ms, self.id, now_boot_ms),
        )
        return tx.connection.changes() == 1

    def close(self, *, is_acting: bool = False) -> None:
        """Give the session back; what it still holds may be taken over at once.

        Args:
            is_acting: Something is still being acted on, in a thread that can't be stopped: the lock is kept until the
                process ends, so that nobody takes the sender for dead.
        """
        self._is_closing = True
        self._tick.set()
        self._thread.join()
        if is_acting:
            return
        _unlock(self._lock, self._lock_file)


class Sessions:
    """Opens our own session and judges those of others."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.workers

    async def open(
        self,
        name: str,
        *,
        ttl_ms: int = TTL_MS,
        in_use: Callable[[Connection], Collection[int] | None] | None = None,
    ) -> Session:
        """Open a session for this process, and tidy up after some that have ended.

        Args:
            name: How this process is called.
            ttl_ms: Its life without renewal.
            in_use: Returns the sessions that open things refer to, or None when there are too many to tell; without it no
                row is deleted.
        """
        ended, old = self._store.read_now(partial(self._to_tidy, in_use))
        lock_file = self._folder / f"{self._store.host}{os.getpid()}-{new_id()}"
        try:
            for left in ended.values():  # before the row says so: the process is dead, with its lock file or without
                (self._folder / left).unlink(missing_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            lock = _lock(lock_file)
        except OSError as error:
            raise named(error, lock_file, "opening") from error
        clock = self._store.clock
        facts = SessionFacts(clock.boot_id(), clock.boot_ms(), ttl_ms, is_closed=False)

        def unit(tx: Tx) -> int:
            tx.execute(
                "INSERT INTO sessions (name, pid, boot_id, lock_file, opened_at_ms, renewed_boot_ms, ttl_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (name, os.getpid(), facts.boot_id, lock_file.name, tx.now_ms, clock.boot_ms(), ttl_ms),
            )
            opened = tx.connection.last_insert_rowid()
            for ended_one in ended:
                tx.execute("UPDATE sessions SET closed_at_ms = ? WHERE id = ?", (tx.now_ms, ended_one))
            for old_one in old:
                tx.execute("DELETE FROM sessions WHERE id = ?", (old_one,))
            return opened

        try:
            session = await self._store.commit(unit, label="session")
        except BaseException:
            _unlock(lock, lock_file)
            raise
        return Session(self._store, session, name, lock, lock_file, facts)

    def _to_tidy(
        self, in_use: Callable[[Connection], Collection[int] | None] | None, connection: Connection
    ) -> tuple[dict[int, str], list[int]]:
        """Return sessions found dead, with their lock files, and rows that may go.

        Nothing refers to a dead session anew, so what is seen here stays true. One that open things refer to stays: who
        looks into a doubt asks whether its sender lives, and in which boot it was claimed.
        """
        rows = connection.execute(
            "SELECT id, lock_file FROM sessions WHERE closed_at_ms IS NULL AND lock_file LIKE ? ORDER BY id LIMIT ?",
            (f"{self._store.host}%", PRUNED_AT_ONCE),
        ).fetchall()
        ended = {
            int(str(session)): str(lock_file)
            for session, lock_file in rows
            if self.holder(connection, int(str(session))).life is Life.DEAD
        }
        found = connection.execute(
            "SELECT id FROM sessions WHERE closed_at_ms IS NOT NULL AND id <= (SELECT max(id) FROM sessions) - ?"
            " ORDER BY id LIMIT ?",
            (KEPT, 10 * PRUNED_AT_ONCE),
        ).fetchall()
        if in_use is None or len(found) < PRUNED_AT_ONCE or (used := in_use(connection)) is None:
            return ended, []
        return ended, [session for row in found if (session := int(str(row[0]))) not in used][:PRUNED_AT_ONCE]

    def holder(self, connection: Connection, session: int) -> Holder:
        """Return what is known of a session's holder, asking the kernel about its lock."""
        return holder_of(connection, self._folder, self._store.clock, session, host=self._store.host)


def holder_of(connection: Connection, folder: Path, clock: Clock, session: int, *, host: str = "") -> Holder:
    """Return what is known of a session's holder, asking the kernel about its lock.

    Args:
        connection: To the store.
        folder: Where the lock files of its sessions are.
        clock: The host's clocks.
        session: The session.
        host: What the lock files of this host begin with: those of others can't be looked at, and prove nothing.
    """
    row = next(
        connection.execute(
            "SELECT name, pid, boot_id, renewed_boot_ms, ttl_ms, closed_at_ms, lock_file FROM sessions WHERE id = ?",
            (session,),
        ),
        None,
    )
    if row is None:
        return Holder(session, f"session {session}", 0, Life.DEAD)  # ended long ago, and its row is gone
    facts = SessionFacts(row[2], row[3], row[4], is_closed=row[5] is not None)
    life = judge(
        facts,
        boot_id=clock.boot_id(),
        now_boot_ms=clock.boot_ms(),
        is_locked=not row[6].startswith(host) or _is_locked(folder / row[6]),
    )
    return Holder(session, row[0], row[1], life)


def live_processes(database: Path) -> list[int]:
    """Return the process ids of the sessions that are open at a path, by their locks alone."""
    folder = Path(f"{database}-workers")
    found = [lock for lock in folder.iterdir() if _is_locked(lock)] if folder.is_dir() else []
    return sorted({int(lock.name.partition("-")[0]) for lock in found if lock.name.partition("-")[0].isdigit()})


def _lock(path: Path) -> int:
    """Make a lock file, and lock it for as long as this process lives."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        _unlock(lock, path)
        raise
    _OWN_LOCKS.add(str(path))
    return lock


def _unlock(lock: int, path: Path) -> None:
    os.close(lock)
    _OWN_LOCKS.discard(str(path))
    with contextlib.suppress(OSError):  # a file that stays is found unlocked, and goes when the next session is opened
        path.unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    """Whether a live process holds the file. What can't be looked at counts as locked: *dead* is a proof."""
    if str(path) in _OWN_LOCKS:
        return True
    try:
        probe = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.lockf(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(probe)
    return False
