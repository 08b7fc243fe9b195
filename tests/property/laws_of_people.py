"""The laws of approvals: what the tables say was done, against what a person has said.

The person's own memory counts: a yes is one that was given by them, whatever the store makes of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tests.property.effects import about

from surefoot.testing.laws import require

Rows = Callable[..., list[Any]]

PENDING, APPROVED, DENIED, USED, WITHDRAWN, LAPSED = range(1, 7)


def check_approvals(rows: Rows, yes: Iterable[int], waived: set[str]) -> None:
    """Check that each payment was approved as it was made, by one approval of its own.

    Args:
        rows: Asks the store.
        yes: The approvals that the person has said yes to, whether or not they heard of it.
        waived: What nobody needed to approve at least once.

    Raises:
        LawBroken: It wasn't.
    """
    questions = {number: _Question(rows, number, state, body, rule, asked_ms, decided_ms)
                 for number, state, body, rule, asked_ms, decided_ms in rows(
        "SELECT a.id, a.state, j.body, a.rule, a.asked_at_ms, a.decided_at_ms FROM approvals a"
        " JOIN journal j ON j.id = a.record")}  # fmt: skip
    said = set(yes)
    for number, question in questions.items():
        is_said = question.state not in (APPROVED, USED) or number in said
        require(is_said, "nothing is approved but by a person", approval=number, state=question.state)
        question.check_in_time()
    approved = Counter(question.item for number, question in questions.items() if number in said)
    claims = _claims(rows)
    for item, count in Counter(claim.item for claim in claims).items():
        is_so = item in waived or count <= approved[item]
        require(is_so, "an approval lets one call with those arguments act once", item=item, acted=count,
                approved=approved[item])  # fmt: skip
    for claim in claims:
        mine = [question for question in questions.values() if claim.asker in question.askers]
        is_so = not mine or any(claim.used_as in question.used_as for question in mine)
        require(is_so, "who has asked acts only on a yes", claim=claim.used_as, item=claim.item)
    for question in questions.values():
        _check_denial(question, questions.values())


class _Question:
    """One approval, with who has asked it and what it was used for."""

    def __init__(
        self, rows: Rows, number: int, state: int, body: Any, rule: Any, asked_ms: int, decided_ms: int | None
    ) -> None:
        self.number = number
        self.state = state
        self.item = about(json.loads(body))[2]
        self.valid_ms = json.loads(rule)["valid_for_ms"]
        self.asked_ms = asked_ms
        self.decided_ms = decided_ms
        askers = rows("SELECT run, step FROM askers WHERE approval = ? AND run IS NOT NULL", number)
        self.askers = {(run, step) for run, step in askers}
        notes = rows("SELECT at_ms, body FROM approval_notes WHERE approval = ? AND kind = 'used'", number)
        self.used = [(at_ms, json.loads(note)) for at_ms, note in notes]
        self.used_as = {(note["run"], note["step"]) for _, note in self.used}

    def check_in_time(self) -> None:
        """Check that it was used once, and while it stood."""
        require(len(self.used) <= 1, "an approval is used once", approval=self.number, used=self.used)
        for at_ms, _ in self.used:
            is_in_time = self.decided_ms is not None and at_ms - self.decided_ms <= self.valid_ms
            require(is_in_time, "an approval is used in its time", approval=self.number, at_ms=at_ms,
                    decided_ms=self.decided_ms)  # fmt: skip


class _Claim:
    """One payment that was claimed."""

    def __init__(self, run: int | None, run_id: str | None, step: str, body: Any) -> None:
        self.item = about(json.loads(body))[2]
        self.asker = (run, step)
        self.used_as = (run_id, step)


def _claims(rows: Rows) -> list[_Claim]:
    found = rows(
        "SELECT l.run, r.run_id, j.step, j.body FROM ledger l JOIN journal j ON j.id = l.claim"
        " LEFT JOIN runs r ON r.id = l.run"
    )
    return [_Claim(*row) for row in found if about(json.loads(row[3]))[0] == "pay"]


def _check_denial(question: _Question, others: Iterable[_Question]) -> None:
    """Check that nobody who was told no has asked again, as long as the no stood."""
    if question.state != DENIED or question.decided_ms is None:
        return
    until_ms = question.decided_ms + question.valid_ms
    again = [one.number for one in others if one.number > question.number and one.asked_ms <= until_ms
             and one.askers & question.askers]  # fmt: skip
    require(not again, "who was told no does not ask again", approval=question.number, again=again)
