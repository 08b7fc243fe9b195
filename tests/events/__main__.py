"""Write `docs/events.md`: what events cost, and that each is acted on once. `python -m tests.events`."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.events.herd import Found, kills, many_events, one_event
from tests.support.postgres import schema, server

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
ONE_TIMES = 5
"""How often one event is published, each time to new workers."""

HEAD = """# Events: what they cost

Worker processes that serve one group, and a service outside that counts what is done to it (`tests/events`; this page is
written by `python -m tests.events`, a sample is in the fast tests). Each event is acted on by an effect under its number.
In every row, **each event was acted on once, and those of one key in their order**: else there would be no row. Measured
on {cpus} processors, for publisher, workers and database together.

* *wait*: from the publication to the first line of the group's function. *takes*: transactions in which workers took work,
  events included. *commits*: all transactions of the workers. *CPU*: of all workers, less what they take to start.

"""


@contextmanager
def stores(name: str) -> Iterator[Iterator[tuple[str, Path]]]:
    """Yield stores of an engine, each with a folder for a service."""
    with tempfile.TemporaryDirectory(prefix="surefoot-events-") as folder:

        def sqlite() -> Iterator[tuple[str, Path]]:
            for number in range(1_000):
                place = Path(folder) / str(number)
                place.mkdir()
                yield f"sqlite:///{place}/agents.db", place / "world"

        if name == "SQLite":
            yield sqlite()
            return
        with server() as running:

            def postgres() -> Generator[tuple[str, Path], None, None]:
                for number in range(1_000):
                    with schema(running.url) as url:
                        yield url, Path(folder) / str(number)

            made = postgres()
            yield made
            made.close()


def row(name: str, cells: list[str]) -> str:
    """Return a line of a table."""
    return f"| {name} | {' | '.join(cells)} |\n"


def table(titles: list[str]) -> str:
    """Return the head of a table."""
    return f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}\n"


async def measure(name: str, events: int) -> list[str]:
    """Return the rows of one engine, one for each table."""
    with stores(name) as places:
        ones = [await one_event(*next(places)) for _ in range(ONE_TIMES)]
        idle_s = median(one.cost.cpu_s for one in ones)
        some = await many_events(*next(places), events // 10)
        many = await many_events(*next(places), events)
        killed = await kills(*next(places), max(200, events // 5))
    found = [_ones(name, ones), _many(name, some, idle_s) + _many(name, many, idle_s), _killed(name, killed)]
    print("\n".join(found), flush=True)
    return found


def _ones(name: str, found: list[Found]) -> str:
    acted = {one.actors for one in found}
    assert acted == {1}
    waits = sorted(one.waits_ms[0] for one in found)
    takes = sorted(one.cost.takes for one in found)
    return row(name, ["1", f"{median(waits):.0f} ({waits[-1]})", f"{median(takes):.0f} ({takes[-1]})"])


def _many(name: str, one: Found, idle_s: float) -> str:
    cells = [
        f"{one.events:,}",
        f"{one.took_s:.1f}",
        f"{one.events / one.took_s:,.0f}",
        f"{one.wait_ms(0.5):,}",
        f"{one.wait_ms(0.99):,}",
        f"{one.cost.takes:,}",
        f"{one.cost.commits / one.events:.1f}",
        f"{(one.cost.cpu_s - idle_s) * 1_000 / one.events:.1f}",
    ]
    return row(name, cells)


def _killed(name: str, one: Found) -> str:
    again = one.requests - one.events
    return row(name, [f"{one.events:,}", f"{one.kills}", f"{one.took_s:.0f}", f"{again:,}", "0", "0"])


async def main(sqlite: int, postgres: int) -> None:
    """Measure both engines, and write the page."""
    rows = [await measure(name, events) for name, events in (("SQLite", sqlite), ("PostgreSQL", postgres))]
    tables = ["".join(parts) for parts in zip(*rows, strict=True)]
    page = HEAD.format(cpus=os.cpu_count())
    page += "## One event, 200 places in 8 processes\n\nAll idle; one acts. Median (and worst) of "
    page += f"{ONE_TIMES}.\n\n" + table(["store", "acted", "wait, ms", "takes, by all"]) + tables[0]
    page += "\n## Many events\n\nPublished by one process to the same 200 places, of a tenth as many keys.\n\n"
    page += table(
        [
            "store",
            "events",
            "seconds",
            "events/s",
            "wait p50, ms",
            "p99",
            "takes",
            "commits per event",
            "CPU ms per event",
        ]
    )
    page += tables[1]
    page += "\nThe wait of many events is the queue: they are published faster than acted on.\n"
    page += "\n## Kills\n\nFour workers, killed with `kill -9` at random while events come in, each replaced at once.\n"
    page += "*Begun again*: runs that were executed once more after a kill; their effects were not done once more.\n\n"
    page += table(["store", "events", "kills", "seconds", "begun again", "lost", "acted on twice"]) + tables[2]
    PAGE.write_text(page)
    print(page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sqlite", type=int, default=10_000, metavar="EVENTS")
    parser.add_argument("--postgres", type=int, default=10_000, metavar="EVENTS")
    given = parser.parse_args()
    asyncio.run(main(given.sqlite, given.postgres))
