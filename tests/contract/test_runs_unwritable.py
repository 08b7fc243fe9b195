"""Records that can't be written or read: what a run has on disk is a prefix of it, and its neighbours go on."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import pytest
from tests.contract.conftest import Calls, kinds
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.journal import current_frame
from surefoot.runs.live.run import LiveRun
from surefoot.store import Tx


@dataclass
class Receipt:
    """What a service returns."""

    id: int


@dataclass
class Granted:
    """An answer that looks like another in JSON."""

    reason: str


@dataclass
class Refused:
    """That other one."""

    reason: str


async def _decide() -> Granted | Refused:
    return Refused("too late")


DECIDES: dict[str, Any] = {
    "step": sf.step(name="decide in a step")(_decide),
    "read": sf.read(name="decide in a read")(_decide),
    "effect": sf.effect(name="decide in an effect")(_decide),
}


@pytest.mark.usefixtures("quick_eviction")
@pytest.mark.parametrize("what", DECIDES)
async def test_a_refusal_is_not_read_back_as_a_grant(url: str, what: str) -> None:
    """Catches code that goes another way on replay, because a value of one class is read back as one of another."""
    told = list[str]()

    @sf.durable(name=f"asks a {what}")
    async def asks() -> None:
        try:
            told.append(type(await DECIDES[what]()).__name__)
        except (sf.StepFailed, sf.NotDone, sf.Unserializable):
            told.append("an error")
        await sf.wait_signal("go")

    async with sf.Surefoot(url) as app:
        await wait_state(await app.start(asks, id="r"), "waiting", "signal")
    async with sf.Surefoot(url) as app:
        run = await app.run("r")
        await run.signal("go")
        await run.result(timeout_s=10)
    assert told == ["an error"] * 2


async def test_after_a_refused_record_nothing_of_the_run_is_recorded(app: sf.Surefoot) -> None:
    """Catches a completed run, an output, that stands on a record that was never written."""

    @sf.step
    async def after() -> int:
        return 1

    def refuse(_tx: Tx) -> None:
        raise ValueError("no room for this")

    @sf.durable
    async def hollow() -> int:
        frame = current_frame.get()
        assert isinstance(frame, LiveRun)
        frame.append(refuse, label="test", size=0)
        return int(await after())

    status = await wait_state(await app.start(hollow, id="h"), "waiting", "blocked")
    assert "no room for this" in status.reason
    assert kinds(app, "h") == ["started"]


async def test_a_refused_record_spares_what_came_before_and_other_runs(app: sf.Surefoot) -> None:
    """Catches poison that reaches back, or across runs."""

    @sf.step
    async def before() -> int:
        return 1

    def refuse(_tx: Tx) -> None:
        raise ValueError("no")

    @sf.durable
    async def hollow() -> None:
        frame = current_frame.get()
        assert isinstance(frame, LiveRun)
        await before()
        frame.append(refuse, label="test", size=0)

    @sf.durable
    async def sound() -> int:
        return int(await before())

    hollow_run, sound_run = await asyncio.gather(app.start(hollow, id="h"), app.start(sound, id="s"))
    await wait_state(hollow_run, "waiting", "blocked")
    assert await sound_run.result(timeout_s=5) == 1
    assert kinds(app, "h") == ["started", "decided"]


@pytest.mark.usefixtures("quick_eviction")
async def test_a_record_nobody_can_read_blocks_its_run_only(app: sf.Surefoot) -> None:
    """Catches one bad record that ends the work of the whole process in silence."""

    @sf.step
    async def one() -> int:
        return 1

    @sf.durable
    async def waits() -> str:
        await one()
        await sf.wait_signal("go")
        return "fine"

    bad, good = await app.start(waits, id="bad"), await app.start(waits, id="good")
    for run in (bad, good):
        await wait_state(run, "waiting", "signal")
    await app.store.commit(
        lambda tx: tx.execute("UPDATE journal SET kind = 99 WHERE kind = 2 AND run = ?", (bad.row,)), label="test"
    )
    await asyncio.gather(bad.signal("go"), good.signal("go"))
    assert await good.result(timeout_s=5) == "fine"
    assert "can't be read" in (await wait_state(bad, "waiting", "blocked")).reason
    await app.store.commit(lambda tx: tx.execute("UPDATE journal SET kind = 2 WHERE kind = 99", ()), label="test")
    await bad.wake()
    assert await bad.result(timeout_s=5) == "fine"


async def test_a_mistake_in_the_worker_is_told_to_who_waits(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a worker that is dead while everybody waits for it."""

    @sf.durable
    async def waits() -> None:
        await sf.wait_signal("go")

    complaints: Calls = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context["message"]))
    run = await app.start(waits, id="w")

    def broken(_connection: Any) -> list[int]:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr("surefoot.runs.rows.tables.run_holders", broken)
    with pytest.raises(KeyError, match="a mistake of ours"):
        await run.result(timeout_s=5)
    assert any("worker has stopped" in message for message in complaints)


