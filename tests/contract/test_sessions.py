"""Sessions that have ended are tidied up by those that are opened, and what open things refer to stays."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.contract.conftest import killed

import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.effects.rows import desk
from surefoot.leases import Holder, Life
from surefoot.leases.session import live_processes
from surefoot.store import StoreFailed, Tx, open_store, parse_url


def sessions(app: sf.Surefoot) -> dict[int, bool]:
    """Return which sessions there are, and whether they are closed."""

    def query(connection: Any) -> dict[int, bool]:
        return {row[0]: row[1] is not None for row in connection.execute("SELECT id, closed_at_ms FROM sessions")}

    return app.store.read_now(query)


def lock_files(url: str) -> list[Path]:
    with contextlib.closing(open_store(url, MIGRATIONS)) as store:
        return [one for one in store.workers.iterdir() if one.name.startswith(store.host) and one.name != "place"]


async def open_and_close(url: str, times: int) -> None:
    for _ in range(times):
        async with sf.Surefoot(url, is_worker=False):
            pass


async def test_what_a_killed_process_left_is_tidied_up_and_the_living_are_spared(url: str) -> None:
    """Catches lock files that pile up with every crash, and a living process that is taken for dead by the tidying."""
    async with sf.Surefoot(url) as living:
        killed(
            url,
            """
            async def body(app):
                die()
            """,
        )
        assert len(lock_files(url)) == 2
        async with sf.Surefoot(url) as app:
            assert sessions(app) == {1: False, 2: True, 3: False}
            assert len(lock_files(url)) == 2
            lives = [
                app.store.read_now(lambda connection, one=one: app.worker.sessions.holder(connection, one)).life  # type: ignore[misc]
                for one in (1, 2, 3)
            ]
            assert lives == [Life.ALIVE, Life.DEAD, Life.ALIVE]
            assert living.worker.session.may_act()
    assert lock_files(url) == []


async def test_old_sessions_go_unless_something_open_refers_to_them(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a table that grows for ever, and a doubt that forgets who sent it or in which boot it was claimed."""
    monkeypatch.setattr("surefoot.leases.session.KEPT", 4)
    monkeypatch.setattr("surefoot.leases.session.PRUNED_AT_ONCE", 3)

    @sf.effect(key="k:{x}")
    async def unknown(x: int) -> None:
        raise TimeoutError

    async with sf.Surefoot(url) as app:  # session 1 claims it, session 2 looks into it
        with pytest.raises(sf.OutcomeUnknown):
            await unknown(1)
    async with sf.Surefoot(url) as app:
        await app.store.commit(lambda tx: tx.execute("UPDATE ledger SET holder = 2, sender = 2"), label="test")
    await open_and_close(url, 20)
    async with sf.Surefoot(url) as app:
        left = sessions(app)
        assert {1, 2} < left.keys()
        assert len(left) <= 2 + 4 + 3
        (doubt,) = await app.unknowns()
        await app.resolve(doubt.id, is_done=True, by="ann", reason="saw it")
    await open_and_close(url, 6)
    async with sf.Surefoot(url) as app:
        assert not {1, 2} & sessions(app).keys()
        assert len(sessions(app)) <= 4 + 3
        (seen,) = app.store.read_now(desk.list_effects)
        assert seen.state == "done"
        gone = app.store.read_now(lambda connection: app.worker.sessions.holder(connection, 1))
        assert (gone.name, gone.life) == ("session 1", Life.DEAD)


