"""Agents that read an account, decide for a while, and write: `python -m tests.contention.agents URL PORT MODE SEED ...`.

    none           read, decide, write: as agents do that know nothing of each other
    lease          sf.lease around all three
    precondition   sf.versioned and unchanged=; the version is sent, and the service compares it
    resource       sf.versioned and unchanged=, with resource= around the last look and the write

Prints one line of JSON per agent: for each update, how long it took from the wish to the outcome, and how often it had to
be decided again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from typing import Any

from tests.contention.service import Client

import surefoot as sf

DECIDE_S = 0.004
"""How long an agent thinks between reading and writing. A model takes longer, and is too late as often."""

TIMEOUT_S = 30.0
"""The bound of every wait."""

services: list[Client] = []


@sf.versioned("account/{account}", version="version")
async def look(account: str) -> dict[str, int]:
    found: dict[str, int] = await services[0].call("read", account)
    return found


async def _write(account: str, value: int, version: int | None = None) -> None:
    if not await services[0].call("write", account, value, version):
        raise sf.Stale(f"account/{account}", read_version=version)


@sf.effect
async def write(account: str, value: int) -> None:
    await _write(account, value)


@sf.effect(unchanged="account/{account}")
async def write_if_unchanged(account: str, value: int) -> None:
    await _write(account, value, int(sf.current_effect().versions[f"account/{account}"]))


@sf.effect(unchanged="account/{account}", resource="account/{account}", resource_timeout_s=TIMEOUT_S)
async def write_holding(account: str, value: int) -> None:
    await _write(account, value)


async def _decided(account: str) -> int:
    seen = await look(account)
    await asyncio.sleep(DECIDE_S)
    return seen["value"] + 1


async def _until_fresh(effect: Any, account: str) -> int:
    again = 0
    while True:
        try:
            await effect(account, await _decided(account))
        except sf.Stale:
            again += 1
        else:
            return again


async def _update(mode: str, account: str) -> int:
    match mode:
        case "none":
            await write(account, await _decided(account))
        case "lease":
            async with sf.lease(f"account/{account}", timeout=TIMEOUT_S):
                await write(account, await _decided(account))
        case "precondition":
            return await _until_fresh(write_if_unchanged, account)
        case _:
            return await _until_fresh(write_holding, account)
    return 0


@sf.durable
async def agent(mode: str, seed: str, updates: int, accounts: int) -> list[list[float]]:
    draws, told = random.Random(seed), list[list[float]]()
    for _ in range(updates):
        since_s = time.monotonic()
        again = await _update(mode, f"a{draws.randrange(accounts)}")
        told.append([time.monotonic() - since_s, again])
    return told


async def work(url: str, port: int, mode: str, seed: str, agents: int, updates: int, accounts: int) -> list[Any]:
    """Let agents of this process work; return what each says."""
    services[:] = [Client(port)]
    try:
        async with sf.Surefoot(url) as app:
            runs = [
                await app.start(agent, mode, f"{seed}.{n}", updates, accounts, id=f"{mode} {seed}.{n}")
                for n in range(agents)
            ]
            return [await run.result(timeout_s=600) for run in runs]
    finally:
        services[0].close()


def main() -> None:
    """Work as asked on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.contention.agents")
    parser.add_argument("url")
    parser.add_argument("port", type=int)
    parser.add_argument("mode")
    parser.add_argument("seed")
    for number in ("agents", "updates", "accounts"):
        parser.add_argument(number, type=int)
    for told in asyncio.run(work(**vars(parser.parse_args()))):
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
