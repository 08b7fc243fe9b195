"""Crash points against users' code that misbehaves, doubts that persons end, and mistakes that need two kills."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.crash.mistakes import Shop, paid_once, start_function

import surefoot as sf
from surefoot.testing import CrashPointFailed, NothingToSweep, WorldRaised
from surefoot.testing import crash_points as sweep

quiet = partial(sweep, start=start_function, world=Shop, recoveries=0, progress=lambda _line: None)


def app_of(url: str, act: Any, **declared: Any) -> sf.Surefoot:
    """An app whose run is one effect."""
    refund = sf.effect(name="refund", key="refund:{order}", **declared)(act)

    @sf.durable(name="support")
    async def support(order: str) -> Any:
        return await refund(order)

    return sf.Surefoot(url)


def asks_a_person(url: str, shop: Shop) -> sf.Surefoot:
    async def act(order: str) -> str:
        return await shop.refund(order)

    return app_of(url, act)


async def test_a_doubt_is_left_for_a_person_and_named() -> None:
    """Would catch a sweep that takes an honest "unknown" for a failure, or keeps silent about it."""
    report = await quiet(asks_a_person, check=paid_once, books=lambda shop: shop.refunds)
    assert {str(one) for one in report.doubts} == {
        "after-claim:refund", "before-call:refund/refund", "acted:refund/refund", "replied:refund", "before-settle:refund"
    }  # fmt: skip


async def test_a_person_who_looks_ends_the_doubts() -> None:
    """Would catch a person whose word doesn't reach the run."""
    report = await quiet(
        asks_a_person, check=paid_once, books=lambda shop: shop.refunds,
        person=lambda shop, doubt: shop.find(doubt.key.partition(":")[2]),
    )  # fmt: skip
    assert report.doubts == ()
    assert len(report.killed) == len(report.points)


@pytest.mark.slow
async def test_a_mistake_that_takes_two_kills_is_found_with_two() -> None:
    """Would catch recoveries that are never killed, and a schedule that names more kills than it takes."""

    def app(url: str, shop: Shop) -> sf.Surefoot:
        async def act(order: str) -> str:
            current = sf.current_effect()
            return await shop.refund_once(order, current.idempotency_key if current.attempt < 3 else "lost count")

        return app_of(url, act, in_doubt=sf.Resend())

    with pytest.raises(CrashPointFailed) as raised:
        await quiet(app, check=paid_once, recoveries=None)
    failure = raised.value.report.failure
    assert failure is not None
    assert len(failure.schedule.kills) == 2
    assert "2 refunds for one order" in failure.wrong


@pytest.mark.parametrize("is_blocking", [False, True])
async def test_a_process_that_hangs_is_ended_and_says_where(is_blocking: bool) -> None:
    """Would catch a sweep that waits for ever, and one that says no more than that it has."""

    def app(url: str, shop: Shop) -> sf.Surefoot:
        async def stand_still(order: str) -> str:
            if is_blocking:
                threading.Event().wait()
            await asyncio.Event().wait()
            return order

        return app_of(url, stand_still)

    with pytest.raises(NothingToSweep, match="event loop blocked" if is_blocking else "stand_still"):
        await quiet(app, limit_s=0.5 if is_blocking else 4.0)


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        pytest.param(lambda: os._exit(7), "exit code 7", id="exit"),
        pytest.param(lambda: os.kill(os.getpid(), 15), "signal 15", id="terminated"),
    ],
)
async def test_a_process_that_ends_itself_is_told_from_one_that_was_killed(ending: Any, words: str) -> None:
    """Would catch a crash of the user's own taken for one of ours."""

    def app(url: str, shop: Shop) -> sf.Surefoot:
        async def act(order: str) -> str:
            ending()
            return order

        return app_of(url, act)

    with pytest.raises(NothingToSweep, match=f"ended by itself.*{words}"):
        await quiet(app)


async def test_an_app_that_can_not_be_made_says_why() -> None:
    """Would catch an error of the user's own that is lost with its process."""

    def app(_url: str, _shop: Shop) -> sf.Surefoot:
        raise LookupError("no such service")

    with pytest.raises(NothingToSweep, match="LookupError: no such service"):
        await quiet(app)


class Till:
    """A world with errors of its own, parts, values, and what can't travel."""

    def __init__(self) -> None:
        self.drawer = Drawer()
        self.currency = "EUR"


class Drawer:
    """A part of it."""

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}

    def pay(self, order: str, cents: int = 5) -> int:
        """Pay out, unless the order is unknown."""
        if order == "A-0":
            raise Closed("not today", 7)
        if order == "A-2":
            raise Odd(order=order)
        self.sums[order] = cents
        return cents

    def peek(self, order: str) -> Any:
        """Answer with what is no data."""
        return object()


class Closed(Exception):
    """The till says no."""


class Odd(Exception):
    """An error that can't be built from its arguments."""

    def __init__(self, *, order: str) -> None:
        super().__init__("odd", order)


