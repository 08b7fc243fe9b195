"""The twelve built-in tickets, the orders they are about, and what a good clerk does with each.

The expectations judge the clerk (a model, and a small one); no count of effects depends on them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from surefoot.demo.orders import StockItem, StockOrder, made_up_order

MAX_TICKETS = 12
"""How many tickets one demo takes: what a person still reads, and a small local model still decides in minutes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One effect that a good clerk brings about.

    Attributes:
        kind: `"refund"`, `"address"`, `"parcel"` or `"email"`.
        order_id: The order it is about; an e-mail goes to that order's customer.
        amount: For a refund, the exact amount.
        items: For a parcel, the article numbers in any order.
        address_has: For an address, what must appear in it, in any case.
    """

    kind: str
    order_id: str
    amount: Decimal | None = None
    items: tuple[str, ...] = ()
    address_has: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ticket:
    """One customer's request.

    Attributes:
        ticket_id: Its number; runs are named by it.
        text: What the customer wrote.
        order_id: The order it is about, if known.
        wanted: What a good clerk does, `()` for nothing; None if nobody has said (a user's own ticket).
    """

    ticket_id: str
    text: str
    order_id: str | None = None
    wanted: tuple[Wanted, ...] | None = None


def _refund(order_id: str, amount: str) -> Wanted:
    return Wanted("refund", order_id, amount=Decimal(amount))


def _address(order_id: str, *has: str) -> Wanted:
    return Wanted("address", order_id, address_has=has)


def _parcel(order_id: str, *items: str) -> Wanted:
    return Wanted("parcel", order_id, items=items)


def _email(order_id: str) -> Wanted:
    return Wanted("email", order_id)


TICKETS: tuple[Ticket, ...] = (
    Ticket(
        "T-01",
        "Hello, the lamp from order A-1001 arrived in pieces. I do not want another one. Please refund the full 49.90.",
        "A-1001",
        (_refund("A-1001", "49.90"),),
    ),
    Ticket(
        "T-02",
        "In my order A-1002 one of the two mugs is chipped. The other one is fine and I keep it. "
        "Please refund 12.50 for the broken mug.",
        "A-1002",
        (_refund("A-1002", "12.50"),),
    ),
    Ticket(
        "T-03",
        "I have moved. Please change the delivery address of order A-1003 to: Birkenweg 4, 3012 Bern.",
        "A-1003",
        (_address("A-1003", "birkenweg 4", "3012 bern"),),
    ),
    Ticket(
        "T-04",
        "The bottle (article BTL-1) from order A-1004 leaks. I do not want the money. Please send me a new bottle.",
        "A-1004",
        (_parcel("A-1004", "BTL-1"),),
    ),
    Ticket(
        "T-05",
        "Your driver left order A-1005 in the rain. Nothing was damaged and I want no money, "
        "but I expect an apology by e-mail.",
        "A-1005",
        (_email("A-1005"),),
    ),
    Ticket(
        "T-06",
        "I just want to say that the chair from order A-1006 is lovely. Nothing to do for you. Thanks!",
        "A-1006",
        (),
    ),
    Ticket(
        "T-07",
        "Order A-1007 was marked as delivered three weeks ago and never came. "
        "I bought the kettle elsewhere. I want all my money back, that is 64.00.",
        "A-1007",
        (_refund("A-1007", "64.00"),),
    ),
    Ticket(
        "T-08",
        "In order A-1008 the two bike lights (LGT-F front and LGT-R rear) do not turn on. "
        "Please send both of them again as a replacement.",
        "A-1008",
        (_parcel("A-1008", "LGT-F", "LGT-R"),),
    ),
    Ticket(
        "T-09",
        "You have already refunded my order A-1009, the money is here. You can close this ticket.",
        "A-1009",
        (),
    ),
    Ticket(
        "T-10",
        "There is a typing error in the address of order A-1010. It must be Seestrasse 118, 8700 Küsnacht. "
        "Please correct it before you ship.",
        "A-1010",
        (_address("A-1010", "seestrasse 118", "8700 küsnacht"),),
    ),
    Ticket(
        "T-11",
        "Order A-1011 came three days late for a birthday although I paid 8.00 for express. "
        "Please refund the 8.00 and apologise to me by e-mail.",
        "A-1011",
        (_refund("A-1011", "8.00"), _email("A-1011")),
    ),
    Ticket(
        "T-12",
        "Please confirm to me by e-mail that the drill from order A-1012 has a warranty of two years.",
        "A-1012",
        (_email("A-1012"),),
    ),
)


def _order(number: int, customer: str, status: str, address: str, *items: StockItem) -> StockOrder:
    email = f"{customer.split(maxsplit=1)[0].lower()}@customers.example"
    return StockOrder(f"A-{number}", customer, email, status, address, items)


ORDERS: tuple[StockOrder, ...] = (
    _order(1001, "Ada Keller", "delivered", "Gartenweg 2, 4051 Basel", StockItem("LMP-1", "desk lamp", 1, "49.90")),
    _order(1002, "Ben Osei", "delivered", "Rue du Lac 9, 1003 Lausanne", StockItem("MUG-2", "mug", 2, "12.50")),
    _order(1003, "Carla Rossi", "paid", "Lindenhof 1, 8001 Zürich", StockItem("RUG-1", "rug", 1, "119.00")),
    _order(
        1004,
        "Dan Weber",
        "delivered",
        "Talstrasse 30, 9000 St. Gallen",
        StockItem("BTL-1", "steel bottle", 1, "27.00"),
        StockItem("BAG-3", "lunch bag", 1, "18.50"),
    ),
    _order(1005, "Eva Novak", "delivered", "Hohlweg 7, 6003 Luzern", StockItem("BLK-1", "blanket", 1, "39.00")),
    _order(1006, "Finn Larsen", "delivered", "Marktplatz 5, 5000 Aarau", StockItem("CHR-4", "chair", 1, "149.00")),
    _order(1007, "Grace Mbeki", "delivered", "Quai Perdonnet 3, 1800 Vevey", StockItem("KTL-2", "kettle", 1, "64.00")),
    _order(
        1008,
        "Hugo Martin",
        "delivered",
        "Bahnweg 12, 2502 Biel",
        StockItem("LGT-F", "bike light, front", 1, "21.00"),
        StockItem("LGT-R", "bike light, rear", 1, "17.00"),
        StockItem("BEL-1", "bicycle bell", 1, "9.50"),
    ),
    _order(1009, "Ines Costa", "refunded", "Via Nassa 8, 6900 Lugano", StockItem("SPK-1", "loudspeaker", 1, "89.00")),
    _order(1010, "Jonas Graf", "paid", "Seestrasse 18, 8700 Küsnacht", StockItem("TNT-2", "tent", 1, "210.00")),
    _order(
        1011,
        "Kim Tran",
        "delivered",
        "Postgasse 21, 3011 Bern",
        StockItem("PZL-9", "puzzle", 1, "24.00"),
        StockItem("EXP-1", "express delivery", 1, "8.00"),
    ),
    _order(1012, "Lea Fischer", "delivered", "Bergstrasse 44, 7000 Chur", StockItem("DRL-1", "drill", 1, "99.00")),
)


def orders_for(tickets: Iterable[Ticket]) -> tuple[StockOrder, ...]:
    """All orders a shop needs for these tickets: the built-in ones, and a made-up one for each id it does not know."""
    known = {order.order_id for order in ORDERS}
    unknown = dict.fromkeys(ticket.order_id for ticket in tickets if ticket.order_id and ticket.order_id not in known)
    return (*ORDERS, *(made_up_order(order_id) for order_id in unknown))
