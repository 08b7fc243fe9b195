"""Retention: what ended long ago leaves its values, and keeps its keys.

    effects of runs that may go -> arguments, value and evidence deleted; the ledger's row, the key and a digest stay
    what was asked of people    -> its arguments deleted; that it was asked, by whom and how it was decided stay
    runs that may go            -> records, blobs and letters deleted; the run's row and its end, without its value, stay
    pages that are unused       -> given back to the file system

What holds: a run that has not ended loses nothing, and nothing it refers to does: its parent, all that descends from it,
the run it undoes, outcomes and ends of runs that its journal points to. What descends from a run is as old as that. Neither
does a run that somebody else needs (that of a dead letter), nor an effect without outcome, or with an open contradiction.
Each transaction is small, and followed by a pause as long as itself, so that workers beside it lose at most half of the
writer; killed anywhere, the next call goes on.

Whether something may go is looked up without the write lock, and what can change meanwhile is looked at again in the
transaction: an open run whose journal has come to point to an outcome, or to the end of a run; and an undo that has begun.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from surefoot.approvals.states import State
from surefoot.effects.rows import ledger
from surefoot.effects.rows.forgetting import detach, digest_of, forget, forget_call
from surefoot.journal.payloads import delete_payloads
from surefoot.journal.records import Head, Kind, decode_head, encode_head
from surefoot.journal.sealing import MissingKey
from surefoot.journal.tables import delete_records, load_record, rewrite_record
from surefoot.runs.durable import UNDO
from surefoot.runs.rows.tables import RunRow, get_run
from surefoot.runs.rows.undone import undone_by
from surefoot.store import Store, Tx
from surefoot.store.connection import Connection
from surefoot.store.pace import politely

EFFECTS_AT_ONCE = 200
"""Effects looked at by one transaction: a few milliseconds."""

RECORDS_AT_ONCE = 1_000
"""Records deleted by one transaction: about ten milliseconds."""

RUNS_AT_ONCE = 500
"""Runs looked at by one query."""

PAGES_AT_ONCE = 500
"""Pages given back by one transaction: 2 MiB of log."""

_logger = logging.getLogger("surefoot")


@dataclass(frozen=True, slots=True)
class Swept:
    """What retention has deleted, or would delete.

    Attributes:
        runs: Runs whose records went.
        effects: Effects whose arguments and values went.
        records: Records that were deleted.
        events: Events that no longer say anything; see `surefoot.coordination.events.retention`.
        bytes_before: The database's size when it began.
        bytes_after: Its size now; the file has it after the next checkpoint, or when the store is closed.
    """

    runs: int = 0
    effects: int = 0
    records: int = 0
    events: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


class Retention:
    """One sweep of a store.

    Args:
        store: The store.
        before_ms: What ended before this wall-clock time may go.
        is_dry: Only count.
        tell: Called with what was swept so far, now and then; None for nobody.
        is_needed: Whether somebody else still needs what a run that has ended says; once not, never again.
    """

    def __init__(
        self,
        store: Store,
        before_ms: int,
        *,
        is_dry: bool = False,
        tell: Callable[[Swept], object] | None = None,
        is_needed: Callable[[Connection, RunRow], bool] = lambda _connection, _run: False,
    ) -> None:
        self._store = store
        self._before_ms = before_ms
        self._is_dry = is_dry
        self._tell = tell
        self._is_needed = is_needed
        self._swept = Swept()
        self._pointed: set[int] = set()  # outcomes, and ends of runs, that journals of open runs point to
        self._seen = 0  # the newest record that was looked at for that
        self._kept_runs: set[int] = set()  # undone, or contradicted
        self._may_go: dict[int, bool] = {}
        self._missing: MissingKey | None = None

    async def sweep(self) -> Swept:
        """Delete what may go; return what went."""
        store = self._store
        size = await store.read(store.size_bytes)
        self._swept = replace(self._swept, bytes_before=size, bytes_after=size)
        await store.read(self._look)
        await self._sweep_effects()
        await self._sweep_questions()
        await self._sweep_runs()
        if not self._is_dry:
            await self._give_back()
            self._swept = replace(self._swept, bytes_after=await store.read(store.size_bytes))
        if self._missing is not None:
            _logger.warning("retention left what it could not read: %s", self._missing.message)
        return self._swept

    # -- what may go -------------------------------------------------------------------------------------------------

    def _look(self, connection: Connection) -> None:
        """Learn what open runs refer to."""
        self._seen = _newest(connection)
        heads = connection.execute(
            "SELECT head FROM journal WHERE head IS NOT NULL AND run IN (SELECT id FROM runs WHERE state <= 3)"
        )
        self._pointed.update(_pointed(heads))
        self._keep_undone(connection, "SELECT id FROM runs WHERE kind = ? AND state <= 3", (UNDO,))
        contradicted = connection.execute(
            "SELECT DISTINCT l.run FROM evidence e JOIN ledger l ON l.id = e.effect WHERE e.is_open = 1"
        )
        self._kept_runs |= {int(str(row[0])) for row in contradicted if row[0] is not None}

    def _keep_undone(self, connection: Connection, undos: str, about: tuple[object, ...]) -> None:
        """Keep what these undos undo: runs, and all that descends from them."""
        for (undo,) in connection.execute(undos, about).fetchall():
            undone = undone_by(connection, int(str(undo)))
            if undone is not None:
                self._kept_runs |= _with_children(connection, undone)

    def _run_may_go(self, connection: Connection, run: int) -> bool:
        if run in self._kept_runs:
            return False
        known = self._may_go.get(run)
        if known is None:
            row = get_run(connection, run)
            is_over = row.ended not in self._pointed and _is_over(connection, run, self._before_ms)
            known = self._may_go[run] = is_over and not self._is_needed(connection, row)
        return known

    def _look_again(self, connection: Connection) -> None:
        """Learn, in the transaction that deletes, what was pointed to since, and what is being undone."""
        newest = _newest(connection)
        if newest > self._seen:
            heads = connection.execute(
                "SELECT head FROM journal WHERE id > ? AND head IS NOT NULL AND run IS NOT NULL", (self._seen,)
            )
            self._pointed.update(_pointed(heads))
            self._keep_undone(connection, _UNDOS_SINCE, (self._seen, int(Kind.STARTED), UNDO))
            self._seen = newest

    # -- effects -----------------------------------------------------------------------------------------------------

    async def _sweep_effects(self) -> None:
        after = 0
        while True:
            last, found = await self._store.read(partial(self._find_effects, after))
            if self._is_dry:
                gone = sum(1 for _, is_forgotten in found if is_forgotten)
                self._swept = replace(self._swept, effects=self._swept.effects + gone)
            elif found:
                await self._do(partial(self._forget_effects, found))
            if last == after:
                return
            after = last

    def _find_effects(self, after: int, connection: Connection) -> tuple[int, list[tuple[int, bool]]]:
        """Return the last effect looked at, and those to be touched, each with whether it is to be forgotten."""
        rows = connection.execute(
            "SELECT l.id, l.run, l.record, c.run, r.run, r.at_ms, r.head FROM ledger l JOIN journal c ON c.id = l.claim"
            " JOIN journal r ON r.id = l.record WHERE l.id > ? AND l.state > 3 ORDER BY l.id LIMIT ?",
            (after, EFFECTS_AT_ONCE),
        ).fetchall()
        found = []
        for effect, run, record, claim_run, record_run, at_ms, head in rows:
            runs = {int(str(one)) for one in (run, claim_run, record_run) if one is not None}
            may_go = all(self._run_may_go(connection, one) for one in runs) and int(str(at_ms)) < self._before_ms
            is_new = not decode_head(head).forgotten_at_ms
            if may_go and is_new and record not in self._pointed and not _is_contradicted(connection, int(str(effect))):
                found.append((int(str(effect)), True))
            elif any(self._run_may_go(connection, int(str(one))) for one in (claim_run, record_run) if one is not None):
                found.append((int(str(effect)), False))  # a run that goes has a record of one that stays
        return (int(str(rows[-1][0])) if rows else after), found

    def _forget_effects(self, found: Iterable[tuple[int, bool]], tx: Tx) -> Swept:
        self._look_again(tx.connection)
        count = 0
        for effect, is_forgotten in found:
            row = ledger.get(tx.connection, effect)
            assert row is not None, "rows of the ledger are never deleted"
            runs = _runs_of(tx.connection, row)
            is_kept = row.record in self._pointed or not self._kept_runs.isdisjoint({row.run, *runs.values()})
            if is_forgotten and not is_kept:
                count += self._can(partial(forget, tx, row))
            for record, run in runs.items():
                if self._run_may_go(tx.connection, run):
                    detach(tx, record)
        return Swept(effects=count)

    # -- approvals ---------------------------------------------------------------------------------------------------

    async def _sweep_questions(self) -> None:
        after = 0
        while True:
            last, found = await self._store.read(partial(self._find_questions, after))
            if found and not self._is_dry:
                await self._do(partial(self._forget_questions, found))
            if last == after:
                return
            after = last

    def _find_questions(self, after: int, connection: Connection) -> tuple[int, list[tuple[int, int | None, bool]]]:
        """Return the last approval looked at, and the records of what was asked in runs that may go, or outside runs; each
        with its run, and whether it is to be forgotten: one that can still be used keeps its words."""
        rows = connection.execute(
            "SELECT a.id, a.state, a.record, j.run, j.at_ms FROM approvals a JOIN journal j ON j.id = a.record"
            " WHERE a.id > ? AND j.at_ms < ? ORDER BY a.id LIMIT ?",
            (after, self._before_ms, EFFECTS_AT_ONCE),
        ).fetchall()
        found = []
        for _, state, record, run, _ in rows:
            own = None if run is None else int(str(run))
            if own is None or self._run_may_go(connection, own):
                found.append((int(str(record)), own, int(str(state)) > State.APPROVED))
        return (int(str(rows[-1][0])) if rows else after), found

    def _forget_questions(self, found: Iterable[tuple[int, int | None, bool]], tx: Tx) -> Swept:
        self._look_again(tx.connection)
        for record, run, is_forgotten in found:
            if run in self._kept_runs:
                continue
            if is_forgotten:
                self._can(partial(forget_call, tx, record))
            detach(tx, record)
        return Swept()

    # -- runs --------------------------------------------------------------------------------------------------------

    async def _sweep_runs(self) -> None:
        after = 0
        while True:
            last, found = await self._store.read(partial(self._find_runs, after))
            for run in found:
                await self._sweep_run(run)
            if last == after:
                return
            after = last

    def _find_runs(self, after: int, connection: Connection) -> tuple[int, list[int]]:
        rows = connection.execute(
            "SELECT id FROM runs WHERE id > ? AND state > 3 AND ended_at_ms < ? ORDER BY id LIMIT ?",
            (after, self._before_ms, RUNS_AT_ONCE),
        ).fetchall()
        ids = [int(str(row[0])) for row in rows]
        found = [run for run in ids if self._run_may_go(connection, run) and _has_values(connection, run)]
        return (ids[-1] if ids else after), found

    async def _sweep_run(self, run: int) -> None:
        self._swept = replace(self._swept, runs=self._swept.runs + 1)
        if self._is_dry:
            count = await self._store.read(partial(_count_records, run))
            self._swept = replace(self._swept, records=self._swept.records + count)
            return
        while (await self._do(partial(self._delete_some, run))).records == RECORDS_AT_ONCE:
            pass
        await self._do(partial(self._empty_end, run))

    def _delete_some(self, run: int, tx: Tx) -> Swept:
        """Delete the oldest records of a run, unless it is being undone."""
        self._look_again(tx.connection)
        if run in self._kept_runs:
            return Swept()
        return Swept(records=delete_records(tx, run, get_run(tx.connection, run).ended or 0, RECORDS_AT_ONCE))

    def _empty_end(self, run: int, tx: Tx) -> Swept:
        """Delete what a run came to, unless the journal of an open one has come to point to it, or it is being undone."""
        self._look_again(tx.connection)
        if run not in self._kept_runs and get_run(tx.connection, run).ended not in self._pointed:
            self._can(partial(_end_without_value, run, tx))
        return Swept()

    def _can(self, delete: Callable[[], object]) -> bool:
        """Delete something, unless a key for it is not here: then it stays as it is, and is no hindrance to the rest."""
        try:
            delete()
        except MissingKey as missing:
            self._missing = missing
            return False
        return True

    # -- writing beside workers --------------------------------------------------------------------------------------

    async def _do(self, unit: Callable[[Tx], Swept]) -> Swept:
        """Write one small transaction, then leave the writer to others for as long as it took."""
        done = await politely(self._store, unit, label="gc")
        self._swept = replace(
            self._swept, effects=self._swept.effects + done.effects, records=self._swept.records + done.records
        )
        if self._tell is not None:
            self._tell(self._swept)
        return done

    async def _give_back(self) -> None:
        """Give unused pages back to the file system, where the store is a file."""
        unused = -1
        while (left := await self._store.read(self._store.unused)) > 0 and left != unused:
            unused = left
            await self._do(_give_back_some)


def _is_over(connection: Connection, run: int, before_ms: int) -> bool:
    """Whether a run, and all that it descends from, ended before a time, and nothing that goes on is its child, or an
    effect of its own."""
    line = (
        "WITH RECURSIVE line(id) AS (SELECT ? UNION ALL SELECT parent FROM runs JOIN line USING (id))"
        " SELECT 1 FROM runs JOIN line USING (id) WHERE ended_at_ms IS NULL OR ended_at_ms >= ? LIMIT 1"
    )
    if connection.execute(line, (run, before_ms)).fetchall():
        return False
    for query in (
        "SELECT 1 FROM runs WHERE parent = ? AND state <= 3 LIMIT 1",
        "SELECT 1 FROM ledger INDEXED BY ledger_open WHERE state <= 3 AND state IN (2, 3) AND run = ? LIMIT 1",
    ):
        if connection.execute(query, (run,)).fetchall():
            return False
    return True


_UNDOS_SINCE = (
    "SELECT r.id FROM journal j JOIN runs r ON r.id = j.run"
    " WHERE j.id > ? AND j.kind = ? AND r.kind = ? AND r.state <= 3"
)


def _runs_of(connection: Connection, row: ledger.Row) -> dict[int, int]:
    """Return the records of an effect that stand in a run's journal, each with that run."""
    rows = connection.execute(
        "SELECT id, run FROM journal WHERE id IN (?, ?) AND run IS NOT NULL", (row.claim, row.record)
    )
    return {int(str(record)): int(str(run)) for record, run in rows}


