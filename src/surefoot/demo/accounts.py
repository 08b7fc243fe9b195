"""From the ledger to the comparison: which acts were asked for, how each ended, and which decision led to it.

Always holds: one `Asked` per generation in the ledger, however many attempts it took; an act that is still claimed has
no end, and is counted as lost unless the books show it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import apsw

from surefoot.demo.books import Asked, Outcome
from surefoot.effects.keys import Identity
from surefoot.effects.rows import ledger
from surefoot.effects.rows.desk import EffectView, list_effects
from surefoot.effects.states import State
from surefoot.runs.rows.tables import RunRow, list_runs

KIND_OF = {"refund": "refund", "write_address": "address", "write_email": "email", "send_parcel": "parcel"}
"""Which kind of act an effect is, by its name in the ledger."""

ALL = -1
"""SQLite's "no limit"."""

_OUTCOMES = {
    State.CLAIMED: None,
    State.UNKNOWN: Outcome.UNKNOWN,
    State.DONE: Outcome.DONE,
    State.COMPENSATED: Outcome.DONE,
    State.NOT_DONE: Outcome.NOT_DONE,
}


@dataclass(frozen=True, slots=True)
class Account:
    """One row of the ledger as an act.

    Attributes:
        effect: The row's number.
        asked: What was asked, and how it ended.
        in_doubt: The name of its class of doubt.
    """

    effect: int
    asked: Asked
    in_doubt: str


def accounts(connection: apsw.Connection) -> list[Account]:
    """Return all acts in the ledger, oldest first."""
    run_ids = {row.id: row.run_id for row in list_runs(connection, limit=ALL)}
    found = []
    for view in reversed(list_effects(connection, limit=ALL)):
        row = ledger.get(connection, view.id)
        assert row is not None, "a view is made from its row"
        key = Identity("", "", "", row.digest, b"").idempotency_key(row.generation)
        ticket = None if view.run is None else run_ids.get(view.run)
        asked = Asked(KIND_OF.get(view.name, view.name), _details(view), _OUTCOMES[row.state], key, ticket)
        found.append(Account(view.id, asked, view.doubt))
    return found


def _details(view: EffectView) -> Mapping[str, object]:
    arguments: dict[str, Any] = dict(view.arguments)
    arguments.pop("if_match", None)
    return arguments


def runs_of(connection: apsw.Connection) -> list[RunRow]:
    """Return all runs, oldest first."""
    return list_runs(connection, limit=ALL)[::-1]


def decisions(found: list[Account]) -> list[dict[str, object]]:
    """Return what the clerk decided on, ticket by ticket, for somebody else to carry out."""
    by_ticket: dict[str, list[dict[str, object]]] = {}
    for account in found:
        act: dict[str, object] = {"kind": account.asked.kind, "details": dict(account.asked.details)}
        by_ticket.setdefault(account.asked.ticket_id or "", []).append(act)
    return [{"ticket": ticket, "acts": acts} for ticket, acts in by_ticket.items()]
