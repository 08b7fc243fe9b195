"""What each endpoint promises, against a real shop in a process of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path

import apsw
import httpx
import pytest

from surefoot.demo import client
from surefoot.demo.faults import FaultKind
from surefoot.demo.shop_process import RunningShop, ShopDidNotStart, running_shop
from surefoot.demo.shop_store import Call, ShopStore
from surefoot.demo.tickets import ORDERS

Booked = Callable[[str], list[object]]


@pytest.fixture
async def web(shop: RunningShop) -> AsyncIterator[httpx.AsyncClient]:
    async with client.open_shop(shop.url) as web:
        yield web


async def test_an_order_reads_as_it_stands(web: httpx.AsyncClient, order_id: str) -> None:
    """Would catch a look-up that loses a field the clerk decides by."""
    order = await client.lookup_order(web, order_id)
    assert [order.amount, order.refunded, order.status, order.etag] == [Decimal("50.00"), Decimal(0), "paid", '"1"']
    assert [item.sku for item in order.items] == ["CUP", "PAN"]


@pytest.mark.parametrize("name", ["Z-none", "a/b", "", "..", "é 1?x=#"])
async def test_an_order_that_is_not_there_is_a_refusal(web: httpx.AsyncClient, name: str) -> None:
    """Would catch a made-up id (a model's) that ends as an accident of unknown outcome instead of a refusal."""
    with pytest.raises(client.ShopRefused):
        await client.lookup_order(web, name)
    with pytest.raises(client.ShopRefused):
        await client.change_address(web, name, "Somewhere 1")


async def test_one_key_refunds_once(web: httpx.AsyncClient, order_id: str, booked: Booked) -> None:
    """Would catch a service that does not dedupe, on which resending would double."""
    first = await client.refund(web, order_id, Decimal("10.00"), "broken", idempotency_key=f"{order_id}-k")
    again = await client.refund(web, order_id, Decimal("10.00"), "broken", idempotency_key=f"{order_id}-k")
    assert again == first
    assert booked("refund") == [{"order_id": order_id, "amount": "10.00", "reason": "broken"}]
    assert (await client.lookup_order(web, order_id)).refunded == Decimal("10.00")


async def test_one_key_with_another_body_is_refused(web: httpx.AsyncClient, order_id: str, booked: Booked) -> None:
    """Would catch a service that serves the old answer for a new question."""
    await client.refund(web, order_id, Decimal("10.00"), "broken", idempotency_key=f"{order_id}-k")
    with pytest.raises(client.ShopRefused) as refused:
        await client.refund(web, order_id, Decimal("11.00"), "broken", idempotency_key=f"{order_id}-k")
    assert [refused.value.code, refused.value.status, len(booked("refund"))] == ["key_reused", 422, 1]


async def test_without_a_key_a_second_refund_really_happens(
    web: httpx.AsyncClient, order_id: str, booked: Booked
) -> None:
    """Would catch business rules so strict that a careless loop looks as good as a careful one."""
    for _ in range(2):
        await client.refund(web, order_id, Decimal("50.00"), "broken")
    with pytest.raises(client.ShopRefused) as refused:
        await client.refund(web, order_id, Decimal("50.00"), "broken")
    assert [refused.value.code, refused.value.status, len(booked("refund"))] == ["already_refunded", 409, 2]


async def test_a_refusal_is_stored_under_its_key(web: httpx.AsyncClient, shop: RunningShop, order_id: str) -> None:
    """Would catch a refusal that turns into a deed when the same request is sent again."""
    for _ in range(2):
        with pytest.raises(client.ShopRefused) as refused:
            await client.refund(web, order_id, Decimal("50.01"), "greed", idempotency_key=f"{order_id}-k")
        assert [refused.value.code, refused.value.status] == ["amount_too_high", 422]
    did = [call["did"] for call in shop.calls() if call["key"] == f"{order_id}-k"]
    assert did == ["refused: amount_too_high", "replayed"]


async def test_a_closed_order_is_not_refunded_again(web: httpx.AsyncClient) -> None:
    """Would catch the demo's refused case going through."""
    with pytest.raises(client.ShopRefused, match="already_refunded"):
        await client.refund(web, "Z-closed", Decimal("1.00"), "again")


async def test_a_key_in_flight_is_said_to_be_in_flight(
    web: httpx.AsyncClient, shop: RunningShop, order_id: str, booked: Booked
) -> None:
    """Would catch a second request acting, or being told "done", while the first is being worked on."""
    shop.order_faults("POST /refunds", [FaultKind.CALM, FaultKind.LATE])  # the second late answer is a long one
    await client.refund(web, order_id, Decimal("1.00"), "warm-up")
    body = {"order_id": order_id, "amount": "10.00", "reason": "broken"}
    headers = {"Idempotency-Key": f"{order_id}-k"}
    late = asyncio.ensure_future(web.post("/refunds", json=body, headers=headers))
    while not [call for call in await _calls(web) if call["key"] == f"{order_id}-k"]:
        await asyncio.sleep(0.005)
    with pytest.raises(client.ShopInFlight):
        await client.refund(web, order_id, Decimal("10.00"), "broken", idempotency_key=f"{order_id}-k")
    first = await late
    again = await client.refund(web, order_id, Decimal("10.00"), "broken", idempotency_key=f"{order_id}-k")
    assert [first.status_code, first.json()["refund_id"], len(booked("refund"))] == [201, again.refund_id, 1 + 1]


async def _calls(web: httpx.AsyncClient) -> list[dict[str, object]]:
    rows = (await web.get("/calls")).json()["calls"]
    assert isinstance(rows, list)
    return rows


def test_a_key_dies_with_its_life(db: Path) -> None:
    """Would catch an engine that is only ever tested against keys that live for ever."""
    with running_shop(db, key_ttl_s=0.0) as shop:
        body = {"order_id": "A-1001", "amount": "1.00", "reason": "r"}
        for _ in range(2):
            shop.office.post("/refunds", json=body, headers={"Idempotency-Key": "k"}).raise_for_status()
        assert len(shop.books()) == 2


@pytest.mark.parametrize("amount", ["0", "-1.00", "1.001", "NaN", "1e3", "", "ten"])
async def test_an_amount_that_is_none_is_refused(web: httpx.AsyncClient, order_id: str, amount: str) -> None:
    """Would catch money moved by a number nobody meant."""
    body = {"order_id": order_id, "amount": amount, "reason": "r"}
    answer = await web.post("/refunds", json=body)
    assert [answer.status_code, answer.json()["code"], answer.json()["acted"]] == [422, "bad_request", False]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b'{"order_id": 5}'])
