"""The laws, checked from outside: by a connection of its own, after every batch that is written, and at the end.

What the store alone shows is in `surefoot.testing.laws`; here is what a world that is counted outside adds. What people,
sagas and shared things add is in `laws_of_people`, `laws_of_sagas` and `laws_of_sharing`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.property.effects import EFFECTS, OUTSIDE, about, thing
from tests.property.laws_of_people import check_approvals
from tests.property.laws_of_sagas import check_sagas
from tests.property.laws_of_sharing import Sharing
from tests.property.programs import Operation, Outside, flat
from tests.support.services import Sent

from surefoot.testing.laws import CLAIMED, NOT_DONE, OPEN, LawBroken, StoreLaws, require

COUNTER = (1 << 40) - 1
"""The part of a token that counts, below the store's incarnation."""

Ledger = dict[tuple[str, str], list[tuple[int, Any]]]
"""By service and thing: state and value of each of its rows."""


class Watch(StoreLaws):
    """Looks at the store after every batch."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.leases: dict[int, tuple[str, int]] = {}
        self.lapsed: set[int] = set()
        self._sharing = Sharing(self.rows)

    def rows(self, sql: str, *bindings: Any) -> list[Any]:
        """Return what a query finds."""
        return self._all(sql, *bindings)

    def look_at(self, sessions: set[int], now_boot_ms: int) -> None:
        """Compare with the last look; a process with these sessions has written since.

        Raises:
            LawBroken: It wrote what it must not.
        """
        self._note_lapsed(now_boot_ms)
        runs = self.runs
        self.look(sessions)
        self._sharing.look(self.effects, runs, self.runs, sessions, self.lapsed)

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
        claims = self._all("SELECT max(token) FROM ledger WHERE digest = ?", digest)
        if sent.service == "desk" and claims[0][0]:  # the token is that of a lease
            claims = self._all("SELECT number FROM lease_numbers")
        is_claimed = (claims[0][0] or 0) >= sent.token & COUNTER
        require(is_claimed, "nothing leaves before its claim is durable", sent=sent)
        if because == OUTSIDE:
            return
        reasons = self._all("SELECT 1 FROM journal WHERE kind = 2 AND body = ?", json.dumps(because).encode())
        require(bool(reasons), "nothing leaves before its reasons are durable", sent=sent, because=because)

    # -- at the end ----------------------------------------------------------------------------------------------------

    def unknowns(self) -> list[tuple[int, str, str, str]]:
        """Return the effects of which it is said that nobody knows the outcome: row, service, thing, idempotency key."""
        rows = self._all(
            "SELECT l.id, l.digest, l.generation, j.body FROM ledger l JOIN journal j ON j.id = l.claim WHERE l.state = 3"
        )
        return [
            (row, *about(json.loads(body))[1:], f"sf-{digest.hex()}" + (f"-{generation}" if generation > 1 else ""))
            for row, digest, generation, body in rows
        ]

    def contradictions(self) -> list[tuple[int, str, str]]:
        """Return what disagrees; not where both say that it is done, the person in words of their own."""
        by_person = {effect for (effect,) in self._all("SELECT effect FROM evidence WHERE kind = 'resolved as done'")}
        return [
            one for one in super().contradictions() if one[0] not in by_person or json.loads(one[2])["found"] != "done"
        ]

    def news(self) -> list[Any]:
        """Return the events that a group was not brought yet."""
        return self._all("SELECT e.id FROM events e JOIN event_groups g ON g.topic = e.topic WHERE e.id > g.place")

    def check_end(
        self,
        outside: Outside,
        results: Mapping[str, Any],
        programs: Mapping[str, tuple[Operation, ...]],
        yes: Iterable[int] = (),
    ) -> None:
        """Check that ledger, journal, world and people tell one story, and that the callers were told it.

        Args:
            outside: The world.
            results: What each run, and each caller outside runs, came to.
            programs: What each of them had to do.
            yes: The approvals that a person has said yes to.

        Raises:
            LawBroken: They don't.
        """
        ledger: Ledger = defaultdict(list)
        for state, claim, outcome in self._all(
            "SELECT l.state, c.body, r.body FROM ledger l"
            " JOIN journal c ON c.id = l.claim JOIN journal r ON r.id = l.record"
        ):
            is_done = state not in OPEN and state != NOT_DONE and outcome is not None
            ledger[about(json.loads(claim))[1:]].append((state, json.loads(outcome) if is_done else None))
        booked = Counter(row[0] for row in self._all("SELECT item FROM bookings"))
        landed = {(one.name, item): len(keys) for one in outside.services.values() for item, keys in one.landed.items()}
        landed |= {("bookings", item): count for item, count in booked.items()}
        asked = Counter(_place(operation) for program in programs.values() for operation in flat(list(program))
                        if operation[0] in EFFECTS)  # fmt: skip
        self._check_world(outside, ledger, landed, asked)
        self.check_journal()
        for who, result in results.items():
            _check_told(who, result, ledger, landed, programs.get(who, ()))
        check_approvals(self.rows, yes, outside.waived)
        check_sagas(self.rows)
        self._sharing.check_end(results)

    def _check_world(
        self, outside: Outside, ledger: Ledger, landed: Mapping[tuple[str, str], int], asked: Mapping[Any, int]
    ) -> None:
        for service in outside.services.values():
            require(not service.complaints, "the same key, the same bytes", complaints=service.complaints)
        for place, rows in ledger.items():
            count, dones = landed.get(place, 0), sum(state not in OPEN and state != NOT_DONE for state, _ in rows)
            require(not any(state in OPEN for state, _ in rows), "every doubt ends", at=place, ledger=rows)
            require(count <= dones, "what landed is recorded as done", at=place, landed=count, ledger=rows)
            require(count >= dones, "done means landed", at=place, landed=count, ledger=rows)
        by_key: Counter[tuple[str, ...]] = Counter()
        for (service_name, item), count in landed.items():
            require((service_name, item) in ledger, "what landed is recorded as done", at=(service_name, item))
            if not item.startswith("undo "):
                undone = landed.get((service_name, f"undo {item}"), 0)
                by_key[_key_of(service_name, item)] += count - undone
        for key, count in by_key.items():
            most = asked.get((key[0], " ".join(key[1:])), 1)
            require(count <= most, "at most one landing", key=key, landed=count, most=most)


def _place(operation: Operation) -> tuple[str, str]:
    """Return service and thing of a call without a key; of one with a key, what is never asked about."""
    declared = EFFECTS[operation[0]]
    return ("" if declared.key_words else declared.service, thing(operation[1:]))


def _key_of(service: str, item: str) -> tuple[str, ...]:
    """Return what of a thing may be done once: of transfers and payments, the amount is no part of it."""
    words = item.split(" ")
    return (service, *(words[:-1] if service == "bank" else words))


def _check_told(
    who: str,
    result: Any,
    ledger: Ledger,
    landed: Mapping[tuple[str, str], int],
    asked: tuple[Operation, ...],
) -> None:
    """Check what a run was told: of what it asked for, and as it is recorded and landed."""
    meant = {(operation[0], thing(operation[1:])) for operation in flat(list(asked)) if operation[0] in EFFECTS}
    for told in tellings(result):
        word, what, item, value = told
        declared = EFFECTS[what]
        rows = ledger.get((declared.service, item), [])
        require((what, item) in meant, "an answer is about what was asked", who=who, told=told)
        if word in ("done", "repeated"):
            values = [value for state, value in rows if state not in OPEN and state != NOT_DONE]
            require(value in values, "the first outcome is told", who=who, told=told, recorded=values)
            require((declared.service, item) in landed, "done is told of what landed", who=who, told=told)
            is_own = word == "repeated" and not declared.key_words
            require(not is_own, "what has no key is never a repetition", who=who, told=told)
        elif word == "not_done":
            is_so = declared.service in ("bookings", "desk") or NOT_DONE in [state for state, _ in rows]
            require(is_so, "not done is told of what is recorded so", who=who, told=told, recorded=rows)
        elif word == "conflict":
            key = item.split(" ")[: declared.key_words]
            others = [other for service, other in ledger if service == declared.service
                      and other != item and len(other.split(" ")) == len(item.split(" "))
                      and other.split(" ")[: len(key)] == key]  # fmt: skip
            require(bool(others), "a conflict is with another call of the key", who=who, told=told)


TOLD = ("done", "repeated", "not_done", "unknown", "conflict", "denied", "stale")


def tellings(result: Any) -> list[list[Any]]:
    """Return all that was told of effects in what a run came to."""
    if not isinstance(result, list):
        return []
    is_one = len(result) == 4 and result[0] in TOLD
    return [result] if is_one else [told for part in result for told in tellings(part)]


__all__ = ["CLAIMED", "OPEN", "LawBroken", "Watch", "require", "tellings"]
