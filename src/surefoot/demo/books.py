"""The comparison at the end: what a ledger (or a loop) says was asked and done, against what the shop's books hold.

Pure functions on plain data; whoever keeps a ledger maps its rows to `Asked`. Always holds: a count depends on what was
asked and what happened only, never on whether asking for it was good judgement (`clerk` looks at that).

Acts and rows are matched by key where both bear the same one, else by their mark, which is what makes two acts the same
to the customer. A row that wrote what was there already counts as the act somebody asked for, but not as one too many:
overwriting twice with the same harms nobody. Per group, with `done`, `denied` (recorded as not done), `parked`
(recorded as unknown) and `lost` (no record of an end) acts asked for and `h` counted rows in the books:

    twice    = h beyond all that was asked
    false_no = h beyond done + parked + lost, within what was asked: it happened and the caller was told it had not
    missing  = (done - h) if positive, plus lost acts that did not happen
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from enum import StrEnum

KINDS = ("refund", "address", "email", "parcel")
"""The order in which kinds are shown; others follow by name."""


class Outcome(StrEnum):
    """How an act ended, according to whoever asked for it."""

    DONE = "done"
    NOT_DONE = "not_done"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Asked:
    """One act somebody decided on; several attempts at it are still one.

    Attributes:
        kind: One of `KINDS`.
        details: Its arguments under the names the shop uses, e.g. `order_id` and `amount`.
        outcome: How it ended by the asker's record; None if the asker has no record of an end.
        key: The idempotency key or reference it went out with, if any.
        ticket_id: The ticket it was decided on for.
    """

    kind: str
    details: Mapping[str, object]
    outcome: Outcome | None
    key: str | None = None
    ticket_id: str | None = None

    @property
    def mark(self) -> str:
        """What makes two acts the same to the customer."""
        return mark_of(self.kind, self.details)


@dataclass(frozen=True, slots=True)
class Happened:
    """One row of the shop's books."""

    kind: str
    details: Mapping[str, object]
    key: str | None = None

    @property
    def mark(self) -> str:
        """What makes two acts the same to the customer."""
        return mark_of(self.kind, self.details)

    @property
    def is_harmless(self) -> bool:
        """Whether it wrote what was there already."""
        return self.details.get("changed") is False


@dataclass(frozen=True, slots=True)
class Count:
    """The figures of one kind of act, or of all.

    Attributes:
        kind: Which; `"all"` for a total.
        asked: Acts decided on.
        done: Of these, recorded as done.
        parked: Of these, recorded as unknown: a person, or later evidence, will say.
        happened: Rows in the shop's books, without overwrites that only repeated what was there.
        twice: Rows beyond what was asked.
        missing: Acts that should be in the books and are not.
        refused: Acts recorded as not done, and rightly so.
        false_no: Acts recorded as not done that did happen.
        parked_happened: Of the parked ones, how many are in the books: what the person will find.
    """

    kind: str
    asked: int = 0
    done: int = 0
    parked: int = 0
    happened: int = 0
    twice: int = 0
    missing: int = 0
    refused: int = 0
    false_no: int = 0
    parked_happened: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether the record and the books agree; a parked act is an admitted unknown, not a disagreement."""
        return not (self.twice or self.missing or self.false_no)


@dataclass(frozen=True, slots=True)
class Difference:
    """A witness: one group in which the record and the books disagree."""

    kind: str
    mark: str
    asked: int
    happened: int
    count: Count

    def __str__(self) -> str:
        """The witness as a sentence."""
        found = [
            f"{number} {what}"
            for number, what in (
                (self.count.twice, "too many"),
                (self.count.missing, "missing"),
                (self.count.false_no, "told as not done"),
            )
            if number
        ]
        return f"{', '.join(found)}: {self.kind} {self.mark}, asked {self.asked}, in the books {self.happened}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One side of the table: the figures by kind, and a witness for each disagreement."""

    counts: tuple[Count, ...]
    differences: tuple[Difference, ...] = ()
    total: Count = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", _sum("all", self.counts))

    @property
    def is_exact(self) -> bool:
        """Whether every kind is."""
        return self.total.is_exact


