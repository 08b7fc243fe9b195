"""Shadow replay: other code is walked along the journals of open runs, and does nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.contract.conftest import Calls, kinds, until
from tests.contract.test_runs import wait_state
from tests.support.postgres import tables_of

import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.journal import current_frame
from surefoot.runs.live.run import LiveRun
from surefoot.runs.rows.tables import list_open
from surefoot.runs.shadow import Shadow, shadow
from surefoot.store import NewerFormat, OlderFormat, is_on_postgres, looking_at

log: Calls = []


@sf.effect(key="shadow:{order}", name="shadow pay")
async def pay(order: str) -> str:
    log.append(f"pay {order}")
    return "paid"


@sf.read(name="shadow look")
async def look(order: str) -> str:
    log.append(f"look {order}")
    return "seen"


@sf.step(name="shadow think")
async def think(order: str) -> str:
    log.append(f"think {order}")
    return "thought"


def shadows(url: str, **options: Any) -> dict[str, Shadow]:
    """Walk all open runs; called in a thread, since a walk has an event loop of its own."""
    with looking_at(url, MIGRATIONS) as connection:
        rows = list_open(connection, after=0, kind=None, limit=1_000)
        return {row.run_id: shadow(connection, row, **options) for row in rows}


async def shadows_of(url: str, **options: Any) -> dict[str, Shadow]:
    return await asyncio.to_thread(shadows, url, **options)


async def left_open(url: str, code: Any, *arguments: Any, waiting_for: str = "signal") -> None:
    """Leave a run where it waits."""
    log.clear()
    async with sf.Surefoot(url) as app:
        await wait_state(await app.start(code, *arguments, id="r"), "waiting", waiting_for)
    log.clear()


def files(url: str) -> dict[str, bytes]:
    """Return the bytes of a store and of what lies beside it, but for what SQLite shares between processes in memory.

    Of a store on PostgreSQL, what it holds.
    """
    if is_on_postgres(url):
        with looking_at(url, MIGRATIONS) as connection:
            rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables_of(connection)}
        return {name: repr(found).encode() for name, found in rows.items()}
    folder = Path(url.removeprefix("sqlite:///")).parent
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.endswith("-shm") and path.stat().st_size
    }


async def test_the_same_code_is_the_same_and_nothing_is_done_or_written(url: str, quick_eviction: None) -> None:
    """Catches a shadow that acts, writes, or takes one step beyond what is recorded."""

    @sf.durable(name="shadowed")
    async def code(order: str) -> None:
        await think(order)
        await asyncio.gather(*(pay.keyed(one)(one) for one in ("a", "b")))
        await look(order)
        async with sf.saga():
            await sf.sleep(0.001)
        await sf.wait_signal("go")
        await pay("c")

    await left_open(url, code, "o")
    before = files(url)
    found = (await shadows_of(url))["r"]
    assert (found.verdict.value, found.step, log) == ("same", "signal go", [])
    assert files(url) == before


async def test_other_steps_and_other_arguments_are_divergent(url: str, quick_eviction: None) -> None:
    """Catches a deploy that would block runs, and was not told where."""

    @sf.durable(name="changing")
    async def code() -> None:
        await think("x")
        await pay("a")
        await sf.wait_signal("go")

    await left_open(url, code)

    @sf.durable(name="changing")
    async def other_step() -> None:
        await look("x")

    found = (await shadows_of(url))["r"]
    assert (found.verdict.value, found.step, found.asked) == ("divergent", "shadow think", "step shadow look")

    @sf.durable(name="changing")
    async def other_arguments() -> None:
        await think("x")
        await pay("b")

    found = (await shadows_of(url))["r"]
    assert (found.verdict.value, found.step) == ("divergent", "shadow pay")
    assert '"b"' in found.asked
    assert '"a"' in found.recorded

    @sf.durable(name="changing")
    async def shorter() -> None:
        await think("x")

    found = (await shadows_of(url))["r"]
    assert (found.verdict.value, found.recorded) == ("divergent", "step shadow pay, never asked for")

    @sf.durable(name="changing")
    async def swallowing() -> None:
        try:
            await look("x")
        except Exception:
            await think("x")

    assert (await shadows_of(url))["r"].verdict.value == "divergent"
    assert log == []


async def test_an_open_claim_with_other_arguments_is_divergent(url: str, quick_eviction: None) -> None:
    """Catches a change of the very effect that is in doubt: its recorded call would be sent again by other code."""

    @sf.effect(key="shadow lost:{order}", match=(), name="shadow lose")
    async def lose(order: str, note: str) -> None:
        raise OSError("lost")

    @sf.durable(name="losing")
    async def code() -> None:
        await lose("a", "then")

    await left_open(url, code, waiting_for="doubt")
    assert (await shadows_of(url))["r"].verdict.value == "same"

    @sf.durable(name="losing")
    async def other() -> None:
        await lose("a", "now")

    assert (await shadows_of(url))["r"].verdict.value == "divergent"


async def test_a_recorded_time_out_does_not_take_its_time(url: str, quick_eviction: None) -> None:
    """Catches a check that waits for an hour because a run once did."""

    @sf.durable(name="hourly")
    async def code(seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds if not log else 3_600):
                await sf.wait_signal("never")
        except TimeoutError:
            await think("late")
        await sf.wait_signal("go")

    await left_open(url, code, 0.3)
    log.append("now it would take an hour")
    assert (await shadows_of(url))["r"].verdict.value == "same"


async def test_a_recorded_cancellation_hits_at_its_place(url: str, quick_eviction: None) -> None:
    """Catches a run in the middle of its clean-up that is taken for divergent."""

    @sf.durable(name="cleaning")
    async def code() -> None:
        try:
            await think("x")
            await sf.sleep(60)
        finally:
            await look("clean up")
            await sf.wait_signal("cleaned")

    async with sf.Surefoot(url) as app:
        run = await app.start(code, id="r")
        await until(lambda: "timer_set" in kinds(app, "r"))
        await run.cancel("enough")
        await wait_state(run, "waiting", "signal")
    found = (await shadows_of(url))["r"]
    assert (found.verdict.value, found.step) == ("same", "signal cleaned")


async def test_unknown_kinds_and_unreadable_values_are_told(url: str, quick_eviction: None) -> None:
    """Catches a deploy that forgets a function, or changes a type that is recorded."""

    @sf.durable(name="typed")
    async def code(order: str) -> None:
        await think(order)
        await sf.wait_signal("go")

    await left_open(url, code, "o")

    @sf.step(name="shadow think")
    async def think_in_dates(order: str) -> date:
        return date(2026, 1, 1)

    @sf.durable(name="typed")
    async def other_type(order: str) -> None:
        await think_in_dates(order)

    with looking_at(url, MIGRATIONS) as connection:
        (row,) = list_open(connection, after=0, kind=None, limit=9)
        assert list_open(connection, after=0, kind="other", limit=9) == []
    found = (await shadows_of(url))["r"]
    assert (found.verdict.value, found.step) == ("divergent", "shadow think")

    @sf.durable(name="typed")
    async def other_input(order: date) -> None:
        await think("x")

    assert (await shadows_of(url))["r"].verdict.value == "divergent"
    kindless = type(row)(*[*list(_fields(row))[:2], "nobody knows", *list(_fields(row))[3:]])

    def walk() -> Shadow:
        with looking_at(url, MIGRATIONS) as connection:
            return shadow(connection, kindless)

    assert (await asyncio.to_thread(walk)).verdict.value == "unknown_kind"


def _fields(row: Any) -> list[Any]:
    return [getattr(row, name) for name in type(row).__dataclass_fields__]


async def test_code_that_reaches_out_without_a_step_is_stopped(url: str, quick_eviction: None) -> None:
    """Catches a check that calls a service, or starts a program, because the code does it outside of steps."""

    @sf.durable(name="reaching")
    async def code() -> None:
        await think("x")
        await sf.wait_signal("go")

    await left_open(url, code)

    @sf.durable(name="reaching")
    async def connecting() -> None:
        await think("x")
        with socket.socket() as one:
            one.connect(("127.0.0.1", 9))

    @sf.durable(name="reaching")
    async def spawning() -> None:
        await think("x")
        try:
            subprocess.run([sys.executable, "-c", ""], check=True)
        except Exception:
            log.append("swallowed")

    for kind in (connecting, spawning):
        assert kind is not None
        sf.durable(name="reaching")(kind)
        found = (await shadows_of(url))["r"]
        assert found.verdict.value == "acts_outside", found
        assert "socket.connect" in found.words or "subprocess.Popen" in found.words
    assert log == []
    assert os.system("true") == 0  # only while a run is walked


async def test_code_that_waits_for_no_step_is_unfinished(url: str, quick_eviction: None) -> None:
    """Catches a check that hangs."""

    @sf.durable(name="hanging")
    async def code() -> None:
        await think("x")
        await sf.wait_signal("go")

    await left_open(url, code)

    @sf.durable(name="hanging")
    async def hangs() -> None:
        await asyncio.Event().wait()
        await think("x")

    found = (await shadows_of(url, limit_s=0.2))["r"]
    assert found.verdict.value == "unfinished"


async def test_code_that_goes_on_elsewhere_for_ever_is_divergent(url: str, quick_eviction: None) -> None:
    """Catches new code that waits for what comes before the recorded step, and is taken for code that is only slow."""

    @sf.durable(name="elsewhere")
    async def code() -> None:
        async with sf.branch("side"):
            await think("x")
        await sf.wait_signal("go")

    await left_open(url, code)

    @sf.durable(name="elsewhere")
    async def waits_first() -> None:
        async with sf.branch("other"):
            await sf.wait_signal("first")
        async with sf.branch("side"):
            await think("x")

    found = (await shadows_of(url))["r"]
    assert (found.verdict.value, found.step, found.asked) == (
        "divergent", "side/shadow think", "step other/signal first",
    )  # fmt: skip


async def test_a_journal_that_can_not_be_read_is_told(url: str, quick_eviction: None) -> None:
    """Catches a check that ends in the middle for one bad run, and one that calls a broken file a broken run."""

    @sf.durable(name="unreadable")
    async def code() -> None:
        await think("x")
        await sf.wait_signal("go")

    await left_open(url, code)
    async with sf.Surefoot(url, is_worker=False) as app:
        await app.store.commit(lambda tx: tx.execute("UPDATE journal SET kind = 99 WHERE kind = 2"), label="test")
    found = (await shadows_of(url))["r"]
    assert found.verdict.value == "unreadable"
    assert "its journal can't be read: ValueError" in found.words

    def walk_closed() -> Shadow:
        with looking_at(url, MIGRATIONS) as connection:
            (row,) = list_open(connection, after=0, kind=None, limit=9)
        return shadow(connection, row)

    fault: type[Exception] = apsw.Error
    if is_on_postgres(url):
        import psycopg

        fault = psycopg.Error
    with pytest.raises(fault):
        await asyncio.to_thread(walk_closed)


def test_code_that_does_not_come_back_is_interrupted(
    url: str, quick_eviction: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a check that hangs in code that never lets the event loop run."""

    @sf.durable(name="blocking")
    async def code() -> None:
        await think("x")
        await sf.wait_signal("go")

    asyncio.run(left_open(url, code))

    @sf.durable(name="blocking")
    async def blocks() -> None:
        await think("x")
        while True:
            pass

    monkeypatch.setattr("surefoot.runs.shadow.BLOCKED_S", 0.1)
    before = signal.getsignal(signal.SIGALRM)
    found = shadows(url, limit_s=0.01)["r"]
    assert (found.verdict.value, found.words) == ("unfinished", "its code did something else than wait for 0 s")
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


