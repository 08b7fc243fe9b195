"""Testing: what your own tests can use. Crash points kill your agent at every boundary, in real processes.

With pytest the fixture `crash_points` is there by itself; see `surefoot.testing.crash_points` for what it takes.
"""

from surefoot.testing.laws import LawBroken
from surefoot.testing.life import Hangs, Strayed
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
    "NothingToSweep",
    "Point",
    "Schedule",
    "Strayed",
    "WorldRaised",
    "crash_points",
]
