"""The worker: which runs it takes, and what it does when looking, taking or reading fails."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from tests.contract.conftest import Calls, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.cli import main
from surefoot.runs.durable import KindSpec
from surefoot.runs.glance import glance
from surefoot.runs.life import SUSPECT_AFTER
from surefoot.runs.rows import queue
from surefoot.runs.rows.tables import find_run
from surefoot.store import StoreError, Tx


@pytest.fixture
async def complaints() -> Calls:
    """What the worker says aloud."""
    heard: Calls = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context["message"]))
    return heard


async def test_a_run_of_a_kind_that_nobody_knows_says_so_until_somebody_does(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a run that is pending for ever after a function was renamed, and one that stays blocked after a rollback."""
    monkeypatch.setattr("surefoot.runs.worker.UNKNOWN_S", 0.0)

    @sf.durable(name="renamed")
    async def code(number: int) -> int:
        return number

    kinds = sys.modules[KindSpec.__module__]._registered
    async with sf.Surefoot(url, is_worker=False) as app:
        await app.start(code, 7, id="r")
    known = kinds.pop("renamed")
    try:
        async with sf.Surefoot(url) as app:
            run = await app.run("r")
            status = await wait_state(run, "waiting", "blocked")
            assert "no worker here knows its kind; known: " in status.reason
            assert await run.signal("anything", 1), "what it takes is not known here"
            kinds["renamed"] = known
            assert await run.result(timeout_s=5) == 7
            del kinds["renamed"]
            assert await run.result(timeout_s=5) == 7, "as plain data"
    finally:
        kinds["renamed"] = known


async def test_runs_under_way_say_so_when_a_deploy_has_renamed_their_function(
    url: str, monkeypatch: pytest.MonkeyPatch, quick_eviction: None
) -> None:
    """Catches runs in the middle that hang without a word: one that was handed back, one whose time of waiting is over; and
    one that would have to be woken by hand once the old name is back."""
    monkeypatch.setattr("surefoot.runs.worker.UNKNOWN_S", 0.0)

    @sf.durable(name="renamed")
    async def code() -> str:
        await sf.sleep(3600)
        return "over"

    def deploy(tx: Tx) -> None:
        tx.execute("UPDATE runs SET wake_at_ms = 1 WHERE run_id = 'due'")
        tx.execute("UPDATE runs SET state = 1, waiting_for = NULL, wake_at_ms = NULL WHERE run_id = 'handed back'")

    kinds = sys.modules[KindSpec.__module__]._registered
    async with sf.Surefoot(url) as app:
        for run_id in ("due", "handed back", "not due"):
            await wait_state(await app.start(code, id=run_id), "waiting", "timer")
    async with sf.Surefoot(url, is_worker=False) as app:
        await app.store.commit(deploy, label="test")
    known = kinds.pop("renamed")
    try:
        async with sf.Surefoot(url) as app:
            for run_id in ("due", "handed back"):
                status = await wait_state(await app.run(run_id), "waiting", "blocked")
                assert "no worker here knows its kind; known: " in status.reason
            assert (await (await app.run("not due")).status()).waiting_for == "timer"
            kinds["renamed"] = known
            for run_id in ("due", "handed back"):
                await wait_state(await app.run(run_id), "waiting", "timer")
    finally:
        kinds["renamed"] = known


