"""Kills a worker at the operations of its store: whatever an engine does on top of it, nothing else of it is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.worlds.kills import Point, Trap

from surefoot.store import Store, Tx


class Tap:
    """Stands around a store and says at which operation this worker is: before it, while it is written, after it."""

    def __init__(self, store: Store, trap: Trap, label_now: Callable[[], str | None]) -> None:
        self._label_now = label_now
        self._commit, self._append, self._writer = store.commit, store.append, store.writer
        self._trap = trap
        self.run_moved = asyncio.Event()
        store.commit = self.commit  # instance attributes, in a throw-away process
        store.append = self.append

    async def commit(self, unit: Callable[[Tx], Any], *, label: str, **options: Any) -> Any:
        call = self._label_now()
        if label == "claim":
            self._sync_if_killed_at(Point.BEFORE_CLAIM)
        self._trap.reached(Point.BEFORE_CLAIM if label == "claim" else Point.ANY, call)
        result = await self._commit(self._crossed(unit, call), label=label, **options)
        self._trap.reached(Point.ANY, call)
        if label in ("end", "park"):
            self.run_moved.set()
        return result

    def append(self, unit: Callable[[Tx], Any], *, label: str, **options: Any) -> None:
        call = self._label_now()
        self._trap.reached(Point.ANY, call)
        self._append(self._crossed(unit, call), label=label, **options)
        if label != "settle":
            self._trap.reached(Point.ANY, call)
            return
        self._sync_if_killed_at(Point.AFTER_RECORD)
        self._trap.reached(Point.AFTER_RECORD, call)

    def _sync_if_killed_at(self, point: Point) -> None:
        """Wait until all that was appended is on disk, as it is 5 ms later: no model decides faster, but ours."""
        if self._trap.kill is not None and self._trap.kill.point is point:
            self._writer.commit_blocking(_nothing, label="barrier")

    def _crossed(self, unit: Callable[[Tx], Any], call: str | None) -> Callable[[Tx], Any]:
        def crossed(tx: Tx) -> Any:
            result = unit(tx)
            self._trap.reached(Point.ANY, call)  # in the writer's thread: written, and not yet committed
            return result

        return crossed


def _nothing(_tx: Tx) -> None:
    return None
