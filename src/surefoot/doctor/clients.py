"""Clients that retry by themselves, beneath an effect's claim: how each is recognized, and what to set. A table, and looks.

Nothing is imported for it: a client that is not there is not looked for. A retry beneath us is a second request under a
claim that knows of one; with a service that doesn't dedupe it is the harm itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from surefoot.doctor.inside import Inside


@dataclass(frozen=True)
class Client:
    """One kind of client.

    Attributes:
        title: What people call it.
        is_it: The class it is an instance of, by module and name, or the module itself.
        retries: Returns how often it retries; 0 or None for never.
        to_set: What to write so that it doesn't.
        timeout_s: Returns how long it waits for an answer, in seconds; None if that can't be told.
    """

    title: str
    is_it: tuple[str, ...]
    retries: Callable[[Any], int | None]
    to_set: str
    timeout_s: Callable[[Any], float | None] = lambda _: None


def _at(*path: str) -> Callable[[Any], Any]:
    def find(thing: Any) -> Any:
        for name in path:
            thing = thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)
        return thing

    return find


def _count(value: Any) -> int | None:
    """Return a number of retries: given as such, or in urllib3's own class."""
    total = getattr(value, "total", value)
    return total if isinstance(total, int) and not isinstance(total, bool) else None


def _seconds(value: Any) -> float | None:
    found = getattr(value, "read", value)
    return float(found) if isinstance(found, int | float) else None


def _of_session(session: Any) -> int | None:
    counts = [_count(getattr(one, "max_retries", 0)) or 0 for one in getattr(session, "adapters", {}).values()]
    return max(counts, default=0)


def _of_pools(manager: Any) -> int | None:
    given = getattr(manager, "connection_pool_kw", {}).get("retries")
    return 3 if given is None else _count(given)


def _of_boto(client: Any) -> int | None:
    retries = _at("meta", "config", "retries")(client) or {}
    attempts = retries.get("total_max_attempts")
    return attempts - 1 if isinstance(attempts, int) else retries.get("max_attempts", 4)


def _of_stripe(thing: Any) -> int | None:
    """Return what a client was given, or else what holds for the whole module."""
    given = _at("_requestor", "_options", "max_network_retries")(thing)
    return _count(getattr(sys.modules.get("stripe"), "max_network_retries", 0) if given is None else given)


CLIENTS: tuple[Client, ...] = (
    Client("the OpenAI client", ("openai.OpenAI", "openai.AsyncOpenAI"), lambda one: _count(one.max_retries),
           "write OpenAI(max_retries=0)", lambda one: _seconds(one.timeout)),
    Client("the Anthropic client", ("anthropic.Anthropic", "anthropic.AsyncAnthropic"),
           lambda one: _count(one.max_retries), "write Anthropic(max_retries=0)", lambda one: _seconds(one.timeout)),
    Client("an httpx client", ("httpx.Client", "httpx.AsyncClient"),
           lambda one: _count(_at("_transport", "_pool", "_retries")(one)), "write httpx.HTTPTransport(retries=0)",
           lambda one: _seconds(one.timeout)),
    Client("a requests session", ("requests.Session",), _of_session,
           "write session.mount(..., HTTPAdapter(max_retries=0))"),
    Client("a urllib3 pool", ("urllib3.PoolManager",), _of_pools, "write PoolManager(retries=False)"),
    Client("a boto3 client", ("botocore.BaseClient",), _of_boto, 'write Config(retries={"total_max_attempts": 1})',
           lambda one: _seconds(_at("meta", "config", "read_timeout")(one))),
    Client("the Stripe client", ("stripe.StripeClient", "stripe"), _of_stripe, "write max_network_retries=0"),
    Client("a function under tenacity", ("tenacity.BaseRetrying",), lambda one: 1,
           "write no @retry above it"),
)  # fmt: skip
"""The clients that are known. A new one is a line."""


def clients_in(inside: Inside) -> Iterator[tuple[str, Client, Any]]:
    """Yield the known clients that a function can reach, by the name it has for them."""
    for name, thing in inside.reached.values():
        for part, whose in ((thing, name), (getattr(thing, "retry", None), f"@retry of {name}")):
            names = _names_of(part)
            found = next((client for client in CLIENTS if names & set(client.is_it)), None)
            if found is not None:
                yield whose, found, part


def retries_of(client: Client, thing: Any) -> int:
    """Return how often a client retries; 0 where that can't be told."""
    try:
        return client.retries(thing) or 0
    except Exception:  # another version of the client, with other insides
        return 0


def timeout_of(client: Client, thing: Any) -> float | None:
    """Return how long a client waits; None where that can't be told."""
    try:
        return client.timeout_s(thing)
    except Exception:
        return None


def _names_of(thing: Any) -> set[str]:
    """Return the names a thing may be known by: its classes by package and name, or a module's own."""
    if isinstance(thing, type) or thing is None:
        return set()
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}" for kind in type(thing).__mro__}
    return kinds | ({thing.__name__} if type(thing).__name__ == "module" else set())
