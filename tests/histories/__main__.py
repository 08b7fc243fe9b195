"""`python -m tests.histories`: record histories of leases and say what they are; one line for each seed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.histories.nemesis import Recorded, problems, record
from tests.support.postgres import schema, server

ROW = "{:>4}  {:>10}  {:>6}  {:>6}  {:>5}  {:>5}  {:>9}  {:>15}  {}"


@contextlib.contextmanager
def _store(engine: str) -> Iterator[str]:
    """Make a store nobody else uses."""
    with contextlib.ExitStack() as stack:
        if engine == "sqlite":
            yield f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory(prefix='histories-'))}/agents.db"
        else:
            yield stack.enter_context(schema(stack.enter_context(server()).url))


def told(seed: int, recorded: Recorded) -> str:
    """Return a history's line."""
    verdict = "; ".join(problems(recorded)) or "linearizable"
    lost = recorded.count("write", "lost") + recorded.count("release", "lost")
    done = sum(one.returned is not None for one in recorded.operations if one.action != "expire")
    return ROW.format(seed, done, recorded.count("acquire"), recorded.count("read"), recorded.stops, recorded.kills, lost,
                      recorded.late, verdict)  # fmt: skip


async def main() -> int:
    """Record as asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.histories", description=__doc__)
    parser.add_argument("--engine", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--operations", type=int, default=10_000, help="of each history, at least")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    print(
        ROW.format("seed", "operations", "leases", "reads", "stops", "kills", "told lost", "refused as late", "verdict")
    )
    is_fine = True
    for seed in asked.seeds:
        with _store(asked.engine) as url, tempfile.TemporaryDirectory() as folder:
            recorded = await record(
                url, Path(folder), operations=asked.operations, processes=4, seed=seed, limit_s=1_800
            )
        print(told(seed, recorded), flush=True)
        is_fine = is_fine and not problems(recorded)
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
