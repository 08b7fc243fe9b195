"""The writer beside other writers of the same file."""

from __future__ import annotations

import pytest

import surefoot as sf
from surefoot.store import Tx


@pytest.mark.parametrize("looks", [0, 1])
async def test_a_unit_that_writes_nothing_leaves_no_snapshot_behind(url: str, looks: int) -> None:
    """Catches a statement that is not read to its end: it outlives COMMIT, and once another process has written, the
    next transaction fails as "busy", which stops the writer for good."""

    def idle(tx: Tx) -> None:
        for _ in range(looks):
            tx.take_id("journal")

    async with sf.Surefoot(url, is_worker=False) as one, sf.Surefoot(url, is_worker=False) as other:
        for _ in range(3):
            await one.store.commit(idle, label="idle")
            await other.store.commit(
                lambda tx: tx.execute("UPDATE sessions SET opened_at_ms = opened_at_ms + 1"), label="write"
            )
            await one.store.commit(
                lambda tx: tx.execute("UPDATE sessions SET opened_at_ms = opened_at_ms + 1"), label="write"
            )