async def test_the_session_of_a_run_that_was_left_running_stays(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run that nobody takes over because its holder was forgotten."""
    killed(
        url,
        """
        @sf.durable(name="left running")
        async def waits():
            await sf.sleep(0.2)
            die()

        async def body(app):
            await app.start(waits, id="r")
        """,
    )
    monkeypatch.setattr("surefoot.leases.session.KEPT", 2)
    monkeypatch.setattr("surefoot.leases.session.PRUNED_AT_ONCE", 2)
    await open_and_close(url, 12)

    @sf.durable(name="left running")
    async def waits() -> int:
        await sf.sleep(0.2)
        return 1

    async with sf.Surefoot(url) as app:
        assert 1 in sessions(app)
        assert await (await app.run("r")).result(timeout_s=10) == 1


def ours() -> set[str]:
    """Return the threads of the product that run; asyncio keeps as many of its own as it likes."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("surefoot-")}


@pytest.mark.sqlite_only("puts a file in the way of its workers' folder")
async def test_an_app_that_could_not_be_opened_can_be_opened_again(url: str) -> None:
    """Catches an app half open: it says that it is open, holds the store, and can't be used or closed."""
    in_the_way = Path(f"{url.removeprefix('sqlite:///')}-workers")
    in_the_way.touch()
    app, threads = sf.Surefoot(url), ours()
    with pytest.raises(StoreFailed):
        await app.open()
    assert ours() == threads
    in_the_way.unlink()
    async with app:
        assert await app.runs() == []


async def test_too_many_open_effects_keep_all_sessions(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an opening that reads for minutes, or that forgets what it hasn't read."""
    monkeypatch.setattr("surefoot.leases.session.KEPT", 2)
    monkeypatch.setattr("surefoot.leases.session.PRUNED_AT_ONCE", 2)
    monkeypatch.setattr("surefoot.effects.rows.desk.OPEN_EFFECTS_MAX", 1)

    @sf.effect(key="k:{x}")
    async def unknown(x: int) -> None:
        raise TimeoutError

    async with sf.Surefoot(url):
        for x in (1, 2):
            with pytest.raises(sf.OutcomeUnknown):
                await unknown(x)
    await open_and_close(url, 8)
    async with sf.Surefoot(url) as app:
        assert len(sessions(app)) == 10


async def test_a_sender_in_a_thread_is_not_dead_because_its_app_was_closed(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches an effect that may be called not done while a thread of a closed app still does it, and silence."""
    monkeypatch.setattr("surefoot.runs.worker.GRACE_S", 0.05)
    has_begun, may_end = threading.Event(), threading.Event()

    @sf.effect(timeout_s=0.01)
    def slow() -> None:
        has_begun.set()
        may_end.wait(10)
        raise TimeoutError

    async with sf.Surefoot(url, name="first"):
        assert (await slow.outcome()).told == "unknown"
    assert has_begun.is_set()
    assert "closing: acts in progress (1) have 0.05 s to get their answer" in caplog.text
    async with sf.Surefoot(url) as app:
        assert len(lock_files(url)) == 2
        with pytest.raises(desk.CannotResolve, match="effect 1 is being acted on right now by first"):
            await app.resolve(1, is_done=False, by="ann", reason="no trace of it")
    may_end.set()


@pytest.mark.sqlite_only("looks for lock files beside SQLite's file")
async def test_a_lock_that_cannot_be_had_is_no_session(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a worker whose death nobody would see, and files that pile up with every attempt to open."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("surefoot.leases.session.fcntl.lockf", refuse)
    with pytest.raises(StoreFailed, match="No locks available"):
        await sf.Surefoot(url).open()
    assert lock_files(url) == []
    open_files = [os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()]
    assert not [path for path in open_files if path.startswith(f"{parse_url(url)}-workers")]
    monkeypatch.undo()
    async with sf.Surefoot(url) as app:
        assert len(sessions(app)) == 1


@pytest.mark.sqlite_only("looks for lock files beside SQLite's file")
async def test_a_lock_that_cannot_be_looked_at_proves_no_death(app: sf.Surefoot, url: str) -> None:
    """Catches a takeover from a living process whose lock file this one has no access to."""

    def add_other(tx: Tx) -> None:
        tx.execute(
            "INSERT INTO sessions (name, pid, boot_id, lock_file, opened_at_ms, renewed_boot_ms, ttl_ms)"
            " SELECT 'other', 4711, boot_id, '4711-x', opened_at_ms, renewed_boot_ms, ttl_ms FROM sessions WHERE id = ?",
            (app.worker.session.id,),
        )

    def other() -> Holder:
        return app.store.read_now(lambda connection: app.worker.sessions.holder(connection, app.worker.session.id + 1))

    await app.store.commit(add_other, label="test")
    lock = Path(f"{parse_url(url)}-workers/4711-x")
    (lock.parent / "notes.txt").touch()
    assert (other().life, live_processes(parse_url(url))) == (Life.DEAD, [os.getpid()])
    lock.touch()
    assert (other().life, live_processes(parse_url(url))) == (Life.DEAD, [os.getpid()])
    lock.unlink()
    lock.symlink_to(lock)
    assert (other().life, live_processes(parse_url(url))) == (Life.ALIVE, sorted([os.getpid(), 4711]))
    lock.unlink()
    assert live_processes(Path("/nowhere/agents.db")) == []


async def test_of_two_who_see_that_their_session_has_run_out_one_opens_the_next(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a new session for each caller: all but the last could do nothing."""
    acted: list[int] = []

    @sf.effect
    async def act() -> None:
        acted.append(1)

    async with sf.Surefoot(url, is_worker=False) as app:
        first, answers = app.guard.duty.session.id, iter([False])  # the other one opened it between our two looks
        monkeypatch.setattr("surefoot.leases.session.Session.may_act", lambda _: next(answers, True))
        assert (await act.outcome()).told == "done"
        assert (app.guard.duty.session.id, acted) == (first, [1])