async def test_errors_whose_text_is_no_utf8_are_recorded(app: sf.Surefoot) -> None:
    """Catches a run that can't end because of an odd file name in an error."""
    odd = os.fsdecode(b"r\xff.pdf")
    reads: Calls = []

    @sf.read
    async def opens() -> None:
        reads.append(1)
        raise ValueError(f"no such file: {odd}")

    @sf.step
    async def steps() -> None:
        raise ValueError(odd)

    @sf.durable
    async def fails(how: str) -> None:
        if how == "read":
            await opens()
        if how == "step":
            await steps()
        raise ValueError(odd)

    for how in ("read", "step", "itself"):
        with pytest.raises(sf.RunFailed, match=r"r\\udcff.pdf"):
            await (await app.start(fails, how, id=how)).result(timeout_s=5)
    assert reads == [1]


async def test_steps_whose_names_are_no_utf8_are_recorded(app: sf.Surefoot) -> None:
    """Catches a key from an odd file name that refuses every later record."""
    odd = os.fsdecode(b"r\xff.pdf")

    @sf.step
    async def one() -> int:
        return 1

    @sf.durable
    async def keyed() -> int:
        return int(await one.keyed(odd)())

    assert await (await app.start(keyed, id="k")).result(timeout_s=5) == 1


@pytest.mark.usefixtures("quick_eviction")
async def test_a_signal_that_does_not_fit_is_skipped(app: sf.Surefoot) -> None:
    """Catches one bad payload that blocks a run for good."""

    @sf.durable
    async def reads() -> list[Any]:
        number = await sf.wait_signal("n", int)
        return [number, (await sf.wait_signal("r", Receipt)).id]

    run = await app.start(reads, id="r")
    await wait_state(run, "waiting", "signal")
    for payload in ("text", 5):
        await run.signal("n", payload)
    await run.signal("r", {"no": "fit"})
    await run.signal("r", {"id": 6})
    assert await run.result(timeout_s=5) == [5, 6]


@pytest.mark.usefixtures("quick_eviction")
async def test_a_value_that_no_longer_fits_blocks_though_the_code_catches_everything(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a run that takes a decoding error for an answer, and goes on or fails."""
    from surefoot.journal import codec_of
    from surefoot.runs import take_step

    kept: Calls = [object]

    async def value() -> dict[str, str]:
        return {"no": "fit"}

    @sf.durable
    async def catches() -> str:
        try:
            await take_step("value", None, codec_of(kept[0], "value"), value)
        except Exception:
            return "swallowed"
        await sf.wait_signal("go")
        return "end"

    run = await app.start(catches, id="c")
    await wait_state(run, "waiting", "signal")
    kept[0] = Receipt
    await run.signal("go")
    assert "no longer fits" in (await wait_state(run, "waiting", "blocked")).reason
    kept[0] = object
    await run.wake()
    assert await run.result(timeout_s=5) == "end"
