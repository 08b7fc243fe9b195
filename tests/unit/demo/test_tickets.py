"""The built-in tickets, and the clerk's judgement of them."""

from decimal import Decimal
from pathlib import Path

import pytest

from surefoot.demo.books import Asked, Outcome
from surefoot.demo.clerk import Judgement, Verdict, judge
from surefoot.demo.orders import read_orders, write_orders
from surefoot.demo.tickets import MAX_TICKETS, ORDERS, TICKETS, Ticket, Wanted, orders_for

BY_ID = {order.order_id: order for order in ORDERS}


def _ticket(number: int) -> Ticket:
    return TICKETS[number - 1]


def _asked(kind: str, **details: object) -> Asked:
    return Asked(kind, details, Outcome.DONE)


def _as_wanted(wanted: Wanted) -> Asked:
    order = BY_ID[wanted.order_id]
    details: dict[str, object] = {"order_id": wanted.order_id, "amount": str(wanted.amount), "items": [*wanted.items]}
    if wanted.kind == "email":
        details = {"to": order.email, "subject": "Sorry", "text": "We are."}
    return Asked(wanted.kind, {**details, "address": ", ".join(wanted.address_has)}, Outcome.UNKNOWN)


def test_the_tickets_are_twelve_and_bring_about_every_kind() -> None:
    """Would catch a demo in which some kind of effect never occurs."""
    assert len(TICKETS) == len({ticket.ticket_id for ticket in TICKETS}) == len(ORDERS) == MAX_TICKETS == 12
    kinds = [wanted.kind for ticket in TICKETS for wanted in ticket.wanted or ()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"refund": 4, "address": 2, "parcel": 2, "email": 3}
    assert sum(ticket.wanted == () for ticket in TICKETS) == 2


@pytest.mark.parametrize("ticket", TICKETS, ids=lambda ticket: ticket.ticket_id)
def test_what_is_wanted_can_be_done_and_stands_in_the_text(ticket: Ticket) -> None:
    """Would catch an expectation that the shop would refuse, or that no clerk could read out of the ticket."""
    assert ticket.order_id is not None
    assert ticket.order_id in ticket.text
    order = BY_ID[ticket.order_id]
    for wanted in ticket.wanted or ():
        assert wanted.order_id == ticket.order_id
        assert wanted.amount is None or (wanted.amount <= order.amount and str(wanted.amount) in ticket.text)
        assert set(wanted.items) <= {item.sku for item in order.items}
        assert all(sku in ticket.text for sku in wanted.items)
        assert all(part in ticket.text.casefold() for part in wanted.address_has)
        assert wanted.kind != "address" or order.status == "paid"
        assert wanted.kind != "refund" or order.status != "refunded"


@pytest.mark.parametrize("ticket", TICKETS, ids=lambda ticket: ticket.ticket_id)
def test_a_good_clerk_is_called_good_whatever_became_of_it(ticket: Ticket) -> None:
    """Would catch a judgement that depends on outcomes: those are counted, not judged."""
    asked = [_as_wanted(wanted) for wanted in ticket.wanted or ()]
    assert judge(ticket, asked, BY_ID) == Judgement(ticket.ticket_id, Verdict.GOOD)
    assert judge(ticket, asked * 2, BY_ID).verdict is Verdict.GOOD  # asking twice for the same is asking once


def test_what_is_missed_and_what_is_needless_are_named() -> None:
    """Would catch a verdict without its reasons."""
    half = judge(_ticket(11), [_asked("refund", order_id="A-1011", amount="8.00")], BY_ID)
    assert [half.verdict, half.missed, half.needless] == [Verdict.NOT_GOOD, ("email to the customer of A-1011",), ()]
    wrong = judge(_ticket(1), [_asked("refund", order_id="A-1001", amount="4.99")], BY_ID)
    assert [wrong.missed, wrong.needless] == [("refund A-1001 49.90",), ("refund A-1001 4.99",)]
    eager = judge(_ticket(6), [_asked("parcel", order_id="A-1006", items=["CHR-4"])], BY_ID)
    assert [eager.verdict, eager.needless] == [Verdict.NOT_GOOD, ("parcel A-1006 CHR-4",)]


def test_a_courtesy_mail_is_not_needless_but_one_to_somebody_else_is() -> None:
    """Would catch a polite clerk called a bad one, and a leak called politeness."""
    mail = {"subject": "Thanks", "text": "Thank you."}
    assert judge(_ticket(6), [_asked("email", to="Finn@customers.example", **mail)], BY_ID).verdict is Verdict.GOOD
    assert judge(_ticket(6), [_asked("email", to="ada@customers.example", **mail)], BY_ID).verdict is Verdict.NOT_GOOD


@pytest.mark.parametrize("amount", ["fifty", None, "49.9", Decimal("49.90")])
def test_amounts_are_compared_as_numbers(amount: object) -> None:
    """Would catch a crash over a model's amount, and 49.9 taken for another amount than 49.90."""
    verdict = judge(_ticket(1), [_asked("refund", order_id="A-1001", amount=amount)], BY_ID).verdict
    assert verdict is (Verdict.NOT_GOOD if amount in ("fifty", None) else Verdict.GOOD)


def test_a_ticket_without_expectations_is_not_judged() -> None:
    """Would catch a user's own tickets all called bad."""
    assert judge(Ticket("mine", "Help!"), [], BY_ID) == Judgement("mine", Verdict.NOT_JUDGED)


def test_a_users_orders_are_made_up_and_survive_the_way_to_the_shop(tmp_path: Path) -> None:
    """Would catch tickets about orders that the shop does not know."""
    tickets = [Ticket("1", "a", "X-1"), Ticket("2", "b", "X-1"), Ticket("3", "c", "A-1001"), Ticket("4", "d")]
    orders = orders_for(tickets)
    assert [order.order_id for order in orders[len(ORDERS) :]] == ["X-1"]
    write_orders(tmp_path / "orders.json", orders)
    assert read_orders(tmp_path / "orders.json") == orders
