"""What users give that can't be kept, or means nothing: refused where it is given, by its name and with its value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

import surefoot as sf
from surefoot.journal.texts import BadText
from surefoot.people.trail import entries, verify
from surefoot.runs.rows.tables import find_run

HALF, NUL = "half \ud83d", "nul \0"

GOES: sf.Signal[Any] = sf.Signal("go")


@sf.durable
async def waits_for_go() -> Any:
    return await sf.wait_signal(GOES)


@sf.durable
async def ends_at_once() -> int:
    return 1


@sf.durable(concurrency_per_key=1)
async def takes_turns() -> None: ...


@sf.effect(key="in doubt:{number}")
async def in_doubt(number: int) -> None:
    raise TimeoutError


@sf.effect(key="approved:{number}", approve=sf.Approve())
async def approved(number: int) -> None: ...


NUMBERS: sf.Topic[int] = sf.Topic("numbers", int)

Call = Callable[[Any], Awaitable[object]]


def saying(what: str, call: Callable[..., Awaitable[object]]) -> Call:
    """Return a decision in which one thing is said as it is given."""
    return lambda text: call(**{"by": "ann", "reason": "looked", what: text})


async def calls(app: sf.Surefoot) -> dict[str, Call]:
    """Return, for each text that is kept as it is given, a call that gives it; all else of the call is in order."""
    run = await app.start(waits_for_go, id="waits")
    ended = await app.start(ends_at_once, id="ended")
    await ended.result(timeout_s=10)
    with pytest.raises(sf.OutcomeUnknown):
        await in_doubt(1)
    with pytest.raises(sf.ApprovalNeeded):
        await approved(1)
    decisions: dict[str, Callable[..., Awaitable[object]]] = {
        "an approval": partial(app.approve, 1),
        "a denial": partial(app.deny, 1),
        "a resolution": partial(app.resolve, 1, is_done=True),
        "an undoing by hand": partial(app.undone, 1),
        "a redelivery": partial(app.redeliver, 1, group="g"),
        "a discarding": partial(app.discard, 1, group="g"),
        "a drop": partial(app.drop_group, "g", topic="numbers"),
    }
    return {
        "name": lambda text: sf.Surefoot(app.url, name=text).open(),
        "key of a start": lambda text: app.start(takes_turns, id="r", key=text),
        "key": lambda text: NUMBERS.publish(1, key=text),
        "topic numbers: id": lambda text: NUMBERS.publish(1, id=text),
        "kind": lambda text: app.runs(kind=text),
        "signal": run.signal,
        "signal of a type": lambda text: run.signal(sf.Signal(text)),
        "dedupe": lambda text: run.signal("go", dedupe=text),
        "by of a signal": lambda text: run.signal("go", by=text),
        "by of a wake": lambda text: run.wake(by=text),
        "reason of a cancellation": run.cancel,
        "by of a cancellation": lambda text: run.cancel("enough", by=text),
        "reason of an undo": ended.undo,
        "by of an undo": lambda text: ended.undo("enough", by=text),
        "by of a fork": lambda text: ended.fork(1, id="f", by=text),
        **{f"{what} of {act}": saying(what, call) for what in ("by", "reason") for act, call in decisions.items()},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HALF, "='half \\ud83d' has half a character in it"),
        (NUL, "='nul \\x00' has a NUL character in it"),
        (7, "=7 is no text"),
        ("x" * 20_001, "=a text of 20001 characters is too long"),
    ],
)
async def test_a_text_that_can_t_be_kept_is_refused_where_it_is_given(app: sf.Surefoot, text: Any, said: str) -> None:
    """Catches an error from deep inside the store, and a name or a reason that is kept as something else than was said."""
    for what, call in (await calls(app)).items():
        with pytest.raises(BadText) as refused:
            await call(text)
        assert f"{what.split(' of ')[0]}{said}" in str(refused.value)
        assert "hint: a text of 1 to" in str(refused.value)
    assert [run.run_id for run in await app.runs()] == ["ended", "waits"]
    assert app.store.read_now(entries) == []
    assert app.store.read_now(lambda c: c.execute("SELECT count(*) FROM inbox").fetchall()) == [(0,)]


async def test_what_nobody_could_have_kept_is_not_there(app: sf.Surefoot) -> None:
    """Catches a look for what can't be there that ends in an error from deep inside the store."""
    texts: list[Any] = [HALF, NUL, 7, None]
    for text in texts:
        with pytest.raises(sf.RunNotFound):
            await app.run(text)
        for topic, group in ((text, "g"), ("numbers", text)):
            with pytest.raises(sf.GroupNotFound):
                await app.drop_group(group, topic=topic, by="ann", reason="gone")
        with pytest.raises(sf.LetterNotFound):
            await app.redeliver(1, group=text, by="ann", reason="mended")
        if text is not None:
            with pytest.raises(sf.SurefootError, match="no run is that"):
                await app.runs(state=text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"deadline_s": float("inf")}, "deadline_s=inf leads to no time"),
        ({"deadline_s": float("-inf")}, "deadline_s=-inf leads to no time"),
        ({"deadline_s": float("nan")}, "deadline_s=nan is no number of seconds"),
        ({"deadline_s": 1e300}, "deadline_s=1e.300 leads to no time"),
        ({"deadline_s": "5"}, "deadline_s='5' is no number of seconds"),
        ({"at": "tomorrow"}, "at='tomorrow' is no moment"),
        ({"at": 5}, "at=5 is no moment"),
        ({"delay": []}, r"\[\] is not a duration"),
        ({"delay": float("inf")}, "inf: a duration of more than"),
    ],
)
async def test_a_time_that_is_none_is_refused(app: sf.Surefoot, options: dict[str, Any], said: str) -> None:
    """Catches a bare error of Python for a deadline or a moment that is none, and a run that is started all the same."""
    with pytest.raises(sf.SurefootError, match=said):
        await app.start(ends_at_once, id="r", **options)
    if "deadline_s" in options:

        @sf.durable
        async def asks_for_a_child() -> None:
            with pytest.raises(sf.SurefootError, match=said):
                await sf.child(ends_at_once, id="r", **options)

        await (await app.start(asks_for_a_child, id="parent")).result(timeout_s=10)
    assert app.store.read_now(lambda connection: find_run(connection, "r")) is None


async def test_a_limit_of_a_wait_that_is_none_is_refused(app: sf.Surefoot) -> None:
    """Catches a bare error of Python for a time limit that is none."""
    run = await app.start(waits_for_go, id="waits")
    limits: list[Any] = ["5", [], float("nan")]
    for limit in limits:
        with pytest.raises(sf.SurefootError, match="is no number of seconds"):
            await run.result(timeout_s=limit)


async def test_the_trail_is_whole_with_an_id_that_postgresql_keeps_as_another(app: sf.Surefoot) -> None:
    """Catches a trail that is told as tampered with because an entry was sealed as it was given, not as it is kept."""
    run = await app.start(waits_for_go, id=NUL)
    await run.cancel("enough", by="ann")
    (entry,) = app.store.read_now(entries)
    assert entry.target == "run nul \\x00"
    assert app.store.read_now(verify) == []
