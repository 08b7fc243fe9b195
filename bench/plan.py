"""What is measured: the systems, the cases, and how much of each case a system is given. Data only.

The peers are given less of the large cases, because a step of theirs costs a hundred times as much; every table says
what was done. What they are given is enough for a steady rate: their rates do not rise with more of the same work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.environments import DBOS, LANGGRAPH, Environment


@dataclass(frozen=True)
class Work:
    """How much of a case one process does, and in how many processes.

    Attributes:
        runs: Runs at once.
        cycles: Cycles of each run; 0 in `resume`, where the driver fixes them.
        rounds: How often a process does all runs, one round after another.
        repeats: How many processes are measured; the figures are their medians.
        effects: How many effects of earlier runs the store holds before; only for systems that can be aged.
    """

    runs: int
    cycles: int = 20
    rounds: int = 1
    repeats: int = 3
    effects: int = 0

    def __str__(self) -> str:
        return f"{self.repeats} x {self.rounds} x {self.runs:,} x {self.cycles}"


@dataclass(frozen=True, eq=False)
class System:
    """One measured system.

    Attributes:
        name: What `--only` takes.
        title: What the tables say.
        module: The driver, run as `python -m`.
        variant: Passed to the driver.
        environment: Where it is installed; None: the environment of the bench itself.
        work: Its share of each case; a case that is not there is not measured.
        quick: The same for `--quick`.
        is_extra: Whether it is measured only when `--only` names it.
    """

    name: str
    title: str
    module: str
    variant: str
    environment: Environment | None
    work: Mapping[str, Work]
    quick: Mapping[str, Work]
    is_extra: bool = False


CASES = {
    "empty": "An empty store",
    "one": "One run alone",
    "hundred": "100 runs at once",
    "thousand": "1,000 runs at once",
    "aged": "100 runs at once in a store that holds 500,000 effects already",
    "long": "One run of 200 cycles: does a step cost more as the history grows?",
    "resume": "Resume after kill -9: 20 recorded steps per run, killed inside the next",
}
"""In the order in which they are measured. `empty` is only subtracted from the sizes of the others."""

_EMPTY = Work(runs=0, cycles=0, repeats=1)

_FAST = {
    "empty": _EMPTY,
    "one": Work(runs=1, rounds=40),
    "hundred": Work(runs=100, rounds=10),
    "thousand": Work(runs=1000, rounds=2),
    "long": Work(runs=1, cycles=200),
    "resume": Work(runs=1000, cycles=0),
}
_FAST_QUICK = {
    "empty": _EMPTY,
    "one": Work(runs=1, rounds=10, repeats=1),
    "hundred": Work(runs=100, rounds=2, repeats=1),
    "resume": Work(runs=100, cycles=0, repeats=1),
}
_PEER = {
    "empty": _EMPTY,
    "one": Work(runs=1, rounds=10),
    "hundred": Work(runs=100, cycles=10),
    "thousand": Work(runs=1000, cycles=2, repeats=1),
    "long": Work(runs=1, cycles=200, repeats=1),
    "resume": Work(runs=100, cycles=0, repeats=1),
}
_PEER_QUICK = {
    "empty": _EMPTY,
    "one": Work(runs=1, rounds=2, repeats=1),
    "hundred": Work(runs=100, cycles=2, repeats=1),
    "resume": Work(runs=20, cycles=0, repeats=1),
}
_BATCHES = {"empty", "one", "hundred", "thousand"}
_VARIANT = {case: work for case, work in _PEER.items() if case in {"empty", "one", "hundred", "long"}}
_VARIANT_QUICK = {case: work for case, work in _PEER_QUICK.items() if case in _VARIANT}

SYSTEMS = (
    System(
        "surefoot",
        "Surefoot",
        "bench.peers.surefoot",
        "default",
        None,
        _FAST | {"aged": Work(runs=100, rounds=10, repeats=1, effects=500_000)},
        _FAST_QUICK,
    ),
    System("bare", "bare store (ceiling)", "bench.peers.bare", "default", None, _FAST, _FAST_QUICK),
    System(
        "same-rows",
        "bare store, Surefoot's rows",
        "bench.peers.same_rows",
        "default",
        None,
        {case: work for case, work in _FAST.items() if case in _BATCHES},
        {case: work for case, work in _FAST_QUICK.items() if case in _BATCHES},
    ),
    System("dbos", "DBOS", "bench.peers.dbos", "default", DBOS, _PEER, _PEER_QUICK),
    System("dbos-wal", "DBOS, file in WAL mode", "bench.peers.dbos", "wal", DBOS, _VARIANT, _VARIANT_QUICK),
    System(
        "langgraph",
        "LangGraph, durability sync",
        "bench.peers.langgraph",
        "sync",
        LANGGRAPH,
        # Its steps cost more as the history grows, so its runs keep their 20 cycles where time allows.
        _PEER | {"hundred": Work(runs=100), "thousand": Work(runs=1000, cycles=5, repeats=1)},
        _PEER_QUICK,
    ),
    System(
        "langgraph-async",
        "LangGraph, durability async (its default)",
        "bench.peers.langgraph",
        "async",
        LANGGRAPH,
        _VARIANT,
        _VARIANT_QUICK,
        is_extra=True,
    ),
)
REFERENCE = "surefoot"
CEILING = "bare"

POSTGRES = "postgres"
"""What `--only` takes for the lanes of `bench/postgres.py`."""

AGENT_STEP = "pydantic-ai"
AGENT_LANES = {
    "plain": "Pydantic AI, not durable",
    "contract": "its durability contract, nothing recorded",
    "synced": "its durability contract, one sync an act",
    "surefoot": "Pydantic AI + Surefoot",
    "dbos": "Pydantic AI + DBOS",
}
"""The lanes of `bench/pydantic_ai_step.py`, which `--only pydantic-ai` measures alone."""
