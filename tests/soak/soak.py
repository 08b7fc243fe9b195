"""The soak: workers on one store for a long time, runs of every kind at a steady pace, kills all the while.

The process here starts runs, sends the signals they wait for, answers doubts as a person who looks into the books, and
samples what everybody holds. At the end every run must have ended well, and the books must show each thing once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import apsw
from tests.soak import work
from tests.soak.books import Books
from tests.soak.crew import Crew, use_of
from tests.soak.figures import Series

import surefoot as sf
from surefoot.effects.rows.desk import CannotResolve
from surefoot.runs.life import ENDED, RunState

MB = 1_000_000
TICK_S = 0.25
LAST_RUNS_S = 300.0
"""How long the last runs may take after the last start; a lease lasts 10 s, a parked doubt looks each 60 s."""

SLACK = {"memory": 4.0, "open files": 2.0, "threads": 2.0, "WAL": 4.0}
"""What a flat series may gain beside its 10 %: an allocator's arena, a connection, a thread of a pool, a few batches."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much, how rough.

    Attributes:
        seconds: Until the last run is started.
        runs: Runs started by hand, at a steady pace; children come on top.
        elders: Workers that nobody troubles.
        others: Workers that are killed, stopped and asked to go.
        trouble_s: Seconds between two troubles, at the mean.
        sample_s: Seconds between two samples.
        seed: What is drawn.
    """

    seconds: float
    runs: int
    elders: int = 2
    others: int = 2
    trouble_s: float = 15.0
    sample_s: float = 5.0
    seed: int = 1


@dataclass(slots=True)
class Seen:
    """What was seen.

    Attributes:
        series: What the elders held, and the files, over time.
        troubles: What was done to the others, and how often.
        states: Runs by their last state, children included.
        acts: Rows in the books.
        resolved: Doubts that a person ended.
        claims: Effects in the ledger.
        takeovers: Evidence of claims that were taken over.
        store_bytes: The store at the end.
        took_s: The whole.
        wrong: What is not as it must be, in words; empty when all is well.
    """

    series: list[Series] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    acts: int = 0
    resolved: int = 0
    claims: int = 0
    takeovers: int = 0
    store_bytes: int = 0
    took_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Soak:
    """One soak in one directory."""

    def __init__(self, directory: Path, plan: Plan, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._plan = plan
        self._say = say
        self._draw = Random(plan.seed)
        self._seen = Seen()
        self._samples: dict[str, list[float]] = {}
        self._books = Books(directory / "books.db")
        self._app = sf.Surefoot(f"sqlite:///{directory}/agents.db", is_worker=False, name="the soak's starter")
        self._started = 0
        self._to_signal: list[tuple[float, int]] = []

    async def run(self) -> Seen:
        """Do all of it; return what was seen."""
        began_s = time.monotonic()
        plan = self._plan
        with Crew(self._directory, elders=plan.elders, others=plan.others, seed=plan.seed) as crew:
            async with self._app:
                try:
                    await self._through(crew, began_s)
                except Exception as error:
                    raise RuntimeError(
                        f"after {self._started} runs; the workers' last words:\n{crew.words()}"
                    ) from error
                await self._count()
            self._seen.troubles = crew.troubles
        self._seen.took_s = time.monotonic() - began_s
        self._seen.series = [
            Series(name, unit_of(name), slack_of(name), values) for name, values in self._samples.items()
        ]
        self._books.close()
        return self._seen

    async def _through(self, crew: Crew, began_s: float) -> None:
        plan, next_trouble_s, next_sample_s = self._plan, began_s + 2 * self._plan.trouble_s, began_s
        last_s = began_s + plan.seconds
        while (now_s := time.monotonic()) < last_s + LAST_RUNS_S:
            due = min(plan.runs, int(plan.runs * (now_s - began_s) / plan.seconds))
            await asyncio.gather(*(self._start(n) for n in range(self._started, due)))
            self._started = due
            await self._signal(now_s)
            await self._answer_doubts()
            crew.look_after()
            if now_s >= next_trouble_s and now_s < last_s:
                crew.trouble()
                next_trouble_s = now_s + self._draw.uniform(0.5, 1.5) * plan.trouble_s
            if now_s >= next_sample_s and now_s < last_s:
                next_sample_s = now_s + plan.sample_s
                self._sample(crew)
            if due == plan.runs and not self._to_signal and await self._open_runs() == 0:
                return
            await asyncio.sleep(TICK_S)
        self._seen.wrong.append(
            f"{await self._open_runs()} runs have not ended {LAST_RUNS_S:.0f} s after the last start"
        )

    async def _start(self, n: int) -> None:
        kind = work.kind_of(n)
        if kind == "agent":
            await self._app.start("agent soak clerk", f"agent {n}", None, None, None, id=f"agent {n}")
        else:
            await self._app.start(f"soak {kind}", n, id=f"{kind} {n}")
        if kind == "waits":
            self._to_signal.append((time.monotonic() + self._draw.uniform(0, 10), n))

    async def _signal(self, now_s: float) -> None:
        for due_s, n in self._to_signal:
            if due_s <= now_s:
                await (await self._app.run(f"waits {n}")).signal("go", f"go {n}", dedupe="once")
        self._to_signal = [(due_s, n) for due_s, n in self._to_signal if due_s > now_s]

    async def _answer_doubts(self) -> None:
        """Look into the books, as a person would, and say what is there."""
        for doubt in await self._app.unknowns():
            if doubt.name != "tell":
                continue
            row = self._books.find(doubt.key.removeprefix("told:"))
            with contextlib.suppress(CannotResolve):  # its sender may still be alive: asked again at the next tick
                await self._app.resolve(
                    doubt.id, is_done=row is not None, value=row, by="the soak", reason="looked into the books"
                )
                self._seen.resolved += 1

    def _sample(self, crew: Crew) -> None:
        for nth, elder in enumerate(crew.elders, 1):
            use = use_of(elder.pid)
            self._note(f"worker {nth}: memory", use.rss_bytes / MB)
            self._note(f"worker {nth}: open files", use.files)
            self._note(f"worker {nth}: threads", use.threads)
        self._note("WAL", (self._directory / "agents.db-wal").stat().st_size / MB)
        if len(self._samples["WAL"]) % 60 == 0:
            self._say(f"{self._started} runs started, {crew.troubles.total()} troubles, {self._seen.resolved} resolved")

    def _note(self, name: str, value: float) -> None:
        self._samples.setdefault(name, []).append(value)

    async def _open_runs(self) -> int:
        def query(connection: apsw.Connection) -> int:
            ended = ", ".join(str(int(state)) for state in ENDED)
            return int(next(connection.execute(f"SELECT count(*) FROM runs WHERE state NOT IN ({ended})"))[0])

        return await self._app.store.read(query)

    async def _count(self) -> None:
        """Compare the books with what every run owed."""

        def query(connection: apsw.Connection) -> None:
            for state, count in connection.execute("SELECT state, count(*) FROM runs GROUP BY state"):
                self._seen.states[RunState(state).name.lower()] = count
            (self._seen.claims,) = next(connection.execute("SELECT count(*) FROM ledger"))
            (self._seen.takeovers,) = next(connection.execute("SELECT count(*) FROM evidence WHERE kind = 'takeover'"))
            (check,) = next(connection.execute("PRAGMA integrity_check"))
            if check != "ok":
                self._seen.wrong.append(f"the store: {check}")

        await self._app.store.read(query)
        self._seen.store_bytes = sum(
            path.stat().st_size for path in self._directory.glob("agents.db*") if path.is_file()
        )
        done = dict(self._books.counts())
        self._seen.acts = sum(done.values())
        owed = {key for n in range(self._started) for key in work.owed(n)}
        for key in sorted(owed | done.keys()):
            if done.get(key, 0) != (1 if key in owed else 0):
                self._seen.wrong.append(f"{key}: {done.get(key, 0)} times in the books")
        for state, count in self._seen.states.items():
            if state != "completed":
                self._seen.wrong.append(f"{count} runs are {state}")


def unit_of(name: str) -> str:
    """Return the unit of a series."""
    return "MB" if name == "WAL" or name.endswith("memory") else ""


def slack_of(name: str) -> float:
    """Return what a series may gain beside its growth."""
    return SLACK[name.rpartition(": ")[2]]
