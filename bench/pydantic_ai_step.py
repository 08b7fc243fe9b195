"""What durability adds to one step of a Pydantic AI agent: CPU and wall time per step, from the first step to the last.

The agent is real, its model is scripted: `--cycles` times a decision of about 1 KB with one call of a function tool,
then a final answer. A cycle is two steps (decision, act), as in the other cases; the figures are per step. CPU is that
of the whole process, its threads included, taken whenever the model is asked, so a figure covers everything between two
decisions: the framework, the tool, and what the lane adds.

The scripted model states its own usage. Without that `FunctionModel` estimates tokens over the whole history at every
step, which no real model does. What still grows in `plain` is Pydantic AI's own: it goes through all messages before
each request. So read a durable lane by its difference from `plain` at the same step; that difference should not grow.
After the warm-up every lane lets the collector forget what is there, as `surefoot worker` and many servers do: else
walking through all imported modules, again and again, is a third of each figure, and most of what makes them differ.

Lanes: `plain` (no durability), `contract` (Pydantic AI's own durability contract with nothing behind it: each unit just
runs, so this is the least that any engine on it costs), `synced` (the same, and each act first waits for 1 KB to be on
disk: the least that an engine costs which records an act before it happens; most of it is that the process sleeps in
between, and comes back to cold caches), `dbos` (`DBOSDurability` inside a `@DBOS.workflow`, the tool a
`@DBOS.step`, as Pydantic AI's documentation says), `surefoot`.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage, UsageLimits

from bench.driver import peak_rss_bytes
from bench.workload import STEPS_PER_CYCLE, World, act, decide

WARM_UP_CYCLES = 10
WINDOW = 10
"""Cycles around each reported place of the history; a figure is their median over all rounds."""

NO_LIMIT = UsageLimits(request_limit=None)
PROMPT = "Refund what arrived broken."

RunAgent = Callable[[int], Awaitable[Any]]


class Script:
    """The model's script, and the clock that is read whenever it is asked."""

    def __init__(self) -> None:
        self.world = World()
        self.begin(run=0, cycles=0)

    def begin(self, run: int, cycles: int) -> None:
        """Start a run of this many cycles."""
        self._run = run
        self._cycles = cycles
        self.world.acts = 0
        self.cpu: list[float] = []
        self.wall: list[float] = []

    async def answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        """Return the next decision; only the number of messages is looked at, so that no time goes into reading."""
        self.cpu.append(process_time())
        self.wall.append(perf_counter())
        cycle = len(messages) // 2
        usage = RequestUsage(input_tokens=1840, output_tokens=212)
        if cycle == self._cycles:
            return ModelResponse(parts=[TextPart("All refunded.")], usage=usage)
        decision = decide(self._run, cycle)
        call = decision["tool_call"]
        return ModelResponse(
            parts=[TextPart(decision["text"]), ToolCallPart(call["name"], call["arguments"], call["id"])], usage=usage
        )


script = Script()


async def refund(order_id: str, amount: str, reason: str) -> dict[str, Any]:
    """Refund an order."""
    return act({"tool_call": {"arguments": {"order_id": order_id, "amount": amount}}}, script.world)


def model() -> FunctionModel:
    return FunctionModel(script.answer, model_name="scripted-1")


async def plain(directory: Path) -> RunAgent:
    agent = Agent(model(), name="refunds", tools=[refund])
    return lambda run: agent.run(PROMPT, usage_limits=NO_LIMIT)


async def contract(directory: Path) -> RunAgent:
    """Make the same agent durable in form only: every unit is executed, encoded and decoded, and nothing is recorded."""
    return in_form_only(refund)


async def synced(directory: Path) -> RunAgent:
    """Do as `contract`, and wait before each act until a thread has written 1 KB and synced it."""
    log, thread = os.open(directory / "log", os.O_WRONLY | os.O_CREAT), ThreadPoolExecutor(1)

    def sync() -> None:
        os.write(log, bytes(1_024))
        os.fdatasync(log)

    @functools.wraps(refund)
    async def refund_later(order_id: str, amount: str, reason: str) -> dict[str, Any]:
        await asyncio.get_running_loop().run_in_executor(thread, sync)
        return await refund(order_id, amount, reason)

    return in_form_only(refund_later)


def in_form_only(tool: Callable[..., Awaitable[Any]]) -> RunAgent:
    """Return an agent with this tool on Pydantic AI's durability contract, with nothing behind it."""
    from pydantic_ai.durable_exec import (
        JSON_CODEC,
        BaseDurabilityCapability,
        DurabilityEngineSpec,
        JournalCallableOperationBackend,
        RoleBasedOperationConfig,
    )

    class Backend(JournalCallableOperationBackend[None]):
        async def execute(self, *, body: Callable[[], Awaitable[object]], **_: Any) -> object:
            return await body()

    class Contract(BaseDurabilityCapability[Any]):
        engine_spec = DurabilityEngineSpec(
            engine_name="Nothing", durable_unit_noun="unit", durable_container_noun="run", codec=JSON_CODEC
        )
        in_durable_context = True

        def get_durable_operation_backend(self) -> Backend:
            config = RoleBasedOperationConfig[None](model=None, event=None, capability=None, tool=None)
            return Backend(agent_name=self.name, default_model_id=self.default_model_id, config=config)

    agent = Agent(model(), name="refunds", tools=[tool], capabilities=[Contract()])
    return lambda run: agent.run(PROMPT, usage_limits=NO_LIMIT)


