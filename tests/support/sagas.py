"""Programs with sagas, for the kill sweep: `python -m tests.support.sagas PROGRAM STEPS TWICE`.

Each ends with everything undone. The check counts the world: what was done once is undone once, after it and in reverse;
what was not done is not undone.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import pytest
from tests.support.sweeping import Program, World, sweep

import surefoot as sf

here: list[World] = []
"""The world of this process."""


def key() -> str:
    """The key to send."""
    return sf.current_effect().idempotency_key


@sf.effect(in_doubt=sf.Resend(key_ttl="24h"))
async def unbook(what: str) -> None:
    here[0].act(f"-{what}", key())


@sf.effect(key="book:{what}", compensate=unbook, in_doubt=sf.Resend(key_ttl="24h"))
async def book(what: str) -> str:
    if what.startswith("full"):
        raise sf.NotDone("no room left")
    here[0].act(f"+{what}", key())
    if what.startswith("lost") and sf.current_effect().attempt == 1:
        raise OSError("the answer was lost")
    return what


def look(what: str) -> sf.Landed | sf.NotLanded:
    here[0].cross()
    return sf.Landed(what) if (here[0].place / key()).exists() else sf.NotLanded("not there")


@sf.effect(key="probed:{what}", compensate=unbook, in_doubt=sf.Probe(look, "20ms"))
async def probed(what: str) -> str:
    here[0].act(f"+{what}", key())
    raise OSError("the answer was lost")


@sf.durable
async def in_a_row() -> None:
    async with sf.saga("trip"):
        for what in ("train", "flight", "full hotel"):
            await book(what)


@sf.durable
async def side_by_side() -> None:
    async with sf.saga("trip"):
        await book("train")
        await asyncio.gather(book.keyed("1")("lost flight"), probed("boat"), book.keyed("2")("full hotel"))


@sf.durable
async def leg(what: str) -> str:
    return await book(what)


@sf.durable
async def nested() -> None:
    async with sf.saga("outer"):
        await book("insurance")
        try:
            async with sf.saga("inner"):
                await sf.child(leg, "train")
                await book("full hotel")
        except sf.NotDone:
            pass
        async with sf.saga("inner"):
            await book("bus")
        raise ValueError("after all")


def program_of(kind: str) -> Program:
    """Return what starts the run of a kind, or goes on with it, and waits for its end."""

    async def program(world: World, app: sf.Surefoot) -> None:
        here[:] = [world]
        run = await app.start(kind, id=kind)
        with pytest.raises(sf.RunFailed, match=r"no room left|after all|answer was lost"):
            await run.result(timeout_s=30)

    return program


def check(world: World) -> None:
    """Raise unless what was done is undone, once, and in reverse where it was done in a row."""
    acted = world.acted()
    done = [words[1:] for words in acted if words.startswith("+")]
    undone = [words[1:] for words in acted if words.startswith("-")]
    assert sorted(done) == sorted(undone), f"{world.place.name}: {acted}"
    assert len(set(done)) == len(done), f"{world.place.name}: done twice: {acted}"
    for what in done:
        assert acted.index(f"+{what}") < acted.index(f"-{what}"), f"{world.place.name}: {acted}"
    if "flight" in done:
        assert undone == ["flight", "train"], f"{world.place.name}: {acted}"


KINDS = ("in_a_row", "side_by_side", "nested")

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        kills = sweep(Path(folder), program_of(sys.argv[1]), check, steps=int(sys.argv[2]), twice=int(sys.argv[3]))
    print(f"{kills} kills")
