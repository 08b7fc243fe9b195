"""The laws as a store on disk shows them, checked from outside: by a connection of its own, between two looks.

It knows the tables and nothing of the engine's code, so it can't share a mistake with it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from surefoot.store import checksums

CLAIMED, UNKNOWN, DONE, NOT_DONE, COMPENSATED = 2, 3, 4, 5, 6
OPEN = (CLAIMED, UNKNOWN)
RUNNING, COMPLETED = 2, 4
ENDS_STEP = (2, 3, 4, 6, 7, 8, 9, 10, 11, 13, 14, 16, 20, 21)
WAYS = {CLAIMED: {UNKNOWN, DONE, NOT_DONE}, UNKNOWN: {CLAIMED, DONE, NOT_DONE}, DONE: {COMPENSATED}, NOT_DONE: set(),
        COMPENSATED: set()}  # fmt: skip


class LawBroken(AssertionError):
    """What must never be, was."""


def require(is_so: bool, law: str, **facts: Any) -> None:
    """Raise unless the law was kept."""
    if not is_so:
        shown = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        raise LawBroken(f"{law}: {shown}")


@dataclass(frozen=True)
class Effect:
    """A row of the ledger."""

    id: int
    state: int
    token: int
    holder: int
    run: int | None
    record: int


@dataclass(frozen=True)
class RunSeen:
    """A row of the runs."""

    id: int
    run_id: str
    state: int
    epoch: int
    holder: int | None
    waiting_for: str | None
    reason: str


class StoreLaws:
    """Looks at a store again and again, and compares."""

    def __init__(self, path: Path) -> None:
        self.connection = checksums.connect(path, apsw.SQLITE_OPEN_READWRITE)
        self.effects: dict[int, Effect] = {}
        self.runs: dict[int, RunSeen] = {}
        self.records = 0
        self.evidence = 0

    def close(self) -> None:
        """Give the connection back."""
        self.connection.close()

    def look(self, sessions: set[int] | None = None) -> None:
        """Compare with the last look.

        Args:
            sessions: Those of the one process that has written since; None: it is not known who has.

        Raises:
            LawBroken: What was written must not be.
        """
        effects = {
            row[0]: Effect(*row) for row in self._all("SELECT id, state, token, holder, run, record FROM ledger")
        }
        runs = {run.id: run for run in self.all_runs()}
        said = self._all("SELECT id, effect, kind FROM evidence WHERE id > ?", self.evidence)
        by_person = {effect for _, effect, kind in said if kind.startswith("resolved as")}
        for row in effects.values():
            before = self.effects.get(row.id)
            if before is not None:
                self._check_effect(before, row, sessions, is_by_person=row.id in by_person)
        self._check_records(sessions, runs)
        for run in runs.values():
            self._check_run(self.runs.get(run.id), run, effects)
        self.effects, self.runs = effects, runs
        self.evidence = max([self.evidence, *(row[0] for row in said)])

    def _check_effect(self, before: Effect, now: Effect, sessions: set[int] | None, *, is_by_person: bool) -> None:
        require(now.token >= before.token, "tokens grow", before=before, now=now)
        if before.state not in OPEN:
            is_kept = now.record == before.record and (now.state == before.state or now.state in WAYS[before.state])
            require(is_kept, "the first outcome stands", before=before, now=now)
        is_moved = before != now
        is_strange = sessions is not None and before.holder not in sessions
        is_of_another = before.state == CLAIMED and is_strange and now.token == before.token
        if is_moved and is_of_another and now.state in (DONE, NOT_DONE) and not is_by_person:
            require(False, "no token, no write: another holds the claim", before=before, now=now, by=sessions)

    def _check_records(self, sessions: set[int] | None, runs: dict[int, RunSeen]) -> None:
        new = self._all("SELECT id, run, seq, kind FROM journal WHERE id > ? AND run IS NOT NULL", self.records)
        self.records = max([self.records, *(row[0] for row in new)])
        for _, run, _, kind in new:
            before, now = self.runs.get(run), runs[run]
            if sessions is None or before is None or before.epoch != now.epoch:
                continue
            require(before.state == RUNNING and before.holder in sessions,
                    "no lease, no write: the run is another's", before=before, by=sessions, kind=kind)  # fmt: skip

    def _check_run(self, before: RunSeen | None, now: RunSeen, effects: dict[int, Effect]) -> None:
        if before is not None:
            require(now.epoch >= before.epoch, "epochs grow", before=before, now=now)
            is_new_holder = now.holder is not None and now.holder != before.holder
            require(
                not is_new_holder or now.epoch > before.epoch, "a new holder is a new epoch", before=before, now=now
            )
            require(before.state < COMPLETED or before.state == now.state, "an end is final", before=before, now=now)
        if now.state >= COMPLETED and (before is None or before.state < COMPLETED):
            open_ones = [row for row in effects.values() if row.run == now.id and row.state in OPEN]
            require(not open_ones, "no run ends with an open effect", run=now, effects=open_ones)

    def all_runs(self) -> list[RunSeen]:
        """Return all runs as they are on disk."""
        rows = self._all("SELECT id, run_id, state, epoch, holder, waiting_for, reason FROM runs")
        return [RunSeen(*row) for row in rows]

    def _all(self, sql: str, *bindings: Any) -> list[Any]:
        return self.connection.execute(sql, bindings).fetchall()

    def check_journal(self) -> None:
        """Check, at the end, that journal and evidence tell one story.

        Raises:
            LawBroken: They don't.
        """
        doubled = self._all(
            "SELECT run, seq, count(*) FROM journal WHERE run IS NOT NULL GROUP BY run, seq HAVING count(*) > 1"
        )
        require(not doubled, "one record per number", doubled=doubled)
        marks = ",".join(map(str, ENDS_STEP))
        twice = self._all(
            f"SELECT run, step, group_concat(kind) FROM journal WHERE run IS NOT NULL AND step != '' AND kind IN ({marks})"
            " GROUP BY run, step HAVING count(*) > 1"
        )
        require(not twice, "a step has one outcome", twice=twice)
        signals = self._all("SELECT head FROM journal WHERE kind = 14")
        taken = Counter(json.loads(head).get("signal") for (head,) in signals)
        require(all(count == 1 for count in taken.values()), "a signal is taken once", taken=taken)
        still_open = self.contradictions()
        require(not still_open, "no contradiction where the world tells the truth", contradictions=still_open)

    def contradictions(self) -> list[tuple[int, str, str]]:
        """Return the evidence that disagrees with an outcome: its effect, what it is, and what it says as JSON."""
        return self._all("SELECT effect, kind, body FROM evidence WHERE is_open = 1")
