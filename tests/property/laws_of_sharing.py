"""The laws of what is shared: desks that one works at, boards that many write to, events that one acts on in order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from tests.property.effects import about
from tests.property.programs import GROUP

from surefoot.testing.laws import COMPLETED, OPEN, Effect, RunSeen, require

Rows = Callable[..., list[Any]]

DELIVERED = 4
"""The state of a delivery whose run has completed."""


class Sharing:
    """Looks after every batch at who holds what, whose turn it is, and what was published."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._claims = 0
        self._events = 0
        self._owners: dict[int, bytes] = {}
        self._run_leases: dict[int, tuple[int, str]] = {}

    def look(
        self,
        effects: Mapping[int, Effect],
        before: Mapping[int, RunSeen],
        now: Mapping[int, RunSeen],
        sessions: set[int],
        lapsed: set[int],
    ) -> None:
        """Check what is so now; a process with these sessions has written since the last look, and those have run out.

        Raises:
            LawBroken: It must not be so.
        """
        held = self._rows("SELECT id, kind, resource, run, effect FROM leases WHERE token > 0")
        holders = Counter((kind, resource) for _, kind, resource, *_ in held)
        require(max(holders.values(), default=0) <= 1, "nobody holds what another holds", held=held)
        owners = {effect for *_, effect in held if effect is not None}
        self._look_at_claims(effects, held, owners, lapsed)
        for row, digest in list(self._owners.items()):
            if effects[row].state not in OPEN:
                del self._owners[row]
            else:
                require(digest in owners, "what is open keeps what it holds", effect=effects[row], held=held)
        self._look_at_runs(held, before, now, sessions)
        self._look_at_news()

    def _look_at_claims(
        self, effects: Mapping[int, Effect], held: list[Any], owners: set[bytes], lapsed: set[int]
    ) -> None:
        if max(effects, default=0) <= self._claims:
            return
        for row, digest, body in self._rows(
            "SELECT l.id, l.digest, j.body FROM ledger l JOIN journal j ON j.id = l.claim WHERE l.id > ?", self._claims
        ):
            self._claims = max(row, self._claims)
            effect = effects[row]
            what, _, item = about(json.loads(body))
            if effect.state not in OPEN:
                continue
            if what == "work":
                desk = f"desk/{item.split(' ')[0]}"
                around = any(resource == desk and run == effect.run and owner is None
                             for _, _, resource, run, owner in held)  # fmt: skip
                require(digest in owners or around, "who acts at a desk holds it", item=item, held=held)
                if digest in owners:
                    self._owners[row] = digest
            elif item.startswith("held ") and effect.holder not in lapsed:  # who has run out does not act on its claim
                is_held = any(run is None and owner is None for _, _, _, run, owner in held)
                require(is_held, "who claims under a lease holds it", item=item, effect=effect, held=held)

    def _look_at_runs(
        self, held: list[Any], before: Mapping[int, RunSeen], now: Mapping[int, RunSeen], sessions: set[int]
    ) -> None:
        """Check that what a run holds is given back by itself alone."""
        mine = {row: (run, resource) for row, _, resource, run, effect in held if run is not None and effect is None}
        for row, (run, resource) in self._run_leases.items():
            if row not in mine and now[run].state < COMPLETED:
                holders = {seen[run].holder for seen in (before, now) if run in seen}
                require(
                    bool(holders & sessions), "what a run holds is its own until it ends", run=now[run], what=resource
                )
        self._run_leases = mine

    def _look_at_news(self) -> None:
        new = self._rows("SELECT id, event_id, run FROM events WHERE id > ?", self._events)
        for number, event, run in new:
            self._events = number
            said = self._rows(
                "SELECT 1 FROM journal WHERE run = ? AND kind = 23 AND body = ?", run, json.dumps(event).encode()
            )
            require(bool(said), "an event comes with the record that says so", event=event, run=run)
        if self._events:
            turns = self._rows("SELECT lane, min(id), max(id), count(*) FROM runs WHERE lane IS NOT NULL AND state > 0"
                               " AND state < ? GROUP BY lane HAVING count(*) > 1", COMPLETED)  # fmt: skip
            require(not turns, "of one key one goes on at a time", turns=turns)
            passed = self._rows(
                "SELECT e.id, g.place FROM events e JOIN event_groups g ON g.topic = e.topic AND e.id <= g.place"
                " WHERE NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.grp = g.id AND d.event = e.id)"
            )
            require(not passed, "a group passes no event", passed=passed)

    def check_end(self, results: Mapping[str, Any]) -> None:
        """Check, at the end, that all that was published was acted on, and all that was written is there.

        Raises:
            LawBroken: It isn't.
        """
        told = [found for result in results.values() for found in _found(result)]
        events = {event for (event,) in self._rows("SELECT event_id FROM events")}
        published = [words[1] for words in told if words[0] == "published"]
        require(events >= set(published), "what was published is there", told=published, events=events)
        left = self._rows(
            "SELECT e.event_id, d.state, g.name FROM events e JOIN event_groups g ON g.topic = e.topic"
            " LEFT JOIN deliveries d ON d.event = e.id AND d.grp = g.id"
            " WHERE g.name = ? AND (d.state IS NULL OR d.state != ?)",
            GROUP,
            DELIVERED,
        )
        require(not left, "each event is acted on", left=left)
        boards = {name: json.loads(body) for name, body in self._rows("SELECT name, body FROM documents")}
        for word, board, *place in told:
            if word == "wrote":
                there = boards[f"board/{board}"].count(place[0])
                require(there == 1, "what was written is not lost", board=board, place=place, boards=boards)


def _found(result: Any) -> list[list[Any]]:
    """Return what runs were told of boards and events."""
    if not isinstance(result, list):
        return []
    if result and result[0] in ("wrote", "published"):
        return [result]
    return [found for part in result for found in _found(part)]