@pytest.mark.parametrize("path", ["/refunds", "/emails", "/parcels"])
async def test_a_broken_body_is_refused(web: httpx.AsyncClient, path: str, raw: bytes) -> None:
    """Would catch a 500, of which a client must think that anything may have happened."""
    answer = await web.post(path, content=raw)
    assert [answer.status_code, answer.json()["code"], answer.json()["acted"]] == [422, "bad_request", False]


async def test_an_overwrite_needs_the_version_it_has_seen(
    web: httpx.AsyncClient, order_id: str, booked: Booked
) -> None:
    """Would catch a lost update, and a 412 that does not say which version it is now."""
    seen = (await client.lookup_order(web, order_id)).etag
    changed = await client.change_address(web, order_id, "New 1", if_match=seen)
    assert [changed.address, changed.etag] == ["New 1", '"2"']
    with pytest.raises(client.ShopChanged) as refused:
        await client.change_address(web, order_id, "New 2", if_match=seen)
    assert refused.value.status == 412
    assert (await client.lookup_order(web, order_id)).address == "New 1"
    assert booked("address") == [{"order_id": order_id, "address": "New 1", "changed": True}]


async def test_overwriting_with_the_same_is_booked_as_no_change(
    web: httpx.AsyncClient, order_id: str, booked: Booked
) -> None:
    """Would catch harmless repeats counted as harm."""
    for _ in range(2):
        assert (await client.change_address(web, order_id, "New 1")).etag == '"2"'
    assert [row["changed"] for row in booked("address") if isinstance(row, dict)] == [True, False]


async def test_a_sent_order_keeps_its_address(web: httpx.AsyncClient) -> None:
    """Would catch an overwrite that business rules forbid."""
    with pytest.raises(client.ShopRefused, match="already_sent"):
        await client.change_address(web, "Z-sent", "New 1")


async def test_a_mail_can_be_looked_up_by_its_reference(web: httpx.AsyncClient, order_id: str) -> None:
    """Would catch a look-up that lies, on which a probe would double or lose a mail."""
    assert await client.find_mails(web, f"ref-{order_id}") == []
    sent = await client.send_mail(web, "zoe@x.example", "Sorry", "We are.", client_reference=f"ref-{order_id}")
    assert await client.find_mails(web, f"ref-{order_id}") == [sent]
    twin = await client.send_mail(web, "zoe@x.example", "Sorry", "We are.", client_reference=f"ref-{order_id}")
    assert await client.find_mails(web, f"ref-{order_id}") == [sent, twin]  # a reference is no key


async def test_a_mail_past_its_expiry_is_never_sent(web: httpx.AsyncClient, order_id: str) -> None:
    """Would catch a fence with a hole."""
    with pytest.raises(client.ShopRefused) as refused:
        await client.send_mail(
            web, "zoe@x.example", "S", "T", client_reference=f"ref-{order_id}", expires_at=time.time() - 0.001
        )
    assert [refused.value.code, refused.value.status] == ["expired", 410]
    await client.send_mail(web, "z@x.example", "S", "T", client_reference=f"ok-{order_id}", expires_at=time.time() + 60)
    assert [len(await client.find_mails(web, f"{name}-{order_id}")) for name in ("ref", "ok")] == [0, 1]


