"""Approvals outlive the processes that ask, decide and act: each is killed at every crossing of the store, for real.

A crossing is the commit of a unit: it is killed right before the COMMIT, or right after it. One worker or two; in the
middle of the act; and whoever approves. What must come out: the act happened under one key, after it was approved; the
approval is used once; the trail has the decision once, whole.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.test_approvals import states

import surefoot as sf
from surefoot.approvals import AlreadyDecided
from surefoot.people import trail

WORKER = """
import asyncio, os, signal, sys
from pathlib import Path
import surefoot as sf
from surefoot.store.writer import Writer

url, role, label, when, nth = sys.argv[1:5] + [int(sys.argv[5])]
world = Path(sys.argv[6])
left = nth

def die():
    os.kill(os.getpid(), signal.SIGKILL)

whole = Writer._transact_at_desk

def transact(self, batch, *, is_hurried):
    global left
    is_hit = False
    if (is_hurried or len(batch) == 1) and label in [ticket.label for ticket in batch]:
        left -= 1
        is_hit = left == 0
    if is_hit and when == "before":
        self._desk.finish = lambda waiting, rings: die()
    found = whole(self, batch, is_hurried=is_hurried)
    if is_hit and when == "after":
        die()
    return found

Writer._transact_at_desk = transact

@sf.effect(key="pay:{order}", approve=sf.Approve(), in_doubt=sf.Resend(key_ttl="24h"))
async def pay(order: str, amount: int) -> str:
    with world.open("a") as books:
        books.write(sf.current_effect().idempotency_key + "\\n")
    if label == "act":
        die()
    return f"paid {order}"

@sf.durable
async def paying(order: str, amount: int) -> str:
    return await pay(order, amount)

async def main():
    async with sf.Surefoot(url, is_worker=role == "worker") as app:
        if role == "worker":
            await asyncio.Event().wait()
        await app.approve(1, by="anna", reason="fine")

asyncio.run(main())
"""

CROSSINGS = [
    ("take", 1, "the run is taken"),
    ("claim", 1, "the approval is asked for"),
    ("park", 1, "the run is parked"),
    ("take", 2, "the run is woken"),
    ("claim", 2, "the effect is claimed, and the approval used"),
    ("settle", 1, "the outcome is recorded"),
    ("end", 1, "the run ends"),
]
POINTS = [(label, when, nth) for label, nth, _ in CROSSINGS for when in ("before", "after")] + [("act", "", 0)]
SAMPLE = [("claim", "after", 1), ("claim", "before", 2), ("act", "", 0)]
NEVER = ("nothing", "", 0)


class Stage:
    """A store, a world, and the processes on it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.world = folder / "world"
        self.processes: list[subprocess.Popen[str]] = []

    def begin(self, role: str, point: tuple[str, str, int]) -> subprocess.Popen[str]:
        """Begin a process that is killed at a point."""
        label, when, nth = point
        words = [sys.executable, "-c", WORKER, self.url, role, label, when, str(nth), str(self.world)]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def acts(self) -> list[str]:
        """Return the keys of the acts, as the world has them."""
        return self.world.read_text().splitlines() if self.world.exists() else []

    def revive(self) -> None:
        """Begin a sound worker for each that was killed."""
        for process in list(self.processes):
            if process.poll() is not None and process.returncode == -signal.SIGKILL:
                self.processes.remove(process)
                assert process.stderr is not None
                process.stderr.close()
                self.begin("worker", NEVER)


@pytest.fixture
def stage(url: str, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(url, tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


@sf.durable(name="paying")
async def paying(order: str, amount: int) -> str:
    """Stand for the run whose code is in the other processes."""
    raise AssertionError("it is executed there")


async def play(stage: Stage, point: tuple[str, str, int], workers: int = 1) -> None:
    """Run the whole story with a worker that is killed at a point."""
    async with sf.Surefoot(stage.url, is_worker=False) as app:
        run = await app.start(paying, "A", 500, id="r")
        first = stage.begin("worker", point)
        for _ in range(workers - 1):
            stage.begin("worker", NEVER)
        async with asyncio.timeout(60):
            while not await app.approvals():
                stage.revive()
                await asyncio.sleep(0.02)
            assert stage.acts() == []
            (asked,) = await app.approvals()  # of any number: PostgreSQL leaves out those of rolled-back transactions
            await app.approve(asked.id, by="anna", reason="fine")
            while (await run.status()).state != "completed":
                stage.revive()
                await asyncio.sleep(0.02)
        assert await run.result(timeout_s=10) == "paid A"
        if workers == 1:  # else the other may have been faster
            assert await asyncio.to_thread(first.wait, 30) == -signal.SIGKILL
        assert len(set(stage.acts())) == 1
        assert len(stage.acts()) <= 2  # twice where it was killed in the act: the service dedupes on the key
        check(app)


def check(app: sf.Surefoot) -> None:
    """Check what is left behind."""
    assert states(app) == ["used"]
    assert [(one.act, one.who) for one in app.store.read_now(trail.entries)] == [("approve", "anna")]
    assert app.store.read_now(trail.verify) == []


@pytest.mark.parametrize("point", SAMPLE, ids=lambda point: "-".join(map(str, point)))
async def test_a_sample_of_the_kills(stage: Stage, point: tuple[str, str, int]) -> None:
    """Catches the worst of what the sweep catches: an approval that is lost, or acts twice, over a crash."""
    await play(stage, point)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("point", POINTS, ids=lambda point: "-".join(map(str, point)))
async def test_the_worker_is_killed_at_every_crossing(stage: Stage, point: tuple[str, str, int], workers: int) -> None:
    """Catches an act before its approval, two acts on one, and an approval that a crash forgets."""
    await play(stage, point, workers)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_whoever_approves_is_killed_in_the_middle(stage: Stage, when: str) -> None:
    """Catches a decision that is half there: the state without the trail, or without waking the run."""
    async with sf.Surefoot(stage.url, is_worker=False) as app:
        run = await app.start(paying, "A", 500, id="r")
        stage.begin("worker", NEVER)
        async with asyncio.timeout(60):
            while not await app.approvals():
                await asyncio.sleep(0.02)
            approver = stage.begin("approver", ("decide", when, 1))
            while approver.poll() is None:
                await asyncio.sleep(0.02)
            assert approver.returncode == -signal.SIGKILL
            if when == "before":
                assert (states(app), stage.acts()) == (["pending"], [])
                assert app.store.read_now(trail.entries) == []
                await app.approve(1, by="anna", reason="fine")
            else:
                with pytest.raises(AlreadyDecided):
                    await app.approve(1, by="anna", reason="fine")
            assert await run.result(timeout_s=30) == "paid A"
        assert len(stage.acts()) == 1
        check(app)


async def test_a_denial_survives_kills(stage: Stage) -> None:
    """Catches a denied act that a new worker does after all."""
    async with sf.Surefoot(stage.url, is_worker=False) as app:
        run = await app.start(paying, "A", 500, id="r")
        worker = stage.begin("worker", ("park", "after", 1))
        async with asyncio.timeout(60):
            while worker.poll() is None:
                await asyncio.sleep(0.02)
            await app.deny(1, by="bob", reason="no")
            stage.revive()
            with pytest.raises(sf.RunFailed, match="denied by bob: no"):
                await run.result(timeout_s=30)
        assert (stage.acts(), states(app)) == ([], ["denied"])
        assert os.getpid() == app.store.read_now(trail.entries)[0].pid
