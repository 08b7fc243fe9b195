"""Kill orders: who may be hit, when, and how often. The children are real, and really die."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from surefoot.demo.killing import KillDesk, Killed, KillOrder, Moment, drawn_kills, pause_after_answer_s

Child = subprocess.Popen[bytes]


@pytest.fixture
def start_child() -> Iterator[Callable[[], Child]]:
    children: list[Child] = []

    def start() -> Child:
        # `cat` lives for as long as the pipe to it is open, and not a moment longer than this test.
        children.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
        return children[-1]

    yield start
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
        child.wait(10)


def test_drawn_kills_use_every_moment_and_keep_close() -> None:
    """Would catch a draw that leaves a moment untried, or puts kills where a short run never gets."""
    for seed in range(50):
        orders = drawn_kills(seed, 10, first=2, max_gap=3)
        assert [orders[0].nth >= 2, orders[-1].nth <= 2 - 1 + 30] == [True, True]
        assert all(1 <= later.nth - earlier.nth <= 3 for earlier, later in pairwise(orders))
        assert all({order.moment for order in orders[turn : turn + 3]} == set(Moment) for turn in (0, 3, 6))
    assert drawn_kills(1, 10) == drawn_kills(1, 10) != drawn_kills(2, 10)
    assert all(0 <= pause_after_answer_s(seed, 1) <= 0.005 for seed in range(50))


def test_a_registered_child_dies_by_sigkill_at_its_order(start_child: Callable[[], Child]) -> None:
    """Would catch a kill that never comes, comes early, or comes as another signal."""
    desk, child = KillDesk(), start_child()
    desk.register(child.pid)
    order = KillOrder(2, Moment.ON_ARRIVAL)
    desk.order([order])
    assert desk.due(1, child.pid) is None
    assert desk.due(2, child.pid) == order
    assert desk.strike(order, child.pid, 2)
    assert child.wait(10) == -signal.SIGKILL
    assert desk.fired == (Killed(order, child.pid, 2),)


def test_an_order_waits_for_somebody_who_may_be_killed(start_child: Callable[[], Child]) -> None:
    """Would catch a process being hit that nobody registered, and orders lost on such."""
    desk, child, stranger = KillDesk(), start_child(), start_child()
    desk.register(child.pid)
    order = KillOrder(1, Moment.AFTER_ANSWER)
    desk.order([order])
    assert desk.due(1, None) is None
    assert desk.due(2, stranger.pid) is None
    assert desk.open_orders == (order,)
    assert desk.due(3, child.pid) == order


def test_nobody_is_killed_twice_even_before_being_buried(start_child: Callable[[], Child]) -> None:
    """Would catch a kill counted on a process that was dead already, which makes a run look harder than it was."""
    desk, child = KillDesk(), start_child()
    desk.register(child.pid)
    first, second = KillOrder(1, Moment.ON_ARRIVAL), KillOrder(2, Moment.ON_ARRIVAL)
    assert desk.strike(first, child.pid, 1)
    assert not desk.strike(second, child.pid, 2)
    assert [desk.open_orders, len(desk.fired)] == [(second,), 1]
    assert desk.due(3, child.pid) is None


def test_a_dead_child_leaves_its_order_open(start_child: Callable[[], Child]) -> None:
    """Would catch a signal sent to whoever got the pid next."""
    desk, child = KillDesk(), start_child()
    desk.register(child.pid)
    child.kill()
    child.wait(10)
    order = KillOrder(1, Moment.ON_ARRIVAL)
    assert not desk.strike(order, child.pid, 1)
    assert desk.open_orders == (order,)


def test_the_shop_itself_and_its_parent_are_no_workers() -> None:
    """Would catch a demo that kills itself, or everything in sight (-1)."""
    for pid in (os.getpid(), os.getppid(), 1, 0, -1):
        with pytest.raises(ValueError, match="no worker"):
            KillDesk().register(pid)


def test_a_process_that_is_gone_cannot_be_registered() -> None:
    """Would catch a registration that would later hit another process with the same pid."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(20)
    with pytest.raises(ProcessLookupError):
        KillDesk().register(child.pid)
