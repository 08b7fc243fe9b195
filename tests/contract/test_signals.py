"""Signals with a type: refused where the sender can know better, kept and told where not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import BaseModel
from tests.contract.conftest import Calls, kinds, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.runs.rows.desk import unread
from surefoot.store import SystemClock


class Answer(BaseModel):
    is_agreed: bool
    amount: int = 0


ANSWER: sf.Signal[Answer] = sf.Signal("answer", Answer)
NOTE: sf.Signal[str] = sf.Signal("note", str)


@sf.durable(name="typed signals", signals=[ANSWER, NOTE])
async def typed() -> list[Any]:
    answer = await sf.wait_signal(ANSWER)
    return [answer.amount, await sf.wait_signal("note")]


async def test_a_sender_who_knows_is_refused_what_does_not_fit(app: sf.Surefoot) -> None:
    """Catches a payload, or a misspelt name, that is sent and never taken, in silence."""
    run = await app.start(typed, id="r")
    for payload in ({"is_agreed": "perhaps"}, None, 7, [1]):
        with pytest.raises(sf.SignalRefused, match="answer"):
            await run.signal("answer", payload)
        with pytest.raises(sf.SignalRefused, match="answer"):
            await run.signal(ANSWER, payload)
    with pytest.raises(sf.SignalRefused, match="takes no signal 'anser'") as refused:
        await run.signal("anser", {"is_agreed": True})
    assert "answer (Answer), note (str)" in str(refused.value)
    for payload in (7, True):
        with pytest.raises(sf.SignalRefused, match="is no str"):
            await run.signal("note", payload)
    assert app.store.read_now(lambda connection: unread(connection, run.row, 10)) == []
    assert await run.signal(ANSWER, Answer(is_agreed=True, amount=3))
    assert await run.signal("note", "thanks")
    assert await run.result(timeout_s=5) == [3, "thanks"]


async def test_what_an_older_sender_sent_is_kept_and_told(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches a bad payload that parks its receiver for good, is lost, or is not to be seen anywhere."""

    @sf.durable(name="untyped signals")
    async def untyped() -> int:
        return int((await sf.wait_signal("answer", Answer)).amount)

    run = await app.start(untyped, id="r")
    await run.signal("answer", {"sum": 3})
    await run.signal("answer", {"is_agreed": True, "amount": "much"})
    await until(lambda: _reason(app, run).count("2 came that don't fit Answer") == 1)
    assert "amount" in _reason(app, run)
    kept = app.store.read_now(lambda connection: unread(connection, run.row, 10))
    assert [one.payload for one in kept] == [{"sum": 3}, {"is_agreed": True, "amount": "much"}]
    await run.signal("answer", {"is_agreed": True, "amount": 5})
    assert await run.result(timeout_s=5) == 5
    assert len(app.store.read_now(lambda connection: unread(connection, run.row, 10))) == 2


def _reason(app: sf.Surefoot, run: sf.Run) -> str:
    query = "SELECT reason FROM runs WHERE id = ?"
    return str(app.store.read_now(lambda connection: next(connection.execute(query, (run.row,)))[0]))


async def test_a_signal_to_a_run_that_has_ended_is_refused_but_not_its_repetition(app: sf.Surefoot) -> None:
    """Catches a signal that is said to be sent and reaches nobody, and a webhook that is told an error for a repetition."""

    @sf.durable(name="one signal")
    async def one() -> Any:
        return await sf.wait_signal("go")

    run = await app.start(one, id="r")
    assert await run.signal("go", 1, dedupe="event 1")
    assert await run.result(timeout_s=5) == 1
    assert not await run.signal("go", 1, dedupe="event 1")
    with pytest.raises(sf.SignalRefused, match="run r is completed"):
        await run.signal("go", 2, dedupe="event 2")
    with pytest.raises(sf.RunNotFound):
        await app.run("not started yet")


async def test_a_signal_before_the_first_step_is_kept(url: str) -> None:
    """Catches signals to a run that no worker has begun."""
    async with sf.Surefoot(url, is_worker=False) as app:
        run = await app.start(typed, id="r")
        await run.signal(ANSWER, {"is_agreed": False, "amount": 1})
        await run.signal(NOTE, "x")
    async with sf.Surefoot(url) as app:
        assert await (await app.run("r")).result(timeout_s=5) == [1, "x"]