async def test_a_straggling_mail_past_its_expiry_is_not_sent(
    web: httpx.AsyncClient, shop: RunningShop, order_id: str
) -> None:
    """Would catch an expiry that is checked on arrival instead of at the act: the hole a straggler slips through."""
    shop.order_faults("POST /emails", [FaultKind.STRAGGLES])
    with pytest.raises(httpx.TransportError):
        await client.send_mail(
            web, "zoe@x.example", "S", "T", client_reference=f"ref-{order_id}", expires_at=time.time() + 0.15
        )
    assert [call["did"] for call in shop.calls() if call["key"] == f"ref-{order_id}"] == ["refused: expired"]
    assert await client.find_mails(web, f"ref-{order_id}") == []


async def test_a_parcel_leaves_each_time_it_is_asked_for(web: httpx.AsyncClient, order_id: str, booked: Booked) -> None:
    """Would catch a parcel service that dedupes after all, which would hide what only a person can decide."""
    parcels = [await client.send_parcel(web, order_id, ["CUP"]) for _ in range(2)]
    assert parcels[0].parcel_id != parcels[1].parcel_id
    assert booked("parcel") == [{"order_id": order_id, "items": ["CUP"]}] * 2
    with pytest.raises(client.ShopRefused, match="unknown_item"):
        await client.send_parcel(web, order_id, ["TANK"])


async def test_the_log_names_who_called(web: httpx.AsyncClient, shop: RunningShop, order_id: str) -> None:
    """Would catch calls without a sender: nobody could be killed in the middle of one."""
    await client.refund(web, order_id, Decimal("1.00"), "r", idempotency_key=f"{order_id}-k")
    (call,) = (call for call in shop.calls() if call["key"] == f"{order_id}-k")
    assert [call["worker_pid"], call["acted"], call["answered"]] == [os.getpid(), True, "201"]


def test_the_books_outlive_the_process_and_cannot_be_rewritten(db: Path) -> None:
    """Would catch a shop that forgets or counts from one again, and books that could be made to agree afterwards."""
    for visits in (1, 2):
        store = ShopStore(db, ORDERS)
        call = store.open_call(Call(0.0, "POST /parcels", visits, "{}", None, "", None))
        store.book("parcel", {"items": ["BTL-1"]}, at=0.0, call=call, order_id="A-1004")
        assert [len(store.books()), store.effectful_calls()] == [visits, visits]
        store.close()
    books = apsw.Connection(str(db))
    for sql in ("DELETE FROM books", "UPDATE books SET kind = 'x'"):
        with pytest.raises(apsw.ConstraintError, match="append-only"):
            books.execute(sql)
    books.close()


@pytest.mark.parametrize("path", ["/_control/kills", "/_control/workers", "/_control/faults"])
def test_control_refuses_what_it_does_not_understand(shop: RunningShop, path: str) -> None:
    """Would catch a misspelt order that is silently never carried out."""
    rows: list[dict[str, object]] = [{}, {"kills": [{"nth": 1, "moment": "later"}]}, {"pid": "x"}]
    for body in [*rows, {"endpoint": "POST /refund", "faults": ["late"]}]:
        assert shop.office.post(path, json=body).status_code == 422


@pytest.mark.parametrize("how", ["sigterm", "stdin"])
def test_it_stops_when_told_and_when_left_alone(db: Path, how: str) -> None:
    """Would catch shops that outlive the demo that started them."""
    command = [sys.executable, "-m", "surefoot.demo.shop", "--db", str(db)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        ready = json.loads(process.stdout.readline())
        assert httpx.get(ready["url"] + "/healthz", trust_env=False).json()["pid"] == process.pid == ready["pid"]
        if how == "sigterm":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.close()
        assert process.wait(10) == 0


async def test_it_stops_at_once_and_quietly_while_a_client_hangs(db: Path) -> None:
    """Would catch a demo that waits for its shop, or ends in the stack trace of a request that was left hanging."""
    command = [sys.executable, "-m", "surefoot.demo.shop", "--db", str(db)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        async with client.open_shop(json.loads(process.stdout.readline())["url"], timeout_s=30) as web:
            await web.post("/_control/faults", json={"endpoint": "POST /parcels", "faults": ["acts_and_hangs"]})
            hung = asyncio.ensure_future(client.send_parcel(web, "A-1004", ["BTL-1"]))
            while not [call for call in await _calls(web) if call["acted"]]:
                await asyncio.sleep(0.005)
            process.terminate()
            with pytest.raises(httpx.RemoteProtocolError):
                await hung
        assert [process.wait(10), process.stderr.read()] == [0, b""]


def test_two_shops_do_not_share_a_port(db: Path, shop: RunningShop) -> None:
    """Would catch a second shop that silently takes half of the first one's calls."""
    command = [sys.executable, "-m", "surefoot.demo.shop", "--db", str(db), "--port", shop.url.rsplit(":", 1)[1]]
    second = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert [second.returncode, second.stdout, "Address already in use" in second.stderr] == [1, "", True]


def test_a_shop_that_cannot_start_says_so(tmp_path: Path) -> None:
    """Would catch a demo that waits for ever for a shop that is not there."""
    with pytest.raises(ShopDidNotStart), running_shop(tmp_path / "no" / "folder" / "shop.db"):
        pass
