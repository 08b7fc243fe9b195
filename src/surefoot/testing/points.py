"""Crash points by name: where a process can be killed, and a schedule of kills. Pure.

A *point* is one crossing of a boundary: its side, what it is about, and which crossing of that name it is in one life of
the process, from 1. Names and counts, never places in a list: so a point means the same in every run of a test, however
its tasks interleave. A *schedule* is one point for each life that is killed; the life after the last goes to its end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from surefoot.problem import SurefootError

SIDES: dict[str, str] = {
    "before-claim": "right before {s} was claimed: nothing of it on disk, nothing sent",
    "after-claim": "with {s} claimed, and nothing sent",
    "before-call": "right before the call of {s}",
    "on-its-way": "with the call of {s} on its way: it landed after the process was gone",
    "acted": "when {s} had acted, and before its answer arrived",
    "waiting": "while {s} waited for something",
    "replied": "when {s} had its answer, and before that was recorded",
    "before-settle": "when {s} was over, and before its outcome was recorded",
    "after-settle": "with the outcome of {s} on disk",
    "before-decision": "when {s} was answered, and before that was recorded",
    "after-decision": "with the answer of {s} on disk",
    "before-read": "when {s} was answered, and before that was recorded",
    "after-read": "with the answer of {s} on disk",
    "before-start": "before the run was started",
    "after-start": "with the start of the run on disk",
    "before-end": "when the run's code had ended, and before its end was recorded",
    "after-end": "with the end of the run on disk",
}
"""What a side means in words. All others are a write to the store, before or after it, by the label of that write."""


class BadSchedule(SurefootError):
    """What was given is no schedule of crash points."""


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """One crossing.

    Attributes:
        side: Which boundary; see `SIDES`.
        about: What it is about: a step of the run, a call of the world, or nothing.
        nth: Which crossing of this side and subject in one life of the process, from 1.
    """

    side: str
    about: str = ""
    nth: int = 1

    def __str__(self) -> str:
        about = f":{self.about}" if self.about else ""
        return f"{self.side}{about}" + (f"#{self.nth}" if self.nth > 1 else "")

    @property
    def sort(self) -> tuple[str, str]:
        """What it has in common with its other crossings."""
        return self.side, self.about

    @property
    def words(self) -> str:
        """Where that is, in words."""
        step, _, call = self.about.partition("/")
        subject = f"`{call}` (called by `{step}`)" if call else f"`{step}`"
        place = SIDES.get(self.side)
        if place is None:
            when, _, label = self.side.partition("-")
            of = f" for `{self.about}`" if self.about else ""
            place = f"right {when} a write to the store ({label}{of})"
        times = f" (the {_ordinal(self.nth)} time)" if self.nth > 1 else ""
        return place.format(s=subject) + times


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which life of the process is killed where.

    Attributes:
        kills: One point per killed life; the life after the last one is left alone.
    """

    kills: tuple[Point, ...] = ()

    def __str__(self) -> str:
        return " then ".join(map(str, self.kills))

    @property
    def words(self) -> str:
        """What is done, as a sentence without its end."""
        if not self.kills:
            return "Never killed"
        first, *later = (point.words for point in self.kills)
        return f"Killed {first}" + "".join(f"; and again, in the recovery, {words}" for words in later)


def parse(text: str) -> Schedule:
    """Return the schedule that `str(schedule)` has written.

    Raises:
        BadSchedule: It is none.
    """
    return Schedule(tuple(map(_point, text.split(" then "))) if text.strip() else ())


def _point(text: str) -> Point:
    found = re.fullmatch(r"\s*([a-z-]+)(?::(.*?))?(?:#(\d+))?\s*", text)
    if found is None:
        raise BadSchedule(
            f"{text!r} is no crash point", hint='write SIDE:SUBJECT#N, for example "acted:refund/shop.pay"'
        )
    return Point(found[1], found[2] or "", int(found[3] or 1))


def earliest_first(points: Sequence[Point]) -> list[Point]:
    """Return points without repetition, in the order in which they were crossed."""
    return list(dict.fromkeys(points))


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0, "th")
    return f"{number}{ending}"