async def test_what_a_shadow_looks_up_is_read_and_what_it_writes_is_not_written(url: str) -> None:
    """Catches code that is divergent only because it looks into the store, and a commit of its own that goes through."""
    results: Calls = []

    @sf.durable(name="looks up")
    async def code() -> None:
        frame = current_frame.get()
        assert isinstance(frame, LiveRun)
        await think("x")
        query = lambda connection: next(connection.execute("SELECT count(*) FROM runs"))[0]  # noqa: E731  both ways
        results.append((await frame.store.read(query), frame.store.read_now(query)))
        await frame.store.commit(lambda tx: tx.execute("UPDATE runs SET reason = 'written'"), label="test")
        results.append("committed")
        await sf.wait_signal("go")

    async with sf.Surefoot(url) as app:
        run = await app.start(code, id="r")
        await until(lambda: "committed" in results)
        results.clear()
        found = (await shadows_of(url, limit_s=0.2))["r"]
        assert results == [(1, 1)]
        assert found.verdict.value == "unfinished"
        await run.signal("go")
        await run.result(timeout_s=5)


async def test_steps_inside_a_recorded_step_are_not_asked_for(url: str, quick_eviction: None) -> None:
    """Catches nested steps that are taken for forgotten ones, since the outer one's outcome stands for them."""

    @sf.step(name="shadow outer")
    async def outer() -> str:
        return await think("x")

    @sf.durable(name="nested")
    async def code() -> None:
        await outer()
        await sf.wait_signal("go")

    await left_open(url, code)
    found = (await shadows_of(url))["r"]
    assert (found.verdict.value, found.step, log) == ("same", "signal go", [])


