"""What the shop does when asked: one function per endpoint, each inside one transaction of the shop's database.

Every endpoint offers something else to a client in doubt, and says so in its docstring. Always holds: an answer that
carries `"acted": false` changed nothing, and a refusal carries a code that a client can act on.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from surefoot.demo.shop_store import OrderRow, ShopStore, StoredAnswer

GOODWILL = 2
"""Refunds of an order may add up to this many times its amount: the shop allows goodwill. So its business rules do not
catch a second refund of the same order, as in shops whose limit is the card's or the day's."""

_AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,2})?")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request as the rules see it.

    Attributes:
        call: Its number in the call log.
        now: The shop's clock at the moment of acting, in seconds.
        body: The decoded JSON object; empty for a read.
        params: From the path and the query.
        key: The `Idempotency-Key`, if sent.
        if_match: The `If-Match` etag, if sent.
        body_digest: Digest of the body's bytes.
        key_ttl_s: How long a key is remembered.
        is_key_elsewhere: Whether another request with this key is being worked on.
    """

    call: int
    now: float
    body: Mapping[str, object]
    params: Mapping[str, str]
    key: str | None
    if_match: str | None
    body_digest: str
    key_ttl_s: float
    is_key_elsewhere: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What the shop says, and whether this very request changed the world."""

    status: int
    body: dict[str, object]
    acted: bool
    did: str
    etag: str | None = None


class Refusal(Exception):
    """A business rule says no; nothing was done."""

    def __init__(self, status: int, code: str, message: str, etag: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.etag = etag

    def as_answer(self) -> Answer:
        """The refusal as the client reads it."""
        body: dict[str, object] = {"code": self.code, "message": self.message, "acted": False}
        return Answer(self.status, body, acted=False, did=f"refused: {self.code}", etag=self.etag)


Rule = Callable[[ShopStore, Ask], Answer]


def act(rule: Rule, store: ShopStore, ask: Ask) -> Answer:
    """Apply a rule; a refusal is an answer."""
    try:
        return rule(store, ask)
    except Refusal as refusal:
        return refusal.as_answer()


def read_order(store: ShopStore, ask: Ask) -> Answer:
    """GET /orders/{order_id}: a read; its etag is what an overwrite must match."""
    order = _order(store, ask.params["order_id"])
    body: dict[str, object] = {
        "order_id": order.order_id,
        "customer": order.customer,
        "email": order.email,
        "items": json.loads(order.items),
        "amount": _money(order.amount_cents),
        "refunded": _money(store.refunded_cents(order.order_id)),
        "status": order.status,
        "address": order.address,
        "etag": _etag(order.version),
    }
    return Answer(200, body, acted=False, did="read", etag=_etag(order.version))


def refund(store: ShopStore, ask: Ask) -> Answer:
    """POST /refunds: dedupes on `Idempotency-Key`, refusals included, for as long as the key lives.

    The same key with the same body is answered with the first answer; with another body, 422; while the first is still
    being worked on, 409. Without a key, or with another one, it is another refund.
    """
    if ask.key is None:
        return act(_refund, store, ask)
    stored = store.stored_answer(ask.key, ask.now - ask.key_ttl_s)
    if stored is not None:
        if stored.body_digest != ask.body_digest:
            raise Refusal(422, "key_reused", f"key {ask.key!r} was used with another body")
        return Answer(stored.status, json.loads(stored.body), acted=False, did="replayed")
    if ask.is_key_elsewhere:
        raise Refusal(409, "in_flight", f"a request with key {ask.key!r} is being worked on")
    answer = act(_refund, store, ask)
    store.store_answer(ask.key, StoredAnswer(ask.body_digest, answer.status, json.dumps(answer.body)), ask.now)
    return answer


def _refund(store: ShopStore, ask: Ask) -> Answer:
    order = _order(store, _text(ask, "order_id"))
    cents = _cents(ask, "amount")
    if order.status == "refunded":
        raise Refusal(409, "already_refunded", f"order {order.order_id} was refunded before and is closed")
    if cents > order.amount_cents:
        raise Refusal(422, "amount_too_high", f"{_money(cents)} is more than {_money(order.amount_cents)}, the order")
    before = store.refunded_cents(order.order_id)
    if before + cents > GOODWILL * order.amount_cents:
        raise Refusal(409, "already_refunded", f"order {order.order_id} was refunded {_money(before)} already")
    done: dict[str, object] = {"order_id": order.order_id, "amount": _money(cents), "reason": _text(ask, "reason")}
    number = store.book("refund", done, at=ask.now, call=ask.call, order_id=order.order_id, key=ask.key, cents=cents)
    return Answer(201, {"refund_id": f"R-{number}", **done}, acted=True, did="acted")


def change_address(store: ShopStore, ask: Ask) -> Answer:
    """PUT /orders/{order_id}/address: overwrites; with `If-Match`, only the version the client has seen (else 412).

    Writing what is there already is booked as such (`"changed": false`) and makes no new version.
    """
    order = _order(store, ask.params["order_id"])
    address = _text(ask, "address")
    etag = _etag(order.version)
    if ask.if_match is not None and ask.if_match != etag:
        raise Refusal(412, "changed_since", f"order {order.order_id} is {etag} now, not {ask.if_match}", etag=etag)
    if order.status != "paid":
        raise Refusal(409, "already_sent", f"order {order.order_id} is {order.status}: its address is fixed")
    changed = address != order.address
    if changed:
        etag = _etag(store.write_address(order.order_id, address))
    done: dict[str, object] = {"order_id": order.order_id, "address": address, "changed": changed}
    store.book("address", done, at=ask.now, call=ask.call, order_id=order.order_id)
    return Answer(200, {**done, "etag": etag}, acted=True, did="acted", etag=etag)


def send_email(store: ShopStore, ask: Ask) -> Answer:
    """POST /emails: no key; a `client_reference` to look it up by, and `expires_at`, after which it never acts (410).

    The expiry is checked at the moment of acting, in the transaction that writes the books. That is what makes it a
    fence: once it has passed, a look-up that finds nothing is final.
    """
    expires_at = ask.body.get("expires_at")
    if expires_at is not None:
        if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
            raise Refusal(422, "bad_request", "expires_at: expected seconds since 1970 as a number")
        if ask.now > expires_at:
            raise Refusal(410, "expired", f"the request was good until {expires_at}; it is {ask.now:.3f}")
    reference = ask.body.get("client_reference")
    if reference is not None and not isinstance(reference, str):
        raise Refusal(422, "bad_request", "client_reference: expected text")
    to = _text(ask, "to")
    if "@" not in to:
        raise Refusal(422, "bad_address", f"{to!r} is no e-mail address")
    done: dict[str, object] = {"to": to, "subject": _text(ask, "subject"), "text": _text(ask, "text")}
    number = store.book("email", done, at=ask.now, call=ask.call, key=reference)
    return Answer(201, {"email_id": f"M-{number}", **done, "client_reference": reference}, acted=True, did="acted")


def find_emails(store: ShopStore, ask: Ask) -> Answer:
    """GET /emails?client_reference=...: a truthful look-up, straight from the books."""
    reference = ask.params.get("client_reference")
    if not reference:
        raise Refusal(422, "bad_request", "client_reference: expected in the query")
    rows = store.books("email", reference)
    found: list[object] = []
    for row in rows:
        details = row["details"]
        assert isinstance(details, dict)
        found.append({"email_id": f"M-{row['id']}", **details, "client_reference": reference})
    return Answer(200, {"emails": found}, acted=False, did="read")


def send_parcel(store: ShopStore, ask: Ask) -> Answer:
    """POST /parcels: offers nothing to a client in doubt: no key, no reference, no look-up. Only a person can tell."""
    order = _order(store, _text(ask, "order_id"))
    items = ask.body.get("items")
    if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
        raise Refusal(422, "bad_request", "items: expected a list of article numbers")
    bought = {item["sku"] for item in json.loads(order.items)}
    for item in items:
        if item not in bought:
            raise Refusal(422, "unknown_item", f"{item!r} is not in order {order.order_id}; it has {sorted(bought)}")
    done: dict[str, object] = {"order_id": order.order_id, "items": items}
    number = store.book("parcel", done, at=ask.now, call=ask.call, order_id=order.order_id)
    return Answer(201, {"parcel_id": f"P-{number}", **done}, acted=True, did="acted")


def _order(store: ShopStore, order_id: str) -> OrderRow:
    order = store.order(order_id)
    if order is None:
        raise Refusal(404, "unknown_order", f"there is no order {order_id!r}")
    return order


def _text(ask: Ask, name: str) -> str:
    value = ask.body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Refusal(422, "bad_request", f"{name}: expected text")
    return value.strip()


def _cents(ask: Ask, name: str) -> int:
    value = ask.body.get(name)
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value) or not Decimal(value):
        raise Refusal(422, "bad_request", f'{name}: expected an amount above zero as text, such as "12.50"')
    return int(Decimal(value) * 100)


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def _etag(version: int) -> str:
    return f'"{version}"'
