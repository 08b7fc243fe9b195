"""Crash points find what they are for, each in the fewest kills; a sound agent passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from tests.crash import mistakes
from tests.crash.mistakes import Shop, books, paid_once, start_agent, start_function

import surefoot as sf
from surefoot.testing import CrashPointFailed, CrashReport
from surefoot.testing import crash_points as sweep

Sweep = Callable[..., Awaitable[CrashReport]]
quiet = partial(sweep, world=Shop, recoveries=0, progress=lambda _line: None)


async def failing(app: Any, start: Any, **options: Any) -> CrashReport:
    """Return what was found in an agent with a mistake."""
    with pytest.raises(CrashPointFailed) as raised:
        await quiet(app, start=start, **options)
    print(raised.value)
    return raised.value.report


async def test_a_sound_agent_passes(crash_points: Sweep) -> None:
    """Would catch a sweep that blames whatever it looks at, and one that examines nothing."""
    report = await crash_points(
        mistakes.sound, start=start_agent, world=Shop, check=paid_once, books=books, recoveries=3
    )
    assert report.failure is None
    assert report.missed == ()
    assert report.doubts == ()
    assert report.unlike == ()
    assert len(report.killed) == len(report.points) + 3
    sides = report.coverage["refund"]
    for side in ("before-claim", "after-claim", "before-call", "acted", "replied", "before-settle", "after-settle"):
        assert sides[side] >= 1, side
    assert report.coverage["decision"] != {}
    assert report.lives > 2 * len(report.points)


@pytest.mark.parametrize(
    ("mistake", "start", "options", "schedule", "words"),
    [
        pytest.param(mistakes.resends_what_is_not_deduped, start_function, {"check": paid_once},
                     "acted:refund/refund", "2 refunds for one order", id="resend without a key"),
        pytest.param(mistakes.asks_without_a_fence, start_function, {"check": paid_once, "straggles_s": 20.0},
                     "on-its-way:refund/refund", "2 refunds for one order", id="probe without a fence"),
        pytest.param(mistakes.does_two_things, start_function, {"check": paid_once},
                     "acted:refund/write", "2 letters for one order", id="two acts in one effect"),
        pytest.param(mistakes.remembers_in_memory, start_function, {},
                     "after-decision:look", "the run's result is 0, and without a kill it is 3", id="memory is lost"),
        pytest.param(mistakes.throws_dice, start_function, {},
                     "after-read:price_on", "the run is waiting for blocked", id="another way each time"),
        pytest.param(mistakes.calls_an_act_a_read, start_agent, {"check": paid_once},
                     "acted:refund/refund", "2 refunds for one order", id="an act among the reads"),
    ],
)  # fmt: skip
async def test_a_mistake_is_found_in_one_kill(
    mistake: Callable[[str, Shop], sf.Surefoot], start: Any, options: dict[str, Any], schedule: str, words: str
) -> None:
    """Would catch a sweep that overlooks what users get wrong, or that finds it only in a schedule nobody understands."""
    report = await failing(mistake, start, **options)
    assert report.failure is not None
    assert str(report.failure.schedule) == schedule
    assert words in report.failure.wrong
    assert (report.failure.repeated, report.failure.tries) == (2, 2)


async def test_the_message_says_what_was_done_and_how_to_see_it_again() -> None:
    """Would catch a failure that only its author can read."""
    report = await failing(
        mistakes.does_two_things, start_function, check=paid_once, command="pytest tests/test_mine.py::test_it"
    )
    assert report.failure is not None
    assert report.failure.sentence == (
        "Killed when `write` (called by `refund`) had acted, and before its answer arrived. "
        "Then: check: 2 letters for one order"
    )
    message = str(CrashPointFailed(report, "pytest tests/test_mine.py::test_it"))
    assert "again: pytest tests/test_mine.py::test_it --crash-points acted:refund/write" in message
    again = await failing(mistakes.does_two_things, start_function, check=paid_once, only="acted:refund/write")
    assert again.killed == (report.failure.schedule,)


async def test_an_act_among_the_reads_is_seen_without_a_kill() -> None:
    """Would catch books that are not looked at between the calls of the undisturbed run."""
    with pytest.raises(sf.SurefootError, match="`refund` changed the world inside of no effect"):
        await quiet(mistakes.calls_an_act_a_read, start=start_agent, books=books)
