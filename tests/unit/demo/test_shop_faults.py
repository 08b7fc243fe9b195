"""Each fault, met on purpose: what the client sees, and what the books say happened."""

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal

import httpx
import pytest

from surefoot.demo import client
from surefoot.demo.faults import FaultKind
from surefoot.demo.shop_process import RunningShop

Booked = Callable[[str], list[object]]
REFUNDS = "POST /refunds"


@pytest.fixture
async def web(shop: RunningShop) -> AsyncIterator[httpx.AsyncClient]:
    async with client.open_shop(shop.url) as web:
        yield web


async def _refund(web: httpx.AsyncClient, order_id: str) -> client.Refund:
    return await client.refund(web, order_id, Decimal("5.00"), "broken")


async def test_late_answers_in_the_end(web: httpx.AsyncClient, shop: RunningShop, order_id: str) -> None:
    """Would catch a late answer that is no answer, or that is not late."""
    shop.order_faults(REFUNDS, [FaultKind.LATE])
    answer = await _refund(web, order_id)
    call = next(call for call in reversed(shop.calls()) if call["endpoint"] == REFUNDS)
    took = float(str(call["answered_at"])) - float(str(call["at"]))
    assert [answer.order_id, took >= 0.3, call["answered"]] == [order_id, True, "201"]


@pytest.mark.parametrize(
    ("fault", "happened"),
    [(FaultKind.ACTS_AND_CUTS, 1), (FaultKind.CUTS, 0), (FaultKind.STRAGGLES, 1)],
)
async def test_a_cut_tells_nothing(
    web: httpx.AsyncClient, shop: RunningShop, order_id: str, booked: Booked, fault: FaultKind, happened: int
) -> None:
    """Would catch a cut from which a client could tell whether the act happened."""
    shop.order_faults(REFUNDS, [fault])
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        await _refund(web, order_id)
    assert len(booked("refund")) == happened
    call = next(call for call in reversed(shop.calls()) if call["endpoint"] == REFUNDS)
    assert [call["answered"], call["acted"]] == ["cut", bool(happened)]


async def test_a_straggler_lands_after_its_client_was_cut_off(
    web: httpx.AsyncClient, shop: RunningShop, order_id: str
) -> None:
    """Would catch a straggler that is in the books while its client is still there: it would be no straggler."""
    shop.order_faults("POST /emails", [FaultKind.STRAGGLES])
    reference = f"ref-{order_id}"
    with pytest.raises(httpx.TransportError):
        await client.send_mail(web, "zoe@x.example", "S", "T", client_reference=reference)
    (row,) = (row for row in shop.books() if row["key"] == reference)
    (call,) = (call for call in shop.calls() if call["n"] == row["call"])
    assert float(str(row["at"])) - float(str(call["answered_at"])) >= 0.29
    assert len(await client.find_mails(web, reference)) == 1


async def test_acts_and_hangs_leaves_the_client_waiting(shop: RunningShop, order_id: str, booked: Booked) -> None:
    """Would catch a hang that answers or cuts by itself, and a shop that is stuck with it."""
    shop.order_faults(REFUNDS, [FaultKind.ACTS_AND_HANGS])
    async with client.open_shop(shop.url, timeout_s=0.5) as web:
        with pytest.raises(httpx.ReadTimeout):
            await _refund(web, order_id)
    assert len(booked("refund")) == 1
    assert [call["answered"] for call in shop.calls() if call["endpoint"] == REFUNDS][-1] == "left"


async def test_a_closed_shop_turns_everybody_away_for_some_requests(
    web: httpx.AsyncClient, shop: RunningShop, order_id: str, booked: Booked
) -> None:
    """Would catch a closure that ends at once, never ends, or spares the other endpoints."""
    shop.order_faults(REFUNDS, [FaultKind.CLOSES])
    with pytest.raises(client.ShopUnavailable):
        await _refund(web, order_id)
    turned_away = 0
    while (await web.get(f"/orders/{order_id}")).status_code == 503 and turned_away < 10:
        turned_away += 1
    assert 2 <= turned_away <= 4
    assert booked("refund") == []


async def test_a_vanished_shop_refuses_connections_and_comes_back(
    web: httpx.AsyncClient, shop: RunningShop, order_id: str, booked: Booked
) -> None:
    """Would catch an outage that clients cannot tell from a lost answer, or that lasts for ever."""
    shop.order_faults(REFUNDS, [FaultKind.VANISHES])
    with pytest.raises(httpx.RemoteProtocolError):
        await _refund(web, order_id)
    with pytest.raises(httpx.ConnectError):
        await _refund(web, order_id)
    async with asyncio.timeout(10):
        while True:
            try:
                await _refund(web, order_id)
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.02)
    assert len(booked("refund")) == 1


async def test_a_refusing_shop_says_that_nothing_was_done(
    web: httpx.AsyncClient, shop: RunningShop, order_id: str, booked: Booked
) -> None:
    """Would catch a 503 that a client has to take for an unknown, or that acted."""
    shop.order_faults(REFUNDS, [FaultKind.REFUSES])
    with pytest.raises(client.ShopUnavailable):
        await _refund(web, order_id)
    assert booked("refund") == []