async def test_errors_parts_and_values_of_the_world_come_to_the_process() -> None:
    """Would catch a fake that behaves otherwise from afar: an error that `refused_on` doesn't know, a lost default."""
    seen: dict[str, int] = {}

    def app(url: str, till: Till) -> sf.Surefoot:
        async def act(order: str) -> list[Any]:
            try:
                till.drawer.pay("A-2")
            except WorldRaised as error:
                return [till.currency, till.drawer.pay(order, cents=3), till.drawer.pay("B"), str(error)]
            return []

        refused = sf.effect(name="refused", refused_on=(Closed,))(lambda: till.drawer.pay("A-0"))
        refund = sf.effect(name="refund", in_doubt=sf.Overwrite())(act)

        @sf.durable(name="support")
        async def support(order: str) -> list[Any]:
            outcome = await refused.outcome()
            return [outcome.told, outcome.reason, *await refund(order)]

        return sf.Surefoot(url)

    report = await sweep(app, start=start_function, world=Till, recoveries=0, progress=lambda line: None,
                         books=lambda till: till.drawer.sums, check=lambda till: seen.update(till.drawer.sums))  # fmt: skip
    assert seen == {"A-1": 3, "B": 5}
    assert report.unlike == ()


async def test_what_can_not_travel_is_named() -> None:
    """Would catch an answer that arrives as something else than the world gave."""

    def app(url: str, till: Till) -> sf.Surefoot:
        async def act(order: str) -> Any:
            return till.drawer.peek(order)

        return app_of(url, act)

    with pytest.raises(sf.SurefootError, match=r"drawer\.peek answered what can't travel"):
        await sweep(app, start=start_function, world=Till, progress=lambda line: None)


async def test_a_service_of_its_own_needs_no_world(tmp_path: Path) -> None:
    """Would catch a sweep that only works with fakes that live in the test: here the books are a file."""
    books = tmp_path / "books.db"
    number = iter(range(1_000))

    def app(url: str, _world: None) -> sf.Surefoot:
        name = Path(url.removeprefix("sqlite:///")).parent.name
        with closing(sqlite3.connect(books)) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS paid (who TEXT, order_id TEXT)")

        async def act(order: str) -> str:
            with closing(sqlite3.connect(books)) as db, db:
                db.execute("INSERT INTO paid VALUES (?, ?)", (name, order))
            return "paid"

        return app_of(url, act, in_doubt=sf.Resend())

    def paid_once() -> None:
        next(number)
        with closing(sqlite3.connect(books)) as db, db:
            worst = db.execute("SELECT count(*) FROM paid GROUP BY who, order_id ORDER BY 1 DESC").fetchone()[0]
        assert worst == 1, f"paid {worst} times"

    with pytest.raises(CrashPointFailed, match=r"Killed when `refund` had its answer.*paid 2 times"):
        await sweep(app, start=start_function, check=paid_once, recoveries=0, progress=lambda line: None)
    assert next(number) > 3


async def test_parallel_branches_keep_their_places() -> None:
    """Would catch points that mean something else in each run because tasks interleave."""

    def app(url: str, shop: Shop) -> sf.Surefoot:
        @sf.effect(key="refund:{order}", in_doubt=sf.Resend())
        async def refund(order: str) -> str:
            return await shop.refund_once(order, sf.current_effect().idempotency_key)

        async def side(order: str) -> str:
            return await refund.keyed(order)(order)

        @sf.durable(name="support")
        async def support(order: str) -> list[str]:
            return list(await asyncio.gather(*(side(f"{order}{number}") for number in range(3))))

        return sf.Surefoot(url)

    report = await quiet(app, books=lambda shop: sorted(shop.refunds))
    assert report.missed == ()
    assert report.coverage["refund"]["acted"] == 3


async def test_no_process_is_left_behind() -> None:
    """Would catch processes that outlive the sweep, and what they have started."""

    def app(url: str, shop: Shop) -> sf.Surefoot:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        return asks_a_person(url, shop)

    before = _children()
    await quiet(app, check=paid_once)
    assert _children() - before == set()


def _children() -> set[str]:
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines() if "time.sleep(600)" in line and "ps -eo" not in line}


def test_the_fixture_is_there_and_repeats_one_schedule(tmp_path: Path) -> None:
    """Would catch a plugin that pytest doesn't find, and a printed command that doesn't show the failure again."""
    (tmp_path / "test_mine.py").write_text(textwrap.dedent(
        """
        import asyncio
        import surefoot as sf

        class Shop:
            def __init__(self): self.paid = []
            def pay(self, order): self.paid.append(order)

        def app(url, shop):
            @sf.effect(key="pay:{order}", in_doubt=sf.Resend())
            async def pay(order): shop.pay(order)
            @sf.durable(name="mine")
            async def mine(order): await pay(order)
            return sf.Surefoot(url)

        def test_it(crash_points):
            asyncio.run(crash_points(app, start=lambda app: app.start("mine", "A", id="1"), world=Shop,
                                     check=lambda shop: len(shop.paid) == 1, recoveries=0))
        """
    ))  # fmt: skip
    first = _pytest(tmp_path, "test_mine.py")
    assert "Killed when `pay` (called by `pay`) had acted" in first
    again = next(line for line in first.splitlines() if "again: pytest " in line).partition("again: pytest ")[2].split()
    assert again == ["test_mine.py::test_it", "--crash-points", "acted:pay/pay"]
    repeated = _pytest(tmp_path, *again)
    assert "check returned False" in repeated
    assert "schedules" not in repeated


def _pytest(folder: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended.stdout