async def test_a_scheduled_run_of_a_kind_that_nobody_knows_says_so_when_it_is_due(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a run that stays scheduled for a time long past, because its function was renamed before that; and one that
    goes past its turn once it is known again, or keeps the old words; and that only the first hundred say so."""
    monkeypatch.setattr("surefoot.runs.worker.UNKNOWN_S", 0.0)

    @sf.durable(name="renamed", concurrency_per_key=1)
    async def code(number: int) -> int:
        return number

    kinds = sys.modules[KindSpec.__module__]._registered
    async with sf.Surefoot(url, is_worker=False) as app:
        for number in range(102):
            await app.start(code, number, id=str(number), key="k", delay=0.01)
    known = kinds.pop("renamed")
    try:
        async with sf.Surefoot(url) as app:
            runs = [await app.run(str(number)) for number in range(102)]
            async with asyncio.timeout(10):
                while "no worker here knows its kind; known: " not in (await runs[-1].status()).reason:
                    await asyncio.sleep(0.01)
            assert (await runs[-1].status()).state == "scheduled"
            now_ms = app.store.clock.wall_ms()
            assert app.store.read_now(lambda c: queue.of_unknown_kinds(c, ["renamed"], now_ms)) == [], "it is said once"
            if url.startswith("sqlite"):
                for words, said in (
                    (["runs"], "no worker here knows"),
                    (["show", "101"], "no worker here knows"),
                    (["show", "101"], "start a worker that knows its kind"),
                    (["doctor"], "s ago: no worker here knows its kind"),
                ):
                    await typed(url, *words)
                    assert said in " ".join(capsys.readouterr().out.split()), words
            kinds["renamed"] = known
            assert [await run.result(timeout_s=20) for run in runs] == list(range(102))
            assert [(await run.status()).reason for run in runs] == [""] * 102
    finally:
        kinds["renamed"] = known


async def typed(url: str, *words: str) -> None:
    """Type a command."""

    def type_it() -> None:
        with pytest.raises(SystemExit):
            main([*words, url] if words == ("doctor",) else [*words, "--store", url])

    await asyncio.to_thread(type_it)


@pytest.mark.one_worker("each worker may try one")
async def test_of_several_suspects_one_is_tried_at_a_time(app: sf.Surefoot) -> None:
    """Catches a run that kills its worker, and is not found out because another suspect died beside it."""
    may_end, began = asyncio.Event(), list[int]()

    @sf.durable
    async def suspect(number: int) -> int:
        began.append(number)
        await may_end.wait()
        return number

    await app.worker.stop()
    runs = [await app.start(suspect, number, id=f"s{number}") for number in range(3)]
    await app.store.commit(
        lambda tx: tx.execute("UPDATE runs SET takeovers = ? WHERE id != ?", (SUSPECT_AFTER, runs[2].row)), label="test"
    )
    app.worker.is_stopping = False
    await app.worker.start()
    await until(lambda: len(began) == 2)
    await app.worker._look()
    await app.worker._look()
    assert sorted(began) == [0, 2]
    may_end.set()
    assert [await run.result(timeout_s=5) for run in runs] == [0, 1, 2]


async def test_a_deadline_of_a_run_that_has_just_ended_is_nothing(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a worker that stops because a run ended between two of its looks."""

    @sf.durable
    async def ends() -> str:
        return "in time"

    run = await app.start(ends, id="e")
    await run.result(timeout_s=5)

    def stale(*arguments: Any) -> Any:
        return msgspec.structs.replace(glance(*arguments), overdue=[run.row])

    monkeypatch.setattr("surefoot.runs.worker.glance", stale)  # what it saw a moment ago
    await app.worker._look()
    assert app.worker.failure is None
    assert await (await app.start(ends, id="e")).result(timeout_s=5) == "in time"


async def test_an_error_in_one_sweep_is_told_and_stops_no_other(app: sf.Surefoot, complaints: Calls) -> None:
    """Catches doubts that nobody looks into any more because escalating them has failed; and a complaint for each look
    when the store is gone, which every caller is told by itself."""
    swept: Calls = []
    errors: list[Exception] = [KeyError("a mistake of ours"), StoreError("gone")]

    async def look() -> None:
        raise errors.pop(0)

    async def sweep() -> None:
        swept.append(1)

    app.worker.escalating.look = look  # type: ignore[method-assign]  # fails
    app.worker._sweep_doubts = sweep  # type: ignore[method-assign]  # is counted
    await app.worker._sweep()
    assert (complaints, swept) == (["surefoot: looking into doubts failed"], [1])
    await app.worker._sweep()
    assert (complaints, swept) == (["surefoot: looking into doubts failed"], [1])


def _gone(*_arguments: Any, **_options: Any) -> Any:
    raise StoreError("the store is gone")


def _unreadable(*_arguments: Any, **_options: Any) -> Any:
    raise ValueError("one of them can't be read")


@pytest.mark.one_worker("each worker may read it")
@pytest.mark.usefixtures("quick_eviction")
@pytest.mark.parametrize("together", [_gone, _unreadable])
async def test_a_store_that_is_gone_is_no_fault_of_the_run_that_is_read(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch, together: Callable[..., Any]
) -> None:
    """Catches a run that is written as unreadable, or waited for in vain, because its worker lost the store."""

    @sf.durable
    async def waits() -> str:
        return str(await sf.wait_signal("go"))

    run = await app.start(waits, id="w")
    await wait_state(run, "waiting", "signal")
    await until(lambda: not app.worker.live)
    monkeypatch.setattr("surefoot.runs.claiming.load_records_of", together)
    monkeypatch.setattr("surefoot.runs.claiming.load_records", _gone)
    await run.signal("go", "now")
    with pytest.raises(StoreError, match="the store is gone"):
        await run.result(timeout_s=5)
    assert (await run.status()).state == "running", "ours, until our session ends"


async def test_a_run_that_is_another_s_by_now_is_not_blocked(app: sf.Surefoot) -> None:
    """Catches a word of a worker that could not read a run, about one that its next holder goes on with."""
    may_end = asyncio.Event()

    @sf.durable
    async def goes_on() -> str:
        await may_end.wait()
        return "fine"

    run = await app.start(goes_on, id="g")
    row = app.store.read_now(lambda connection: find_run(connection, "g"))
    assert row is not None
    await app.store.commit(lambda tx: tx.execute("UPDATE runs SET epoch = epoch + 1"), label="test")
    await app.worker.claiming._block(row, [], "its journal can't be read")
    assert (await run.status()).state == "running"
    await app.store.commit(lambda tx: tx.execute("UPDATE runs SET epoch = epoch - 1"), label="test")
    may_end.set()
    assert await run.result(timeout_s=5) == "fine"


async def test_code_that_hangs_in_its_threads_hinders_no_other_run(app: sf.Surefoot) -> None:
    """Catches a worker that stands without a word, because users' synchronous code (a tool, a hook) holds all threads of
    the loop."""
    may_end = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))

    @sf.effect(timeout_s=0.05)
    def hangs() -> None:
        may_end.wait(30)

    @sf.durable
    async def hung() -> str:
        return (await hangs.outcome()).told

    @sf.durable
    async def other() -> str:
        await sf.wait_signal("go")
        return "fine"

    try:
        await wait_state(await app.start(hung, id="h"), "waiting", "doubt")
        run = await app.start(other, id="o")
        await run.signal("go")
        assert await run.result(timeout_s=10) == "fine"
    finally:
        may_end.set()
