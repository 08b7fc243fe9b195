"""The command line on a store in PostgreSQL: what looks and what decides works, what is for files says what to use."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import surefoot as sf
from surefoot.cli import main

SECRET = "a-password-of-the-server"


@sf.effect(name="pg pay", key="pay:{order}")
async def pay(order: str) -> str:
    if order == "doubt":
        raise TimeoutError
    return f"paid {order}"


@sf.effect(name="pg buy", key="buy:{order}", approve=sf.Approve())
async def buy(order: str) -> str:
    return f"bought {order}"


@sf.durable(name="pg paying")
async def paying(order: str) -> str:
    return await pay(order)


@sf.durable(name="pg buying")
async def buying(order: str) -> str:
    return await buy(order)


@sf.durable(name="pg waiting")
async def waiting() -> str:
    return str(await sf.wait_signal("go"))


class Shell:
    """Commands on one store, with a password in its URL."""

    def __init__(self, url: str, capture: pytest.CaptureFixture[str]) -> None:
        self.url = url.replace("//postgres:@", f"//postgres:{SECRET}@")
        self._capture = capture

    def type(self, *words: str, fails_with: int = 0) -> str:
        """Run a command; return what it printed."""
        self._capture.readouterr()
        with pytest.raises(SystemExit) as end:
            main(words)
        shown = self._capture.readouterr()
        assert int(end.value.code or 0) == fails_with, shown
        assert SECRET not in shown.out + shown.err
        return shown.out + shown.err

    def ask(self, *words: str) -> Any:
        """Run a command on the store; return its document."""
        return json.loads(self.type(*words, "--store", self.url, "--json"))


@pytest.fixture
def shell(url: str, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(url, capsys)


async def fill(url: str) -> None:
    """Leave runs of all kinds."""
    async with sf.Surefoot(url) as app:
        assert await (await app.start(paying, "A", id="done")).result(timeout_s=20) == "paid A"
        left = [
            await app.start(paying, "doubt", id="doubt"),
            await app.start(buying, "B", id="asks"),
            await app.start(waiting, id="waits"),
            await app.start(waiting, id="gone"),
        ]
        for run in left:
            async with asyncio.timeout(20):
                while (await run.status()).state != "waiting":
                    await asyncio.sleep(0.01)


def test_a_store_is_looked_at_and_decided_on(shell: Shell) -> None:
    """Catches a command that only works on a file."""
    asyncio.run(fill(shell.url))
    assert {run["id"]: run["state"] for run in shell.ask("runs")["runs"]} == {
        "done": "completed", "doubt": "waiting", "asks": "waiting", "waits": "waiting",
        "gone": "waiting"}  # fmt: skip
    assert shell.ask("show", "done")["run"]["state"] == "completed"
    assert len(shell.ask("effects")["effects"]) == 2
    (doubt,) = shell.ask("unknowns")["effects"]
    (asked,) = shell.ask("approvals")["approvals"]
    who = ("--by", "anna", "--reason", "seen")
    shell.ask("approve", str(asked["id"]), *who)
    shell.ask("resolve", str(doubt["effect"]["id"]), "--done", "--value", '"paid by hand"', *who)
    shell.ask("signal", "waits", "go", '"now"')
    shell.ask("cancel", "gone", *who)
    shell.type("audit", "--verify", "--store", shell.url)

    async def ends() -> list[str]:
        async with sf.Surefoot(shell.url) as app:
            return [str(await (await app.run(name)).result(timeout_s=20)) for name in ("asks", "doubt", "waits")]

    assert asyncio.run(ends()) == ["bought B", "paid by hand", "now"]
    shell.type("show", "doubt", "--store", shell.url)


def test_what_is_for_files_says_what_to_use(shell: Shell, tmp_path: Any) -> None:
    """Catches a traceback, or a backup that is none."""
    assert "no store at postgresql://[redacted]@" in shell.type("runs", "--store", shell.url, fails_with=5)
    asyncio.run(fill(shell.url))
    assert "pg_dump" in shell.type("backup", str(tmp_path / "b"), "--store", shell.url, fails_with=5)
    (tmp_path / "b").touch()
    assert "pg_dump" in shell.type("restore", str(tmp_path / "b"), "--to", shell.url, fails_with=5)
    assert "pg_amcheck" in shell.type("doctor", shell.url, fails_with=1)
    assert shell.ask("gc", "--older-than", "1h", "--dry-run")["runs"] == 0
