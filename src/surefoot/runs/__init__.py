"""Runs: durable executions of async functions, their life, their steps, and the worker that executes them."""

from surefoot.runs.children import child
from surefoot.runs.durable import KindSpec, durable, kind_of, known_kinds, register
from surefoot.runs.errors import (
    AmbiguousStep,
    BadRunId,
    Blocked,
    CannotFork,
    CannotUndo,
    DeadlinePassed,
    Divergence,
    NotInRun,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunNotFound,
    SignalRefused,
    StepFailed,
    Suspend,
    UnknownKind,
)
from surefoot.runs.escalating import Escalation
from surefoot.runs.handle import Run, RunStatus, find, start_run
from surefoot.runs.life import RunState, WaitFor
from surefoot.runs.rows.schema import MIGRATIONS
from surefoot.runs.saga import Saga, saga
from surefoot.runs.signals import Signal
from surefoot.runs.steps import branch, now, random, sleep, sleep_until, step, take_step, uuid, wait_signal
from surefoot.runs.undo import undo as _undo  # noqa: F401  its kind is known from here on
from surefoot.runs.worker import Worker

__all__ = [
    "MIGRATIONS",
    "AmbiguousStep",
    "BadRunId",
    "Blocked",
    "CannotFork",
    "CannotUndo",
    "DeadlinePassed",
    "Divergence",
    "Escalation",
    "KindSpec",
    "NotInRun",
    "Run",
    "RunCancelled",
    "RunConflict",
    "RunFailed",
    "RunNotFound",
    "RunState",
    "RunStatus",
    "Saga",
    "Signal",
    "SignalRefused",
    "StepFailed",
    "Suspend",
    "UnknownKind",
    "WaitFor",
    "Worker",
    "branch",
    "child",
    "durable",
    "find",
    "kind_of",
    "known_kinds",
    "now",
    "random",
    "register",
    "saga",
    "sleep",
    "sleep_until",
    "start_run",
    "step",
    "take_step",
    "uuid",
    "wait_signal",
]
