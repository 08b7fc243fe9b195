"""A pytest plugin for Pydantic AI's own test of its documentation: runs each example in four ways, and notes its output.

    plain     as it is
    outside   its agents have `Durable()`, and there is no run
    first     its agents have `Durable()`, in a run
    replay    that run once more, from its record, in another app

Their test has what lets examples run without a network: scripted models, stand-ins for services, and which examples are no
test. What was printed is written to a file, a line for each example, and compared by `__main__`. What the documentation
says is printed is not compared: it is of another version than the one installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import httpx2
import nested
import pytest
from pytest_examples import EvalExample, run_code

import surefoot as sf
from surefoot.runs.live import execution

OUT = "SUREFOOT_EXAMPLES_OUT"
"""The environment variable that says where to."""

TIMEOUT_S = 20.0
"""For an example in a run; the slowest takes 5 s plainly."""

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the stores are: no power fails here."""

said: list[str] = []
"""What the present execution of an example has printed."""

names: list[str] = []
"""Names for agents that gave themselves none, in the order in which the present execution has made them."""

is_durable = [False]
"""Whether the agents that are made now get the capability."""


class Statement(run_code.PrintStatement):  # type: ignore[misc]  # the package is in another environment
    """A `print` of an example, noted at once: also what was printed before an error counts."""

    def __init__(self, line_no: int, sep: str, args: list[Any]) -> None:
        super().__init__(line_no, sep, args)
        said.append(str(self))


def pytest_configure(config: pytest.Config) -> None:
    """Take the place of what runs examples."""
    os.environ["BLOCKBUSTER_ENABLED"] = "false"  # whether they block is theirs to test
    run_code.PrintStatement = Statement
    EvalExample.lint_ruff = lambda self, example: None
    EvalExample.run_print_check = run_and_note
    for module in (httpx, httpx2):
        module.Timeout.__hash__ = lambda self: hash(repr(self))  # their fixture has them as keys of a dict
    execution.CLOSE_S = 1.0  # how long a replay that asked for less is given: examples have no tasks that come later
    make_agents_durable()


def run_and_note(self: EvalExample, example: Any, *, call: str, module_globals: dict[str, Any]) -> None:
    """Run one example in all ways and write down what it printed."""
    modules = set(sys.modules)

    def once() -> list[str]:
        said.clear()
        names.clear()
        for name in set(sys.modules) - modules:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(Path.cwd())):
                del sys.modules[name]  # another example, which this one imports
        be_a_class()
        try:
            self._run(example, "check", dict(module_globals), True, call)
        except Exception as error:
            said.append(f"raised {type(error).__name__}: {error}")
        return [self.print_callback(text) for text in said]

    line: dict[str, Any] = {"place": f"{example.path}:{example.start_line}", "plain": once()}
    line["agents"] = len(names)
    is_durable[0] = bool(names)
    try:
        if names:
            line["outside"] = once()
            line |= in_run(once)
    finally:
        is_durable[0] = False
    with Path(os.environ[OUT]).open("ab", buffering=0) as file:  # pytest's workers share it
        file.write(json.dumps(line).encode() + b"\n")


def be_a_class() -> None:
    """Let what stands in for MCP servers' toolsets be a class, as the real one: `isinstance` is asked of it."""
    mcp: Any = sys.modules.get("pydantic_ai.mcp")
    stand_in = getattr(mcp, "MCPToolset", None)
    if isinstance(stand_in, Mock):
        given = stand_in.return_value
        mcp.MCPToolset = type("MCPToolset", (), {"__new__": lambda cls, *args, **options: given})


# -- in a run ---------------------------------------------------------------------------------------------------------


def in_run(once: Callable[[], list[str]]) -> dict[str, Any]:
    """Run an example in a run, and once more from the record; return what it printed, and why it did not end."""
    rounds: list[list[str]] = []
    reason = ""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, nested.patched():
        try:
            asyncio.run(run_twice(once, f"sqlite:///{folder}/agents.db", rounds))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    return {**dict(zip(("first", "replay"), rounds, strict=False)), "reason": reason}


async def run_twice(once: Callable[[], list[str]], url: str, rounds: list[list[str]]) -> None:
    """Run an example durably, leave the app when it is done but its end isn't recorded, run it again in another."""

    @sf.durable(name="example")
    async def example() -> None:
        rounds.append(await nested.call(once))
        if len(rounds) == 1:
            await asyncio.Event().wait()  # until the app is closed

    async with asyncio.timeout(TIMEOUT_S):
        async with sf.Surefoot(url) as app:
            run = await app.start(example, id="example")
            while not rounds:
                await check(run)
        async with sf.Surefoot(url) as app:
            run = await app.run("example")
            while await check(run) != "completed":
                pass


class Stopped(Exception):
    """The run waits for a person, or has failed."""


async def check(run: Any) -> str:
    """Return a run's state a moment later; raise if it has stopped."""
    status = await run.status()
    if status.waiting_for in ("blocked", "doubt", "approval") or status.state == "failed":
        raise Stopped(f"{status.waiting_for or status.state}: {status.reason}")
    await asyncio.sleep(0.02)
    return str(status.state)


# -- agents -----------------------------------------------------------------------------------------------------------


def make_agents_durable() -> None:
    """Give every agent the capability, under its own name, or else its number."""
    import pydantic_ai.durable_exec._base as base
    from pydantic_ai import Agent, models

    from surefoot.adapters.pydantic_ai import DepsChanged, Durable

    warnings.simplefilter("ignore", DepsChanged)

    def infer_model(*arguments: Any, **options: Any) -> Any:
        return models.infer_model(*arguments, **options)  # theirs, which stands in for it in each test

    base.infer_model = infer_model
    init = Agent.__init__

    def durable_init(
        self: Any, model: Any = None, *, capabilities: Any = None, name: Any = None, **options: Any
    ) -> None:
        if isinstance(model, models.Model):
            model = models.infer_model(model)  # with a capability nobody asks it of a model that is given as an object
        names.append(f"agent {len(names) + 1}")
        known_as = name if isinstance(name, str) else names[-1]
        durable = [Durable(name=known_as)] if is_durable[0] else []
        init(self, model, capabilities=[*(capabilities or ()), *durable], name=name, **options)

    Agent.__init__ = durable_init  # type: ignore[method-assign]
