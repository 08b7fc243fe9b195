"""Scenes with the tools of an MCP server: a till of its own for each, over stdio, whose books outlive it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.mcp.conftest import Till
from tests.scenarios.scenes import keys, scene
from tests.scenarios.stage import Call, Stage

import surefoot as sf


@asynccontextmanager
async def till(stage: Stage, *options: str) -> AsyncIterator[Any]:
    """Give a till's toolset; what its server did is the world, and whether it came with a key and an attempt."""
    with tempfile.TemporaryDirectory() as folder:
        place = Till(Path(folder) / "till")
        async with place.own(*options) as toolset:
            yield toolset
        for entry in place.entries():
            meta = {name.removeprefix("surefoot/") for name in entry.pop("meta", ())}
            key = str(entry.pop("key", None))[:3]
            stage.world.append((sorted(entry.items()), key, sorted(meta)))


@scene(is_sampled=True)
async def tools_of_a_server(stage: Stage) -> Any:
    """Declared by name, a read, undeclared, and refused by the server; the same key again is the first outcome."""
    pay: Call = ("pay", {"order": "A", "cents": 5}, "c1")
    script: list[list[Call]] = [
        [pay, ("price", {"item": "tea", "cents": 3}, "c2")],
        [("payments", {"order": "A"}, "c3"), ("refuse", {"order": "B"}, "c4")],
        [("pay", {"order": "A", "cents": 5}, "c5")],
    ]
    effects = {"pay": sf.effect(key="pay:{order}", in_doubt=sf.Resend(key_ttl="24h"))}
    async with till(stage, "--keys") as toolset:
        clerk = stage.agent(script, [], toolsets=[toolset], reads=["payments"], effects=effects)
        await stage.open()
        told = keys(await stage.result(clerk, "r1"))
    assert (told["c1"], told["c2"], told["c3"]) == ("paid A", "tea costs 3", 1)
    assert told["c4"]["outcome"] == "not_done"
    assert told["c5"]["outcome"] == "repeated"
    assert len(stage.world) == 2
    return told


@scene()
async def a_server_dies_before_its_answer(stage: Stage) -> Any:
    """Nobody knows whether it was done; a person says so, and the next call finds a server again."""
    script: list[list[Call]] = [[("die", {"order": "A"}, "c1")], [("payments", {"order": "A"}, "c2")]]
    async with till(stage) as toolset:
        clerk = stage.agent(script, [], toolsets=[toolset], reads=["payments"])
        await stage.open()
        run = await stage.start(clerk, "r1")
        await stage.waiting(run, "doubt")
        (doubt,) = await stage.app.unknowns()
        await stage.app.resolve(doubt.id, is_done=True, by="anna", reason="in the books", is_fence_passed=True)
        told = keys(await stage.end(run))
    assert told["c2"] == 0
    assert len(stage.world) == 1
    return told


@scene()
async def a_server_is_asked_what_it_did(stage: Stage) -> Any:
    """The same, but the same server is asked behind a fence, by the program."""
    script: list[list[Call]] = [[("die", {"order": "A"}, "c1")]]
    async with till(stage) as toolset:

        async def were_paid(order: str) -> sf.Landed | sf.NotLanded:
            found = await toolset.direct_call_tool("payments", {"order": order})
            return sf.Landed("paid, it says") if found is not None else sf.NotLanded()

        effects = {"die": sf.effect(in_doubt=sf.Probe(were_paid, longest_life="300ms"))}
        clerk = stage.agent(script, [], toolsets=[toolset], effects=effects)
        await stage.open()
        told = keys(await stage.result(clerk, "r1"))
    assert told == {"c1": "paid, it says"}
    assert len(stage.world) == 1
    return told
