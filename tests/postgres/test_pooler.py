"""Behind a pooler in transaction mode a store is refused, at once or with the first turn that shows it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.postgres.test_store import TABLE, add, numbers
from tests.support.pooler import TransactionPooler
from tests.support.postgres import Postgres

import surefoot as sf
from surefoot.store import StoreFailed, open_store


async def test_a_pooler_that_shows_itself_is_refused_when_the_store_is_opened(
    url: str, postgres: Postgres, tmp_path: Path
) -> None:
    """Catches settings, locks and notices that are given to another session than the one they are for."""
    with TransactionPooler(postgres.socket, tmp_path, is_rotating=True) as pooler:
        with pytest.raises(StoreFailed, match="a pooler gives each transaction another connection") as raised:
            await sf.Surefoot(pooler.url(url)).open()
        assert raised.value.hint == "connect to the server itself, or to a pool with pool_mode = session"


async def test_a_pooler_that_was_quiet_is_refused_with_the_first_turn_that_shows_it(
    url: str, postgres: Postgres, tmp_path: Path
) -> None:
    """Catches a store that works for as long as nobody else uses the pool, and then does not; nothing of it is written."""
    with TransactionPooler(postgres.socket, tmp_path, is_rotating=False) as pooler:
        store = await asyncio.to_thread(open_store, pooler.url(url), [TABLE])
        assert await store.commit(add(1), label="test") == 1
        pooler.next_one += 1
        with pytest.raises(StoreFailed, match="a pooler gives each transaction another connection"):
            await store.commit(add(2), label="test")
        with pytest.raises(StoreFailed, match="a pooler"):
            await store.commit(add(3), label="test")
        await asyncio.to_thread(store.close)
    there = open_store(url, [TABLE])
    assert numbers(there) == [1]
    there.close()
