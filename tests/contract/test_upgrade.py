"""A store of each earlier format opens, and what was open in it goes on to its end."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import apsw
import pytest
from tests.contract.conftest import until
from tests.golden.make import act_on_orders

import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.cli.checks import INVARIANTS
from surefoot.store import StoreBusy, open_store
from surefoot.store.finding import broken

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("format-*.db"))
ENDS = {"waits": "paid waits", "child": "paid waits", "parent": "paid waits", "unknown": "fine", "dies": "fine",
        "holds": "paid holds", "first": "paid first", "second": "paid second", "later": "paid later"}  # fmt: skip


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
@pytest.mark.usefixtures("quick_eviction")
async def test_what_was_open_goes_on(file: Path, tmp_path: Path) -> None:
    """Catches a format whose open runs, waits, doubts or claims the newest code can't carry on."""
    shipped = list[str]()
    act_on_orders(shipped)
    shutil.copy(file, tmp_path / "agents.db")
    async with sf.Surefoot(f"sqlite:///{tmp_path}/agents.db") as app:
        assert await (await app.run("done")).result() == "paid done"
        found = [run.run_id for run in await app.runs() if run.run_id in ENDS]
        for name in ("waits", "child", "holds"):
            if name in found:
                await (await app.run(name)).signal("go")
        for letter in await app.dead_letters():
            await app.redeliver(letter.event, group=letter.group, by="me", reason="mended")
        async with asyncio.timeout(30):
            while len(unknown := await app.unknowns()) < len({"unknown", "dies"} & set(found)):
                await asyncio.sleep(0.02)
        for view in unknown:
            await app.resolve(view.id, is_done=True, by="me", reason="looked", value="fine")
        for name in found:
            assert await (await app.run(name)).result(timeout_s=30) == ENDS[name]
        await until(lambda: "first" not in found or sorted(shipped) == ["even", "odd"])
        assert app.store.read_now(lambda c: [f for f in broken(c, INVARIANTS) if f.severity.value == "error"]) == []


def test_an_old_process_keeps_its_format(tmp_path: Path) -> None:
    """Catches a new process that brings the format forward while one of the first version has the file open."""
    path = tmp_path / "agents.db"
    shutil.copy(GOLDEN[0], path)
    old = apsw.Connection(str(path))  # as the first version opened it: it knew of no checksums
    old.execute("SELECT count(*) FROM runs").fetchall()
    with pytest.raises(StoreBusy, match="no other process has it open"):
        open_store(f"sqlite:///{path}", MIGRATIONS)
    assert old.execute("SELECT max(version) FROM surefoot_format WHERE room = 'runs'").fetchall() == [(1,)]
    old.execute("UPDATE runs SET reason = 'still at work' WHERE run_id = 'waits'")
    old.close()
    store = open_store(f"sqlite:///{path}", MIGRATIONS)
    reasons = store.read_now(lambda c: c.execute("SELECT reason FROM runs WHERE run_id = 'waits'").fetchall())
    store.close()
    assert reasons == [("still at work",)]
