"""Approvals over the years: what retention leaves of them, and what a restored store makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_approvals import BIG, Bank, one, states, waiting
from tests.contract.test_escalation import HOUR_MS, MovedClock
from tests.contract.test_restore import back_up, restored

import surefoot as sf
from surefoot.approvals import AlreadyDecided, desk, tables
from surefoot.cli.checks import INVARIANTS
from surefoot.people import trail
from surefoot.runs.rows.desk import is_open
from surefoot.store.finding import broken


def views(app: sf.Surefoot) -> list[desk.ApprovalView]:
    """Return all approvals, oldest first."""
    sessions = app.worker.sessions
    found = app.store.read_now(lambda c: desk.list_approvals(c, sessions, is_open, state=None))
    return found[::-1]


async def test_retention_takes_arguments_and_leaves_who_decided(url: str) -> None:
    """Catches arguments that outlive their time, an approval that can't be shown without them, and one lost while open."""
    clock, bank = MovedClock(), Bank()
    async with sf.Surefoot(url, clock=clock) as app:
        run = await app.start(bank.paying, "A", 500, id="done")
        await waiting(run)
        await app.approve(await one(app), by="anna", reason="fine")
        await run.result(timeout_s=10)
        with pytest.raises(sf.ApprovalNeeded) as outside:
            await bank.pay("B", 600)
        await app.deny(outside.value.approval, by="bob", reason="no")
        first = await app.start(bank.paying, "C", 700, id="first")
        second = await app.start(bank.paying, "C", 700, id="second")
        for waits in (first, second):
            await waiting(waits)
        await first.cancel("not mine")
        with pytest.raises(sf.RunCancelled):
            await first.result(timeout_s=10)
        clock.moved_ms = 40 * 24 * HOUR_MS
        for _ in range(2):
            await app.gc("30d")
        used, denied, pending = views(app)
        assert [(one.state, one.arguments) for one in (used, denied, pending)] == [
            ("used", None), ("denied", None), ("pending", {"order": "C", "amount": 700})]  # fmt: skip
        assert [note.who for note in used.notes][:1] == ["anna"]
        with pytest.raises(AlreadyDecided, match="is used: anna"):
            await app.approve(used.id, by="carl", reason="me too")
        assert app.store.read_now(trail.verify) == []
        assert app.store.read_now(desk.untold) == []
        assert broken_ones(app) == []
        await app.approve(pending.id, by="anna", reason="at last")
        assert await second.result(timeout_s=10) == "paid C"


@pytest.mark.sqlite_only("a backup is a copy of SQLite's file")
async def test_a_restored_store_uses_no_approval_of_then(url: str, tmp_path: Path) -> None:
    """Catches an approval that was used or taken back after the backup, and lets its call act in the restored store."""
    bank, new_url = Bank(BIG, in_doubt=sf.Resend(key_ttl="24h")), f"sqlite:///{tmp_path}/new.db"
    async with sf.Surefoot(url) as app:
        await waiting(await app.start(bank.paying, "A", 500, id="r"))
    async with sf.Surefoot(url, is_worker=False) as app:
        await app.approve(1, by="anna", reason="fine")
        back_up(url, tmp_path / "backup.db")
        await app.deny(1, by="anna", reason="the wrong customer")
    restored(tmp_path / "backup.db", new_url)
    async with sf.Surefoot(new_url) as app:
        run = await app.run("r")
        await waiting(run)
        assert (states(app), bank.paid) == (["lapsed", "pending"], [])
        assert broken_ones(app) == []
        await app.approve(2, by="anna", reason="the right one, I have looked")
        assert await run.result(timeout_s=10) == "paid A"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE approvals SET state = 9", "known state"),
        ("DELETE FROM journal WHERE kind = 22", "has its question"),
        ("UPDATE approvals SET state = 4", "was approved before"),
        ("DELETE FROM approvals", "belongs to an approval"),
        ("DELETE FROM trail WHERE id = 2", "no gaps"),
    ],
)
async def test_the_doctor_finds_what_can_not_be(url: str, change: str, told: str) -> None:
    """Catches an invariant that nothing breaks."""
    bank = Bank()
    async with sf.Surefoot(url) as app:
        for order in "ABC":
            await waiting(await app.start(bank.paying, order, 500, id=order))
        for number in (1, 2):
            await app.deny(number, by="anna", reason="no")
        await (await app.run("C")).cancel("enough", by="anna")
        with pytest.raises(sf.RunCancelled):
            await (await app.run("C")).result(timeout_s=10)
        assert broken_ones(app) == []
        assert len(app.store.read_now(lambda c: tables.of_state(c, None))) == 3
        await app.store.commit(lambda tx: tx.execute(change), label="damage")
        assert any(told in one for one in broken_ones(app))


def broken_ones(app: sf.Surefoot) -> list[str]:
    """Return what is broken in the store, in words."""

    def look(connection: Any) -> list[str]:
        return [str(found) for found in broken(connection, INVARIANTS) if found.severity.value == "error"]

    return app.store.read_now(look)
