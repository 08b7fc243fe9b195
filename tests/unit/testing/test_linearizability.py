"""The checker of histories finds what it is there to find, agrees with trying everything, and is quick enough."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.testing import Operation, TooHard, check, check_all


class Register:
    """A value that is written and read."""

    initial = 0

    def step(self, state: int, operation: Operation) -> Iterator[int]:
        if operation.action == "write":
            yield operation.argument
        elif operation.returned is None or operation.result == state:
            yield state


class Lock:
    """A lease: its holder's token, and the highest so far."""

    initial = (0, 0)

    def step(self, state: tuple[int, int], operation: Operation) -> Iterator[tuple[int, int]]:
        holder, highest = state
        if operation.action == "acquire" and not holder and operation.result > highest:
            yield (operation.result, operation.result)
        if operation.action == "release" and holder == operation.argument:
            yield (0, highest)


def op(
    process: str, action: str, argument: Any, called: float, returned: float | None, result: Any = None
) -> Operation:
    return Operation(process, action, argument, called, returned, result)


def test_a_register_that_reads_the_past_is_found() -> None:
    """Catches a checker that lets a value come back after a newer one was read."""
    fine = [op("a", "write", 1, 0, 4), op("b", "read", None, 1, 2, 1), op("c", "read", None, 3, 5, 1)]
    assert check(fine, Register()).is_linearizable
    stale = [op("a", "write", 1, 0, 4), op("b", "read", None, 1, 2, 1), op("c", "read", None, 3, 5, 0)]
    verdict = check(stale, Register())
    assert not verdict.is_linearizable
    assert [one.process for one in verdict.stuck] == ["c"]
    assert "none of these can come" in str(verdict)
    assert "read(None)" in str(verdict)


def test_what_nobody_knows_may_have_happened_late_or_never() -> None:
    """Catches a checker that takes a lost answer for a failure, or for a success."""
    lost = op("a", "write", 1, 0, None)
    assert check([lost, op("b", "read", None, 5, 6, 0)], Register()).is_linearizable
    assert check([lost, op("b", "read", None, 5, 6, 1)], Register()).is_linearizable
    twice = [lost, op("b", "read", None, 5, 6, 1), op("b", "read", None, 7, 8, 0)]
    assert not check(twice, Register()).is_linearizable
    before = [replace(lost, called=9), op("b", "read", None, 5, 6, 1)]
    assert not check(before, Register()).is_linearizable


def test_two_holders_and_falling_tokens_are_found() -> None:
    """Catches a checker that lets a second holder in, or an older token after a newer one."""
    one = [op("a", "acquire", None, 0, 1, 1), op("a", "release", 1, 2, 3, None), op("b", "acquire", None, 2, 4, 2)]
    assert check(one, Lock()).is_linearizable
    two = [op("a", "acquire", None, 0, 1, 1), op("b", "acquire", None, 2, 3, 2), op("a", "release", 1, 4, 5, None)]
    assert not check(two, Lock()).is_linearizable
    falling = [op("a", "acquire", None, 0, 1, 2), op("a", "release", 2, 2, 3), op("b", "acquire", None, 4, 5, 1)]
    assert not check(falling, Lock()).is_linearizable


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Draw small histories of a register, right ones and wrong ones."""
    count = draw(st.integers(1, 6))
    history = []
    for number in range(count):
        called = draw(st.integers(0, 8))
        returned = draw(st.one_of(st.none(), st.integers(called + 1, 10)))
        if draw(st.booleans()):
            history.append(op(str(number), "write", draw(st.integers(0, 2)), called, returned))
        else:
            history.append(op(str(number), "read", None, called, returned, draw(st.integers(0, 2))))
    return history


@given(histories())
@settings(max_examples=100, deadline=None)
def test_it_agrees_with_trying_every_order(history: list[Operation]) -> None:
    """Catches a search that remembers too much, or passes over an order."""
    assert check(history, Register()).is_linearizable == _any_order(history)


def _any_order(history: list[Operation]) -> bool:
    known = [one for one in history if one.returned is not None]
    unknown = [one for one in history if one.returned is None]
    for mask in range(1 << len(unknown)):
        chosen = [*known, *(one for place, one in enumerate(unknown) if mask >> place & 1)]
        if any(_is_order(order) for order in permutations(chosen)):
            return True
    return False


def _is_order(order: tuple[Operation, ...]) -> bool:
    for place, one in enumerate(order):
        if any(later.returned is not None and later.returned < one.called for later in order[place + 1 :]):
            return False
    state = 0
    for one in order:
        after = list(Register().step(state, one))
        if not after:
            return False
        state = after[0]
    return True


def recorded(seed: int, count: int, *, is_broken: bool = False) -> list[Operation]:
    """Return a history of a register that was really one, or, broken, one that has once answered with an older value."""
    draws = random.Random(seed)
    history, value, now = [], 0, 0.0
    broken_at = draws.randrange(count // 2, count) if is_broken else -1
    for number in range(count):
        now += draws.random()
        around = (now - draws.random(), now + draws.random())
        if draws.random() < 0.5:
            value = number + 1
            is_lost = draws.random() < 0.02
            history.append(op(f"p{number % 8}", "write", value, around[0], None if is_lost else around[1]))
        else:
            seen = -1 if number == broken_at else value
            history.append(op(f"p{number % 8}", "read", None, *around, seen))
    if is_broken and all(one.result != -1 for one in history):
        history.append(op("p0", "read", None, now + 10, now + 11, -1))
    return history


@pytest.mark.parametrize("seed", range(2))
def test_thousands_of_operations_are_checked(seed: int) -> None:
    """Catches a search that is lost in a history as long as the ones that are recorded, and one that misses its fault."""
    assert check(recorded(seed, 1_000), Register()).is_linearizable
    assert not check(recorded(seed, 400, is_broken=True), Register()).is_linearizable


def test_objects_are_checked_apart_and_a_search_that_is_too_long_says_nothing() -> None:
    """Catches a fault of one object that is laid on another, and a verdict that nobody has reached."""
    history = [replace(one, key=key) for key in "ab" for one in recorded(1, 50, is_broken=key == "b")]
    assert {key: verdict.is_linearizable for key, verdict in check_all(history, Register()).items()} == {
        "a": True, "b": False}  # fmt: skip
    with pytest.raises(TooHard):
        check(recorded(1, 100), Register(), steps_max=10)
