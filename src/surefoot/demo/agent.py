"""The clerk: a Pydantic AI agent whose tools are the shop's API, each declared with what may be done in doubt.

| tool             | the shop offers                      | in doubt                                                       |
|------------------|--------------------------------------|----------------------------------------------------------------|
| `lookup_order`   | changes nothing                      | read again                                                     |
| `refund`         | dedupes on an idempotency key        | the same key again                                             |
| `change_address` | `If-Match`                           | the same again under the same etag; when that fails, read back |
| `write_email`    | a reference, and an expiry it checks | wait for the expiry, then ask                                  |
| `send_parcel`    | nothing                              | a person                                                       |

Always holds: a tool retries only what the shop said it did not do; everything else is left to the declaration. A clerk
is offered no other order than that of its ticket, where that is known.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import httpx
from pydantic import Field
from pydantic_ai import Agent, RunContext, Tool
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

import surefoot as sf
from surefoot.adapters.pydantic_ai import tell
from surefoot.demo import client
from surefoot.demo.tickets import Ticket

NAME = "clerk"
INSTRUCTIONS = "You are a support clerk."  # a small model does worse with every further sentence

FORM = {
    "refund": "Please refund me.",
    "address": "Please change the delivery address.",
    "parcel": "Please send the items again.",
    "email": "Please write me an e-mail.",
}
"""What customers tick in the shop's form, under their own words. It is told to the clerk after them: without it, a small
model pays everybody back, and a demo would show one kind of act only."""

REQUESTS_MAX = 8
"""Decisions on one ticket: two acts with their look-up take four; a clerk that goes round in circles is stopped."""

MAIL_LIFE_S = 3.0
"""How long the shop may act on a mail's request: above the client's deadline, below what a viewer of the demo minds."""

_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.2)  # longer in sum than the shop ever stays dark, and more than it turns away

# What the shop takes; a small model does not ramble within it.
Amount = Annotated[Decimal, Field(gt=0, decimal_places=2)]
Address = Annotated[str, Field(max_length=80)]
Articles = Annotated[list[Annotated[str, Field(pattern="^[A-Z0-9-]{2,12}$")]], Field(min_length=1, max_length=4)]
MailAddress = Annotated[str, Field(json_schema_extra={"format": "email"})]
Line = Annotated[str, Field(max_length=60)]
Words = Annotated[str, Field(max_length=2_500)]

T = TypeVar("T")
Call = Callable[[], Awaitable[T]]


def clerk(model: Model | str, shop: httpx.AsyncClient, settings: ModelSettings | None = None) -> Agent[str, str]:
    """Make the clerk; its dependency is the number of the ticket's order, empty if that is not known.

    Args:
        model: Who decides.
        shop: From `client.open_shop`.
        settings: For the model.
    """
    return Agent(
        model,
        name=NAME,
        deps_type=str,
        instructions=INSTRUCTIONS,
        tools=tools(shop),
        model_settings=settings,
        retries=3,
        defer_model_check=True,
    )


def prompt_of(ticket: Ticket) -> str:
    """Return what the clerk is told of a ticket: the customer's words, and what they ticked in the form."""
    if ticket.order_id and ticket.order_id not in ticket.text:
        return f"{ticket.text} (order {ticket.order_id})"
    if ticket.wanted is None:
        return ticket.text
    return f"{ticket.text} {FORM[ticket.wanted[-1].kind] if ticket.wanted else 'Thank you.'}"


def tools(shop: httpx.AsyncClient) -> list[Any]:
    """Return the clerk's tools, bound to one shop."""
    lookup_order = _lookup_order(shop)
    return [
        Tool(lookup_order, prepare=_only_its_order),
        Tool(_refund(shop), prepare=_only_its_order),
        # As a whole it changes nothing: what does is the effect inside, which has its own row in the ledger.
        Tool(_change_address(shop, lookup_order), metadata={"surefoot": "read"}, prepare=_only_its_order),
        Tool(_send_parcel(shop), prepare=_only_its_order),
        Tool(_write_email(shop)),
    ]


async def _only_its_order(context: RunContext[str], tool: ToolDefinition) -> ToolDefinition:
    """Offer the tool for the ticket's order only."""
    if not context.deps:
        return tool
    schema = tool.parameters_json_schema
    properties = {**schema["properties"], "order_id": {"type": "string", "enum": [context.deps]}}
    return replace(tool, parameters_json_schema={**schema, "properties": properties})