def _is_contradicted(connection: Connection, effect: int) -> bool:
    found = connection.execute("SELECT 1 FROM evidence WHERE effect = ? AND is_open = 1 LIMIT 1", (effect,))
    return bool(found.fetchall())


def _with_children(connection: Connection, run: int) -> set[int]:
    """Return a run and all that descend from it: an undo goes down to them."""
    rows = connection.execute(
        "WITH RECURSIVE line(id) AS (SELECT id FROM runs WHERE id = ?"
        " UNION SELECT r.id FROM runs r JOIN line ON r.parent = line.id) SELECT id FROM line",
        (run,),
    )
    return {int(str(row[0])) for row in rows}


def _pointed(heads: Iterable[tuple[object, ...]]) -> Iterable[int]:
    return [record for (head,) in heads if (record := decode_head(head).record)]  # type: ignore[arg-type]  # bytes


def _newest(connection: Connection) -> int:
    return int(str(connection.execute("SELECT coalesce(max(id), 0) FROM journal").fetchall()[0][0]))


def _has_values(connection: Connection, run: int) -> bool:
    """Whether something of a run is still there to be deleted."""
    ended = get_run(connection, run).ended
    others = connection.execute("SELECT 1 FROM journal WHERE run = ? AND id != ? LIMIT 1", (run, ended)).fetchall()
    ((head,),) = connection.execute("SELECT head FROM journal WHERE id = ?", (ended,)).fetchall()
    return bool(others) or not decode_head(head).forgotten_at_ms


def _count_records(run: int, connection: Connection) -> int:
    return int(str(connection.execute("SELECT count(*) - 1 FROM journal WHERE run = ?", (run,)).fetchall()[0][0]))


def _end_without_value(run: int, tx: Tx) -> Swept:
    """Keep how the run ended, and a digest of its result."""
    row = get_run(tx.connection, run)
    ended = row.ended or 0
    record = load_record(tx.connection, ended)
    detail = None if record.body is None or tx.codec is not None else {"digest": digest_of(record.body)}
    rewrite_record(
        tx, ended, encode_head(Head(state=record.head.state, forgotten_at_ms=tx.now_ms, detail=detail)), None
    )
    delete_payloads(tx, row.run_id)
    tx.execute("DELETE FROM inbox WHERE run = ?", (run,))
    tx.execute("UPDATE runs SET reason = '' WHERE id = ?", (run,))
    return Swept()


def _give_back_some(tx: Tx) -> Swept:
    tx.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
    return Swept()
