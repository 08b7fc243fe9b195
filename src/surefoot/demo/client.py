"""The shop's API as a thin client: one function per endpoint, a deadline on each, and never a retry.

What an exception means to somebody who has to know whether the act happened:

| raised                                 | the act                                                             |
|----------------------------------------|---------------------------------------------------------------------|
| `ShopRefused`                          | was not done, and asking again is refused again                     |
| `ShopChanged`                          | was not done by this request: the order is another version now      |
| `ShopUnavailable`                      | was not done; asking again later may work                           |
| `ShopInFlight`                         | is being done by an earlier request with this key; no end is known  |
| `httpx.ConnectError`, `ConnectTimeout` | was never sent                                                      |
| any other `httpx` error                | is unknown                                                          |
"""

import os
import ssl
from collections.abc import Mapping
from decimal import Decimal
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

DEFAULT_TIMEOUT_S = 2.0


class Item(BaseModel):
    """One line of an order."""

    sku: str
    name: str
    quantity: int
    price: Decimal


class Order(BaseModel):
    """An order as it stands; `etag` names this version of it, `refunded` is what was paid back so far."""

    order_id: str
    customer: str
    email: str
    items: list[Item]
    amount: Decimal
    refunded: Decimal
    status: str
    address: str
    etag: str


class Refund(BaseModel):
    """Money paid back."""

    refund_id: str
    order_id: str
    amount: Decimal
    reason: str


class AddressChange(BaseModel):
    """An order's address after an overwrite, and its new version."""

    order_id: str
    address: str
    etag: str


class Email(BaseModel):
    """An e-mail that was sent."""

    email_id: str
    to: str
    subject: str
    text: str
    client_reference: str | None


class Parcel(BaseModel):
    """A parcel on its way."""

    parcel_id: str
    order_id: str
    items: list[str]


class ShopSaid(Exception):
    """The shop answered, and its answer says that this request did nothing.

    Attributes:
        code: The shop's word for why, e.g. `"amount_too_high"`.
        message: The shop's sentence.
        status: The HTTP status.
    """

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


class ShopRefused(ShopSaid):
    """A business rule says no."""


class ShopChanged(ShopRefused):
    """`If-Match` did not match: somebody, perhaps our own earlier request, has written this order since."""


class ShopUnavailable(ShopSaid):
    """The shop is busy or closed."""


class ShopInFlight(ShopSaid):
    """Another request with this key is being worked on."""


class _Emails(BaseModel):
    emails: list[Email]


class _SaidNothingDone(BaseModel):
    code: str
    message: str
    acted: bool


def open_shop(url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> httpx.AsyncClient:
    """Make a client for the shop at `url`; use it as an async context manager.

    Args:
        url: e.g. `"http://127.0.0.1:8099"`.
        timeout_s: Longest wait for a connection, and for each piece of an answer, in seconds.
    """
    # The shop is on this host and speaks plain HTTP: the environment's proxies are none of its business, and loading
    # the system's certificates, which takes longer than a call, is left out (so an https URL would trust nobody).
    trusts_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(timeout_s), trust_env=False, verify=trusts_nobody)


async def lookup_order(shop: httpx.AsyncClient, order_id: str) -> Order:
    """Read an order."""
    return Order.model_validate_json(await _ask(shop, "GET", _path(order_id)))


async def refund(
    shop: httpx.AsyncClient, order_id: str, amount: Decimal, reason: str, *, idempotency_key: str | None = None
) -> Refund:
    """Pay money back; with a key, at most once for that key while it lives."""
    body = {"order_id": order_id, "amount": str(amount), "reason": reason}
    return Refund.model_validate_json(
        await _ask(shop, "POST", "/refunds", body, {"Idempotency-Key": idempotency_key} if idempotency_key else {})
    )


async def change_address(
    shop: httpx.AsyncClient, order_id: str, address: str, *, if_match: str | None = None
) -> AddressChange:
    """Overwrite where an order goes; with an etag, only that version of the order."""
    path = _path(order_id) + "/address"
    headers = {"If-Match": if_match} if if_match else {}
    return AddressChange.model_validate_json(await _ask(shop, "PUT", path, {"address": address}, headers))


async def send_mail(
    shop: httpx.AsyncClient,
    to: str,
    subject: str,
    text: str,
    *,
    client_reference: str | None = None,
    expires_at: float | None = None,
) -> Email:
    """Send an e-mail.

    Args:
        shop: From `open_shop`.
        to: The receiver.
        subject: One line.
        text: The mail.
        client_reference: What `find_mails` will know it by; the shop does not dedupe on it.
        expires_at: When the shop must no longer act on this request, in seconds since 1970 by the shop's clock; None
            for never.
    """
    body: dict[str, object] = {"to": to, "subject": subject, "text": text}
    if client_reference is not None:
        body["client_reference"] = client_reference
    if expires_at is not None:
        body["expires_at"] = expires_at
    return Email.model_validate_json(await _ask(shop, "POST", "/emails", body))


async def find_mails(shop: httpx.AsyncClient, client_reference: str) -> list[Email]:
    """Look up what was sent under a reference: the truth as of now, in which a request on its way does not show yet."""
    params = httpx.QueryParams({"client_reference": client_reference})
    return _Emails.model_validate_json(await _ask(shop, "GET", f"/emails?{params}")).emails


async def send_parcel(shop: httpx.AsyncClient, order_id: str, items: list[str]) -> Parcel:
    """Send articles of an order again. The shop offers no way to ask later whether it did."""
    return Parcel.model_validate_json(await _ask(shop, "POST", "/parcels", {"order_id": order_id, "items": items}))


async def _ask(
    shop: httpx.AsyncClient,
    method: str,
    path: str,
    body: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    # Read at each call: a worker that was forked after the client was made has another pid.
    sent = {**(headers or {}), "X-Worker-Pid": str(os.getpid())}
    response = await shop.request(method, path, json=body, headers=sent)
    if response.is_success:
        return response.content
    try:
        said = _SaidNothingDone.model_validate_json(response.content)
    except ValidationError:
        said = None
    if said is None or said.acted:
        response.raise_for_status()
        raise httpx.HTTPStatusError(f"{response.status_code} for {path}", request=response.request, response=response)
    raise _kind(said.code, response.status_code)(said.code, said.message, response.status_code)


def _kind(code: str, status: int) -> type[ShopSaid]:
    if code == "in_flight":
        return ShopInFlight
    if status == 412:
        return ShopChanged
    return ShopUnavailable if status == 503 else ShopRefused


def _path(order_id: str) -> str:
    return f"/orders/{quote(order_id, safe='')}"  # the id may come from a model
