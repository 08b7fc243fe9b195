"""The warm parent: imports everything once, runs what is asked, prints one JSON line for each case.

python -m tests.disk calls                    # every call of the work fails, in every way
python -m tests.disk calls --sample 60 --seed 1
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict

from tests.disk import calls
from tests.disk.vfs import Fault


def main() -> None:
    """Run as asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.disk", description=__doc__)
    parser.add_argument("what", choices=("calls",))
    parser.add_argument("--sample", type=int, help="so many cases, drawn from the seed, instead of all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", default="0/1", help="which part of the cases, for several processes: 0/2 and 1/2")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    if asked.what == "calls":
        all_faults = list(calls.faults(calls.count_calls()))
        for fault in drawn(all_faults, asked.sample, asked.seed)[part::parts]:
            print(json.dumps(asdict(calls.run_fault(fault))), flush=True)


def drawn(cases: Sequence[Fault], sample: int | None, seed: int) -> list[Fault]:
    """Return all cases, or some: at least one of each kind of call and way to fail, as far as the number allows."""
    if sample is None or sample >= len(cases):
        return list(cases)
    draw = random.Random(seed)
    shuffled = draw.sample(list(cases), len(cases))
    first: dict[tuple[str, str, bool], Fault] = {}
    for case in shuffled:
        first.setdefault((case.call, case.how, case.is_lasting), case)
    chosen = list(first.values())[:sample]
    return chosen + [case for case in shuffled if case not in chosen][: sample - len(chosen)]


if __name__ == "__main__":
    main()
