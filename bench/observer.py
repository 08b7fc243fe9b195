"""What the harness sees from inside a run: cycle times, the gate at which runs are stopped, and the world's count.

One observer per process, because engines want their steps as module-level functions. It may be called from any thread:
lists are appended to and never rewritten while runs are going on.
"""

from __future__ import annotations

import asyncio
from time import perf_counter, process_time

from bench.workload import World


class Observer:
    """Collects times from the runs of one process.

    Attributes:
        world: The in-memory world in which acts land.
        cycles_s: How long each finished cycle took, in seconds, in the order in which they finished.
        cpu_s: How much CPU time the process had used when each cycle finished; kept only while one run is alone, when
            it means something.
        is_one_run: Whether one run is alone.
        arrivals: When each run first reached the gate, on the `perf_counter` clock.
        finishes: When each run ended.
        gate_cycle: The cycle whose decision is the gate; None: there is no gate.
        gate_is_shut: Whether a run that reaches the gate waits there for ever.
    """

    def __init__(self) -> None:
        self.world = World()
        self.cycles_s: list[float] = []
        self.cpu_s: list[float] = []
        self.is_one_run = False
        self.arrivals: list[float] = []
        self.finishes: list[float] = []
        self.gate_cycle: int | None = None
        self.gate_is_shut = False
        self._cycle_began: dict[int, float] = {}

    def run_began(self, run: int) -> None:
        """Start the clock of a run's first cycle."""
        self._cycle_began[run] = perf_counter()

    def cycle_ended(self, run: int) -> None:
        """Note the time of the cycle that just ended, and start the clock of the next."""
        now = perf_counter()
        self.cycles_s.append(now - self._cycle_began[run])
        self._cycle_began[run] = now
        if self.is_one_run:
            self.cpu_s.append(process_time())

    def run_ended(self, run: int) -> None:
        """Note the end of a run."""
        self._cycle_began.pop(run, None)
        self.finishes.append(perf_counter())

    async def gate(self, cycle: int) -> None:
        """Note an arrival if this cycle is the gate, and stay here if the gate is shut."""
        if cycle == self.gate_cycle:
            self.arrivals.append(perf_counter())
            if self.gate_is_shut:
                await asyncio.Event().wait()

    def forget(self) -> None:
        """Drop all that was seen so far (the warm-up)."""
        self.world.acts = 0
        self.cycles_s.clear()
        self.cpu_s.clear()
        self.arrivals.clear()
        self.finishes.clear()


observer = Observer()
"""The observer of this process."""
