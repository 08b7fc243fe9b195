"""The sweep of single calls: each call that SQLite or the store makes to its files fails once, or from then on always.

A worker does its work on the failing disk until it ends; it must end well (the fault was none of its business), or with a
`StoreError` that says what failed and what to do. Then what was acknowledged is looked for in the file, the next worker
finishes, and ledger, journal, callers and the services' own books are compared.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.disk import work
from tests.disk.processes import Ended, Json, Line, in_child
from tests.disk.vfs import HOW, Disk, Failing, Fault

import surefoot as sf
from surefoot.store import StoreError


@dataclass(frozen=True)
class Verdict:
    """What came of one case.

    Attributes:
        what: The fault, in words.
        ended: How the worker ended: "well", or the name of the error it ended with.
        is_struck: Whether the fault was met at all.
        wrong: What must not be; empty when all is as it must be.
        said: The error's message.
    """

    what: str
    ended: str
    is_struck: bool
    wrong: str = ""
    said: str = ""


def worker(line: Line, place: Path) -> Json:
    """Do the work, and say how it ended."""
    try:
        asyncio.run(work.work(line, f"sqlite:///{place}"))
    except StoreError as error:
        return {"ended": type(error).__name__, "message": error.message, "hint": error.hint}
    except sf.SurefootError as error:
        return {"ended": f"not a store's error: {type(error).__name__}", "message": error.message, "hint": error.hint}
    return {"ended": "well"}


def faulty_worker(line: Line, place: Path, fault: Fault | None) -> Json:
    """The same, on a disk that fails."""
    rule = Failing(fault, lambda struck: line.tell("struck", struck))
    disk = Disk(rule)
    said = worker(line, place)
    disk.unregister()
    return {**said, "counts": dict(rule.counts)}


def judge(line: Line, place: Path, world: work.World) -> None:
    """Look for what was acknowledged, finish, and compare everything."""
    if world.told:
        store = work.opened(place)
        try:
            work.check_acknowledged(store, world)
        finally:
            store.close()
    told = asyncio.run(work.finish(line, f"sqlite:///{place}"))
    line.tell("finished", told)


def examine(
    what: str,
    run: Callable[[Line, Path], Json],
    *,
    home: Path,
    on_born: Callable[[int], None] | None = None,
) -> Verdict:
    """Let a worker run into trouble in an empty directory, its successor finish, and say what came of it."""
    world = work.World()
    told: list[Json] = []

    def answer(words: list[Json]) -> Json:
        if words[0] == "finished":
            told.append(words[1])
            return None
        return world.answer(words)

    place = home / "agents.db"
    ended = in_child(lambda line: run(line, place), answer, on_born=on_born)
    said = ended.said or {}
    wrong = _wrong_end(ended, place)
    last = in_child(lambda line: judge(line, place, world), answer)
    wrong = wrong or last.error or (f"the next worker: {last.signal}" if last.signal else "")
    if not wrong:
        wrong = in_child(lambda _line: work.check_end(place, world, told[-1]), answer).error
    return Verdict(what, said.get("ended", "badly"), bool(world.struck), wrong, said.get("message", ""))


def _wrong_end(ended: Ended, place: Path) -> str:
    """Say what is wrong with how a worker ended; empty for nothing."""
    if ended.hangs or ended.signal or ended.error:
        return f"it ended by {ended.signal or 'an error that is none of ours'} {'(hangs)' * ended.hangs} {ended.error}"
    said = ended.said
    if said["ended"] == "well":
        return ""
    if said["ended"].startswith("not"):
        return f"{said['ended']}: {said['message']}"
    if not said["hint"] or str(place) not in said["message"]:
        return f"an error that doesn't help: {said}"
    return ""


def count_calls() -> dict[str, int]:
    """Return how many calls of each kind the work makes when nothing fails."""
    counts: list[dict[str, int]] = []

    def run(line: Line, place: Path) -> Json:
        said = faulty_worker(line, place, None)
        line.tell("counts", said["counts"])
        return said

    world = work.World()

    def answer(words: list[Json]) -> Json:
        if words[0] == "counts":
            counts.append(words[1])
            return None
        return world.answer(words)

    home = Path(tempfile.mkdtemp(prefix="surefoot-disk-"))
    try:
        ended = in_child(lambda line: run(line, home / "agents.db"), answer)
        assert ended.said is not None, f"the work itself fails: {ended}"
        assert ended.said["ended"] == "well", f"the work itself fails: {ended}"
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return counts[0]


def faults(counts: dict[str, int], stride: dict[str, int] | int = 1) -> Iterator[Fault]:
    """Return every fault of every call, or of every `stride`-th call of a kind."""
    for call, count in sorted(counts.items()):
        operation = call.partition(" ")[0]
        step = stride if isinstance(stride, int) else stride.get(operation, stride.get("", 1))
        for nth in range(1, count + 1, step):
            for how in HOW.get(operation, ("EIO",)):
                yield Fault(call, nth, how)
                yield Fault(call, nth, how, is_lasting=True)


def run_fault(fault: Fault) -> Verdict:
    """Examine one fault."""
    what = f"{fault.how} at {fault.call} number {fault.nth}{', and ever after' if fault.is_lasting else ''}"

    def run(line: Line, place: Path) -> Any:
        return faulty_worker(line, place, fault)

    with tempfile.TemporaryDirectory(prefix="surefoot-disk-") as home:
        return examine(what, run, home=Path(home))
