"""What a sweep over crash points found: as data, and as sentences a person understands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from surefoot.testing.life import HOW, LifeSeen
from surefoot.testing.points import Point, Schedule

LAST = 6
"""How many of the crossings before a kill are shown."""


@dataclass(frozen=True)
class Failure:
    """A schedule after which something was wrong.

    Attributes:
        schedule: The kills.
        wrong: What was wrong, in words.
        lives: What was seen of each life of the process.
        repeated: In how many of `tries` more executions it was wrong again.
        tries: How often it was executed again.
    """

    schedule: Schedule
    wrong: str
    lives: tuple[LifeSeen, ...]
    repeated: int = 0
    tries: int = 0

    @property
    def sentence(self) -> str:
        """What was done and what came of it."""
        return f"{self.schedule.words}. Then: {self.wrong}"


@dataclass(frozen=True)
class CrashReport:
    """What was examined.

    Attributes:
        points: The points of the undisturbed run, in order.
        killed: The schedules that were carried out.
        missed: Those whose point was not reached when it was to be: the code takes another way each time.
        doubts: Those after which an effect was left for a person to look at.
        never_reached: Effects that are declared beside those that were used, and that this run never asked for.
        unlike: What two undisturbed runs do not have in common ("result", "books"), and was therefore not compared.
        failure: The smallest schedule after which something was wrong; None if nothing was.
        lives: How many processes lived.
        took_s: Seconds.
        how: By what means processes die.
    """

    points: tuple[Point, ...]
    killed: tuple[Schedule, ...]
    missed: tuple[Schedule, ...]
    doubts: tuple[Schedule, ...]
    never_reached: tuple[str, ...]
    unlike: tuple[str, ...]
    failure: Failure | None
    lives: int
    took_s: float
    how: str = HOW

    @property
    def coverage(self) -> dict[str, dict[str, int]]:
        """How often a process was killed on each side of each effect and step; sides never reached are not there."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.never_reached}
        for schedule in self.killed:
            for point in schedule.kills:
                name = point.about.partition("/")[0]
                if name:
                    sides = found.setdefault(name, {})
                    sides[point.side] = sides.get(point.side, 0) + 1
        return found

    def __str__(self) -> str:
        once = sum(len(one.kills) == 1 for one in self.killed)
        lines = [
            f"{len(self.killed)} schedules ({once} of one kill, {len(self.killed) - once} of more) over {len(self.points)} "
            f"points, {self.lives} processes, {self.took_s:.1f} s, by {self.how}"
        ]
        lines += [f"  {name}: {_sides(sides)}" for name, sides in self.coverage.items()]
        lines += [f"  not reached when it was to be: {one}" for one in self.missed]
        lines += [f"  not compared, for two undisturbed runs differ in it: {one}" for one in self.unlike]
        if self.doubts:
            lines.append(f"  {len(self.doubts)} ended with an effect left for a person, first: {self.doubts[0]}")
        return "\n".join(lines)


def _sides(sides: dict[str, int]) -> str:
    return ", ".join(f"{side} {count}" for side, count in sides.items()) or "never reached"


class CrashPointFailed(AssertionError):
    """After some kills something was wrong.

    Attributes:
        report: All that was found.
    """

    def __init__(self, report: CrashReport, command: str) -> None:
        assert report.failure is not None
        super().__init__("\n".join(_told(report.failure, command)))
        self.report = report


def _told(failure: Failure, command: str) -> Iterable[str]:
    yield failure.sentence
    for number, life in enumerate(failure.lives, 1):
        fate = f"killed at {life.killed_at}" if life.killed_at else _end_of(life)
        yield f"  life {number}: {fate}; before that: {', '.join(map(str, life.crossed[-LAST - 1 : -1])) or 'nothing'}"
    if failure.tries:
        yield f"  executed {failure.tries} times more: wrong again {failure.repeated} times"
    yield f"  again: {command} --crash-points {shlex.quote(str(failure.schedule))}" if failure.schedule.kills else ""


def _end_of(life: LifeSeen) -> str:
    if life.ended is None:
        return "it ended by itself"
    waits = f" for {life.ended.waiting_for}" if life.ended.waiting_for else ""
    return f"the run is {life.ended.state}{waits}"
