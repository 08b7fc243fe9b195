"""Surefoot: to be written when the engine's API stands; until then `make` says so and the bench goes on without it.

What the class must do is `driver.System`, and what its figures may be compared on is this:

- the run's kind is one durable function, opened in `open` on `sqlite:///<directory>/surefoot.db`, with the defaults a
  user gets; no switch that weakens durability;
- per cycle: `await observer.gate(cycle)` *inside* the journaled step of the decision, then `decide(run, cycle)` as its
  value (nobody waits for it to be durable), then `act(decision, observer.world)` as an effect with a key (its claim is
  awaited before the act, its outcome is not), then `observer.cycle_ended(run)`; before the first cycle
  `observer.run_began(run)`, after the last `observer.run_ended(run)`. On a replay, cycles that are served from the
  journal reach neither the gate nor the world, and must call `observer.cycle_ended` all the same or not at all: only
  phase `work` counts them;
- `run(run, cycles)`: start the run under the id `run-<run>` and await its durable result;
- `resume(runs, cycles)`: wait until every run a killed process left has ended durably, by whatever recovery the engine
  does on its own; no list of ids may be needed;
- `durability()`: `PRAGMA journal_mode`, `PRAGMA synchronous` and `sqlite_version()` *from the writer's own
  connection*, not a new one (`synchronous` belongs to the connection);
- `close()`: everything on disk, threads ended, no lock left.
"""

from __future__ import annotations

from bench import driver


def make(variant: str) -> driver.System:
    # ------------------ to be filled in with the engine's API ------------------
    raise NotImplementedError("the driver of our own engine is not written yet")
    # ---------------------------------------------------------------------------


if __name__ == "__main__":
    driver.main(make)
