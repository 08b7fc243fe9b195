"""What the journal holds of a run, arranged for its code to walk through again. Pure: records in, answers out.

Identity: a step is *path of its parent + name + occurrence within its task*, or name and the caller's key. Never a global
order of encounter, which parallel tasks would shuffle, and never arguments alone, which repetition would merge.

Divergence: within one task the recorded steps follow each other (`after`); a task that asks for another step than the one
recorded after what it has seen has diverged, and so has code that ends without asking for all that is recorded. The first
step of a task forked off (negative `after`) is found by its identity alone, since tasks may start in any order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from surefoot.journal import Kind, Record
from surefoot.journal.records import ENDS_STEP, OPENS_STEP
from surefoot.journal.texts import without_surrogates


@dataclass(slots=True)
class Recorded:
    """What is recorded of one step."""

    opened: Record | None = None
    ended: Record | None = None
    is_asked: bool = False

    @property
    def began(self) -> int:
        """The number of its first record."""
        first = self.opened or self.ended
        return 0 if first is None else first.seq

    @property
    def place(self) -> int:
        """What its task had seen last when it began; below 0 for the first step of a task that was forked off."""
        first = self.opened or self.ended
        return 0 if first is None else first.after

    @property
    def is_interrupted(self) -> bool:
        """Whether its task was cancelled before it had an outcome."""
        return self.ended is not None and self.ended.kind is Kind.INTERRUPTED

    @property
    def is_fork(self) -> bool:
        """Whether it is the first step of a task that was forked off."""
        first = self.opened or self.ended
        return first is not None and first.after < 0

    @property
    def stands_for_inner(self) -> bool:
        """Whether its outcome stands for all that was recorded inside it, or will."""
        return self.ended is not None or (self.opened is not None and self.opened.kind is Kind.CLAIMED)


@dataclass(slots=True)
class History:
    """A run's records by step.

    Attributes:
        followers: The step recorded after a record, in the same task and under the same parent.
    """

    steps: dict[str, Recorded] = field(default_factory=dict)
    followers: dict[tuple[str, int], str] = field(default_factory=dict)
    signals_taken: set[int] = field(default_factory=set)
    last_seq: int = 0
    started: Record | None = None
    expired: Record | None = None
    cancels: dict[int, Record] = field(default_factory=dict)
    drifts: set[str] = field(default_factory=set)

    def left_over(self, before: int | None = None) -> list[str]:
        """Return recorded steps the code has not asked for, except those inside a step whose outcome was replayed.

        A step that was left without an outcome is none of them: the code went on without it, and may not come to it again
        (its task is cancelled before it starts, because what made that happen is known at once on replay).

        Args:
            before: Only steps that began before this record; None for all.
        """
        return [
            key
            for key, step in self.steps.items()
            if not step.is_asked
            and not step.is_interrupted
            and (before is None or step.began < before)
            and not self._is_inside_ended(key)
        ]

    def has_late_tasks(self) -> bool:
        """Whether a task that was forked off has not asked for its first step yet."""
        return any(step.is_fork and not step.is_asked for step in self.steps.values())

    def expected(self, parent: str, after: int) -> str | None:
        """Return the recorded step that comes next in a task. One that another task has asked for is passed: before tasks
        that call a function in a thread stood alone, its step could be recorded as one of the task that started it."""
        expected = self.followers.get((parent, after))
        while expected is not None and (passed := self.steps[expected]).is_asked:
            expected = None if passed.ended is None else self.followers.get((parent, passed.ended.seq))
        return expected

    def next_inside(self, parent: str, after: int) -> str | None:
        """Return the recorded step that comes next in a task, two levels below a parent, if one does."""
        places = (after, -after - 1)
        return next(
            (
                key
                for key, step in self.steps.items()
                if not step.is_asked and step.place in places and parent_of(parent_of(key)) == parent and "/" in key
            ),
            None,
        )

    def _is_inside_ended(self, key: str) -> bool:
        """Whether the step belongs to another that has its outcome, or to an act, whose doubt may end without its code."""
        while "/" in key:
            key = key.rpartition("/")[0]
            outer = self.steps.get(key)
            if outer is not None and outer.stands_for_inner:
                return True
        return False


def arrange(records: Iterable[Record]) -> History:
    """Return the history these records make, in order."""
    history = History()
    for record in records:
        history.last_seq = max(history.last_seq, record.seq)
        if record.kind is Kind.SIGNAL and not record.step:  # a cancellation that reached the code
            history.cancels[record.head.signal] = record
        elif record.kind is Kind.INTERRUPTED and not record.step:  # it had its outcome, but the code left it unseen
            history.steps[record.head.name].ended = record
        elif record.kind in OPENS_STEP or record.kind in ENDS_STEP:
            _add_step(history, record)
        elif record.kind is Kind.STARTED:
            history.started = record
        elif record.kind is Kind.DRIFT:
            history.drifts.add(record.step)
    return history


def _add_step(history: History, record: Record) -> None:
    step = history.steps.get(record.step)
    if step is None:
        step = history.steps[record.step] = Recorded()
        if record.after >= 0:
            history.followers[parent_of(record.step), record.after] = record.step
    if record.kind in ENDS_STEP:
        step.ended = step.ended or record
    else:  # what was asked for may be claimed then, and what was claimed and left before the act is asked for anew
        step.opened = record
    if record.kind is Kind.SIGNAL:
        history.signals_taken.add(record.head.signal)
    elif record.kind is Kind.EXPIRED:
        history.expired = record


def parent_of(key: str) -> str:
    """Return the path a step stands under; empty at the top."""
    return key.rpartition("/")[0]


@lru_cache(maxsize=4096)
def _escaped(text: str) -> str:
    return without_surrogates(text.replace("%", "%25").replace("/", "%2F"))


def step_key(parent: str, name: str, key: str | None, occurrence: int = 1) -> str:
    """Return a step's identity: "parent/name#2", "parent/name[key]"; slashes of the parts are escaped."""
    text = _escaped(name if key is None else f"{name}[{key}]")
    if occurrence > 1:
        text = f"{text}#{occurrence}"
    return f"{parent}/{text}" if parent else text