async def test_a_deadline_that_has_passed_meanwhile_is_met_where_a_worker_would(url: str, quick_eviction: None) -> None:
    """Catches a clean-up that is not walked, and a deadline that a check writes down."""

    @sf.durable(name="late")
    async def code() -> None:
        try:
            await sf.wait_signal("go")
        except sf.DeadlinePassed:
            await think("clean up")

    await left_open(url, code)
    async with sf.Surefoot(url, is_worker=False) as app:
        await app.store.commit(lambda tx: tx.execute("UPDATE runs SET deadline_ms = 1"), label="test")
    before = files(url)
    found = (await shadows_of(url))["r"]
    assert (found.verdict.value, found.step, log) == ("same", "shadow think", [])
    assert files(url) == before


async def test_a_saga_that_can_not_be_undone_by_this_code_stands(url: str, quick_eviction: None) -> None:
    """Catches a check that ends, or hangs, in a half-undone saga whose effects are declared otherwise by now."""

    async def take_back(order: str) -> None:
        raise sf.NotDone("the service is closed")

    @sf.effect(key="shadow book:{order}", compensate=take_back, name="shadow book")
    async def book(order: str) -> str:
        return "booked"

    @sf.durable(name="standing saga")
    async def code() -> None:
        async with sf.saga("s"):
            await book("a")
            raise ValueError("no")

    await left_open(url, code, waiting_for="blocked")
    compensation = f"s/$undo/undo shadow book[{digest_of(url)}-1"
    found = (await shadows_of(url))["r"]
    assert (found.verdict.value, found.step) == ("same", f"{compensation}.2]")

    @sf.effect(key="shadow book:{order}", name="shadow book")
    async def without_compensation(order: str) -> str:
        return "booked"

    found = (await shadows_of(url))["r"]
    assert (found.verdict.value, found.step, found.asked) == ("divergent", f"{compensation}]", "step s/$undo")


def digest_of(url: str) -> str:
    """Return the digest of the one effect that was done."""
    with looking_at(url, MIGRATIONS) as connection:
        return bytes(next(connection.execute("SELECT digest FROM ledger WHERE id = 1"))[0]).hex()


async def test_other_formats_are_refused_and_left_alone(url: str) -> None:
    """Catches a check that brings a store forward, or misreads one."""
    async with sf.Surefoot(url):
        pass
    before = files(url)
    with (
        pytest.raises(OlderFormat),
        looking_at(url, [*MIGRATIONS, type(MIGRATIONS[0])("runs", 999, "new", "SELECT 1")]),
    ):
        pass
    with pytest.raises(NewerFormat), looking_at(url, MIGRATIONS[:-1]):
        pass
    assert files(url) == before
