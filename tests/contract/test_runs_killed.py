"""Runs whose process is killed in the middle: another process is started for it, and kills itself."""

from __future__ import annotations

import asyncio
import textwrap
from functools import partial
from typing import Any

import pytest
from tests.contract.conftest import Calls, killed, ledger_states, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.effects.rows import desk
from surefoot.leases import Sessions
from surefoot.runs.rows.desk import wake


async def test_claims_of_a_killed_process_are_listed_as_in_doubt(url: str) -> None:
    """Catches open claims, in runs or outside, that nobody acts on and nobody is shown."""
    killed(
        url,
        """
        @sf.effect
        async def pay(order: str) -> None:
            if order == "B":
                die()
            await asyncio.sleep(20)

        @sf.durable
        async def cancelled_later() -> None:
            await pay("A")

        async def body(app):
            await app.start(cancelled_later, id="j")
            await asyncio.sleep(0.1)
            await pay("B")
        """,
    )
    async with sf.Surefoot(url) as app:
        await until(lambda: ledger_states(app) == ["unknown", "unknown"])
        for effect in (1, 2):
            found = app.store.read_now(partial(desk.evidence, effect=effect))
            assert [one.kind for one in found][:1] == ["in doubt"]


async def test_a_run_cancelled_after_a_kill_runs_up_to_where_it_is_hit(url: str) -> None:
    """Catches a cancellation that ends a run at its start, over an open claim and without its clean-up."""
    killed(
        url,
        """
        @sf.effect
        async def pay() -> None:
            die()

        @sf.durable
        async def paying() -> None:
            await pay()

        async def body(app):
            await app.start(paying, id="p")
        """,
    )
    cleaned: Calls = []

    @sf.effect
    async def pay() -> None:
        raise AssertionError("nothing is sent again")

    @sf.step
    async def clean_up() -> None:
        cleaned.append(1)

    @sf.durable
    async def paying() -> None:
        try:
            await pay()
        finally:
            await clean_up()

    async with sf.Surefoot(url, is_worker=False) as app:
        await (await app.run("p")).cancel("stop it")
    async with sf.Surefoot(url) as app:
        run = await app.run("p")
        assert "ends as cancelled once" in (await wait_state(run, "waiting", "doubt")).reason
        assert ledger_states(app) == ["unknown"]
        await desk.resolve_by_person(
            app.store, Sessions(app.store), 1, is_done=True, who="ann", reason="saw it", wake=wake
        )
        with pytest.raises(sf.RunCancelled, match="stop it"):
            await run.result(timeout_s=5)
    assert cleaned == [1]


async def test_clean_up_after_a_cancellation_survives_a_kill(url: str) -> None:
    """Catches clean-up that is forgotten because the replay is cancelled before it comes to it."""
    killed(
        url,
        """
        @sf.step
        async def work() -> None: pass

        @sf.step
        async def undo() -> None:
            die()

        @sf.durable
        async def cleans() -> None:
            await work()
            try:
                await asyncio.sleep(60)
            finally:
                await undo()

        async def body(app):
            run = await app.start(cleans, id="c")
            await asyncio.sleep(0.1)
            await run.cancel("enough")
        """,
    )
    undone: Calls = []

    @sf.step
    async def work() -> None:
        raise AssertionError("recorded")

    @sf.step
    async def undo() -> None:
        undone.append(1)

    @sf.durable
    async def cleans() -> None:
        await work()
        try:
            await asyncio.sleep(60)
        finally:
            await undo()

    async with sf.Surefoot(url) as app:
        with pytest.raises(sf.RunCancelled, match="enough"):
            await (await app.run("c")).result(timeout_s=5)
    assert undone == [1]


async def test_a_task_that_comes_late_on_replay_is_waited_for(url: str) -> None:
    """Catches a false divergence when gather raises at once on replay, before its other task has asked for its step."""
    code = """
        @sf.effect
        async def late() -> str:
            return "ok"

        @sf.step
        async def fails() -> None:
            await asyncio.sleep(0.4)
            raise ValueError("no")

        async def comes_late() -> None:
            await asyncio.sleep(0.2)
            await late()
            await asyncio.sleep(20 if IS_DYING else 0)

        @sf.durable
        async def gathers() -> None:
            try:
                await asyncio.gather(fails(), comes_late())
            except sf.StepFailed:
                await asyncio.sleep(0.05)
                if IS_DYING:
                    die()
                raise
    """
    killed(url, "IS_DYING = True\n" + textwrap.dedent(code) + textwrap.dedent("""
        async def body(app):
            await app.start(gathers, id="g")
    """))  # fmt: skip
    names: dict[str, Any] = {"sf": sf, "asyncio": asyncio, "IS_DYING": False}
    exec(textwrap.dedent(code), names)
    async with sf.Surefoot(url) as app:
        with pytest.raises(sf.RunFailed, match="no"):
            await (await app.run("g")).result(timeout_s=5)
        assert ledger_states(app) == ["done"]


async def test_a_run_in_which_the_process_is_told_to_exit_goes_on_in_the_next(url: str) -> None:
    """Catches a SystemExit that is taken for a failure of the run in whose code it came up."""
    killed(
        url,
        """
        import sys

        @sf.durable(name="exits")
        async def exits():
            sys.exit(9)

        async def body(app):
            await app.start(exits, id="e")
        """,
    )

    @sf.durable(name="exits")
    async def goes_on() -> str:
        return "went on"

    async with sf.Surefoot(url) as app:
        assert await (await app.run("e")).result(timeout_s=10) == "went on"
