"""The service: that it offers what its terms say, and fails just as a fault says. Its kills: see `test_harness`."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.worlds.client import (
    Client,
    Expired,
    Found,
    InFlight,
    KeyConflict,
    NotSent,
    Refused,
    ReplyLost,
    StaleToken,
    Unsupported,
)
from tests.worlds.dojo import Json
from tests.worlds.service import Fault, Offer, Service, Terms


@dataclass
class Counter:
    """A world that counts; `fail` refuses."""

    count: int = 0
    refusals: int = field(default=0)

    def perform(self, tool: str, args: Mapping[str, Json]) -> tuple[Json, str | None]:
        if tool == "fail":
            self.refusals += 1
            return None, "ValueError: no"
        self.count += args["by"]
        return self.count, None

    def state(self) -> Json:
        return {"count": self.count}


@asynccontextmanager
async def hosted(directory: Path, terms: Terms) -> AsyncIterator[tuple[Client, Service, Counter]]:
    world = Counter()
    service = Service(world, terms)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "s"))
    server = await asyncio.start_unix_server(service.handle, sock=listener)
    async with server:
        yield Client(str(directory / "s")), service, world
        await service.settled()


async def until(fact: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not fact():
            await asyncio.sleep(0)


async def test_a_key_is_acted_on_once_and_answers_the_same_again(tmp_path: Path) -> None:
    """Would catch a service that claims to keep keys and does not: every engine would fail against it."""
    async with hosted(tmp_path, Terms(Offer.KEYS)) as (client, _, world):
        answers = [await client.call("add", {"by": 2}, key="k") for _ in range(3)]
        other = await client.call("add", {"by": 2}, key="other")

    assert answers == [2, 2, 2]
    assert (other, world.count) == (4, 4)


async def test_a_key_with_another_body_is_a_conflict(tmp_path: Path) -> None:
    """Would catch a service that serves the first answer for a different request."""
    async with hosted(tmp_path, Terms(Offer.KEYS)) as (client, _, world):
        await client.call("add", {"by": 2}, key="k")
        with pytest.raises(KeyConflict, match="another body"):
            await client.call("add", {"by": 3}, key="k")

    assert world.count == 2


async def test_a_key_is_forgotten_after_its_life(tmp_path: Path) -> None:
    """Would catch keys that protect for ever here and for a day in the field."""
    async with hosted(tmp_path, Terms(Offer.KEYS, key_life_s=0.0)) as (client, _, world):
        await client.call("add", {"by": 1}, key="k")
        await client.call("add", {"by": 1}, key="k")

    assert world.count == 2


async def test_a_refusal_is_kept_under_its_key(tmp_path: Path) -> None:
    """Would catch refusals that are tried again: at real services a stored refusal is final."""
    async with hosted(tmp_path, Terms(Offer.KEYS)) as (client, _, world):
        for _ in range(2):
            with pytest.raises(Refused, match="ValueError: no"):
                await client.call("fail", {}, key="k")

    assert world.refusals == 1


async def test_a_late_request_is_absorbed_by_the_key_that_acted_meanwhile(tmp_path: Path) -> None:
    """Would catch a straggler that acts although its key was used."""
    async with hosted(tmp_path, Terms(Offer.KEYS)) as (client, service, world):
        service.faults.append(Fault(lands_after_s=0.02))
        late = asyncio.create_task(client.call("add", {"by": 1}, key="k"))
        await until(lambda: service.log)
        prompt = await client.call("add", {"by": 1}, key="k")
        answers = (prompt, await late)

    assert answers == (1, 1)
    assert world.count == 1


async def test_a_key_whose_request_is_at_work_inside_says_so(tmp_path: Path) -> None:
    """Would catch two requests with one key running at the same time."""
    async with hosted(tmp_path, Terms(Offer.KEYS)) as (client, service, world):
        service.faults.append(Fault(lands_after_s=0.5, claims_on_arrival=True))
        late = asyncio.create_task(client.call("add", {"by": 1}, key="k"))
        await until(lambda: service.log)
        with pytest.raises(InFlight):
            await client.call("add", {"by": 1}, key="k")
        answers = (await late, await client.call("add", {"by": 1}, key="k"))

    assert answers == (1, 1)
    assert world.count == 1


async def test_a_look_up_tells_what_landed_and_what_has_not(tmp_path: Path) -> None:
    """Would catch a probe that lies about landed, refused or unseen references."""
    async with hosted(tmp_path, Terms(Offer.PROBE)) as (client, _, _world):
        await client.call("add", {"by": 2}, reference="r1")
        with pytest.raises(Refused):
            await client.call("fail", {}, reference="r2")
        seen = [await client.look_up(reference) for reference in ("r1", "r2", "r3")]

    assert seen == [Found(value=2), Found(refusal="ValueError: no"), None]


async def test_a_request_past_its_expiry_is_not_carried_out_by_the_service_clock(tmp_path: Path) -> None:
    """Would catch an expiry that is checked at the client, or at arrival instead of at the act."""
    async with hosted(tmp_path, Terms(Offer.PROBE, clock_ahead_s=100.0)) as (client, _, world):
        with pytest.raises(Expired):
            await client.call("add", {"by": 1}, reference="r", expires_at=time.time() + 50)
        await client.call("add", {"by": 1}, reference="r", expires_at=time.time() + 200)
    assert world.count == 1


async def test_a_late_request_expires_on_its_way(tmp_path: Path) -> None:
    """Would catch a service that checks the expiry when the request arrives but acts much later."""
    async with hosted(tmp_path, Terms(Offer.PROBE)) as (client, service, world):
        service.faults.append(Fault(lands_after_s=0.05))
        with pytest.raises(Expired):
            await client.call("add", {"by": 1}, reference="r", expires_at=time.time() + 0.02)
        assert await client.look_up("r") is None

    assert world.count == 0


async def test_an_older_token_is_refused(tmp_path: Path) -> None:
    """Would catch a fence that lets the paused holder through."""
    async with hosted(tmp_path, Terms(Offer.PROBE)) as (client, _, world):
        await client.call("add", {"by": 1}, reference="r", token=7)
        with pytest.raises(StaleToken):
            await client.call("add", {"by": 1}, reference="r", token=6)
        await client.call("add", {"by": 1}, reference="r", token=7)

    assert world.count == 2


async def test_a_service_that_offers_nothing_heeds_nothing(tmp_path: Path) -> None:
    """Would catch a control service that is kinder than the ones it stands for."""
    async with hosted(tmp_path, Terms(Offer.NOTHING)) as (client, _, world):
        for token in (2, 1):
            await client.call("add", {"by": 1}, key="k", reference="r", expires_at=1.0, token=token)
        with pytest.raises(Unsupported):
            await client.look_up("r")

    assert world.count == 2


@pytest.mark.parametrize("answer", ["cut", "hang"])
async def test_a_reply_is_lost_after_the_act(tmp_path: Path, answer: str) -> None:
    """Would catch a fault that also keeps the act from happening: then a retry would look harmless."""
    async with hosted(tmp_path, Terms(Offer.NOTHING)) as (client, service, world):
        service.faults.append(Fault(answer=answer))
        with pytest.raises(ReplyLost):
            await client.call("add", {"by": 1}, timeout_s=0.05)

    assert world.count == 1


async def test_a_fault_strikes_the_call_it_names_and_only_once(tmp_path: Path) -> None:
    """Would catch faults that hit a neighbour or the recovery."""
    async with hosted(tmp_path, Terms(Offer.NOTHING)) as (client, service, _world):
        service.faults.append(Fault("b", answer="cut"))
        await client.call("add", {"by": 1}, label="a")
        with pytest.raises(ReplyLost):
            await client.call("add", {"by": 1}, label="b")
        assert await client.call("add", {"by": 1}, label="b") == 3


async def test_the_log_tells_what_arrived_and_what_acted(tmp_path: Path) -> None:
    """Would catch a count of duplicates that misses acts, or takes absorbed repeats for acts."""
    async with hosted(tmp_path, Terms(Offer.KEYS)) as (client, service, _world):
        await client.call("add", {"by": 1}, key="k", label="a")
        await client.call("add", {"by": 1}, key="k", label="a")

    assert [entry["what"] for entry in service.log] == ["arrived", "acted", "answered", "arrived", "answered"]
    assert {entry["label"] for entry in service.log} == {"a"}


async def test_settled_waits_for_late_acts_of_clients_that_are_gone(tmp_path: Path) -> None:
    """Would catch a verdict over a world that is still changing."""
    async with hosted(tmp_path, Terms(Offer.NOTHING)) as (client, service, world):
        service.faults.append(Fault(lands_after_s=0.05))
        with pytest.raises(ReplyLost):
            await client.call("add", {"by": 1}, timeout_s=0.01)
        assert world.count == 0
        await service.settled()
        assert world.count == 1


async def test_nobody_listening_means_not_sent(tmp_path: Path) -> None:
    """Would catch a refused connection that counts as unknown."""
    client = Client(str(tmp_path / "none"))
    with pytest.raises(NotSent):
        await client.call("add", {"by": 1})
