"""Housekeeping beside workers: small transactions, each followed by a pause as long as itself.

So whoever works beside it loses at most half of the writer, and on a slow disk housekeeping slows down with it.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from surefoot.store.store import Store
from surefoot.store.writer import Unit

T = TypeVar("T")

PAUSE_MIN_S = 0.002
"""Shortest pause between two transactions, for whoever waits for the writer."""


async def politely(store: Store, unit: Unit[T], *, label: str) -> T:
    """Write one small transaction, then leave the writer to others for as long as it took."""
    clock = store.clock
    began_s = clock.monotonic_s()
    done = await store.commit(unit, label=label)
    await asyncio.sleep(max(PAUSE_MIN_S, clock.monotonic_s() - began_s))
    return done
