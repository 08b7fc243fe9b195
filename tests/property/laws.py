"""The laws, checked from outside: by a connection of its own, after every batch that is written, and at the end.

`Watch` sees the store as it is on disk. It knows the tables and nothing of the engine's code.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
from tests.property.programs import EFFECTS, OUTSIDE, Operation, Outside, flat
from tests.support.services import Sent

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


class Watch:
    """Looks at the store after every batch."""

    def __init__(self, path: Path) -> None:
        self.connection = checksums.connect(path, apsw.SQLITE_OPEN_READWRITE)
        self.effects: dict[int, Effect] = {}
        self.runs: dict[int, RunSeen] = {}
        self.leases: dict[int, tuple[str, int]] = {}
        self.lapsed: set[int] = set()
        self.records = 0
        self.evidence = 0

    def close(self) -> None:
        """Give the connection back."""
        self.connection.close()

    def look(self, sessions: set[int], now_boot_ms: int) -> None:
        """Compare with the last look; a process with these sessions has written since.

        Raises:
            LawBroken: It wrote what it must not.
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
        self._note_lapsed(now_boot_ms)
        for run in runs.values():
            self._check_run(self.runs.get(run.id), run, effects)
        self.effects, self.runs = effects, runs
        self.evidence = max([self.evidence, *(row[0] for row in said)])

    def _check_effect(self, before: Effect, now: Effect, sessions: set[int], *, is_by_person: bool) -> None:
        require(now.token >= before.token, "tokens grow", before=before, now=now)
        if before.state not in OPEN:
            is_kept = now.record == before.record and (now.state == before.state or now.state in WAYS[before.state])
            require(is_kept, "the first outcome stands", before=before, now=now)
        is_moved = before != now
        is_of_another = before.state == CLAIMED and before.holder not in sessions and now.token == before.token
        if is_moved and is_of_another and now.state in (DONE, NOT_DONE) and not is_by_person:
            require(False, "no token, no write: another holds the claim", before=before, now=now, by=sessions)

    def _check_records(self, sessions: set[int], runs: dict[int, RunSeen]) -> None:
        new = self._all("SELECT id, run, seq, kind FROM journal WHERE id > ? AND run IS NOT NULL", self.records)
        self.records = max([self.records, *(row[0] for row in new)])
        for _, run, _, kind in new:
            before, now = self.runs.get(run), runs[run]
            if before is None or before.epoch != now.epoch:
                continue
            require(before.state == RUNNING and before.holder in sessions,
                    "no lease, no write: the run is another's", before=before, by=sessions, kind=kind)  # fmt: skip

    def _note_lapsed(self, now_boot_ms: int) -> None:
        """Note which leases others may have seen run out, whatever is written of them afterwards."""
        self.lapsed |= {session for session, (boot, end_ms) in self.leases.items() if end_ms <= now_boot_ms}
        rows = self._all("SELECT id, boot_id, renewed_boot_ms + ttl_ms FROM sessions")
        self.leases = {session: (boot, end_ms) for session, boot, end_ms in rows}

    def on_act(self, session: int, now_boot_ms: int) -> None:
        """Check, as an effect's code begins, that nobody can have taken its worker for gone."""
        self._note_lapsed(now_boot_ms)
        require(session not in self.lapsed, "who has run out acts no more", session=session, ends=self.leases)

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

    # -- when something is sent ----------------------------------------------------------------------------------------

    def on_send(self, sent: Sent, because: str) -> None:
        """Check, as a request leaves, that its claim and, in a run, its reason are on disk."""
        digest = bytes.fromhex(sent.key.split("-")[1])
        counter = sent.token & (1 << 40) - 1
        claims = self._all("SELECT max(token) FROM ledger WHERE digest = ?", digest)
        require((claims[0][0] or 0) >= counter, "nothing leaves before its claim is durable", sent=sent)
        if because == OUTSIDE:
            return
        reasons = self._all("SELECT 1 FROM journal WHERE kind = 2 AND body = ?", json.dumps(because).encode())
        require(bool(reasons), "nothing leaves before its reasons are durable", sent=sent, because=because)

    # -- at the end ----------------------------------------------------------------------------------------------------

    def unknowns(self) -> list[tuple[int, str, str]]:
        """Return the open effects: row, service, item."""
        rows = self._all("SELECT l.id, j.body FROM ledger l JOIN journal j ON j.id = l.claim WHERE l.state IN (2, 3)")
        return [(row, *_about(json.loads(body))) for row, body in rows]

    def check_end(self, outside: Outside, results: dict[str, Any], programs: dict[str, tuple[Operation, ...]]) -> None:
        """Check that ledger, journal and world tell one story, and that the callers were told it.

        Raises:
            LawBroken: They don't.
        """
        told_by_ledger: dict[tuple[str, str], list[tuple[int, Any]]] = {}
        for state, claim, outcome in self._all(
            "SELECT l.state, c.body, r.body FROM ledger l"
            " JOIN journal c ON c.id = l.claim JOIN journal r ON r.id = l.record"
        ):
            about = _about(json.loads(claim))
            value = None if state != DONE or outcome is None else json.loads(outcome)
            told_by_ledger.setdefault(about, []).append((state, value))
        for service in outside.services.values():
            require(not service.complaints, "the same key, the same bytes", complaints=service.complaints)
            for item, keys in service.landed.items():
                require(len(keys) <= 1, "at most one landing", service=service.name, item=item, keys=keys)
                states = [state for state, _ in told_by_ledger.get((service.name, item), [])]
                require(
                    DONE in states, "what landed is recorded as done", service=service.name, item=item, states=states
                )
        booked = [row[0] for row in self._all("SELECT item FROM bookings")]
        for (place, item), found in told_by_ledger.items():
            landed = booked.count(item) if place == "bookings" else len(
                outside.services[place].landed.get(item, []))  # fmt: skip
            dones = [value for state, value in found if state == DONE]
            require(len(dones) == landed, "done means landed", service=place, item=item, landed=landed, ledger=found)
            require(
                not any(state in OPEN for state, _ in found), "every doubt ends", service=place, item=item, at=found
            )
        require(max(Counter(booked).values(), default=0) <= 1, "at most one landing", service="bookings", booked=booked)
        self._check_journal()
        for run_id, result in results.items():
            _check_told(run_id, result, outside, booked, programs.get(run_id, ()))
            for word, what, item, _ in _tellings(result):
                place = EFFECTS[what][1]
                states = [state for state, _ in told_by_ledger.get((place, item), [])]
                is_so = word != "not_done" or place == "bookings" or NOT_DONE in states
                require(
                    is_so, "not done is told of what is recorded so", who=run_id, what=what, item=item, states=states
                )

    def _check_journal(self) -> None:
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
        still_open = self._all("SELECT effect, kind, body FROM evidence WHERE is_open = 1")
        require(not still_open, "no contradiction where the world tells the truth", contradictions=still_open)


