"""Other durable engines in the table: each in the bench's environment for it, on one suite.

The environments hold the engine and what it needs; AgentDojo and what it imports are found behind that, in the
environment this runs in.
"""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

from bench.environments import LANGGRAPH, PYDANTIC_AI, Environment, python_of
from tests.worlds import sweep
from tests.worlds.cases import Result

ROOT = Path(__file__).parents[2]

PEERS = ((LANGGRAPH, "tests.worlds.peer_langgraph:ALL"), (PYDANTIC_AI, "tests.worlds.peer_dbos:ALL"))

NAMES = ("LangGraph", "Pydantic AI on DBOS")
"""What the names of the peers' engines begin with."""

SUITE = "banking"

_RUN = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module('tests.worlds', run_name='__main__')"


def measure(
    environment: Environment, place: str, *sweeps: str, jobs: int = 4, deadline_s: float = 60.0
) -> list[Result]:
    """Run sweeps over the calls of `SUITE` with a peer; as `sweep.measure`, in the peer's environment."""
    tools = {call.tool for task, call in sweep.targets() if task.startswith(f"{SUITE}/")}
    command = [str(python_of(environment)), "-c", _RUN, sysconfig.get_path("purelib"), "--json"]
    command += ["--jobs", str(jobs), "--deadline", str(deadline_s), "--engine", place]
    command += [word for name in sweeps for word in ("--sweep", name)]
    command += [word for tool in sorted(tools) for word in ("--tool", tool)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return [
        result for line in done.stdout.splitlines() if (result := Result(**json.loads(line))).task.startswith(SUITE)
    ]


def points(jobs: int = 4) -> list[Result]:
    """Every peer, killed at each point of each call of the suite."""
    return [result for environment, place in PEERS for result in measure(environment, place, "points", jobs=jobs)]
