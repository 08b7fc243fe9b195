"""Which runs may begin, and in which order: the SQL of `queueing`.

What holds: each look and each claim costs the same however many runs are stored or wait, for every question has an index of
its own, and a limit; what may not begin (not due, no place in its lane, its kind at its limit) is never walked over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from surefoot.runs.durable import ELSEWHERE
from surefoot.runs.life import SUSPECT_AFTER, RunState
from surefoot.runs.queueing import Queueing
from surefoot.runs.rows import tables
from surefoot.runs.rows.tables import WORK, RunRow
from surefoot.store import Tx
from surefoot.store.connection import Connection

Limits = Mapping[str, int | None]
"""The kinds that a process can execute, each with how many of its runs may be executed at a time by all; None for any."""

DUE_AT_ONCE = 500
"""Runs whose time has come that one claim takes up: as many as one claim begins."""

KINDS_AT_ONCE = 100
"""Kinds in one statement: SQLite takes 500 parts, and a plan for many is made anew for each number of them."""

_KINDS = (
    "WITH RECURSIVE found(kind) AS (SELECT (SELECT min(kind) FROM {table} WHERE {where}) UNION ALL"
    " SELECT (SELECT min(kind) FROM {table} WHERE {where} AND kind > found.kind) FROM found"
    " WHERE found.kind IS NOT NULL) SELECT kind FROM found WHERE kind IS NOT NULL"
)
"""The kinds in an index that begins with them: one step for each, however many rows they have."""


# -- the way to a worker ------------------------------------------------------------------------------------------------


def place(tx: Tx, how: Queueing) -> RunState:
    """Return where a new run begins: scheduled, queued, or pending."""
    if how.at_ms is not None and how.at_ms > tx.now_ms:
        return RunState.SCHEDULED
    return RunState.PENDING if how.lane is None or _has_place(tx, how.lane, how.places) else RunState.QUEUED


def _has_place(tx: Tx, lane: str, places: int) -> bool:
    """Whether a run that comes new to a lane may begin: there is room, and nobody before it."""
    rows = tx.execute(
        "SELECT state FROM runs WHERE lane = ? AND state >= 0 AND state <= 3 ORDER BY state LIMIT ?",
        (lane, places),
    ).fetchall()
    return len(rows) < places and (not rows or rows[0][0] != RunState.QUEUED)


def _begun(tx: Tx, lane: str, most: int) -> int:
    rows = tx.execute("SELECT id FROM runs WHERE lane = ? AND state >= 1 AND state <= 3 LIMIT ?", (lane, most))
    return len(rows.fetchall())


def next_in_lane(tx: Tx, lane: str, places: int) -> None:
    """Let the next runs of a lane begin, as many as it has places; called when one of it has ended."""
    tx.execute(
        "UPDATE runs SET state = 1 WHERE id IN (SELECT id FROM runs WHERE lane = ? AND state = 0 AND state <= 3"
        " ORDER BY priority, id LIMIT ?)",
        (lane, max(0, places - _begun(tx, lane, places))),
    )
    if tx.connection.changes() > 0:
        tx.ring(WORK)


def take_up_due(tx: Tx, kinds: Sequence[str], places: Mapping[str, int]) -> None:
    """Let runs whose time has come wait for a worker, or for their turn. Their new epoch says that their kind is known.

    Args:
        tx: The transaction.
        kinds: Those that this process can execute.
        places: How many runs of one key they allow at a time, those that have lanes.
    """
    timed = _timed(tx.connection, kinds)
    woken = _due(tx.connection, timed, RunState.WAITING, tx.now_ms, DUE_AT_ONCE)
    if woken:
        tx.execute(
            "UPDATE runs SET state = 1, epoch = epoch + 1, waiting_for = NULL, reason = '', wake_at_ms = NULL"
            f" WHERE id IN ({_marks(woken)})",
            tuple(run for run, _, _ in woken),
        )
    for run, kind, lane in _due(tx.connection, timed, RunState.SCHEDULED, tx.now_ms, DUE_AT_ONCE):
        is_next = lane is None or _has_place(tx, lane, places.get(kind, 1))
        state = RunState.PENDING if is_next else RunState.QUEUED
        tx.execute("UPDATE runs SET state = ?, reason = '', wake_at_ms = NULL WHERE id = ?", (int(state), run))


def _timed(connection: Connection, kinds: Iterable[str]) -> list[str]:
    """Return those of these kinds of which a run waits for a time."""
    return sorted(_timed_kinds(connection) & set(kinds))


def _timed_kinds(connection: Connection) -> set[str]:
    """Return the kinds of which a run waits for a time: one step in the index for each."""
    rows = connection.execute(_KINDS.format(table="runs INDEXED BY runs_timed", where="state <= 3 AND wake_at_ms >= 0"))
    return {str(row[0]) for row in rows}


def _due(
    connection: Connection, kinds: Sequence[str], state: RunState, now_ms: int, limit: int
) -> list[tuple[int, str, str | None]]:
    """Return row, kind and lane of runs of these kinds whose time has come, the longest ago first."""
    one = (
        "SELECT wake_at_ms, id, kind, lane FROM (SELECT wake_at_ms, id, kind, lane FROM runs INDEXED BY runs_timed"
        f" WHERE kind = ? AND state = {state.value} AND state <= 3 AND wake_at_ms >= 0 AND wake_at_ms <= ?"
        " ORDER BY wake_at_ms, id LIMIT ?) AS of_kind"
    )
    found = _union(connection, one, [(kind, now_ms, limit) for kind in kinds], limit)
    return [(run, kind, lane) for _, run, kind, lane in found]


def _union(connection: Connection, one: str, asked: Sequence[tuple[object, ...]], limit: int) -> list[Any]:
    """Return the first rows, by their first two columns, of what one query finds for each of these bindings."""
    found: list[Any] = []
    for start in range(0, len(asked), KINDS_AT_ONCE):
        part = asked[start : start + KINDS_AT_ONCE]
        sql = f"{' UNION ALL '.join([one] * len(part))} ORDER BY 1, 2 LIMIT ?"
        found += connection.execute(sql, (*(value for each in part for value in each), limit)).fetchall()
    return sorted(found, key=lambda row: row[:2])[:limit]


# -- claiming -----------------------------------------------------------------------------------------------------------


def claim_runs(tx: Tx, session: int, limits: Limits, limit: int, *, may_try_suspect: bool) -> list[RunRow]:
    """Take runs that wait for a worker: the lowest priority first, then the oldest; of suspects at most one."""
    rooms = _rooms(tx.connection, limits, limit)
    found = _first(tx, rooms, limit, "runs", f"takeovers < {SUSPECT_AFTER}")
    if may_try_suspect:
        suspects = "runs INDEXED BY runs_suspect"
        found += _first(tx, dict.fromkeys(rooms, 1), 1, suspects, f"takeovers >= {SUSPECT_AFTER}")
    chosen = _within(sorted(found), rooms, limit)
    held = {row.id: row for row in tables.hold(tx, chosen, session)}
    return [held[run] for run in chosen]


def _within(found: Iterable[tuple[int, int, str]], rooms: Mapping[str, int], limit: int) -> list[int]:
    """Return the first of these runs, as many as there is room for in all and in each kind."""
    left, chosen = dict(rooms), list[int]()
    for _, run, kind in found:
        if left[kind] > 0 and len(chosen) < limit:
            left[kind] -= 1
            chosen.append(run)
    return chosen


def _rooms(connection: Connection, limits: Limits, limit: int) -> dict[str, int]:
    """Return how many runs of each kind may begin now; kinds of which none waits, or none may, are left out."""
    rooms = {}
    for kind in sorted(open_kinds(connection) & limits.keys()):
        most = limits[kind]
        rooms[kind] = limit if most is None else min(limit, most - _executed(connection, kind))
    return {kind: room for kind, room in rooms.items() if room > 0}


def _executed(connection: Connection, kind: str) -> int:
    rows = connection.execute("SELECT count(*) FROM runs WHERE kind = ? AND state = 2 AND state <= 2", (kind,))
    return int(cast(int, rows.fetchall()[0][0]))


def _first(tx: Tx, rooms: Mapping[str, int], limit: int, where: str, which: str) -> list[tuple[int, int, str]]:
    """Return priority, row and kind of the next runs that wait for a worker."""
    one = (
        f"SELECT priority, id, kind FROM (SELECT priority, id, kind FROM {where} WHERE kind = ? AND state = 1"
        f" AND state <= 2 AND {which} ORDER BY priority, id LIMIT ?) AS of_kind"
    )
    return _union(tx.connection, one, list(rooms.items()), limit)


def may_begin(tx: Tx, kind: str, most: int | None) -> bool:
    """Whether a new run of a kind may begin at once: fewer are executed than may be, and none waits before it."""
    if most is None:
        return True
    return not pending(tx.connection, kind, 1) and _executed(tx.connection, kind) < most


# -- looking ------------------------------------------------------------------------------------------------------------


def has_due(connection: Connection, limits: Limits, now_ms: int) -> bool:
    """Whether `take_up_due` and `claim_runs` would find anything."""
    if any(pending(connection, kind, 1) for kind in _rooms(connection, limits, 1)):
        return True
    timed = _timed(connection, limits)
    return any(_due(connection, timed, state, now_ms, 1) for state in (RunState.WAITING, RunState.SCHEDULED))


def next_due_ms(connection: Connection, now_ms: int) -> int | None:
    """Return when the next run that waits for a time is due; None if none is."""
    found = connection.execute(
        "SELECT min(wake_at_ms) FROM runs WHERE state = 3 AND state <= 3 AND wake_at_ms > ?"
        " UNION ALL SELECT min(wake_at_ms) FROM runs WHERE state = -1 AND state <= 3 AND wake_at_ms > ?",
        (now_ms, now_ms),
    )
    return min((cast(int, at_ms) for (at_ms,) in found if at_ms is not None), default=None)


def pending(connection: Connection, kind: str, most: int) -> int:
    """Return how many runs of a kind wait for a worker; `most` stands for any number from there on."""
    rows = connection.execute(
        "SELECT id FROM runs WHERE kind = ? AND state = 1 AND state <= 2 ORDER BY priority, id LIMIT ?", (kind, most)
    )
    return len(rows.fetchall())


def open_kinds(connection: Connection) -> set[str]:
    """Return the kinds of which a run has yet to begin, or is executed: one step in the index for each."""
    rows = connection.execute(_KINDS.format(table="runs", where="state <= 2"))
    return {cast(str, row[0]) for row in rows}


def unknown_kinds(connection: Connection, known: Iterable[str]) -> list[str]:
    """Return the kinds that are none of these, of which a run waits for a worker or for a time; but none of other engines,
    and none that somebody executes: their runs wait for room."""
    there = (open_kinds(connection) | _timed_kinds(connection)) - set(known)
    others = sorted(kind for kind in there if not kind.startswith(ELSEWHERE))
    return [kind for kind in others if not _executed(connection, kind)][:KINDS_AT_ONCE]


def of_unknown_kinds(connection: Connection, kinds: Sequence[str], now_ms: int) -> list[int]:
    """Return runs of these kinds that wait for a worker, and those whose time has come of which that is not said yet."""
    if not kinds:
        return []
    one = (
        "SELECT wake_at_ms, id FROM (SELECT wake_at_ms, id FROM runs INDEXED BY runs_timed"
        " WHERE kind = ? AND state = ? AND state <= 3 AND wake_at_ms > 0 AND wake_at_ms >= 0 AND wake_at_ms <= ?"
        " AND (state = 3 OR reason = '') ORDER BY wake_at_ms, id LIMIT 100) AS of_kind"
    )
    asked = [(kind, int(state), now_ms) for kind in kinds for state in (RunState.SCHEDULED, RunState.WAITING)]
    due = [cast(int, run) for _, run in _union(connection, one, asked, 100)]
    rows = connection.execute(
        f"SELECT id FROM runs WHERE kind IN ({_marks(kinds)}) AND state = 1 AND state <= 2 LIMIT 100", tuple(kinds)
    )
    return [*due, *(cast(int, row[0]) for row in rows.fetchall())]


def block_unknown(tx: Tx, run: int, known: Sequence[str]) -> None:
    """Say of a run that nobody here can execute it; whoever knows its kind claims it at once (it is due since 0). One that
    is scheduled stays so, since only who knows its kind knows whether it is its turn."""
    words = ", ".join(known) or "none"
    reason = f"no worker here knows its kind; known: {words}; renamed? keep the old name: was=[...], or name="
    tx.execute(
        "UPDATE runs SET state = 3, waiting_for = 'blocked', reason = ?, wake_at_ms = 0 WHERE id = ?"
        " AND (state = 1 OR (state = 3 AND wake_at_ms > 0 AND wake_at_ms <= ?))",
        (reason, run, tx.now_ms),
    )
    tx.execute("UPDATE runs SET reason = ? WHERE id = ? AND state = -1", (reason, run))


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
