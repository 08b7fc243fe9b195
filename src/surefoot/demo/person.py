"""The person at the end of a doubt: looks into the shop's books and says what happened.

The demo plays this person through the same door as `surefoot resolve`. Always holds: they look only when no request is
in flight any more, and say "done" only for a row of the books that no recorded outcome accounts for.
"""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from surefoot.app import Surefoot
from surefoot.demo.accounts import Account, accounts
from surefoot.demo.books import Happened, Outcome, happened_from_books
from surefoot.effects.rows.desk import resolve_by_person
from surefoot.runs.rows.desk import wake

WHO = "demo person"


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the person says about one effect in doubt.

    Attributes:
        effect: Its number.
        is_done: Whether it happened.
        value: What the caller gets, if it did.
        reason: How they know.
        what: The act in words.
    """

    effect: int
    is_done: bool
    value: object
    reason: str
    what: str

    def command(self, url: str) -> str:
        """Return what one would type instead."""
        words = ["surefoot", "resolve", str(self.effect), "--done" if self.is_done else "--not-done"]
        words += ["--value", json.dumps(self.value, ensure_ascii=False)] if self.is_done else []
        words += [] if self.is_done else ["--fence-passed"]
        words += ["--by", WHO, "--reason", self.reason, "--store", url]
        return shlex.join(words)


def find_out(found: Sequence[Account], books: Iterable[Mapping[str, object]]) -> list[Resolution]:
    """Say of each act that is left unknown whether it happened.

    Args:
        found: All acts of the ledger.
        books: The rows of the shop's books, no request being in flight any more.
    """
    rows = list(books)
    unexplained = _unexplained(found, rows)
    said = []
    for account in found:
        if account.asked.outcome is not Outcome.UNKNOWN:
            continue
        mark = account.asked.kind, account.asked.mark
        row = next(iter(unexplained.get(mark, [])), None)
        what = f"{account.asked.kind} {account.asked.mark}"
        if row is None:
            said.append(Resolution(account.effect, False, None, "no such row in the books of the shop", what))
        else:
            unexplained[mark].remove(row)
            reason = f"row {row['id']} in the books of the shop"
            said.append(Resolution(account.effect, True, _value(row), reason, what))
    return said


def _unexplained(
    found: Sequence[Account], rows: Sequence[Mapping[str, object]]
) -> dict[tuple[str, str], list[Mapping[str, object]]]:
    """Return the rows that no act recorded as done accounts for, newest last."""
    done = Counter((a.asked.kind, a.asked.mark) for a in found if a.asked.outcome is Outcome.DONE)
    groups: dict[tuple[str, str], list[Mapping[str, object]]] = {}
    for row, happened in zip(rows, happened_from_books(rows), strict=True):
        groups.setdefault(_mark(happened), []).append(row)
    return {mark: group[done[mark] :] for mark, group in groups.items()}


def _mark(happened: Happened) -> tuple[str, str]:
    return happened.kind, happened.mark


def _value(row: Mapping[str, object]) -> dict[str, object] | None:
    """Return what the shop would have answered."""
    details = row["details"]
    assert isinstance(details, Mapping), "rows of the books have details"
    said = dict(details)
    match row["kind"]:
        case "parcel":
            return {"parcel_id": f"P-{row['id']}", **said}
        case "refund":
            return {"refund_id": f"R-{row['id']}", **said}
        case "email":
            return {"email_id": f"M-{row['id']}", **said, "client_reference": row.get("key")}
    return None


async def speak(app: Surefoot, resolution: Resolution) -> None:
    """Tell Surefoot, and wake the run that waits."""
    await resolve_by_person(
        app.store,
        app.worker.sessions,
        resolution.effect,
        is_done=resolution.is_done,
        who=WHO,
        reason=resolution.reason,
        value=resolution.value,
        is_fence_passed=True,  # the shop was asked when no request was in flight any more
        wake=wake,
    )


async def look_at(app: Surefoot) -> list[Account]:
    """Return the ledger as acts."""
    return await app.store.read(accounts)
