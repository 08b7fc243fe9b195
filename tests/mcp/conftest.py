"""What the tests of MCP calls share: the till over HTTP, one for all, and agents whose model makes given calls."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from tests.mcp.scenarios import ROOT


class Till:
    """The till's server process, over HTTP, and its books."""

    def __init__(self, folder: Path) -> None:
        self.world = folder / "world"
        self.world.mkdir(parents=True, exist_ok=True)
        self._port = folder / "port"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> Till:
        """Start it, and return once it listens; the port stays the same."""
        command = [sys.executable, "-m", "tests.mcp.server", str(self.world), "--http", *options]
        if self._port.exists():
            command += ["--port", self._port.read_text()]
            self._port.unlink()
        self._process = subprocess.Popen(command, cwd=ROOT)
        while not self._port.exists():
            assert self._process.poll() is None
            time.sleep(0.01)
        return self

    def kill_own(self) -> None:
        """Kill the one over stdio, and return once its client has its end."""
        pid = int((self.world.parent / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it is gone
            while ") Z " not in Path(f"/proc/{pid}/stat").read_text():
                time.sleep(0.01)

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port.read_text()}/mcp"

    def entries(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return what is in the books."""
        books = self.world / "till.jsonl"
        lines = books.read_text().splitlines() if books.exists() else []
        return [entry for entry in map(json.loads, lines) if entry.items() >= wanted.items()]

    @asynccontextmanager
    async def toolset(self, **options: Any) -> AsyncIterator[MCPToolset[Any]]:
        """Give the till as a toolset over HTTP."""
        async with closing(MCPToolset(self.url, id="till", **{"init_timeout": 60, **options})) as toolset:
            yield toolset

    @asynccontextmanager
    async def own(self, *options: str, **others: Any) -> AsyncIterator[MCPToolset[Any]]:
        """Give a till over stdio, on the same books."""
        where = StdioTransport(
            sys.executable, ["-m", "tests.mcp.server", str(self.world), *options],
            env=dict(os.environ), cwd=str(ROOT), log_file=self.world.parent / "server.log",
        )  # fmt: skip
        async with closing(MCPToolset(where, id="till", **{"init_timeout": 60, **others})) as toolset:
            yield toolset


@asynccontextmanager
async def closing(toolset: MCPToolset[Any]) -> AsyncIterator[MCPToolset[Any]]:
    """End a toolset's session, and its server process, at the end."""
    try:
        yield toolset
    finally:
        await toolset.client.close()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Till]:
    """A till for all tests that only add to its books."""
    till = Till(tmp_path_factory.mktemp("till")).start()
    yield till
    till.kill()


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    """A till of one's own, not started yet."""
    till = Till(tmp_path / "till")
    yield till
    till.kill()


Call: TypeAlias = tuple[str, Mapping[str, Any]]


class Script:
    """A model that makes the given calls one after the other, several at once where a list says so, and then ends."""

    def __init__(self, *turns: Call | Sequence[Call]) -> None:
        self._turns = turns
        self.heard: list[Any] = []
        self.meanwhile: dict[int, Callable[[], None]] = {}
        """What happens while the model thinks, by how many answers it has had."""

    def agent(self, *toolsets: Any, **options: Any) -> Agent[Any, str]:
        """Return an agent with this model."""
        return Agent(FunctionModel(self._respond), name="clerk", toolsets=list(toolsets), retries=9, **options)

    def _respond(self, messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        self.heard = _told(messages)
        if len(self.heard) in self.meanwhile:
            self.meanwhile.pop(len(self.heard))()
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        if turn < len(self._turns):
            calls = self._turns[turn]
            some: Sequence[Any] = calls if isinstance(calls, list) else [calls]
            return ModelResponse(
                [ToolCallPart(tool, dict(given), f"c{turn}.{nth}") for nth, (tool, given) in enumerate(some)]
            )
        return ModelResponse([TextPart(json.dumps(self.heard))])


def _told(messages: list[ModelMessage]) -> list[Any]:
    """Return what the model was told of each call; a prompt to try again is a list."""
    parts = [part for message in messages for part in message.parts]
    return [
        [str(part.content)] if isinstance(part, RetryPromptPart) else part.content
        for part in parts
        if isinstance(part, ToolReturnPart | RetryPromptPart)
    ]
