"""The crash table of the docs: every engine, killed at every point of each of AgentDojo's 81 effects, and counted.

python -m tests.worlds.crash_table --jobs 4 > docs/crash-table.md        # about half an hour on two idle cores
python -m tests.worlds.crash_table --per-tool 1                          # a look at it: one call of each tool
python -m tests.worlds.crash_table --from results.jsonl                  # from results that were kept with --keep
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.worlds import peers, sweep
from tests.worlds.cases import Memory, Result
from tests.worlds.sweep import Cell

ENGINES = "tests.worlds.surefoot_engine"
CONTROLS = ("tests.worlds.plain:RECORD_AFTER", "tests.worlds.plain:RECORD_BEFORE")
BUSINESS = (f"{ENGINES}:BUSINESS",)
MAIN = tuple(f"{ENGINES}:{name}" for name in ("KEYS", "PROBE", "NOTHING", "PYDANTIC_AI"))

DEEP = ("send_money", "invite_user_to_slack")
"""Tools of the tasks that are killed at every operation: one whose repetition changes the state, one that refuses it."""

POINTS = {
    "before_claim": "before the claim",
    "after_claim": "claimed, not sent",
    "lost_call": "sent, lost on the way",
    "during_call": "acted, not answered",
    "after_reply": "answered, not recorded",
    "after_record": "recorded",
    "during_call+300ms": "sent, lands 300 ms late",
}

HEAD = """# Crash table

One row per engine, one column per place in the life of a tool call at which its worker process is killed with SIGKILL.
The tasks, tools and worlds are AgentDojo's: 97 user tasks with 81 calls that change something, each call killed at each
place once. Afterwards a new worker goes on, and the *whole* state of the world is compared with the undisturbed run's.

*n/m* says that m cases were run and n of them ended in exactly the undisturbed state. *Doubled*: the service carried a
call out more than once. *Asked*: the run stopped, named the one call whose outcome nobody knows, and went on once a person
had looked. *Misled*: the model was told "refused" about what was done.
"""

FOOT = """
## What the rows are

* **record after**, **record before**: loops as they are often written by hand, one with the record after the act and one
  with it before. They are the controls: they must fail where theory says so, or the harness is broken.
* **surefoot, keys / probe / nothing**: one row per kind of service. It offers idempotency keys (`sf.Resend`), a truthful
  look-up and an expiry it enforces (`sf.Probe`, here with a longest life of 400 ms), or nothing at all (`sf.AskPerson`).
* **surefoot with Pydantic AI**: an agent of Pydantic AI (`app.agent(...)`) whose scripted model makes the same calls.
* **business key**: the effect's `key=` says what it is about, so that another run of a model that has forgotten what it
  did, and says it in other words, is the same effect.

What a service offers is what bounds the answer: at a service that offers nothing nobody can know whether a request that
was sent has landed, so the honest answer there is to ask. Killed are processes, not machines; power loss is another test's.

Made by `python -m tests.worlds.crash_table --jobs 4 > docs/crash-table.md`; the slow lane (`make test-slow`) asserts it.
How fast each engine is, is the bench's subject, not this page's.
"""


def cell(results: Cell) -> str:
    """A cell of the table in words."""
    parts = [f"{results.exact}/{len(results.results)}"]
    asked = sum(result.after_person is not None for result in results.results)
    counts = {"asked": asked, "doubled": results.duplicates, "misled": results.misled}
    return ", ".join(parts + [f"{number} {what}" for what, number in counts.items() if number])


def engines(results: Sequence[Result]) -> list[str]:
    """The engines of some results, controls first, Surefoot's in the order of its services."""
    order = ("record after", "record before", "surefoot, keys", "surefoot, probe", "surefoot, nothing", "surefoot")
    return sorted({result.engine for result in results}, key=lambda name: _rank(name, order))


def _rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    return next((place for place, start in enumerate(order) if name.startswith(start)), len(order)), name