async def test_thousands_of_signals_to_one_run(app: sf.Surefoot) -> None:
    """Catches work that grows with the square of the signals, fitting or not, and signals that are lost or come twice."""
    count = 2_000

    @sf.durable(name="many signals")
    async def many() -> int:
        total = 0
        for _ in range(count):
            total += await sf.wait_signal("n", int)
        return total

    run = await app.start(many, id="r")
    for payload in ("no number", None):
        await asyncio.gather(*(run.signal("n", payload, dedupe=f"{payload} {number}") for number in range(count)))
    await asyncio.gather(*(run.signal("n", number, dedupe=str(number)) for number in range(count)))
    assert await run.result(timeout_s=60) == count * (count - 1) // 2


def test_declarations_that_mean_nothing_are_refused() -> None:
    """Catches a signal that could be taken for one of ours."""
    for name in ("", "$cancel"):
        with pytest.raises(sf.SurefootError, match="signal"):
            sf.Signal(name)


def test_a_payload_that_is_no_json_is_told_as_such() -> None:
    """Catches a run that is stopped by a letter that something else has written or spoilt."""
    for signal in (NOTE, ANSWER, sf.Signal[Any]("anything")):
        assert signal.problem(b"{") != ""
        assert signal.problem(b"{}") == "" or signal in (NOTE, ANSWER)
    assert "signal anything" in sf.Signal[Any]("anything").problem(b"{")


def test_a_signal_says_what_it_is() -> None:
    """Catches a log line that names an object's address."""
    assert repr(ANSWER) == "<Signal 'answer' of Answer>"
    assert repr(sf.Signal("go")) == "<Signal 'go' of any JSON value>"


# -- timers that a person names by a moment ---------------------------------------------------------------------------


class Jumping(SystemClock):
    """A wall clock that can be moved."""

    ahead_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead_ms


async def test_a_moment_is_the_same_in_every_time_zone_and_follows_the_wall_clock(
    url: str, quick_eviction: None
) -> None:
    """Catches a moment that is read as local time, and a timer that doesn't notice that the clock was put forward."""
    clock = Jumping()
    woken: Calls = []

    @sf.durable(name="until a moment")
    async def waits(moment: str) -> None:
        await sf.sleep_until(datetime.fromisoformat(moment))
        woken.append(moment)

    async with sf.Surefoot(url, clock=clock) as app:
        soon = datetime.now(UTC) + timedelta(hours=1)
        moments = [one.isoformat() for one in (soon, soon.astimezone(timezone(timedelta(hours=-11))))]
        runs = [await app.start(waits, moment, id=moment) for moment in moments]
        for run in runs:
            await wait_state(run, "waiting", "timer")
        assert woken == []
        clock.ahead_ms = -3_600_000
        assert woken == []
        clock.ahead_ms = 3_600_001
        for run in runs:
            await run.result(timeout_s=10)
        assert sorted(woken) == sorted(moments)
        past = await app.start(waits, "0001-01-01T00:00:00+00:00", id="past")
        await past.result(timeout_s=10)


async def test_moments_without_zone_or_beyond_the_calendar_are_refused(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches a timer that is set for another time than was meant, or that can't be written when the run is parked."""

    @sf.durable(name="far")
    async def far() -> list[str]:
        said = []
        for wrong in (datetime(2026, 1, 1), "99999999999999d", float("inf"), float("nan"), 1e300):
            try:
                await (sf.sleep_until(wrong) if isinstance(wrong, datetime) else sf.sleep(wrong))
            except sf.SurefootError as error:
                said.append(error.message)
        await sf.sleep_until(datetime.max.replace(tzinfo=UTC))
        return said

    run = await app.start(far, id="f")
    status = await wait_state(run, "waiting", "timer")
    assert status.reason == "timer"
    assert "raised" not in kinds(app, "f")
    await run.cancel("seen")
    with pytest.raises(sf.RunCancelled):
        await run.result(timeout_s=10)
