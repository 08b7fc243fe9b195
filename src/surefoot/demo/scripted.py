"""A clerk that needs no model: it decides as a good clerk would on the built-in tickets, always in the same way.

For tests and for machines without weights. Always holds: a decision depends on the messages so far and on nothing else.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from surefoot.demo.agent import prompt_of
from surefoot.demo.tickets import ORDERS, TICKETS, Ticket, Wanted

TRIES_MAX = 3
"""How often an act is asked for that the shop was too busy to do."""

Plan = list[tuple[str, dict[str, Any]]]
_EMAILS = {order.order_id: order.email for order in ORDERS}


def scripted_model() -> FunctionModel:
    """Return the clerk without a model."""
    return FunctionModel(_decide, model_name="scripted")


def _decide(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    plan = _plan(_prompt(messages))
    turn = 0
    tries = 1
    for returned in _returns(messages):
        if _is_worth_another(returned) and tries < TRIES_MAX:
            tries += 1
        else:
            turn, tries = turn + 1, 1
    if turn >= len(plan):
        return _response(TextPart("Done."))
    name, arguments = plan[turn]
    return _response(ToolCallPart(name, arguments, tool_call_id=f"call-{len(messages)}"))


def _is_worth_another(returned: object) -> bool:
    """Whether a tool said that it has not done it, for a reason that passes."""
    if not isinstance(returned, Mapping) or returned.get("outcome") != "not_done":
        return False
    return "refused by the service" not in str(returned.get("reason"))


def _response(part: TextPart | ToolCallPart) -> ModelResponse:
    usage = RequestUsage(input_tokens=100, output_tokens=20)
    return ModelResponse(parts=[part], usage=usage, model_name="scripted")


def _prompt(messages: list[ModelMessage]) -> str:
    first = messages[0]
    assert isinstance(first, ModelRequest), "a conversation begins with a request"
    return next(str(part.content) for part in first.parts if part.part_kind == "user-prompt")


def _returns(messages: list[ModelMessage]) -> Iterator[object]:
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolReturnPart):
                yield part.content


def _plan(prompt: str) -> Plan:
    ticket = next((ticket for ticket in TICKETS if prompt_of(ticket) == prompt), None)
    if ticket is None:
        return _plan_for_anything(prompt)
    look: Plan = [("lookup_order", {"order_id": ticket.order_id})] if ticket.order_id else []
    return look + [_act(ticket, wanted) for wanted in ticket.wanted or ()]


def _act(ticket: Ticket, wanted: Wanted) -> tuple[str, dict[str, Any]]:
    match wanted.kind:
        case "refund":
            said = {
                "order_id": wanted.order_id,
                "amount": str(wanted.amount),
                "reason": f"as asked in {ticket.ticket_id}",
            }
            return "refund", said
        case "address":
            return "change_address", {"order_id": wanted.order_id, "address": ", ".join(wanted.address_has).title()}
        case "parcel":
            return "send_parcel", {"order_id": wanted.order_id, "items": list(wanted.items)}
    to = _EMAILS[wanted.order_id]
    return "write_email", {"to": to, "subject": f"Your order {wanted.order_id}", "text": "We are sorry. Your shop"}


def _plan_for_anything(prompt: str) -> Plan:
    """Every tool once, with the ticket's own words: what comes in with a text goes through all of them."""
    words = prompt.replace("(", " ").replace(")", " ").split()
    order_id = words[words.index("order") + 1] if "order" in words[:-1] else "A-1001"
    return [
        ("lookup_order", {"order_id": order_id}),
        ("refund", {"order_id": order_id, "amount": "5.00", "reason": prompt}),
        ("change_address", {"order_id": order_id, "address": prompt[:80]}),
        ("send_parcel", {"order_id": order_id, "items": ["BOX-1"]}),
        ("write_email", {"to": "somebody@customers.example", "subject": prompt[:60], "text": prompt}),
    ]
