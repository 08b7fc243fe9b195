"""What is written on trust is nearly always right: else each batch is written twice, and nobody sees why it is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import surefoot as sf

RUNS = 30


@sf.effect(name="hurry pay", key="pay:{order}", in_doubt=sf.Resend(key_ttl="24h"))
async def pay(order: str) -> str:
    return f"paid {order}"


@sf.step
async def decide(order: str) -> str:
    return order


@sf.durable(name="hurry run")
async def paying(order: str) -> str:
    for n in range(3):
        await pay(await decide(f"{order}/{n}"))
    return order


async def test_nothing_of_an_ordinary_run_is_written_twice(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a statement for many rows, or a check, that always fails and is always mended by doing it all again."""
    undone: list[str] = []

    def counted(rollback: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            undone.append("a batch")
            rollback()

        return call

    async with sf.Surefoot(url) as app, sf.Surefoot(url) as other:
        for each in (app, other):
            desk = each.store.writer._desk
            monkeypatch.setattr(desk, "rollback", counted(desk.rollback))
        starts = [one.start(paying, f"o{n}", id=f"r{n}") for n, one in enumerate([app, other] * RUNS)]
        await asyncio.gather(*[run.result(timeout_s=60) for run in await asyncio.gather(*starts)])
        assert not undone
