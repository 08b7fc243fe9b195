"""What tests of broken runs share: quick eviction, a process that kills itself, and looks at what is recorded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import surefoot as sf
from surefoot.effects.rows import desk
from surefoot.runs.rows.desk import show
from surefoot.store import Tx

Calls = list[Any]


@pytest.fixture
def quick_eviction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs that wait leave memory soon."""
    monkeypatch.setattr("surefoot.runs.live.run.LiveRun.wait.__kwdefaults__", {"grace_s": 0.1}, raising=False)
    monkeypatch.setattr("surefoot.runs.live.eviction.QUIET_S", 0.1)


def killed(url: str, code: str) -> None:
    """Run `code` in a process of its own, with `app` open on the store; it must end itself by `die()`."""
    script = f"""
import asyncio, os
import surefoot as sf

def die():
    os._exit(9)

async def main():
    async with sf.Surefoot({url!r}) as app:
        await body(app)
        await asyncio.sleep(20)

{textwrap.dedent(code)}
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 9, ended.stderr


def ledger_states(app: sf.Surefoot) -> list[str]:
    """Return the states of all effects, oldest first."""
    return [one.state for one in reversed(app.store.read_now(desk.list_effects))]


def kinds(app: sf.Surefoot, run_id: str) -> list[str]:
    """Return the kinds of a run's records."""
    return [step.kind for step in app.store.read_now(lambda connection: show(connection, run_id)).steps]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.01)


async def held_up(
    app: sf.Surefoot, call: Awaitable[object], meanwhile: Callable[[Tx], object] = lambda _: None
) -> None:
    """Cancel a call while its claim waits for the disk, which goes on then; `meanwhile` comes right behind the claim."""
    may_write = threading.Event()
    app.store.append(lambda _: may_write.wait(10), label="test", on_error=None)
    calling = asyncio.ensure_future(call)
    await asyncio.sleep(0.05)
    app.store.append(meanwhile, label="test", on_error=None)
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    may_write.set()
    await app.store.barrier()
