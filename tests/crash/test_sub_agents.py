"""Agents that ask agents are killed at every boundary, sub-agents' own included: the service ends as if nobody had been
killed, usage counts once, and what a model has answered on record is asked of it never again.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.crash import sub_agents
from tests.crash.sub_agents import CASES, Expected, Office, books, see_to_it, start_agent, start_work

import surefoot as sf
from surefoot.testing import CrashReport

Sweep = Callable[..., Awaitable[CrashReport]]
App = Callable[[str, Any], sf.Surefoot]

STRAGGLES_S = 0.05
"""How late a request of a killed process lands: well within `sub_agents.LANDS_WITHIN`."""


async def killed(sweep: Sweep, app: App, **options: Any) -> tuple[CrashReport, Expected]:
    """Kill these agents, and return what was seen."""
    expected = Expected(CASES[app])
    start = start_agent if app is sub_agents.inside else start_work
    report = await sweep(app, start=start, world=Office, check=expected, books=books, **options)
    assert report.failure is None
    assert report.unlike == ()
    assert report.doubts == ()
    return report, expected


@pytest.mark.parametrize(
    ("app", "schedule"),
    [
        (sub_agents.side_by_side, "acted:ship/ship"),
        (sub_agents.children, "acted:order/order then replied:order"),
        (sub_agents.nested, "after-decision:decision#4 then acted:decision/think"),
        (sub_agents.limited, "after-decision:delegate"),
    ],
    ids=["during a call, of two", "in a child, twice", "between decisions, twice", "when a sub-agent is done"],
)
async def test_a_kill_inside_a_sub_agent_ends_as_without(crash_points: Sweep, app: App, schedule: str) -> None:
    """Would catch a sub-agent that begins anew, one that acts again, and usage that is lost and with it a limit."""
    report, _ = await killed(crash_points, app, only=schedule)
    assert report.missed == ()


async def test_what_must_not_be_is_seen(url: str) -> None:
    """Would catch an office that overlooks a second request, or acts that are doubled or lost."""

    @sf.step
    async def look() -> str:
        return "seen"

    @sf.durable(name="work")
    async def work() -> str:
        return await look()

    async with sf.Surefoot(url) as app:
        await (await app.start(work, id="work")).result()
    office = Office()
    await office.think(url, "work", "never taken", os.getpid())
    assert office.wrongs == []
    await office.think(url, "work", "look", os.getpid())
    assert office.wrongs == ["asked for what is on record: work: look"]
    await office.think(url, "work", "never taken", os.getpid())
    assert office.wrongs[1:] == ["one process asked twice for work: never taken"]
    with pytest.raises(AssertionError, match="asked for what is on record"):
        Expected(())(office)
    with pytest.raises(AssertionError, match=r"lost: .'ship a'"):
        Expected(("ship a",))(office)
    office.acts += ["ship a", "ship a"]
    with pytest.raises(AssertionError, match=r"doubled: .'ship a'"):
        Expected(("ship a",))(office)


@pytest.mark.slow
@pytest.mark.parametrize("app", CASES, ids=lambda app: app.__name__)
async def test_every_point_of_every_sub_agent(crash_points: Sweep, app: App) -> None:
    """Would catch a point, or a way to ask a sub-agent, that fares otherwise than in the sample."""
    has_person = app is sub_agents.with_a_person
    options = {"person": see_to_it} if has_person else {"straggles_s": STRAGGLES_S}
    report, expected = await killed(crash_points, app, **options)
    sides = report.coverage
    for side in ("before-claim", "after-claim", "before-call", "acted", "replied", "before-settle", "after-settle"):
        assert sides["order"][side] >= 1, side
    for side in ("before-call", "acted", "before-decision", "after-decision"):
        assert sides["decision"][side] >= 3, side
    assert expected.asked_again > 0, "those that died with their process"
    print(f"  {app.__name__}: {expected.asked_again} requests were made again, none that was on record")
