"""Dispatch: a group's place in its topic moves on, and a run is started for each event it passes, in one transaction.

Every worker that serves a group looks; whoever comes first moves the place, so one event wakes one worker. What is started
is a run like any other, which any worker of the group may take. Runs are started some at a time: what no worker has room
for stays in the topic, where it costs nothing.

What holds: nothing that an event says stops a worker. A new event under a key that is not here is left, with all behind it,
to workers that have the key: the group's place can't pass it. Behind a redelivered one nothing has to wait: under such a
key it is a dead letter again, like one that can't be read at all.
"""

from __future__ import annotations

import logging

from surefoot.coordination.events import groups, tables
from surefoot.coordination.events.groups import Subscription
from surefoot.coordination.events.states import State, run_id_of
from surefoot.coordination.events.tables import EventRow, GroupRow
from surefoot.journal import Kind, Record, insert_record, load_record
from surefoot.journal.records import Head
from surefoot.journal.sealing import MissingKey
from surefoot.runs.queueing import AT_ONCE, Queueing, lane_of
from surefoot.runs.rows import queue
from surefoot.runs.rows.tables import find_run, insert_run
from surefoot.store import Store, Tx
from surefoot.store.connection import Connection, faults_of

EVENTS_AT_ONCE = 200
"""Events that one transaction brings: about 20 ms."""

BYTES_AT_ONCE = 4 * 1024 * 1024
"""Bytes after which it brings no more."""

AHEAD = 1_000
"""Runs of a group that wait for a worker, from which on no more are started. Those that wait for another run of their key
don't count: others may be behind them."""

_logger = logging.getLogger("surefoot")


class Dispatcher:
    """Starts the runs of this process's groups. See `surefoot.runs.worker.Source`."""

    def __init__(self) -> None:
        self._turn = 0
        self._stuck: dict[int, int] = {}  # groups by their rows, and the place from which on there is no key here

    def has_new(self, connection: Connection) -> bool:
        """See `Source.has_new`."""
        served = groups.served()
        if served and served.keys() - tables.known_groups(connection):  # one may have been dropped under this process
            return True
        return any(_room(connection, subscription) > 0 for _, subscription in self._news(connection))

    def feed(self, tx: Tx) -> None:
        """See `Source.feed`: groups take turns in being the first."""
        groups.ensure(tx)
        news = self._news(tx.connection)
        self._turn += 1
        start = self._turn % max(1, len(news))
        left = _Left()
        for group, subscription in [*news[start:], *news[:start]]:
            if not left.is_used_up:
                self._feed_group(tx, group, subscription, left)

    def _news(self, connection: Connection) -> list[tuple[GroupRow, Subscription]]:
        """Return the groups of this process which have something to come to, as far as it can read that."""
        served = groups.served()
        found = [(row, served.get((row.topic, row.name))) for row in tables.groups_with_news(connection)]
        return [(row, one) for row, one in found if one is not None and self._stuck.get(row.id) != row.place]

    def _feed_group(self, tx: Tx, group: GroupRow, subscription: Subscription, left: _Left) -> None:
        room, passed = _room(tx.connection, subscription), group.place
        again = tables.to_bring_again(tx, group.id, min(room, left.events))
        new = [(event, 0) for event in tables.events_after(tx, group.topic, group.place, min(room, left.events))]
        for event, attempt in [*again, *new]:
            if left.is_used_up:
                break
            try:
                bring(tx, group.id, subscription, event, attempt + 1, left)
            except MissingKey as missing:
                about = group.name, group.topic, event.id, missing.message
                if not attempt:
                    self._stuck[group.id] = passed
                    _logger.warning("group %s of %s waits for a worker that can read event %d: %s", *about)
                    break
                tables.write_delivery(tx, group.id, event.id, State.DEAD, attempt + 1, None)
                _logger.warning("group %s of %s: redelivered event %d is a dead letter again: %s", *about)
            passed = max(passed, event.id)
        if passed > group.place:
            tables.move_place(tx, group.id, passed)


def _room(connection: Connection, subscription: Subscription) -> int:
    return AHEAD - queue.pending(connection, subscription.kind.name, AHEAD)


class _Left:
    """How much one transaction may still bring."""

    def __init__(self) -> None:
        self.events = EVENTS_AT_ONCE
        self.bytes = BYTES_AT_ONCE

    @property
    def is_used_up(self) -> bool:
        """Whether that is nothing."""
        return self.events <= 0 or self.bytes <= 0


def bring(tx: Tx, row: int, subscription: Subscription, event: EventRow, attempt: int, left: _Left) -> None:
    """Start the run that acts on an event; an event that retention has emptied is passed over.

    Where the run's id belongs to a run that was started by hand, or the event can't be read, nothing can act on it, and it
    is a dead letter.

    Raises:
        MissingKey: What it says is under a key that is not here; nothing was written.
    """
    left.events -= 1
    if event.record is None:
        return
    run_id = run_id_of(event.topic, subscription.group, event.event_id, attempt)
    if find_run(tx.connection, run_id) is not None:
        tables.write_delivery(tx, row, event.id, State.DEAD, attempt, None)
        return
    kind = subscription.kind
    not_its_fault: tuple[type[Exception], ...] = (MissingKey, *faults_of(tx.connection))
    try:
        body = subscription.input_of(event, load_record(tx.connection, event.record).body or b"null")
        digest = kind.digest_of(body)
    except not_its_fault:
        raise
    except Exception:  # damage, or whatever a codec makes of it: the worker goes on
        tables.write_delivery(tx, row, event.id, State.DEAD, attempt, None)
        return
    left.bytes -= len(body)
    how = AT_ONCE if event.key is None else Queueing(lane=lane_of(kind.name, event.key))
    run = insert_run(
        tx,
        run_id,
        kind.name,
        digest,
        holder=None,
        parent=None,
        deadline_ms=None,
        how=how,
        state=queue.place(tx, how),
    )
    head = Head(detail=groups.delivered(row, event.id))
    insert_record(tx, Record(run, 1, Kind.STARTED, "", 0, head, body))
    tables.write_delivery(tx, row, event.id, State.STARTED, attempt, run)


async def know_groups(store: Store) -> None:
    """Write the groups of this process that the store doesn't know, so that those which begin now begin before what is
    published from now on."""
    if groups.served().keys() - await store.read(tables.known_groups):
        await store.commit(groups.ensure, label="groups")