async def dbos(directory: Path) -> RunAgent:
    from dbos import DBOS, SetWorkflowID
    from pydantic_ai.durable_exec.dbos import DBOSDurability

    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{directory / 'dbos.sqlite'}",
            "log_level": "WARNING",
        }
    )
    agent = Agent(model(), name="refunds", tools=[DBOS.step()(refund)], capabilities=[DBOSDurability()])

    @DBOS.workflow()
    async def refunds(prompt: str) -> str:
        return (await agent.run(prompt, usage_limits=NO_LIMIT)).output

    DBOS.launch()

    async def run_agent(run: int) -> None:
        with SetWorkflowID(f"run-{run}"):
            handle = await DBOS.start_workflow_async(refunds, PROMPT)
        await handle.get_result()

    return run_agent


async def surefoot(directory: Path) -> RunAgent:
    """Make the same agent durable by `app.agent(...)` on a store in this directory, its tool an `@sf.effect`."""
    import surefoot as sf

    app = sf.Surefoot(f"sqlite:///{directory}/surefoot.db")
    await app.open()
    tool = sf.effect(key="refund:{order_id}", in_doubt=sf.Resend())(refund)
    agent = app.agent(Agent(model(), name="refunds", tools=[tool]))

    async def run_agent(run: int) -> None:
        started = await agent.start(PROMPT, id=f"run-{run}", usage_limits=NO_LIMIT)
        await started.result()

    return run_agent


LANES = {"plain": plain, "contract": contract, "synced": synced, "dbos": dbos, "surefoot": surefoot}


async def measure(lane: str, directory: Path, cycles: int, rounds: int) -> dict[str, Any]:
    """Return the figures of one lane: per step, at the beginning, in between and at the end of the history."""
    run_agent = await LANES[lane](directory)
    script.begin(run=0, cycles=WARM_UP_CYCLES)
    await run_agent(0)
    gc.collect()
    gc.freeze()
    cpu_s: list[list[float]] = []
    wall_s: list[list[float]] = []
    for this_round in range(1, rounds + 1):
        script.begin(this_round, cycles)
        await run_agent(this_round)
        if script.world.acts != cycles or len(script.cpu) != cycles + 1:
            raise SystemExit(f"expected {cycles} acts and answers + 1, found {script.world.acts} and {len(script.cpu)}")
        cpu_s.append(differences(script.cpu))
        wall_s.append(differences(script.wall))
    return {
        "cycles": cycles,
        "rounds": rounds,
        "at": [
            {
                "step": place * STEPS_PER_CYCLE,
                "cpu_us_per_step": per_step_us(cpu_s, place),
                "wall_us_per_step": per_step_us(wall_s, place),
            }
            for place in places(cycles)
        ],
        "rss_bytes": peak_rss_bytes(),
        "versions": f"pydantic-ai-slim {version('pydantic-ai-slim')}, python {sys.version.split()[0]}",
    }


def differences(times: list[float]) -> list[float]:
    """Return the time between each two neighbours."""
    return [after - before for before, after in pairwise(times)]


def places(cycles: int) -> list[int]:
    """Return the cycles that are reported: the beginning, the quarters, the end."""
    return sorted({max(WINDOW, cycles * quarter // 4) for quarter in range(5)})


def per_step_us(rounds: list[list[float]], place: int) -> float:
    """Return the median time per step over the cycles that end at this place, in all rounds."""
    window = [seconds for each in rounds for seconds in each[place - WINDOW : place]]
    return median(window) / STEPS_PER_CYCLE * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lane", choices=list(LANES), default="plain")
    parser.add_argument("--cycles", type=int, default=100, help="cycles of a run; two steps each (default 100)")
    parser.add_argument("--rounds", type=int, default=1, help="runs, one after another (default 1)")
    parser.add_argument("--out", type=Path, help="where the figures are written, as JSON (default: stdout)")
    parser.add_argument("--directory", type=Path, help="where the store is (default: a new temporary directory)")
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="bench-"))
    directory.mkdir(parents=True, exist_ok=True)
    figures = json.dumps(asyncio.run(measure(options.lane, directory, options.cycles, options.rounds)), indent=2)
    if options.out:
        options.out.write_text(figures + "\n")
    else:
        print(figures)


if __name__ == "__main__":
    main()
