"""Is a recorded history of concurrent operations one that a single object could have given, one operation at a time?

Each operation took effect at one moment between its call and its return; one whose outcome nobody knows (its process was
killed, its answer lost) may have taken effect at any moment after its call, or never. `check` looks for an order of such
moments that a *model* of the object allows. Histories of several objects are split first: a history is linearizable if and
only if that of each object is.

What holds: `False` is a proof, with the shortest prefix that has no order; `True` comes with the order.

Source: Herlihy and Wing 1990 (linearizability); Wing and Gong 1993, Lowe 2017 (the search, and remembering where it was).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as its caller saw it.

    Attributes:
        process: Who called; only for reading what is told.
        action: What was called.
        argument: With what.
        called: When, on a clock that all processes share.
        returned: When it returned; None if nobody knows whether it has taken effect.
        result: What it returned.
        key: The object; histories are split by it.
    """

    process: str
    action: str
    argument: Any
    called: float
    returned: float | None
    result: Any = None
    key: Hashable = ""

    def __str__(self) -> str:
        """Return it in one line."""
        end = "?" if self.returned is None else f"{self.returned:.6f}"
        told = "nobody knows" if self.returned is None else repr(self.result)
        return f"{self.called:.6f} to {end}  {self.process}: {self.action}({self.argument!r}) of {self.key!r} -> {told}"


class Model(Protocol[S]):
    """One object, one operation at a time. Its states must be hashable."""

    @property
    def initial(self) -> S:
        """The state before the first operation."""

    def step(self, state: S, operation: Operation) -> Iterable[S]:
        """Return the states after the operation, if it took effect in this one and returned what it did: none if it can't
        have, several if that is not all decided by what is known of it."""


@dataclass(frozen=True, slots=True)
class Verdict(Generic[S]):
    """What was found of a history.

    Attributes:
        is_linearizable: Whether there is an order.
        order: The order in which the operations took effect; as far as any comes, where there is none.
        stuck: Where there is none: the operations of which none can come next, in the order of their calls.
        steps: How many steps of the model were tried.
    """

    is_linearizable: bool
    order: tuple[Operation, ...]
    stuck: tuple[Operation, ...]
    steps: int

    def __str__(self) -> str:
        """Return what a person needs to see."""
        if self.is_linearizable:
            return f"linearizable: {len(self.order)} operations, {self.steps} steps"
        last = "\n".join(f"  {one}" for one in self.order[-5:])
        next_ones = "\n".join(f"  {one}" for one in self.stuck[:10])
        after = f"not linearizable. After {len(self.order)} operations, the last of them"
        return f"{after}\n{last}\nnone of these can come:\n{next_ones}"


class TooHard(Exception):
    """The search was given up: it says nothing about the history."""


def check(history: Sequence[Operation], model: Model[S], *, steps_max: int = 10_000_000) -> Verdict[S]:
    """Return whether a history of one object is linearizable.

    Args:
        history: Its operations, in any order.
        model: The object.
        steps_max: How many steps of the model to try.

    Raises:
        TooHard: That was not enough. Split the history, or let fewer operations be unknown.
    """
    return _Search(history, model, steps_max).run()


def check_all(
    history: Iterable[Operation], model: Model[S], *, steps_max: int = 10_000_000
) -> dict[Hashable, Verdict[S]]:
    """Return the verdict on each object of a history, by its key; see `check`."""
    apart: defaultdict[Hashable, list[Operation]] = defaultdict(list)
    for one in history:
        apart[one.key].append(one)
    return {key: check(part, model, steps_max=steps_max) for key, part in apart.items()}


@dataclass(slots=True)
class _Choice(Generic[S]):
    """An operation that was taken as the next, and what is left to try in its place."""

    place: int
    others: list[tuple[int, S]]


class _Search(Generic[S]):
    """A search for an order, depth first. What was tried before, the same operations with the same state after them, is
    not tried again, in whatever order they came."""

    def __init__(self, history: Sequence[Operation], model: Model[S], steps_max: int) -> None:
        self._history = sorted(history, key=lambda one: one.called)
        self._model = model
        self._steps_max = steps_max
        self._steps = 0
        self._seen: set[tuple[int, S]] = set()
        self._known = [place for place, one in enumerate(self._history) if one.returned is not None]
        self._unknown = [place for place, one in enumerate(self._history) if one.returned is None]

    def run(self) -> Verdict[S]:
        taken, state, made, first = 0, self._model.initial, 0, 0
        path: list[_Choice[S]] = []
        best: tuple[list[int], list[int]] = ([], [])
        while made < len(self._known):
            while taken >> self._known[first] & 1:
                first += 1
            candidates = self._candidates(taken, first)
            if len(path) >= len(best[0]):
                best = [one.place for one in path], candidates
            options = [(place, after) for place in candidates for after in self._after(state, place, taken)]
            while not options:
                if not path:
                    return Verdict(False, self._told(best[0]), self._told(best[1]), self._steps)
                last = path.pop()
                taken &= ~(1 << last.place)
                made -= self._history[last.place].returned is not None
                options, first = last.others, 0
            place, state = options.pop(0)
            path.append(_Choice(place, options))
            taken |= 1 << place
            made += self._history[place].returned is not None
        return Verdict(True, self._told([one.place for one in path]), (), self._steps)

    def _candidates(self, taken: int, first: int) -> list[int]:
        """Return the operations that may come next: those called before any other that is left has returned. Those whose
        outcome nobody knows come last, for they may never come."""
        found: list[int] = []
        until = float("inf")
        for place in islice(self._known, first, None):
            one = self._history[place]
            if one.called > until:
                break
            if not taken >> place & 1:
                found.append(place)
                until = min(until, one.returned or until)
        found = [place for place in found if self._history[place].called <= until]
        for place in self._unknown:
            if self._history[place].called > until:
                break
            if not taken >> place & 1:
                found.append(place)
        return found

    def _after(self, state: S, place: int, taken: int) -> Iterable[S]:
        self._steps += 1
        if self._steps > self._steps_max:
            raise TooHard(f"no verdict on {len(self._history)} operations within {self._steps_max:,} steps")
        for after in self._model.step(state, self._history[place]):
            reached = (taken | 1 << place, after)
            if reached not in self._seen:
                self._seen.add(reached)
                yield after

    def _told(self, places: Iterable[int]) -> tuple[Operation, ...]:
        return tuple(self._history[place] for place in places)


def split(history: Iterable[Operation], by: Callable[[Operation], Hashable]) -> dict[Hashable, list[Operation]]:
    """Return a history in parts, each of one object or of none that the others touch."""
    parts: defaultdict[Hashable, list[Operation]] = defaultdict(list)
    for one in history:
        parts[by(one)].append(one)
    return dict(parts)