def compare(asked: Sequence[Asked], happened: Sequence[Happened]) -> Comparison:
    """Compare what was asked, and how it is said to have ended, with what happened.

    Args:
        asked: Every act decided on, once each.
        happened: Every row of the books, from `happened_from_books`.
    """
    asked_keys = {(ask.kind, ask.key) for ask in asked if ask.key is not None}
    booked_keys = {(row.kind, row.key) for row in happened if row.key is not None}
    groups: defaultdict[tuple[str, str], tuple[list[Asked], list[Happened]]] = defaultdict(lambda: ([], []))
    shared = asked_keys & booked_keys
    for ask in asked:
        groups[_group(ask, shared)][0].append(ask)
    for row in happened:
        groups[_group(row, shared)][1].append(row)

    by_kind: defaultdict[str, list[Count]] = defaultdict(list)
    differences: list[Difference] = []
    for (kind, _), (asks, rows) in groups.items():
        count = _count(kind, asks, _rows_that_count(asks, rows))
        by_kind[kind].append(count)
        if not count.is_exact:
            differences.append(Difference(kind, (asks[0] if asks else rows[0]).mark, len(asks), count.happened, count))
    kinds = [*KINDS, *sorted(set(by_kind) - set(KINDS))]
    counts = tuple(_sum(kind, by_kind[kind]) for kind in kinds if kind in by_kind)
    return Comparison(counts, tuple(sorted(differences, key=lambda found: (kinds.index(found.kind), found.mark))))


def _group(act: Asked | Happened, shared_keys: set[tuple[str, str]]) -> tuple[str, str]:
    if act.key is not None and (act.kind, act.key) in shared_keys:
        return act.kind, f"key {act.key}"
    return act.kind, f"mark {act.mark}"


def _rows_that_count(asks: Sequence[Asked], rows: Sequence[Happened]) -> int:
    harmless = sum(row.is_harmless for row in rows)
    harmful = len(rows) - harmless
    return harmful + min(harmless, max(0, len(asks) - harmful))


def _count(kind: str, asks: Sequence[Asked], rows: int) -> Count:
    ends = [ask.outcome for ask in asks]
    done, parked, lost = (ends.count(end) for end in (Outcome.DONE, Outcome.UNKNOWN, None))
    left = max(0, rows - done)  # rows that the acts recorded as done do not account for
    parked_happened = min(parked, left)
    lost_happened = min(lost, left - parked_happened)
    false_no = max(0, min(rows, len(asks)) - done - parked - lost)
    return Count(
        kind,
        asked=len(asks),
        done=done,
        parked=parked,
        happened=rows,
        twice=max(0, rows - len(asks)),
        missing=max(0, done - rows) + lost - lost_happened,
        refused=ends.count(Outcome.NOT_DONE) - false_no,
        false_no=false_no,
        parked_happened=parked_happened,
    )


def _sum(kind: str, counts: Iterable[Count]) -> Count:
    names = [each.name for each in fields(Count) if each.name != "kind"]
    every = list(counts)
    return Count(kind, **{name: sum(getattr(count, name) for count in every) for name in names})


def happened_from_books(rows: Iterable[Mapping[str, object]]) -> list[Happened]:
    """Map the rows of the shop's `GET /books`."""
    found = []
    for row in rows:
        details, key = row["details"], row.get("key")
        if not isinstance(details, Mapping):
            raise TypeError(f"details: expected an object, found {details!r}")
        found.append(Happened(str(row["kind"]), details, None if key is None else str(key)))
    return found


def mark_of(kind: str, details: Mapping[str, object]) -> str:
    """Say what an act comes to for the customer, in a form that is equal for equal acts.

    Args:
        kind: One of `KINDS`; any other is marked by all its details.
        details: Its arguments. What a person would call the same is the same: `12.5` and `12.50`, items in any order,
            white space; a refund's reason does not count.
    """
    match kind:
        case "refund":
            return f"{_said(details, 'order_id')} {_amount(details.get('amount'))}"
        case "address":
            return f"{_said(details, 'order_id')} to {_said(details, 'address')}"
        case "email":
            text = _said(details, "text")
            digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
            return f"{_said(details, 'to')} '{_said(details, 'subject')}' ({digest})"
        case "parcel":
            items = details.get("items")
            names = sorted(str(item) for item in items) if isinstance(items, Iterable) else []
            return f"{_said(details, 'order_id')} {' + '.join(names)}"
    return json.dumps(details, sort_keys=True, ensure_ascii=False, default=str)


def _said(details: Mapping[str, object], name: str) -> str:
    return " ".join(str(details.get(name, "")).split())


def _amount(value: object) -> str:
    try:
        return f"{Decimal(str(value)):.2f}"
    except InvalidOperation:
        return str(value)
