"""A module of a user's with everything in it that doctor should see, and beside each mistake the same thing done well."""

from __future__ import annotations

import random
import time
import uuid
from datetime import datetime
from typing import Any

import httpx
from pydantic_ai import Agent, RunContext

import surefoot as sf


class BaseRetrying:
    """Poses as tenacity's."""


BaseRetrying.__module__ = "tenacity"


def retry(function: Any) -> Any:
    """Pose as tenacity's decorator."""
    function.retry = BaseRetrying()
    return function


patient = httpx.AsyncClient(timeout=60.0, transport=httpx.AsyncHTTPTransport(retries=3))
quick = httpx.AsyncClient(timeout=2.0)


async def ask(order_id: str) -> sf.CannotTell:
    return sf.CannotTell()


@sf.effect(key="careless.refund:{order_id}", in_doubt=sf.Resend(), name="careless.refund")
async def refund(order_id: str, amount: int) -> str:
    return (await patient.post("/refunds", json={"order": order_id})).text


def _headers() -> dict[str, str]:
    return {"Idempotency-Key": sf.current_effect().idempotency_key}


@sf.effect(key="careful.refund:{order_id}", in_doubt=sf.Resend(key_ttl="30m"), name="careful.refund")
async def careful_refund(order_id: str, amount: int) -> str:
    return (await quick.post("/refunds", headers=_headers())).text


@sf.effect(
    key="careless.mail:{order_id}", in_doubt=sf.Probe(ask, longest_life="5s"), one_request=True, name="careless.mail"
)
async def mail(order_id: str) -> str:
    return (await patient.post("/mail")).text


@sf.effect(key="careful.mail:{order_id}", in_doubt=sf.Probe(ask, longest_life="5s"), name="careful.mail")
async def careful_mail(order_id: str) -> str:
    return (await quick.post("/mail")).text


@sf.effect(name="careless.ship")
def ship(order_id: str, note: str) -> str:
    import json

    time.sleep(0)
    return json.dumps([order_id, note])


@sf.effect(name="careless.hold", key="careless.hold:{order_id}", in_doubt=sf.AskPerson(deadline="4h"), timeout_s=5)
@retry
def hold(order_id: str) -> str:
    return order_id


@sf.read(name="careless.price")
async def price(order_id: str) -> int:
    time.sleep(0)
    return len(order_id)


async def cancel_order(context: RunContext[None], order_id: str, reason: str) -> str:
    return order_id


async def find_order(order_id: str) -> str:
    return order_id


async def list_orders() -> list[str]:
    return []


app = sf.Surefoot("sqlite:///careless.db")
support = Agent("test", name="careless support", tools=[refund, cancel_order, find_order, list_orders])
durable = app.agent(support, reads=["list_orders"])
nameless = Agent("test")
other = Agent("test", name="other")


@sf.durable(name="careless run")
async def careless_run(order_id: str) -> str:
    started = time.time()
    label = f"{uuid.uuid4()} {random.random()} {datetime.now()}"
    with open("/dev/null") as file:  # noqa: PTH123  as users write it
        label += file.read()

    async def later() -> float:
        return time.time()

    return label + str(started) + await careful_refund(order_id, len(str(await sf.now())))


@sf.durable(name="careful run")
async def careful_run(order_id: str) -> str:
    return f"{await sf.uuid()} {await sf.random()}"
