"""A look at the store, without writing: whether there is anything to do for a worker."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

import msgspec

from surefoot.leases import Life
from surefoot.runs.durable import executable_kinds
from surefoot.runs.live.waiting import Target
from surefoot.runs.rows import claims, inbox, queue, tables, waiters
from surefoot.runs.rows.inbox import Letter
from surefoot.store.connection import Connection

if TYPE_CHECKING:
    from surefoot.runs.worker import Worker


class Glance(msgspec.Struct, frozen=True):
    """What a look at the store showed.

    `unknown` are the kinds that nobody seems to know; `strange` the runs of those that have been so for long.
    """

    has_work: bool
    has_new: bool
    may_take: bool
    next_due_ms: int | None
    dead: list[int]
    unknown: list[str]
    strange: list[int]
    letters: list[Letter]
    settled: set[Target]
    overdue: list[int]


def glance(
    worker: Worker,
    targets: Sequence[Target],
    last_letter: int,
    long_unknown: Container[str],
    is_sweep: bool,
    connection: Connection,
) -> Glance:
    """Look, without writing, whether there is anything to do; runs on the reader."""
    now_ms, kinds = worker.store.clock.wall_ms(), executable_kinds()
    holders = set(tables.run_holders(connection))
    if is_sweep:
        holders |= claims.claim_holders(connection)
    holders.discard(worker.session.id)
    dead = [one for one in holders if worker.sessions.holder(connection, one).life is not Life.ALIVE]
    unknown = queue.unknown_kinds(connection, kinds)
    strange = queue.of_unknown_kinds(connection, [kind for kind in unknown if kind in long_unknown], now_ms)
    has_new, has_room = any(source.has_new(connection) for source in worker.sources), worker.free > 0
    has_work = bool(dead or strange or has_new or (has_room and queue.has_due(connection, kinds, now_ms)))
    return Glance(
        has_new=has_new,
        has_work=has_work,
        may_take=has_work and worker.store.may_take(connection),
        next_due_ms=queue.next_due_ms(connection, now_ms) if has_room else None,
        dead=dead,
        unknown=unknown,
        strange=strange,
        letters=inbox.letters_since(connection, last_letter),
        settled={target for target in targets if waiters.is_over(connection, target)},
        overdue=[
            run.row.id
            for run in list(worker.live.values())
            if run.row.deadline_ms is not None and run.row.deadline_ms <= now_ms
        ],
    )
