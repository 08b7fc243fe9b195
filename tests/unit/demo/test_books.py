"""The comparison: exact when the record is honest, and never fooled when it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.demo.books import Asked, Comparison, Count, Happened, Outcome, compare, happened_from_books, mark_of

DONE, NOT_DONE, UNKNOWN = Outcome.DONE, Outcome.NOT_DONE, Outcome.UNKNOWN


def _refund(number: int, amount: str = "5.00") -> dict[str, object]:
    return {"order_id": f"A-{number}", "amount": amount, "reason": "r"}


def _asked(*outcomes: Outcome | None) -> list[Asked]:
    return [Asked("refund", _refund(1), outcome) for outcome in outcomes]


def _rows(number: int) -> list[Happened]:
    return [Happened("refund", _refund(1))] * number


# Each row: how the acts are recorded, how many rows the books hold, and what is to be said of it.
CASES: list[tuple[tuple[Outcome | None, ...], int, Count]] = [
    ((DONE,), 1, Count("refund", asked=1, done=1, happened=1)),
    ((DONE,), 2, Count("refund", asked=1, done=1, happened=2, twice=1)),
    ((DONE,), 0, Count("refund", asked=1, done=1, missing=1)),
    ((DONE, DONE), 2, Count("refund", asked=2, done=2, happened=2)),
    ((NOT_DONE,), 0, Count("refund", asked=1, refused=1)),
    ((NOT_DONE,), 1, Count("refund", asked=1, happened=1, false_no=1)),
    ((NOT_DONE,), 3, Count("refund", asked=1, happened=3, false_no=1, twice=2)),
    ((UNKNOWN,), 0, Count("refund", asked=1, parked=1)),
    ((UNKNOWN,), 1, Count("refund", asked=1, parked=1, happened=1, parked_happened=1)),
    ((UNKNOWN,), 2, Count("refund", asked=1, parked=1, happened=2, parked_happened=1, twice=1)),
    ((None,), 0, Count("refund", asked=1, missing=1)),
    ((None,), 1, Count("refund", asked=1, happened=1)),
    ((), 1, Count("refund", happened=1, twice=1)),
    ((DONE, NOT_DONE), 2, Count("refund", asked=2, done=1, happened=2, false_no=1)),
    ((DONE, UNKNOWN), 2, Count("refund", asked=2, done=1, parked=1, happened=2, parked_happened=1)),
]


@pytest.mark.parametrize(("outcomes", "rows", "expected"), CASES)
def test_one_group(outcomes: tuple[Outcome | None, ...], rows: int, expected: Count) -> None:
    """Would catch any figure of the table that says something else than its heading."""
    comparison = compare(_asked(*outcomes), _rows(rows))
    assert comparison.counts == (expected,)
    assert comparison.is_exact is (not (expected.twice or expected.missing or expected.false_no))
    assert [bool(comparison.differences)] == [not comparison.is_exact]


def test_a_twin_under_another_key_does_not_hide_a_double() -> None:
    """Would catch a double and a loss that cancel out because both acts look the same."""
    asked = [Asked("refund", _refund(1), DONE, key=key) for key in ("k1", "k2")]
    honest = compare(asked, [Happened("refund", _refund(1), key=key) for key in ("k1", "k2")])
    crossed = compare(asked, [Happened("refund", _refund(1), key="k1")] * 2)
    assert [honest.is_exact, crossed.total.twice, crossed.total.missing] == [True, 1, 1]


def test_a_row_without_a_key_is_matched_by_what_it_did() -> None:
    """Would catch a ledger key (of a service that takes none) that keeps an act from being found in the books."""
    details = {"order_id": "A-1", "items": ["B", "A"]}
    row = Happened("parcel", {"order_id": "A-1", "items": ["A", "B"]})
    assert compare([Asked("parcel", details, DONE, key="ours")], [row]).is_exact


def test_the_same_key_of_two_kinds_is_two_keys() -> None:
    """Would catch a mail that is counted as a refund because both were sent under one reference."""
    mail = {"to": "a@b", "subject": "s", "text": "t"}
    asked = [Asked("refund", _refund(1), DONE, key="k"), Asked("email", mail, DONE, key="k")]
    rows = [Happened("refund", _refund(1), key="k"), Happened("email", mail, key="k")]
    assert compare(asked, rows).is_exact


def test_a_harmless_overwrite_counts_once_and_never_twice() -> None:
    """Would catch harmless repeats shown as harm, and a real no-change shown as a loss."""
    address = {"order_id": "A-1", "address": "New 1"}
    real, same = Happened("address", {**address, "changed": True}), Happened("address", {**address, "changed": False})
    asked = [Asked("address", address, DONE)]
    for rows, happened in (([real], 1), ([same], 1), ([real, same, same], 1), ([same, same], 1)):
        (count,) = compare(asked, rows).counts
        assert [count.happened, count.is_exact] == [happened, True]
    assert compare(asked, [real, real]).total.twice == 1


def test_kinds_come_in_one_order_with_a_total() -> None:
    """Would catch two sides whose rows cannot be read across."""
    asked = [Asked(kind, {"order_id": "A-1"}, DONE) for kind in ("parcel", "zebra", "refund")]
    comparison = compare(asked, [])
    assert [count.kind for count in comparison.counts] == ["refund", "parcel", "zebra"]
    assert comparison.total == Count("all", asked=3, done=3, missing=3)
    assert Comparison(()).total == Count("all")


def test_a_witness_is_a_sentence_with_its_figures() -> None:
    """Would catch a disagreement that cannot be checked by hand."""
    (witness,) = compare(_asked(DONE), _rows(3)).differences
    assert str(witness) == "2 too many: refund A-1 5.00, asked 1, in the books 3"


@pytest.mark.parametrize(
    ("kind", "one", "same", "other"),
    [
        ("refund", {"order_id": "A", "amount": "12.5"}, {"order_id": "A", "amount": "12.50", "reason": "x"}, "amount"),
        ("address", {"order_id": "A", "address": "X  1"}, {"order_id": "A", "address": "X 1"}, "address"),
        ("email", {"to": "a@b", "subject": "s", "text": "t"}, {"text": "t", "to": "a@b", "subject": "s"}, "text"),
        ("parcel", {"order_id": "A", "items": ["X", "Y"]}, {"order_id": "A", "items": ["Y", "X"]}, "items"),
        ("other", {"b": 1, "a": 2}, {"a": 2, "b": 1}, "a"),
    ],
)
def test_a_mark_is_equal_for_equal_acts(kind: str, one: dict[str, object], same: dict[str, object], other: str) -> None:
    """Would catch acts that are told apart by how they are written, or not told apart at all."""
    assert mark_of(kind, one) == mark_of(kind, same)
    assert mark_of(kind, one) != mark_of(kind, {**one, other: "something else"})


def test_rows_come_from_the_shops_own_books() -> None:
    """Would catch a mapping that loses the key or the kind."""
    row = {"id": 1, "kind": "refund", "details": _refund(1), "key": "k", "order_id": "A-1"}
    assert happened_from_books([row]) == [Happened("refund", _refund(1), "k")]
    with pytest.raises(TypeError, match="details"):
        happened_from_books([{**row, "details": "x"}])


_Acts = list[tuple[int, Outcome | None, bool]]
_ACTS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from([*Outcome, None]), st.booleans()), max_size=12)


def _honest(acts: _Acts) -> tuple[list[Asked], list[Happened]]:
    asked, rows = [], []
    for place, (order, outcome, landed) in enumerate(acts):
        asked.append(Asked("refund", _refund(order), outcome, key=f"k{place}"))
        if outcome is DONE or outcome is None or (outcome is UNKNOWN and landed):
            rows.append(Happened("refund", _refund(order), key=f"k{place}"))
    return asked, rows


@given(_ACTS)
def test_an_honest_record_is_always_exact(acts: _Acts) -> None:
    """Would catch a false alarm: a run in which everything went well and the table says otherwise."""
    asked, rows = _honest(acts)
    comparison = compare(asked, rows)
    assert comparison.is_exact
    assert comparison.total.happened == len(rows)


@given(_ACTS, st.data())
def test_one_row_more_or_less_is_always_found(acts: _Acts, data: st.DataObject) -> None:
    """Would catch a table that stays green over a double or a loss."""
    asked, rows = _honest([(order, DONE, landed) for order, _, landed in acts])
    if not rows:
        return
    place = data.draw(st.integers(0, len(rows) - 1))
    assert compare(asked, [*rows, rows[place]]).total.twice == 1
    assert compare(asked, rows[:place] + rows[place + 1 :]).total.missing == 1
