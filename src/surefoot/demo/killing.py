"""Kill points: real SIGKILLs that hit a worker in the middle of a call to the shop.

The service outside is the one place that knows for certain when a call has arrived, acted and been answered, so it is
the service that pulls the trigger; the product under test carries no switch for it. Always holds: only a process that
was registered is killed, at most once, and through a pidfd taken at registration, so that a reused pid is never hit.
"""

import os
import signal
from dataclasses import dataclass
from enum import StrEnum

from surefoot.demo.draws import between, fraction, whole


class Moment(StrEnum):
    """When, within a call, its caller dies.

    A call that does not act reaches `AFTER_ACT_BEFORE_ANSWER` just before the shop's last word, and one that is cut
    instead of answered reaches `AFTER_ANSWER` just after the cut.
    """

    ON_ARRIVAL = "on_arrival"
    AFTER_ACT_BEFORE_ANSWER = "after_act_before_answer"
    AFTER_ANSWER = "after_answer"


@dataclass(frozen=True, slots=True)
class KillOrder:
    """Kill whoever sends the n-th effectful request (counted from 1 over all endpoints), at this moment of it."""

    nth: int
    moment: Moment


@dataclass(frozen=True, slots=True)
class Killed:
    """One order carried out: who was killed, in which request."""

    order: KillOrder
    pid: int
    effectful_n: int


def drawn_kills(seed: int, count: int, *, first: int = 1, max_gap: int = 3) -> tuple[KillOrder, ...]:
    """Draw kill points that are spread over a run and use every moment in turn.

    Args:
        seed: The seed printed with the run.
        count: How many workers are to die.
        first: The earliest effectful request that may be hit, from 1.
        max_gap: The largest number of effectful requests from one kill to the next, at least 1. A small gap makes
            sure that a short run meets all its kills.

    Returns:
        The orders, by rising request number. Any three in a row use all three moments.
    """
    orders: list[KillOrder] = []
    nth = first - 1
    for number in range(count):
        nth += whole(seed, 1, max_gap, "kill", number, "gap")
        turn, place = divmod(number, len(Moment))
        moments = sorted(Moment, key=lambda moment: fraction(seed, "kill", turn, moment))
        orders.append(KillOrder(nth, moments[place]))
    return tuple(orders)


def pause_after_answer_s(seed: int, effectful_n: int) -> float:
    """Draw how long after an answer its reader dies: 0 to 5 ms, while it is busy recording what it read."""
    return between(seed, 0.0, 0.005, "kill", effectful_n, "pause")


class KillDesk:
    """The orders that are still open, and the workers they may hit."""

    def __init__(self) -> None:
        self._open: list[KillOrder] = []
        self._fired: list[Killed] = []
        self._workers: dict[int, int] = {}  # pid -> pidfd

    @property
    def open_orders(self) -> tuple[KillOrder, ...]:
        """The orders not carried out yet, by request number."""
        return tuple(self._open)

    @property
    def fired(self) -> tuple[Killed, ...]:
        """The orders carried out, in that order."""
        return tuple(self._fired)

    def register(self, pid: int) -> None:
        """Allow that this process is killed.

        Raises:
            ValueError: If it is the shop itself, the process that started it, or no process to speak of.
            ProcessLookupError: If there is no such process.
        """
        if pid <= 1 or pid in (os.getpid(), os.getppid()):
            raise ValueError(f"process {pid} is no worker")
        fd = os.pidfd_open(pid)
        self._forget(pid)
        self._workers[pid] = fd

    def order(self, orders: list[KillOrder]) -> None:
        """Add orders to the open ones."""
        self._open = sorted([*self._open, *orders], key=lambda order: order.nth)

    def due(self, effectful_n: int, pid: int | None) -> KillOrder | None:
        """Take the order this request is to carry out, if there is one.

        An order whose own request came from a process that may not be killed waits for the next that may, so that as
        many workers die as were ordered to.
        """
        if pid not in self._workers or not self._open or self._open[0].nth > effectful_n:
            return None
        return self._open.pop(0)

    def strike(self, order: KillOrder, pid: int, effectful_n: int) -> bool:
        """Kill, and remember it; an order whose victim was already dead is open again.

        Returns:
            Whether this call sent the SIGKILL.
        """
        fd = self._workers.get(pid)
        try:
            if fd is None:
                raise ProcessLookupError(pid)
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        except ProcessLookupError:
            self.order([order])
            return False
        finally:
            self._forget(pid)  # a killed process that nobody has waited for yet would take a second signal
        self._fired.append(Killed(order, pid, effectful_n))
        return True

    def _forget(self, pid: int) -> None:
        fd = self._workers.pop(pid, None)
        if fd is not None:
            os.close(fd)
