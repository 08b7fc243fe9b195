"""Doubts that only a person can end are escalated: once, whatever the clocks do and whoever looks; told at least once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import surefoot as sf
from surefoot.effects.rows import desk
from surefoot.runs import Escalation
from surefoot.store import SystemClock

HOUR_MS = 3_600_000


class MovedClock(SystemClock):
    """The host's clocks, and a wall clock that is set by hand."""

    moved_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.moved_ms


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@sf.effect(name="escalated", key="ask:{x}", in_doubt=sf.AskPerson(deadline="2h"))
async def ask(x: int) -> None:
    raise TimeoutError("no answer")


@sf.effect(name="escalated by default", key="default:{x}")
async def by_default(x: int) -> None:
    raise TimeoutError("no answer")


@sf.effect(name="never escalated", key="resend:{x}", in_doubt=sf.Resend(key_ttl="1ms"))
async def resend(x: int) -> None:
    raise TimeoutError("no answer")


def stages(app: sf.Surefoot) -> list[str]:
    """Return what was noted of escalations, oldest first."""
    rows = app.store.read_now(
        lambda connection: connection.execute(
            "SELECT kind FROM evidence WHERE kind IN ('escalated', 'telling of it', 'told') ORDER BY id"
        ).fetchall()
    )
    return [str(row[0]) for row in rows]


def states(app: sf.Surefoot) -> set[str]:
    """Return the states of all effects."""
    return {one.state for one in app.store.read_now(desk.list_effects)}


@asynccontextmanager
async def opened(url: str, clock: MovedClock, hook: Callable[[Escalation], Any] | None) -> AsyncIterator[sf.Surefoot]:
    async with sf.Surefoot(url, clock=clock, on_escalation=hook) as app:
        yield app


