"""The clerk's judgement: whether what was asked for on a ticket is what a good clerk would have asked for.

It looks at decisions only. Whether an act then happened once, twice or not at all is the comparison's business
(`books`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from surefoot.demo.books import Asked
from surefoot.demo.orders import StockOrder
from surefoot.demo.tickets import Ticket, Wanted


class Verdict(StrEnum):
    """What is said of a ticket's decisions."""

    GOOD = "good"
    NOT_GOOD = "not good"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One ticket's verdict with its reasons.

    Attributes:
        ticket_id: Which.
        verdict: Good only if nothing is missed and nothing needless.
        missed: What a good clerk would have asked for, as sentences.
        needless: What was asked for and should not have been.
    """

    ticket_id: str
    verdict: Verdict
    missed: tuple[str, ...] = ()
    needless: tuple[str, ...] = ()


def judge(ticket: Ticket, asked: Sequence[Asked], orders: Mapping[str, StockOrder]) -> Judgement:
    """Judge the decisions on one ticket.

    Asking for the same twice counts as once. An e-mail to the ticket's own customer is a courtesy, never needless.

    Args:
        ticket: With its expectations; without, it is not judged.
        asked: What was decided on for it.
        orders: By id; tells whose address an e-mail should go to.
    """
    if ticket.wanted is None:
        return Judgement(ticket.ticket_id, Verdict.NOT_JUDGED)
    left = {(ask.kind, ask.mark): ask for ask in asked}
    missed = []
    for wanted in ticket.wanted:
        met = next((mark for mark, ask in left.items() if _meets(ask, wanted, orders)), None)
        if met is None:
            missed.append(_sentence(wanted))
        else:
            del left[met]
    needless = [f"{kind} {mark}" for (kind, mark), ask in left.items() if not _is_courtesy(ask, ticket, orders)]
    verdict = Verdict.NOT_GOOD if missed or needless else Verdict.GOOD
    return Judgement(ticket.ticket_id, verdict, tuple(missed), tuple(needless))


def _meets(ask: Asked, wanted: Wanted, orders: Mapping[str, StockOrder]) -> bool:
    if ask.kind != wanted.kind:
        return False
    if wanted.kind == "email":
        return _goes_to_customer(ask, orders.get(wanted.order_id))
    if ask.details.get("order_id") != wanted.order_id:
        return False
    match wanted.kind:
        case "refund":
            return _decimal(ask.details.get("amount")) == wanted.amount
        case "parcel":
            items = ask.details.get("items")
            return isinstance(items, list | tuple) and sorted(map(str, items)) == sorted(wanted.items)
        case "address":
            address = " ".join(str(ask.details.get("address", "")).casefold().split())
            return all(part.casefold() in address for part in wanted.address_has)
    return True


def _is_courtesy(ask: Asked, ticket: Ticket, orders: Mapping[str, StockOrder]) -> bool:
    return ask.kind == "email" and _goes_to_customer(ask, orders.get(ticket.order_id or ""))


def _goes_to_customer(ask: Asked, order: StockOrder | None) -> bool:
    return order is not None and str(ask.details.get("to", "")).strip().casefold() == order.email.casefold()


def _decimal(value: object) -> Decimal | None:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None


def _sentence(wanted: Wanted) -> str:
    match wanted.kind:
        case "refund":
            return f"refund {wanted.order_id} {wanted.amount}"
        case "parcel":
            return f"parcel {wanted.order_id} {' + '.join(wanted.items)}"
        case "address":
            return f"address {wanted.order_id} to {', '.join(wanted.address_has)}"
    return f"{wanted.kind} to the customer of {wanted.order_id}"
