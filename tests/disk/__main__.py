"""The warm parent: imports everything once, runs what is asked, prints one JSON line for each case.

python -m tests.disk calls                     # every call of the work fails, in every way
python -m tests.disk calls --sample 60 --seed 1
python -m tests.disk strace --sample 20        # the same at the system calls
python -m tests.disk images --ways 9           # every crash point, 11 images of each
python -m tests.disk flips                     # every byte
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.disk import calls, flips, images, strace


class Case(Protocol):
    """A fault, at the VFS or at a system call."""

    @property
    def call(self) -> str:
        """Which call fails."""

    @property
    def how(self) -> str:
        """How."""

    @property
    def is_lasting(self) -> bool:
        """Whether it goes on."""


F = TypeVar("F", bound=Case)


@dataclass(frozen=True)
class Asked:
    """The options of the command line."""

    sample: int | None
    seed: int
    part: tuple[int, int]
    stride: int
    ways: int
    every: int

    def drawn(self, cases: Sequence[F]) -> list[F]:
        """Return all cases, or some: at least one of each kind of call and way to fail, as far as the number allows."""
        if self.sample is None or self.sample >= len(cases):
            return list(cases)[self.part[0] :: self.part[1]]
        shuffled = random.Random(self.seed).sample(list(cases), len(cases))
        first: dict[tuple[str, str, bool], F] = {}
        for case in shuffled:
            first.setdefault((case.call, case.how, case.is_lasting), case)
        chosen = list(first.values())[: self.sample]
        chosen += [case for case in shuffled if case not in chosen][: self.sample - len(chosen)]
        return chosen[self.part[0] :: self.part[1]]


def run_calls(asked: Asked) -> Iterator[dict[str, Any]]:
    """Fail the calls of the VFS."""
    for fault in asked.drawn(list(calls.faults(calls.count_calls(), asked.stride))):
        yield asdict(fault) | asdict(calls.run_fault(fault))


def run_strace(asked: Asked) -> Iterator[dict[str, Any]]:
    """Fail the system calls."""
    for fault in asked.drawn(list(strace.faults(strace.count_calls(), asked.stride))):
        yield asdict(fault) | asdict(strace.run_fault(fault))


def run_images(asked: Asked) -> Iterator[dict[str, Any]]:
    """Rebuild crash images."""
    sweep = images.Sweep(images.record(), asked.seed, asked.ways, asked.stride)
    try:
        if not sweep.run().wrong:
            sweep.finish(asked.every)
        yield {"what": f"images, seed {asked.seed}"} | asdict(sweep.tally)
    finally:
        sweep.close()


def run_flips(asked: Asked) -> Iterator[dict[str, Any]]:
    """Flip bytes."""
    with tempfile.TemporaryDirectory() as home:
        stores = flips.small_stores(Path(home))
    for name, files in stores.items():
        looker = flips.Looker(files)
        chosen = list(flips.flips(files, asked.seed, asked.stride))[asked.part[0] :: asked.part[1]]
        seen = [looker.flip(flip) for flip in chosen]
        looker.close()
        yield from flips.rows(name, seen)


RUNS: dict[str, Callable[[Asked], Iterator[dict[str, Any]]]] = {
    "calls": run_calls,
    "strace": run_strace,
    "images": run_images,
    "flips": run_flips,
}


def main() -> None:
    """Run as asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.disk", description=__doc__)
    parser.add_argument("what", choices=RUNS)
    parser.add_argument("--sample", type=int, help="so many faults, drawn from the seed, instead of all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", default="0/1", help="which part of the cases, for several processes: 0/2 and 1/2")
    parser.add_argument("--stride", type=int, default=1, help="only one call, event or byte in so many")
    parser.add_argument("--ways", type=int, default=9, help="images drawn at each crash point")
    parser.add_argument("--every", type=int, default=1, help="the next worker finishes from one content in so many")
    given = parser.parse_args()
    part, _, parts = given.part.partition("/")
    asked = Asked(given.sample, given.seed, (int(part), int(parts)), given.stride, given.ways, given.every)
    for row in RUNS[given.what](asked):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
