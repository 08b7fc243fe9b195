"""Testing: what your own tests can use. Crash points kill your agent at every boundary, in real processes.
`check` says whether a recorded history of concurrent operations is linearizable.

With pytest the fixture `crash_points` is there by itself; see `surefoot.testing.crash_points` for what it takes.
"""

from surefoot.testing.laws import LawBroken
from surefoot.testing.life import Hangs, Strayed
from surefoot.testing.linearizability import Model, Operation, TooHard, Verdict, check, check_all
from surefoot.testing.points import BadSchedule, Point, Schedule
from surefoot.testing.report import CrashPointFailed, CrashReport, Failure
from surefoot.testing.sweep import NothingToSweep, crash_points
from surefoot.testing.world import WorldRaised

__all__ = [
    "BadSchedule",
    "CrashPointFailed",
    "CrashReport",
    "Failure",
    "Hangs",
    "LawBroken",
    "Model",
    "NothingToSweep",
    "Operation",
    "Point",
    "Schedule",
    "Strayed",
    "TooHard",
    "Verdict",
    "WorldRaised",
    "check",
    "check_all",
    "crash_points",
]