def _lookup_order(shop: httpx.AsyncClient) -> Callable[..., Awaitable[client.Order]]:
    @sf.read
    async def lookup_order(order_id: str) -> client.Order:
        """Look up an order: items, prices, status."""
        return await _read_patiently(lambda: client.lookup_order(shop, order_id))

    return lookup_order


def _refund(shop: httpx.AsyncClient) -> Callable[..., Awaitable[client.Refund]]:
    @sf.effect(
        key="refund:{order_id}",
        match=("amount",),
        in_doubt=sf.Resend(key_ttl="24h"),
        refused_on=(client.ShopRefused,),
    )
    async def refund(order_id: str, amount: Amount, reason: Words) -> client.Refund:
        """Pay money back for an order."""
        key = sf.current_effect().idempotency_key
        return await _unless_busy(lambda: client.refund(shop, order_id, amount, reason, idempotency_key=key))

    return refund


def _change_address(
    shop: httpx.AsyncClient, lookup_order: Callable[..., Awaitable[client.Order]]
) -> Callable[..., Awaitable[Any]]:
    async def is_set(order_id: str, address: str) -> bool:
        order = await _read_patiently(lambda: client.lookup_order(shop, order_id))
        return " ".join(order.address.split()) == " ".join(address.split())

    @sf.effect(in_doubt=sf.Overwrite(read_back=is_set), refused_on=(client.ShopRefused,))
    async def write_address(order_id: str, address: str, if_match: str) -> client.AddressChange | None:
        """Overwrite an order's address, but only that version of the order. None when only a read-back knows it."""
        try:
            return await _unless_busy(lambda: client.change_address(shop, order_id, address, if_match=if_match))
        except client.ShopChanged as changed:
            raise sf.PreconditionFailed(str(changed)) from changed

    async def change_address(order_id: str, address: Address) -> Any:
        """Change the delivery address of an order."""
        # The version is read first and recorded, so that every send of the write, whenever and by whom, names the same.
        try:
            order = await lookup_order(order_id)
        except sf.NotDone as refused:
            return {"outcome": "not_done", "reason": refused.reason}
        return tell(await write_address.outcome(order_id, address, order.etag))

    return change_address


def _write_email(shop: httpx.AsyncClient) -> Callable[..., Awaitable[client.Email]]:
    async def was_sent() -> sf.Landed | sf.NotLanded:
        reference = sf.current_effect().idempotency_key
        found = await _read_patiently(lambda: client.find_mails(shop, reference))
        return sf.Landed(found[0]) if found else sf.NotLanded()

    @sf.effect(in_doubt=sf.Probe(ask=was_sent, longest_life=MAIL_LIFE_S), refused_on=(client.ShopRefused,))
    async def write_email(to: MailAddress, subject: Line, text: Words) -> client.Email:
        """Write an e-mail to the customer."""
        this = sf.current_effect()
        expires_at = None if this.expires_at_ms is None else this.expires_at_ms / 1_000
        return await _unless_busy(
            lambda: client.send_mail(
                shop, to, subject, text, client_reference=this.idempotency_key, expires_at=expires_at
            )
        )

    return write_email


def _send_parcel(shop: httpx.AsyncClient) -> Callable[..., Awaitable[client.Parcel]]:
    @sf.effect(refused_on=(client.ShopRefused,))
    async def send_parcel(order_id: str, items: Articles) -> client.Parcel:
        """Send items of an order again."""
        return await _unless_busy(lambda: client.send_parcel(shop, order_id, items))

    return send_parcel


async def _unless_busy(call: Call[T]) -> T:
    """Act; try again only what was not done: the shop said so, or it could not be reached.

    Raises:
        NotDone: It stayed busy, and no earlier attempt at this effect has sent anything.
    """
    for pause_s in _PAUSES_S:
        try:
            return await call()
        except (client.ShopUnavailable, httpx.ConnectError):
            await asyncio.sleep(pause_s)
    try:
        return await call()
    except client.ShopUnavailable as busy:
        if sf.current_effect().attempt > 1:  # it says nothing about what an earlier attempt has sent
            raise
        raise sf.NotDone(str(busy)) from busy


async def _read_patiently(call: Call[T]) -> T:
    for pause_s in _PAUSES_S:
        try:
            return await call()
        except (client.ShopUnavailable, httpx.TransportError):
            await asyncio.sleep(pause_s)
    return await call()
