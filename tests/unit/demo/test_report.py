"""The table at the end, as text on an ordinary terminal."""

import io
from collections.abc import Sequence

from rich.console import Console

from surefoot.demo.books import Asked, Happened, Outcome, compare
from surefoot.demo.clerk import Judgement, Verdict
from surefoot.demo.report import Side, report

REFUND: dict[str, object] = {"order_id": "A-1", "amount": "5.00"}
MAIL: dict[str, object] = {"to": "a@b", "subject": "[red]Sorry[/red]", "text": "t"}
ASKED = [Asked("refund", REFUND, Outcome.DONE), Asked("email", MAIL, Outcome.DONE)]
ROWS = [Happened("refund", REFUND), Happened("email", MAIL)]


def _shown(asked: Sequence[Asked], loop_rows: Sequence[Happened], width: int = 80) -> str:
    ours = Side("Surefoot", compare(asked, ROWS), {"workers killed": "10"})
    loop = Side("plain retry loop", compare(ASKED, loop_rows), {"workers killed": "10"})
    judgements = [
        Judgement("T-01", Verdict.GOOD),
        Judgement("T-02", Verdict.NOT_GOOD, missed=("refund A-2 [b]5.00",)),
        Judgement("mine", Verdict.NOT_JUDGED),
    ]
    page = io.StringIO()
    Console(file=page, width=width).print(report(ours, loop, judgements, ["show ticket T-01"]))
    return page.getvalue()


def test_both_sides_stand_in_one_row_on_eighty_columns() -> None:
    """Would catch a table that wraps where most people will see it."""
    page = _shown(ASKED, [*ROWS, ROWS[0], ROWS[1]])
    assert max(map(len, page.splitlines())) <= 80
    (refunds,) = (line.split() for line in page.splitlines() if line.strip().startswith("refund "))
    assert refunds == ["refund", "1", "1", "·", "·", "·", "·", "1", "2", "1", "!", "·", "·", "·"]
    (everything,) = (line.split() for line in page.splitlines() if line.strip().startswith("all "))
    assert everything == ["all", "2", "2", "·", "·", "·", "·", "2", "4", "2", "!", "·", "·", "·"]


def test_the_verdicts_are_in_words() -> None:
    """Would catch a verdict that only colour tells, or one for the wrong side."""
    page = _shown(ASKED, [*ROWS, ROWS[0]], width=120)
    assert page.index("EXACT: nothing twice, nothing lost") < page.index("NOT EXACT: 1 happened more often than asked")
    assert "1 too many: refund A-1 5.00, asked 1, in the books 2" in page


def test_what_was_refused_is_said_so_that_the_sums_agree() -> None:
    """Would catch fewer rows than were asked for, with no word about the rest."""
    page = _shown([*ASKED, Asked("refund", {**REFUND, "order_id": "A-2"}, Outcome.NOT_DONE)], ROWS, width=200)
    assert "Surefoot: EXACT: nothing twice, nothing lost; 1 reported as not done, and not in the books" in page


def test_what_waits_for_a_person_is_no_disagreement() -> None:
    """Would catch an admitted unknown shown as a fault, or not shown."""
    page = _shown([ASKED[0], Asked("email", MAIL, Outcome.UNKNOWN)], ROWS, width=200)
    assert "EXACT: nothing twice, nothing lost; 1 admitted as unknown, waiting for a person" in page


def test_the_clerk_stands_apart_and_markup_in_texts_stays_text() -> None:
    """Would catch judgement mixed into the counts, and a text that paints the page."""
    page = _shown(ASKED, [])
    assert "The clerk's judgement: 1 of 2 tickets decided well" in page
    assert "should have: refund A-2 [b]5.00" in page
    assert "[red]Sorry[/red]" in page
    assert "2 lost without a word" in " ".join(page.split())
    assert "show ticket T-01" in page