async def test_overdue_doubts_are_escalated_once_and_never_decided(
    url: str, clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a deadline that comes early, twice, for a class that can help itself, or that decides something."""
    told: list[Escalation] = []
    async with opened(url, clock, told.append) as app:
        for effect in (ask, by_default, resend):
            with pytest.raises(sf.OutcomeUnknown):
                await effect(1)
        await app.worker.escalating.look()
        clock.moved_ms = 2 * HOUR_MS - 60_000
        await app.worker.escalating.look()
        assert stages(app) == []
        clock.moved_ms = 2 * HOUR_MS
        with caplog.at_level(logging.WARNING, logger="surefoot"):
            await app.worker.escalating.look()
        assert "effect 1 (ask:1) has been unknown for more than 2 h" in caplog.text
        assert [(one.name, one.key, one.arguments, one.run_id) for one in told] == [
            ("escalated", "ask:1", {"x": 1}, None)
        ]
        assert told[0].deadline_ms - told[0].unknown_since_ms == 2 * HOUR_MS
        for moved_ms in (3, -48, 0, 2, 23):
            clock.moved_ms = moved_ms * HOUR_MS
            await app.worker.escalating.look()
        assert len(told) == 1
        clock.moved_ms = 24 * HOUR_MS
        await app.worker.escalating.look()
        assert [one.name for one in told] == ["escalated", "escalated by default"]
        assert stages(app) == ["escalated", "telling of it", "told"] * 2
        assert states(app) == {"unknown"}


async def test_several_workers_escalate_once_and_one_hook_is_called(url: str, clock: MovedClock) -> None:
    """Catches a note or a call for each process, and an escalation that a process without a hook keeps to itself."""
    told: list[str] = []
    async with (
        opened(url, clock, None) as silent,
        opened(url, clock, lambda one: told.append(f"first {one.effect}")) as first,
        opened(url, clock, lambda one: told.append(f"second {one.effect}")) as second,
    ):

        @sf.durable
        async def asking(x: int) -> None:
            await ask(x)

        for number in (1, 2, 3):
            run = await first.start(asking, number, id=f"r-{number}")
            while (await run.status()).waiting_for != "doubt":
                await asyncio.sleep(0.01)
        clock.moved_ms = 3 * HOUR_MS
        await silent.worker.escalating.look()
        assert (stages(first), told) == (["escalated"] * 3, [])
        for _ in range(2):
            await asyncio.gather(*(app.worker.escalating.look() for app in (first, second, silent)))
        assert sorted(stages(first)) == ["escalated"] * 3 + ["telling of it"] * 3 + ["told"] * 3
        assert sorted(one.split()[1] for one in told) == ["1", "2", "3"]


async def test_a_hook_that_fails_is_called_again_and_stops_nothing(
    url: str, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an escalation that is lost with an error of the hook, and an error that goes unheard or ends the worker."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context))
    told: list[str | None] = []

    async def hook(escalation: Escalation) -> None:
        told.append(escalation.run_id)
        if len(told) == 1:
            raise ConnectionError("the pager is down")
        if len(told) == 2:
            await asyncio.Event().wait()
        if len(told) == 3:
            raise asyncio.CancelledError("of a task of the hook's own")

    monkeypatch.setattr("surefoot.runs.escalating.TELL_AGAIN_S", 0.0)
    monkeypatch.setattr("surefoot.runs.escalating.TELL_TIMEOUT_S", 0.05)

    @sf.durable
    async def asking() -> None:
        await ask(1)

    async with opened(url, clock, hook) as app:
        run = await app.start(asking, id="r-1")
        while (await run.status()).waiting_for != "doubt":
            await asyncio.sleep(0.01)
        clock.moved_ms = 3 * HOUR_MS
        for calls in (1, 2, 3, 4, 4):
            await app.worker.escalating.look()
            assert told == ["r-1"] * calls
        assert stages(app) == ["escalated", "telling of it", "told"]
        assert ["on_escalation failed for effect 1" in one["message"] for one in heard] == [True, True, True]
        assert app.worker.failure is None


async def test_a_call_that_died_with_its_process_is_made_by_another(url: str, clock: MovedClock) -> None:
    """Catches an escalation that nobody hears because its process was killed while it told of it."""
    told: list[int] = []
    async with opened(url, clock, None) as app:
        with pytest.raises(sf.OutcomeUnknown):
            await ask(1)
    clock.moved_ms = 3 * HOUR_MS

    async def never(escalation: Escalation) -> None:
        await asyncio.Event().wait()

    async with opened(url, clock, never) as app:
        telling = asyncio.create_task(app.worker.escalating.look())
        async with opened(url, clock, lambda one: told.append(one.effect)) as other:
            while "telling of it" not in stages(app):
                await asyncio.sleep(0.01)
            await other.worker.escalating.look()
            assert told == []  # the one that tells lives
        telling.cancel()
        await asyncio.wait([telling])
    async with opened(url, clock, lambda one: told.append(one.effect)) as app:
        await app.worker.escalating.look()
        await app.worker.escalating.look()
        assert told == [1]
        assert stages(app) == ["escalated", "telling of it", "telling of it", "told"]


async def test_a_hook_of_any_shape_is_waited_for(url: str, clock: MovedClock) -> None:
    """Catches a hook that returns something to be awaited, which is noted as told and never runs."""
    told: list[int] = []

    class Pager:
        async def __call__(self, escalation: Escalation) -> None:
            await asyncio.sleep(0)
            told.append(escalation.effect)

    async with opened(url, clock, Pager()) as app:
        with pytest.raises(sf.OutcomeUnknown):
            await ask(1)
        clock.moved_ms = 3 * HOUR_MS
        await app.worker.escalating.look()
        assert (told, stages(app)) == ([1], ["escalated", "telling of it", "told"])


async def test_what_a_person_ends_while_another_is_told_is_not_escalated(url: str, clock: MovedClock) -> None:
    """Catches a page in the night for what the first page's reader has just decided."""
    told: list[tuple[int, int]] = []

    @sf.effect(name="escalated question", key="question:{x}", approve=sf.Approve(deadline="2h"))
    async def question(x: int) -> None: ...

    async def hook(escalation: Escalation) -> None:
        told.append((escalation.effect, escalation.approval))
        if len(told) == 1:
            await app.resolve(2, is_done=True, by="ann", reason="saw it")
            await app.approve(1, by="ann", reason="fine")

    @sf.durable
    async def asking() -> None:
        await question(1)

    async with opened(url, clock, hook) as app:
        for x in (1, 2):
            with pytest.raises(sf.OutcomeUnknown):
                await ask(x)
        run = await app.start(asking, id="r")
        while not await app.approvals():
            await asyncio.sleep(0.01)
        clock.moved_ms = 3 * HOUR_MS
        await app.worker.escalating.look()
        assert told == [(1, 0)]
        await run.result(timeout_s=5)
        await app.worker.escalating.look()
        assert told == [(1, 0)]


async def test_a_doubt_that_ends_meanwhile_is_not_escalated(url: str, clock: MovedClock) -> None:
    """Catches an escalation of what a person has ended, and a sweep that never escalates by itself."""
    told: list[int] = []
    async with opened(url, clock, lambda one: told.append(one.effect)) as app:
        for x in (1, 2):
            with pytest.raises(sf.OutcomeUnknown):
                await ask(x)
        await app.worker.escalating.look()
        clock.moved_ms = 3 * HOUR_MS
        await app.resolve(1, is_done=True, by="ann", reason="saw it")
        app.worker._doubts_s -= 60.0
        async with asyncio.timeout(10):
            while "told" not in stages(app):
                await asyncio.sleep(0.01)
        assert told == [2]
