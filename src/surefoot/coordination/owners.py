"""Who lives of those that hold a resource or wait for it: an effect, a run, or a session.

owned by an effect    until the ledger has its outcome: what is in doubt keeps its resource, for its request may land yet
owned by a run        until the run ends: a takeover, an eviction or a restart leaves it the run's
kept by a run         likewise, and no longer than `KEEP_MS`
owned by a session    until the session is dead, or was not renewed for the lease's own time
waiting               as long as somebody waits: its session lives, or, parked, its run is open
"""

from __future__ import annotations

from collections.abc import Callable

from surefoot.coordination import rules
from surefoot.coordination.tables import Row
from surefoot.effects.rows import ledger
from surefoot.leases import Life, Sessions
from surefoot.store.connection import Connection

PATIENCE_MS = 10_000
"""How long after it should have given up one that waits in memory is left in the line: its process may be slow."""


class Owners:
    """Judges owners by the tables of their rooms."""

    def __init__(
        self, sessions: Sessions, boot_ms: Callable[[], int], is_open: Callable[[Connection, int], bool]
    ) -> None:
        """Begin.

        Args:
            sessions: Judges sessions.
            boot_ms: Tells the boot time.
            is_open: Whether a run has not ended.
        """
        self._sessions = sessions
        self._boot_ms = boot_ms
        self._is_open = is_open

    def is_alive(self, connection: Connection, row: Row) -> bool:
        """Whether a row still counts."""
        if not row.is_held:
            return self._waits(connection, row)
        if row.effect is not None:
            found = ledger.find(connection, row.effect)
            return found is not None and ledger.is_open(found)
        if row.run is not None:
            is_over = row.until_boot_ms is not None and self._boot_ms() >= row.until_boot_ms
            return not is_over and self._is_open(connection, row.run)
        return self._session_lives(connection, row)

    def _waits(self, connection: Connection, row: Row) -> bool:
        if row.run is not None and row.effect is None:
            return self._is_open(connection, row.run)
        if row.until_boot_ms is not None and self._boot_ms() > row.until_boot_ms + PATIENCE_MS:
            return False
        return self._sessions.holder(connection, row.session).life is Life.ALIVE

    def _session_lives(self, connection: Connection, row: Row) -> bool:
        if self._sessions.holder(connection, row.session).life is not Life.ALIVE:
            return False
        found = connection.execute("SELECT renewed_boot_ms FROM sessions WHERE id = ?", (row.session,)).fetchall()
        renewed_boot_ms = max(int(found[0][0]), row.boot_ms)
        return not rules.is_expired(renewed_boot_ms=renewed_boot_ms, ttl_ms=row.ttl_ms, now_boot_ms=self._boot_ms())
