"""Runs a pair of agents against one environment, a process of its own: `python -m tests.worlds.pair_harness`."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.worlds.dojo import Json, World
from tests.worlds.pairs import CHANGES
from tests.worlds.service import Control, Fault, Offer, Service, Terms, serve

import surefoot as sf

NAMES = ("a", "b")

KILLS = {
    "before it acts": Fault("effect", kill="arrival", lands_after_s=None),
    "when it has acted": Fault("effect", kill="acted"),
    "before it acts, and it lands late": Fault("effect", kill="arrival", lands_after_s=0.3),
}
"""When one of the two is killed: whichever acts first, by its request."""


@dataclass(frozen=True)
class Ended:
    """What came of a pair.

    Attributes:
        state: The environment.
        told: What each agent was told of its effects.
        acts: How often an effect was carried out.
        kills: How many agents were killed.
    """

    state: Json
    told: list[list[str]]
    acts: int
    kills: int


async def run_pair(url: str, folder: Path, pair: Sequence[str], how: str, kill: Fault | None = None) -> Ended:
    """Let two agents work at once.

    Args:
        url: A store nobody else uses.
        folder: For files of this pair.
        pair: Their tasks.
        how: See `pair_agent`.
        kill: When one of them is killed; the other goes on with its work.
    """
    met = folder / "met"
    met.mkdir()
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(sf.Surefoot(url, is_worker=False))
        control = await stack.enter_async_context(_world(str(folder / "s"), pair[0]))
        control.arm(*([] if kill is None else [kill]))
        for name, task, other in zip(NAMES, pair, pair[::-1], strict=True):
            await stack.enter_async_context(_agent(url, str(folder / "s"), str(met), how, name, task, other))
        told = [await (await app.run(name)).result(timeout_s=60) for name in NAMES]
        log = (await asyncio.to_thread(control.collect))[1]
        acts = sum(one["what"] == "acted" and one["tool"] in CHANGES for one in log)
        return Ended(control.state(), told, acts, sum(one["what"] == "killed" for one in log))


@asynccontextmanager
async def _agent(*arguments: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.worlds.pair_agent", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"started\n"
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def _world(path: str, task: str) -> AsyncIterator[Control]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    ours, theirs = socket.socketpair()
    with listener, theirs:
        files = (listener.fileno(), theirs.fileno())
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.worlds.pair_harness", task, *map(str, files), pass_fds=files
        )
    try:
        with ours:
            yield Control(ours)
    finally:
        process.kill()
        await process.wait()


def main(task: str, listener: str, control: str) -> None:
    """Be the environment."""
    clients, harness = (socket.socket(fileno=int(one)) for one in (listener, control))
    asyncio.run(serve(clients, harness, Service(World(task), Terms(Offer.KEYS))))


if __name__ == "__main__":
    main(*sys.argv[1:])
