"""A calm shop per test module, with fresh orders for every test, so that tests share a process and no state."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from surefoot.demo.orders import StockItem, StockOrder, write_orders
from surefoot.demo.shop_process import RunningShop, running_shop

# With this seed the first late answer ordered for refunds takes 0.33 s and the second 0.8 s, and a dark spell 0.7 s:
# short where a test has to wait for it, long where a test has to do something within it.
SEED = 735


@pytest.fixture(scope="module")
def shop_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shop") / "shop.db"


@pytest.fixture(scope="module")
def shop(shop_db: Path) -> Iterator[RunningShop]:
    folder = shop_db.parent
    items = (StockItem("CUP", "cup", 2, "15.00"), StockItem("PAN", "pan", 1, "20.00"))  # 50.00 in all
    orders = [
        StockOrder(f"Z-{number}", "Zoe", f"zoe{number}@customers.example", "paid", "Oldstreet 1", items)
        for number in range(60)
    ]
    sent = StockOrder("Z-sent", "Yan", "yan@customers.example", "shipped", "Oldstreet 2", items)
    closed = StockOrder("Z-closed", "Xia", "xia@customers.example", "refunded", "Oldstreet 3", items)
    write_orders(folder / "orders.json", [*orders, sent, closed])
    with running_shop(shop_db, seed=SEED, orders=folder / "orders.json") as shop:
        yield shop


@pytest.fixture(scope="module")
def _order_numbers() -> Iterator[int]:
    return count()


@pytest.fixture
def order_id(_order_numbers: Iterator[int]) -> str:
    return f"Z-{next(_order_numbers)}"


@pytest.fixture
def booked(shop: RunningShop, order_id: str) -> Callable[[str], list[object]]:
    """What the books hold of this test's order, once the shop is quiet: the details of each row of a kind."""

    def rows(kind: str) -> list[object]:
        return [row["details"] for row in shop.books() if row["kind"] == kind and row["order_id"] == order_id]

    return rows


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"
