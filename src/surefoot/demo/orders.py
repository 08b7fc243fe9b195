"""The orders the shop starts with: plain data, and its JSON form for handing orders to the shop's process."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StockItem:
    """One line of an order; the price is for one piece."""

    sku: str
    name: str
    quantity: int
    price: str


@dataclass(frozen=True, slots=True)
class StockOrder:
    """An order as it stands before the demo begins.

    Attributes:
        order_id: The number customers quote, e.g. `"A-1001"`.
        customer: Full name.
        email: The only address of this customer that the shop knows.
        status: `"paid"`, `"shipped"`, `"delivered"` or `"refunded"`.
        address: Where it goes, on one line.
        items: What was bought.
    """

    order_id: str
    customer: str
    email: str
    status: str
    address: str
    items: tuple[StockItem, ...]

    @property
    def amount(self) -> Decimal:
        """What was paid for all items."""
        return sum((Decimal(item.price) * item.quantity for item in self.items), Decimal("0.00"))


def made_up_order(order_id: str) -> StockOrder:
    """Make the order that a ticket of the user's own refers to, so that there is something to act on."""
    return StockOrder(
        order_id=order_id,
        customer=f"Customer of {order_id}",
        email=f"{order_id.lower()}@customers.example",
        status="delivered",
        address="Hauptstrasse 1, 8000 Zürich",
        items=(StockItem("BOX-1", "storage box", 2, "19.90"), StockItem("LID-1", "lid", 2, "5.00")),
    )


def write_orders(path: Path, orders: Iterable[StockOrder]) -> None:
    """Write orders as one JSON list, for the shop's `--orders`."""
    path.write_text(json.dumps([asdict(order) for order in orders], ensure_ascii=False, indent=1), encoding="utf-8")


def read_orders(path: Path) -> tuple[StockOrder, ...]:
    """Read what `write_orders` wrote."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return tuple(StockOrder(**{**row, "items": tuple(StockItem(**item) for item in row["items"])}) for row in rows)
