"""A replay needs no server; a takeover starts its own; what a server offers is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.mcp.conftest import Script, Till
from tests.mcp.scenarios import ROOT

import surefoot as sf


async def stands(run: sf.Run, script: Script, answers: int) -> None:
    """Return when the model has had this many answers."""
    async with asyncio.timeout(60):
        while len(script.heard) < answers:
            await asyncio.sleep(0.01)


class Pausing(Script):
    """A model that says nothing more after some answers, as long as it is in the first process."""

    def __init__(self, *turns: Any, after: int) -> None:
        super().__init__(*turns)
        self.after: int | None = after

    def agent(self, *toolsets: Any, **options: Any) -> Any:
        """Return an agent with this model."""
        agent = super().agent(*toolsets, **options)
        respond = agent.model.function  # type: ignore[union-attr]

        async def pause(messages: Any, info: Any) -> Any:
            response = respond(messages, info)
            if len(self.heard) == self.after:
                await asyncio.Event().wait()
            return response

        agent.model.function = pause  # type: ignore[union-attr]
        return agent


async def test_a_replay_asks_no_server(url: str, till: Till) -> None:
    """Catches discovery, instructions, a read or an effect that is asked for again: the server is gone by then."""
    script = Pausing(("payments", {"order": "A"}), ("pay", {"order": "A", "cents": 5}), after=2)
    till.start()
    options: dict[str, Any] = {"include_instructions": True, "cache_tools": False}
    async with till.toolset(**options) as toolset:
        async with sf.Surefoot(url) as app:
            clerk = app.agent(script.agent(toolset), reads=["payments"])
            await stands(await clerk.start("go", id="r"), script, 2)
        till.kill()
        script.after = None
        async with sf.Surefoot(url) as app:
            clerk = app.agent(script.agent(toolset), reads=["payments"])
            assert json.loads(await (await clerk.start("go", id="r")).result(timeout_s=60)) == [0, "paid A"]
    assert len(till.entries(what="pay")) == 1


async def test_a_server_that_offers_other_tools_is_drift(url: str, till: Till) -> None:
    """Catches a changed list of tools that blocks a run, or does an effect again."""
    script = Pausing(("pay", {"order": "A", "cents": 5}), ("payments", {"order": "A"}), after=1)
    till.start()
    async with till.toolset(cache_tools=False) as toolset:
        async with sf.Surefoot(url) as app:
            clerk = app.agent(script.agent(toolset), reads=["payments"])
            await stands(await clerk.start("go", id="r"), script, 1)
        script.after, listed = None, toolset.list_tools

        async def without_pay() -> Any:
            return [tool for tool in await listed() if tool.name != "pay"]

        toolset.list_tools = without_pay  # type: ignore[method-assign]  # the server of the second attempt
        async with sf.Surefoot(url) as app:
            clerk = app.agent(script.agent(toolset), reads=["payments"])
            assert json.loads(await (await clerk.start("go", id="r")).result(timeout_s=60)) == ["paid A", 1]
    assert len(till.entries(what="pay")) == 1


@pytest.mark.slow
async def test_several_servers_are_asked_at_each_step(app: sf.Surefoot, till: Till) -> None:
    """Catches steps of discovery that can't be told apart: the framework asks each time in tasks of their own."""
    script = Script(*[("a_payments", {"order": "A"}), ("b_payments", {"order": "A"})] * 2)
    till.start()
    options: dict[str, Any] = {"include_instructions": True, "cache_tools": False}
    async with till.toolset(**options) as one, till.own(**options) as two:
        two.id = "other"
        clerk = app.agent(script.agent(one.prefixed("a"), two.prefixed("b")), reads=["a_payments", "b_payments"])
        assert json.loads(await (await clerk.start("go", id="r")).result(timeout_s=60)) == [0] * 4


WORKER = """
import asyncio, os, sys
from pathlib import Path
from tests.mcp.conftest import Script, Till
import surefoot as sf

async def main():
    till = Till(Path(sys.argv[1]))
    async with till.own() as toolset, sf.Surefoot(f"sqlite:///{sys.argv[1]}/store.db") as app:
        run = await app.agent(Script(("hang", {"order": "A"})).agent(toolset)).start("go", id="r")
        await run.result()

asyncio.run(main())
"""


def test_a_servers_process_dies_with_its_worker(tmp_path: Path) -> None:
    """Catches a server that outlives a killed worker, and acts on for nobody."""
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], cwd=ROOT)
    till = Till(tmp_path)
    while not till.entries(what="hang"):
        assert worker.poll() is None
        time.sleep(0.01)
    server = Path("/proc") / (till.world.parent / "pid").read_text()
    assert server.exists()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while ") Z " not in (server / "stat").read_text():  # or this test never ends
            time.sleep(0.01)


async def test_tools_are_listed_with_their_classes(app: sf.Surefoot, served: Till) -> None:
    """Catches a hint that is shown as a declaration, a declaration that is not shown, and one that no tool answers to."""
    async with served.toolset() as toolset:
        agent = Script().agent(toolset)

        @agent.tool_plain
        @sf.effect(key="book:{room}")
        async def book(room: str) -> str:
            return room

        effects: dict[str, Any] = {"price": sf.effect(key="price:{item}", in_doubt=sf.Overwrite()), "gone": sf.effect}
        found = {tool.name: tool for tool in await app.agent(agent, reads=["payments"], effects=effects).tools()}
    shown = {name: (tool.declared, tool.key, tool.proposed) for name, tool in found.items()}
    assert shown == {
        "book": ("ask a person", "book:{room}", None),
        "payments": ("read", None, None),
        "price": ("overwrite", "price:{item}", None),
        "pay": (None, None, "overwrite"),
        "costs": (None, None, "read"),
        "meta": (None, None, "read"),
        "refuse": (None, None, None),
        "die": (None, None, None),
        "hang": (None, None, None),
        "gone": (None, None, None),
    }
    assert found["pay"].parameters == ("order", "cents")
    assert found["costs"].why == "readOnlyHint: its server says that it changes nothing"
    assert found["gone"].why == "declared, and there is no tool of this name"


async def test_a_server_that_is_down_hides_no_other(app: sf.Surefoot) -> None:
    """Catches a listing that one server's outage makes impossible."""
    from pydantic_ai.mcp import MCPToolset

    agent = Script().agent(MCPToolset("http://127.0.0.1:9/mcp", id="down"))
    agent.tool_plain(sf.read(named))
    found = await app.agent(agent).tools()
    assert [(tool.name, tool.declared) for tool in found] == [("named", "read"), ("", None)]
    assert "can't be asked" in found[1].why


async def named() -> str:
    """A read."""
    return "named"


@pytest.mark.parametrize("wrong", [sf.read(timeout_s=1), "effect", sf.effect(in_doubt=sf.Transactional())])
async def test_a_wrong_declaration_is_refused_at_once(app: sf.Surefoot, wrong: Any) -> None:
    """Catches a declaration that means nothing and is found out by the first call."""
    with pytest.raises(sf.BadEffect):
        app.agent(Script().agent(), effects={"pay": wrong})
    with pytest.raises(sf.BadEffect, match="as a read and as an effect"):
        app.agent(Script().agent(), reads=["pay"], effects={"pay": sf.effect})