def _about(call: dict[str, Any]) -> tuple[str, str]:
    """Return which service and item a claim is about."""
    service = next(service for effect, service, _ in EFFECTS.values() if effect.__name__ == call["effect"])
    return service, call["arguments"]["item"]


def _check_told(run_id: str, result: Any, outside: Outside, booked: list[str], asked: tuple[Operation, ...]) -> None:
    """Check what a run was told: a value only of what landed, and of what it asked for."""
    meant = {(operation[0], operation[1]) for operation in flat(list(asked)) if operation[0] in EFFECTS}
    for told in _tellings(result):
        word, what, item, value = told
        require((what, item) in meant, "an answer is about what was asked", run=run_id, told=told)
        if word not in ("done", "repeated"):
            continue
        service = EFFECTS[what][1]
        receipt = f"booked {item}" if service == "bookings" else f"{service} {item} 1"
        require(value == receipt, "the first outcome is told", run=run_id, told=told, receipt=receipt)
        is_landed = item in booked if service == "bookings" else bool(outside.services[service].landed.get(item))
        require(is_landed, "done is told of what landed", run=run_id, told=told)


def _tellings(result: Any) -> list[list[Any]]:
    if not isinstance(result, list):
        return []
    is_one = len(result) == 4 and result[0] in ("done", "repeated", "not_done", "unknown", "conflict", "denied")
    return [result] if is_one else [told for part in result for told in _tellings(part)]
