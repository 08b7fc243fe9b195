"""`python -m tests.soak`: an hour of work and kills; `--write-docs` puts its figures into docs/soak.md."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.soak.figures import table
from tests.soak.soak import Plan, Seen, Soak
from tests.soak.waiting import Cost, cost

PAGE = Path(__file__).parents[2] / "docs" / "soak.md"


def page(plan: Plan, seen: Seen, costs: Sequence[Cost]) -> str:
    """Return the page of the docs."""
    troubles = ", ".join(f"{count} {way}" for way, count in sorted(seen.troubles.items()))
    rows = "\n".join(
        f"| {each.runs:,} | {each.cpu_ms_per_s:.1f} | {each.rss_bytes / 1e6:.1f} MB | {each.answer_ms:.0f} ms"
        f" | {each.store_bytes / 1e6:.1f} MB |"
        for each in costs
    )
    return f"""# The soak

Real workers on one store for {plan.seconds / 60:.0f} minutes: {plan.elders} that nobody touches, {plan.others} that are
killed, stopped for longer than their lease, or asked to go, over and over. {plan.runs:,} runs are started at a steady
pace: steps, parallel effects, timers, signals, children, doubts that a person ends, a Pydantic AI agent. One answer in
twenty gets lost. Figures of the two untouched workers and of the store's WAL, sampled every {plan.sample_s:.0f} s; the
first 15 % of the samples count for nothing.

Made by `python -m tests.soak --write-docs`.

| what | figure |
|---|---:|
| runs, children included | {sum(seen.states.values()):,} |
| ended as they should | {seen.states["completed"]:,} |
| effects in the ledger | {seen.claims:,} |
| acts in the world's own books | {seen.acts:,} |
| doubts a person ended | {seen.resolved:,} |
| troubles | {troubles} |
| the store at the end | {seen.store_bytes / 1e6:,.1f} MB |
| done twice, or not at all | {len(seen.wrong)} |

{table(seen.series)}

## Runs that wait

One worker that has nothing to do, on a store without waiting runs (but for those that are sent a signal), and on one
with many: each waits for a signal for a day.

| runs that wait | CPU, ms per s | memory | signal to result, median | store |
|---:|---:|---:|---:|---:|
{rows}
"""


def main() -> int:
    """Run the soak as asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--trouble", type=float, default=15.0, help="seconds between two troubles, at the mean")
    parser.add_argument("--waiting", type=int, default=100_000, help="runs that wait, in the second part")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write-docs", action="store_true")
    asked = parser.parse_args()
    plan = Plan(seconds=asked.minutes * 60, runs=asked.runs, trouble_s=asked.trouble, seed=asked.seed)

    def say(text: str) -> None:
        print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        seen = asyncio.run(Soak(Path(directory), plan, say).run())
    costs = []
    for runs in (0, asked.waiting):
        say(f"{runs} runs that wait")
        with tempfile.TemporaryDirectory(prefix="waiting-") as directory:
            costs.append(asyncio.run(cost(Path(directory), runs)))
    text = page(plan, seen, costs)
    print(text)
    if asked.write_docs:
        PAGE.write_text(text)
    grown = [series.name for series in seen.series if not series.is_flat]
    for problem in (*seen.wrong[:20], *(f"{name} grows" for name in grown)):
        say(problem)
    return 1 if seen.wrong or grown else 0


sys.exit(main())
