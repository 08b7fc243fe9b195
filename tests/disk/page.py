"""The page of the docs: what came of each sweep, as tables.

Keep the output of the sweeps, in as many parts as there are processors, then make the page of it:

    python -m tests.disk calls > calls.jsonl
    python -m tests.disk strace > strace.jsonl
    python -m tests.disk images > images.jsonl
    python -m tests.disk flips > flips.jsonl
    python -m tests.disk.page calls.jsonl strace.jsonl images.jsonl flips.jsonl > docs/disk-and-power.md
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

HEAD = """# Disk and power

What happens when the disk fails, when the power fails, and when bytes change by themselves. The work is always the same:
durable runs with effects of three classes, a child, a signal, a wait that leaves memory, a large value, calls beside each
other, an effect outside runs, checkpoints in between. The world, with the services' own books, lives in another process and
outlives every worker.

After each fault: the worker ended well, or with an error that names what failed and what to do (no bare error of the
system, no hang, no signal). All that it had acknowledged is in the file, and so is the claim of all that was sent. The next
worker finishes, and ledger, journal, callers and the services' books tell one story, in which everything happened once. A
case in which any of this is not so is **wrong**.
"""

CALLS = """
## Calls that fail

One call fails once, or from then on always; then the process is replaced. The cells say how many cases there were, and how
the worker ended. *Well*: the fault was met where nothing depends on it (a checkpoint that is made again, a file that is
looked for and not needed), or by nobody. *lost*: a sync fails, and what was written since the last one is gone, as when the
kernel drops what it could not write; a later sync succeeds. *lengthen log*: the store itself writes zeros behind the log's
end, ahead of what will come; if it can't, it does without.

{cases:,} cases, {struck:,} of them struck, {wrong} wrong.
"""

STRACE = """
## System calls that fail

The same with `strace` under a real worker, which reaches what SQLite does by itself: the index of the log in shared memory,
locks, directories; and our own files: the turnstile (door, desk) and the lock files of sessions.

{cases:,} cases, {struck:,} of them struck, {wrong} wrong.
"""

IMAGES = """
## Power failures

All that the work wrote and synced was recorded, the zeros behind the log's end too, and the disk rebuilt as it may be when
the power fails after each event: what was synced is there; of what was not, each sector of 512 bytes is there, lost, torn
or garbage, in any order; a file that is new, or gone, is so for sure once its directory was synced. Each image is opened
after a reboot. It must hold exactly what some moment of the recording held, at or after the last commit that had returned.

| seed | crash points | images | contents found | next worker finished from | wrong |
|---|---|---|---|---|---|
"""

FLIPS = """
## Bytes that change

One byte of a small store at a time has some bits turned over: as a killed worker left it, with a part in the log alone, and
as it is once it was closed. *Equal*: nothing that is recorded has changed (pages that the log has newer). *Reported*:
`CorruptStore` when it is opened or read, or the check of all pages that `surefoot doctor --full` makes. *Unnoticed* and
*badly reported* must not be.

| store | file | flips | reported | equal | unnoticed | badly reported |
|---|---|---|---|---|---|---|
"""

FOOT = """
## What is assumed

* A sync that returns has reached the disk. A disk that lies about it can lose what was acknowledged.
* A page that was synced stays what it was, or its damage shows in its checksum.
* On Linux a failed sync is told to each process that has the file open
  ([errseq](https://docs.kernel.org/core-api/errseq.html)).
* The note of how far the log reached (`agents.db-desk`) is not synced: after a power failure it may be older than the log,
  and then it says less. The last commit of a log whose note is older, damaged at once with a power failure, is taken for
  one that never was.

This run: {note}.

Made by `python -m tests.disk.page`, whose head says how; the slow lane (`make test-slow`) asserts it.
"""


def tables(rows: list[Row]) -> Iterator[str]:
    """Yield the lines of the table of calls: one line for each call, one column for each way to fail."""
    ways = sorted({_way(row) for row in rows})
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        cells[row["call"], _way(row)]["**wrong**" if row["wrong"] else row["ended"]] += 1
    yield f"| call | {' | '.join(ways)} |"
    yield "|---" * (len(ways) + 1) + "|"
    for call in sorted({row["call"] for row in rows}):
        found = (cells.get((call, way)) for way in ways)
        yield f"| {call} | {' | '.join(_cell(counts) for counts in found)} |"


def _way(row: Row) -> str:
    return f"{row['how']} {'always' if row['is_lasting'] else 'once'}"


def _cell(counts: Counter[str] | None) -> str:
    return "" if counts is None else ", ".join(f"{count} {end}" for end, count in counts.most_common())


def images(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of the table of images."""
    for row in rows:
        seed = row["what"].rpartition(" ")[2]
        yield (
            f"| {seed} | {row['points']:,} | {row['images']:,} | {row['contents']} | {row['finished']} |"
            f" {len(row['wrong'])} |"
        )


def flips(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of the table of flips."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["store"], row["file"]][row["fate"]] += row["count"]
    for (store, file), fates in counts.items():
        each = " | ".join(f"{fates[fate]:,}" for fate in ("reported", "equal", "unnoticed", "badly reported"))
        yield f"| {store} | `{file}` | {sum(fates.values()):,} | {each} |"


def page(parts: dict[str, list[Row]], note: str) -> str:
    """Return the page."""
    lines = [HEAD.rstrip()]
    for name, head in (("calls", CALLS), ("strace", STRACE)):
        rows = parts[name]
        struck, wrong = sum(row["is_struck"] for row in rows), sum(bool(row["wrong"]) for row in rows)
        lines += [head.format(cases=len(rows), struck=struck, wrong=wrong).rstrip(), "", *tables(rows)]
    lines += [IMAGES.rstrip(), *images(parts["images"]), FLIPS.rstrip(), *flips(parts["flips"])]
    lines += [FOOT.format(note=note).rstrip()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the page of the files that are named: those of one sweep begin with its name. `--note` says what was run."""
    parser = argparse.ArgumentParser(prog="python -m tests.disk.page", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--note", default="all cases", help="which part of all cases this is")
    asked = parser.parse_args()
    parts: dict[str, list[Row]] = {name: [] for name in ("calls", "strace", "images", "flips")}
    for path in asked.files:
        name = next(name for name in parts if path.name.startswith(name))
        parts[name] += [json.loads(line) for line in path.read_text().splitlines()]
    print(page(parts, asked.note), end="")


if __name__ == "__main__":
    main()
