"""The laws, checked from outside: by a connection of its own, after every batch that is written, and at the end.

What the store alone shows is in `surefoot.testing.laws`; here is what a world that is counted outside adds.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.property.programs import EFFECTS, OUTSIDE, Operation, Outside, flat
from tests.support.services import Sent

from surefoot.testing.laws import DONE, NOT_DONE, OPEN, LawBroken, StoreLaws, require


class Watch(StoreLaws):
    """Looks at the store after every batch."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.leases: dict[int, tuple[str, int]] = {}
        self.lapsed: set[int] = set()

    def look_at(self, sessions: set[int], now_boot_ms: int) -> None:
        """Compare with the last look; a process with these sessions has written since.

        Raises:
            LawBroken: It wrote what it must not.
        """
        self._note_lapsed(now_boot_ms)
        self.look(sessions)

    def _note_lapsed(self, now_boot_ms: int) -> None:
        """Note which leases others may have seen run out, whatever is written of them afterwards."""
        self.lapsed |= {session for session, (boot, end_ms) in self.leases.items() if end_ms <= now_boot_ms}
        rows = self._all("SELECT id, boot_id, renewed_boot_ms + ttl_ms FROM sessions")
        self.leases = {session: (boot, end_ms) for session, boot, end_ms in rows}

    def on_act(self, session: int, now_boot_ms: int) -> None:
        """Check, as an effect's code begins, that nobody can have taken its worker for gone."""
        self._note_lapsed(now_boot_ms)
        require(session not in self.lapsed, "who has run out acts no more", session=session, ends=self.leases)

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
        self.check_journal()
        for run_id, result in results.items():
            _check_told(run_id, result, outside, booked, programs.get(run_id, ()))
            for word, what, item, _ in _tellings(result):
                place = EFFECTS[what][1]
                states = [state for state, _ in told_by_ledger.get((place, item), [])]
                is_so = word != "not_done" or place == "bookings" or NOT_DONE in states
                require(
                    is_so, "not done is told of what is recorded so", who=run_id, what=what, item=item, states=states
                )


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


__all__ = ["OPEN", "LawBroken", "Watch", "require"]
