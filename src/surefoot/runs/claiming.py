"""Claiming runs for a worker: taken in one transaction, loaded with their journals, and launched.

What holds: a run that this code can't read is parked, with the reason; no other is held up by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from surefoot.journal.tables import load_records, load_records_of
from surefoot.journal.texts import without_surrogates
from surefoot.runs.durable import executable_kinds, known_kinds, places_per_key
from surefoot.runs.errors import name_of
from surefoot.runs.glance import Glance
from surefoot.runs.life import SUSPECT_AFTER, WaitFor
from surefoot.runs.live.replay import History, arrange
from surefoot.runs.rows import claims, inbox, queue, tables, waiters
from surefoot.runs.rows.inbox import Letter
from surefoot.runs.rows.tables import RunRow
from surefoot.store import StoreError, Tx

if TYPE_CHECKING:
    from surefoot.runs.worker import Worker

CLAIM_MAX = 500
"""Runs claimed by one transaction, so that several workers share a backlog."""

CLAIM_SHARE = 50
"""The same where others are told of work as soon as we are: they come first for the next ones."""


class Claiming:
    """Claims runs for one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def claim(self, seen: Glance) -> bool:
        """Take what there is room for, in turns with other workers; only then go on with all of it.

        Runs that go on would compete with the loading of those that don't yet: a thousand killed runs are back sooner so.
        Where others were told of the same work, they come first for what is left.

        Returns:
            Whether something is left for them.
        """
        worker = self._worker
        taken: list[tuple[RunRow, History, list[Letter]]] = []
        limit, is_more = CLAIM_SHARE if worker.hearing.is_hearing else CLAIM_MAX, True
        while is_more:
            rows = await self._take(seen, [row for row, _, _ in taken], limit)
            taken += await self._load(rows)
            seen, is_more = msgspec.structs.replace(seen, dead=[], strange=[]), len(rows) >= limit
            if is_more and worker.hearing.is_hearing:
                break
        for row, history, letters in taken:
            worker.launch(row, history, letters)
        return is_more

    async def _take(self, seen: Glance, taken: Sequence[RunRow], limit: int) -> list[RunRow]:
        worker = self._worker
        held = [*(run.row for run in worker.live.values()), *taken]
        kinds, places, session = executable_kinds(), places_per_key(), worker.session.id
        room = max(0, min(limit, worker.free - len(taken)))
        boot_ms = worker.store.clock.boot_ms()
        may_try_suspect = not any(row.takeovers >= SUSPECT_AFTER for row in held)

        def unit(tx: Tx) -> list[RunRow]:
            for holder in seen.dead:
                tables.take_over_runs(tx, holder)
                claims.doubt_claims(tx, holder, session, boot_ms)
            for run in seen.strange:
                queue.block_unknown(tx, run, known_kinds())
            for source in worker.sources:
                source.feed(tx)
            queue.take_up_due(tx, list(kinds), places)
            return queue.claim_runs(tx, session, kinds, room, may_try_suspect=may_try_suspect)

        return await worker.store.commit(unit, label="take")

    async def _load(self, rows: Sequence[RunRow]) -> list[tuple[RunRow, History, list[Letter]]]:
        """Return the runs with their journals, loaded with one query; park those whose journal can't be read."""
        store, ids = self._worker.store, [row.id for row in rows]
        letters = await store.read(lambda connection: inbox.letters_of(connection, ids))
        try:
            records = await store.read(lambda connection: load_records_of(connection, ids))
        except StoreError:
            raise
        except Exception:  # one of them holds what this code can't read: find out which
            records = None
        loaded = []
        for row in rows:
            own = [letter for letter in letters if letter.run == row.id]
            try:
                of_run = await store.read(partial(load_records, run=row.id)) if records is None else records[row.id]
                loaded.append((row, arrange(of_run), own))
            except StoreError:
                raise
            except Exception as error:
                await self._block(row, own, f"its journal can't be read: {name_of(error)}: {error}")
        return loaded

    async def _block(self, row: RunRow, letters: Sequence[Letter], reason: str) -> None:
        """Park a run that this code can't execute; somebody must mend something, and wake it."""
        last = max((letter.id for letter in letters), default=0)

        def unit(tx: Tx) -> None:
            if tables.is_held(tx, row.id, row.epoch):
                waiters.park_run(tx, row.id, WaitFor.BLOCKED, without_surrogates(reason), None, last)

        await self._worker.store.commit(unit, label="park")
