"""What is tested and what comes of it: the work an engine is given, the cases it is put through, and the results.

An `Engine` is any rule for carrying out the calls of a task: a plain loop, Surefoot, or somebody else's framework. To
stand in the table it needs these two methods and, around its own store, two crossings of `work.trap` per effectful
call: `before_claim` just before its first durable word about the call, `after_record` just after its last. A wrapper
that also announces `Point.ANY` at each operation of the store has those killed at by the sweeps over crossings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from tests.worlds import dojo
from tests.worlds.client import Client
from tests.worlds.dojo import Call
from tests.worlds.kills import Kill, Trap
from tests.worlds.service import Terms


@dataclass(frozen=True)
class Work:
    """What a worker process is given. The calls are the decisions of the model, in order."""

    run_id: str
    calls: tuple[Call, ...]
    socket_path: str
    store_dir: Path
    generation: int
    """0 for the first worker of the case, 1 for the one that recovers, and so on."""
    trap: Trap

    def client(self) -> Client:
        """A client of the world, with this worker's trap around it."""
        return Client(self.socket_path, self.trap)


@dataclass(frozen=True)
class Report:
    """What a worker says when it ends by itself."""

    finished: bool
    """Whether the run is completed. A run that waits for a person is not."""
    parked: tuple[str, ...] = ()
    """Labels of the calls whose outcome the engine names as unknown."""
    told: Mapping[str, str] = field(default_factory=dict)
    """What the model was told about each effectful call: done, repeated, refused, unknown."""


class Engine(Protocol):
    """A rule for carrying out calls. Both methods run in a freshly forked process, which exits when they return."""

    @property
    def name(self) -> str:
        """Its row in the table."""

    @property
    def terms(self) -> Terms:
        """What the service offers it."""

    def run(self, work: Work) -> Report:
        """Start the run, or go on with it after the death of the worker before: the store says which."""

    def resolve(self, work: Work, landed: Mapping[str, bool]) -> Report:
        """Settle what is parked as a person found it in the world, by label, and go on with the run."""


class Memory(StrEnum):
    """What the model remembers of its decisions."""

    KEPT = "kept"
    """Recovery goes on with the recorded decisions."""
    REPEATS = "repeats"
    """Within one run the model decides every effectful call twice, the second time in other words."""
    FORGOT = "forgot"
    """After a kill another run decides everything anew, in other words."""


@dataclass(frozen=True)
class Case:
    """One experiment."""

    task: str
    kills: tuple[Kill, ...] = ()
    memory: Memory = Memory.KEPT
    deepens: bool = False
    """Whether the next worker is killed too: at its first crossing, then in a new case at its second, and so on."""

    def calls(self, generation: int) -> tuple[Call, ...]:
        """The decisions that the worker of a generation has to carry out."""
        calls = dojo.load()[self.task].calls
        again = tuple(call.reworded() for call in calls)
        if self.memory is Memory.REPEATS:
            return calls + tuple(call for call in again if call.effectful)
        return again if self.memory is Memory.FORGOT and generation > 0 else calls

    def run_id(self, generation: int) -> str:
        """The id of the run that the worker of a generation works on."""
        return f"{self.task}~again" if self.memory is Memory.FORGOT and generation > 0 else self.task


class Verdict(StrEnum):
    """How a case ended."""

    OK = "ok"
    """The state is the undisturbed one."""
    WRONG = "wrong"
    """The run says it is completed, and the state differs."""
    LOST = "lost"
    """The same, because a call never acted."""
    IN_DOUBT = "in doubt"
    """The run waits, and names the calls whose outcome it does not know."""
    STUCK = "stuck"
    """The run neither completed nor named a doubt in time."""
    ERROR = "error"
    """The engine raised."""


@dataclass
class Result:
    """One case, counted."""

    engine: str
    task: str
    memory: str
    at: str
    """Where the workers were killed."""
    nth: int
    """At which of those crossings, where there are more."""
    tool: str
    """The tool of the call at which the first worker was killed."""
    verdict: str = Verdict.ERROR
    after_person: str | None = None
    """The verdict after a person resolved what was parked; None if nothing was."""
    named_rightly: bool = True
    """Whether what was parked, if anything, was one call, and that at which a worker was killed if the case says so."""
    fired: int = 0
    """How many of the kills hit."""
    duplicates: int = 0
    """Effectful calls that the service carried out again: changed the state, refused or not."""
    misled: int = 0
    """Calls of which the model was told that they were refused though they acted."""
    workers: int = 0
    took_ms: float = 0.0
    difference: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def exact(self) -> bool:
        """Whether the state ended as the undisturbed one, if need be after a person's help."""
        return (self.after_person or self.verdict) == Verdict.OK
