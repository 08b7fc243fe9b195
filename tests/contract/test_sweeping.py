"""Doubts that nobody asks about any more: what a sweep makes of them, and what it must not do."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

import surefoot as sf
from surefoot.effects.live import sweep
from surefoot.effects.rows import desk

PATIENCE_S = 10.0
"""Far longer than a sweep takes, far shorter than the fence."""


@pytest.fixture(autouse=True)
def _looked_into_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surefoot.effects.live.sweep.IDLE_MS", -1)


def states(app: sf.Surefoot) -> dict[str, str]:
    """Return the state of each effect, by its name."""
    return {one.name: one.state for one in app.store.read_now(desk.list_effects)}


async def leave_in_doubt(app: sf.Surefoot, effect: Any, name: str) -> None:
    """Call an effect that gets no answer, and go away while its fence lasts."""
    calling = asyncio.ensure_future(effect())
    while states(app).get(name) != "unknown":
        await asyncio.sleep(0.005)
    calling.cancel()
    await asyncio.wait([calling])


async def test_a_sweep_does_not_wait_for_a_fence(app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a sweep that stands before one long fence, with all other doubts waiting behind it."""
    monkeypatch.setattr("surefoot.effects.live.sweep.AT_ONCE", 1)
    asked: list[str] = []

    def look(name: str) -> sf.Landed:
        asked.append(name)
        return sf.Landed()

    @sf.effect(name="slow", in_doubt=sf.Probe(partial(look, "slow"), longest_life="10m"))
    async def slow() -> None:
        raise TimeoutError

    @sf.effect(name="quick", in_doubt=sf.Probe(partial(look, "quick"), longest_life="200ms"))
    async def quick() -> None:
        raise TimeoutError

    await leave_in_doubt(app, slow, "slow")
    await leave_in_doubt(app, quick, "quick")
    async with asyncio.timeout(PATIENCE_S):
        await sweep.sweep(app.guard)
    assert (asked, states(app)) == (["quick"], {"slow": "unknown", "quick": "done"})


@pytest.mark.parametrize(
    "kind", [sf.Resend(key_ttl="1ms"), sf.Probe(sf.NotLanded, longest_life="10m")], ids=lambda one: str(one.name)
)
async def test_sweeps_that_find_nothing_out_write_nothing(app: sf.Surefoot, kind: Any) -> None:
    """Catches a store that grows with every look at a doubt which only a person, or time, can end."""

    @sf.effect(name="act", in_doubt=kind)
    async def act() -> None:
        await asyncio.sleep(0.01)
        raise TimeoutError

    await leave_in_doubt(app, act, "act")
    (effect,) = app.store.read_now(desk.list_effects)
    before = app.store.read_now(lambda connection: desk.evidence(connection, effect.id))
    for _ in range(3):
        async with asyncio.timeout(PATIENCE_S):
            await sweep.sweep(app.guard)
    assert app.store.read_now(lambda connection: desk.evidence(connection, effect.id)) == before
    assert states(app) == {"act": "unknown"}