def points_table(results: Sequence[Result]) -> Iterator[str]:
    """The table of engines and points."""
    cells = sweep.table(results)
    yield f"| killed when | {' | '.join(POINTS.values())} |"
    yield "|---" * (len(POINTS) + 1) + "|"
    for engine in engines(results):
        row = " | ".join(cell(cells[engine, at]) for at in POINTS)
        yield f"| **{engine}** | {row} |"


def sums_table(results: Sequence[Result]) -> Iterator[str]:
    """One line per engine: all its cases together."""
    yield "| engine | cases | kills | exact | asked | doubled |"
    yield "|---|---|---|---|---|---|"
    for engine in engines(results):
        own = [result for result in results if result.engine == engine]
        whole = Cell(tuple(own))
        asked = sum(result.after_person is not None for result in own)
        kills = sum(result.fired for result in own)
        yield f"| **{engine}** | {len(own)} | {kills} | {whole.exact} | {asked} | {whole.duplicates} |"


def kind(result: Result) -> str:
    """Which part of the page a result belongs to."""
    if result.engine.startswith(peers.NAMES):
        return "peers"
    if result.memory == Memory.FORGOT:
        return "forgot"
    if result.at == "each crossing":
        return "crossings"
    return "recoveries" if result.at.endswith("each crossing") else "points"


PEERS = """## Beside other durable engines

On one suite, banking, with its 13 calls that change something. LangGraph and DBOS record a step once it has ended, and run
it again if it was not recorded: what that does to an effect is left to the tool. *Nothing*: the tool is called as it is.
*Keys by hand*: the service keeps idempotency keys, and the tool's author sends the `tool_call_id` as one.
"""

PARTS = {
    "crossings": "## Killed at every operation of the store\n\n"
    "Not at a named place, but before, inside and after each transaction of the store and each exchange with the service,\n"
    "one case each: this finds places that have no name. Of two tasks; the slow lane takes more of them.\n",
    "recoveries": "## The recovery killed too\n\n"
    "A kill during the call or just before it is sent, then one at every operation of the recovery, one case each.\n"
    "Of the same two tasks.\n",
    "forgot": "## A model that forgot\n\n"
    "After the kill another run decides everything anew, in other words, beside the first one, which goes on as well.\n",
}


def render(results: Sequence[Result]) -> str:
    """The page."""
    by_kind: dict[str, list[Result]] = {}
    for result in results:
        by_kind.setdefault(kind(result), []).append(result)
    lines = [HEAD, *points_table(by_kind["points"])]
    if "peers" in by_kind:
        same = [result for result in by_kind["points"] if result.task.startswith(f"{peers.SUITE}/")]
        lines += ["", PEERS, *points_table([*same, *by_kind["peers"]])]
    for part, title in PARTS.items():
        if part in by_kind:
            lines += ["", title, *sums_table(by_kind[part])]
    return "\n".join([*lines, FOOT]).rstrip() + "\n"


def run(per_tool: int | None, jobs: int) -> Iterator[Result]:
    """Run all of it; `per_tool` bounds the calls of each tool."""
    yield from sweep.measure([*CONTROLS, *MAIN], "points", per_tool=per_tool, jobs=jobs)
    yield from peers.points(jobs)
    yield from sweep.measure(BUSINESS, "forgot", per_tool=per_tool, jobs=jobs)
    yield from sweep.measure(MAIN, "crossings", "recoveries", per_tool=1, tools=DEEP, jobs=jobs)


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.worlds.crash_table", description=__doc__)
    parser.add_argument("--per-tool", type=int, help="only the first N calls of each tool, not all 81")
    parser.add_argument("--jobs", type=int, default=4, help="cases that run at the same time")
    parser.add_argument("--keep", type=Path, help="where to keep the results, as JSON lines")
    parser.add_argument("--from", dest="kept", type=Path, nargs="+", help="results that were kept, instead of running")
    asked = parser.parse_args()
    if asked.kept:
        results = [Result(**json.loads(line)) for path in asked.kept for line in path.read_text().splitlines()]
    else:
        results = list(run(asked.per_tool, asked.jobs))
    if asked.keep:
        asked.keep.write_text("".join(json.dumps(asdict(result)) + "\n" for result in results))
    print(render(results), end="")


if __name__ == "__main__":
    main()
