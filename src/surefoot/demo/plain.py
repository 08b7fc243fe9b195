"""The plain loop beside it: the same decisions, carried out as many agents do, with retries and a note of what is done.

    python -m surefoot.demo.plain DIRECTORY --url URL

It is a member of a `crew`, as the workers are, and it is written in good faith: it retries what failed, up to `TRIES`
times with a pause; it takes a refusal for an answer; it notes each finished act on disk at once, and after a crash goes
on with what is not noted. What it lacks is what this project is about: nothing is claimed before the act, so a crash or
a lost answer looks like an act that was never begun.
"""

import argparse
import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from surefoot.demo import client
from surefoot.demo.books import Asked, Outcome
from surefoot.demo.crew import await_name
from surefoot.demo.place import Place

TRIES = 3
PAUSE_S = 0.2


async def loop(place: Place, url: str) -> None:
    """Carry out every act that is not noted yet."""
    noted = {(note["ticket"], note["act"]) for note in notes(place)}
    async with client.open_shop(url) as shop:
        for ticket, number, act in _acts(place):
            if (ticket, number) not in noted:
                outcome, reason = await _attempt(shop, act)
                note(place, ticket=ticket, act=number, outcome=outcome, reason=reason)


def _acts(place: Place) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for decided in json.loads(place.decisions.read_text(encoding="utf-8")):
        for number, act in enumerate(decided["acts"]):
            yield decided["ticket"], number, act


async def _attempt(shop: httpx.AsyncClient, act: Mapping[str, Any]) -> tuple[str, str]:
    reason = ""
    for number in range(TRIES):
        await asyncio.sleep(PAUSE_S * number)
        try:
            await _do(shop, act["kind"], act["details"])
        except client.ShopRefused as refused:
            return Outcome.NOT_DONE, str(refused)
        except (client.ShopSaid, httpx.HTTPError) as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            return Outcome.DONE, ""
    return Outcome.NOT_DONE, f"gave up after {TRIES} tries: {reason}"


async def _do(shop: httpx.AsyncClient, kind: str, details: Mapping[str, Any]) -> None:
    match kind:
        case "refund":
            amount = Decimal(str(details["amount"]))
            await client.refund(shop, details["order_id"], amount, details["reason"])
        case "address":
            await client.change_address(shop, details["order_id"], details["address"])
        case "email":
            await client.send_mail(shop, details["to"], details["subject"], details["text"])
        case "parcel":
            await client.send_parcel(shop, details["order_id"], details["items"])
        case _:
            raise ValueError(f"the shop does nothing called {kind!r}")


def note(place: Place, **what: object) -> None:
    """Add a line to the notes, on disk before anything else happens."""
    with place.notes.open("a", encoding="utf-8") as file:
        file.write(json.dumps(what, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def notes(place: Place) -> list[dict[str, Any]]:
    """Return the notes; a last line that a crash has cut is none."""
    if not place.notes.exists():
        return []
    whole = place.notes.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.split("\n") if line.startswith("{") and line.endswith("}")]


def asked_by_loop(place: Place) -> list[Asked]:
    """Return every decided act, and how it ended by the loop's own notes."""
    ends = {(each["ticket"], each["act"]): Outcome(each["outcome"]) for each in notes(place)}
    return [
        Asked(act["kind"], act["details"], ends.get((ticket, number)), ticket_id=ticket)
        for ticket, number, act in _acts(place)
    ]


def _end_with_starter() -> None:
    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and carry out the decisions."""
    parser = argparse.ArgumentParser(prog="python -m surefoot.demo.plain", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path, help="the demo's directory")
    parser.add_argument("--url", required=True, help="the second shop")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    await_name()
    _end_with_starter()
    place = Place(options.directory)
    with httpx.Client(base_url=options.url, transport=httpx.HTTPTransport(retries=5), trust_env=False) as office:
        office.post("/_control/workers", json={"pid": os.getpid()}).raise_for_status()
    print("ready", flush=True)
    asyncio.run(loop(place, options.url))


if __name__ == "__main__":
    main()
