"""A worker that is killed at any point of an MCP call: the server's world ends as if nobody had been killed.

With a probe through another tool, an overwrite, or a server that dedupes on our key, nobody is asked. With nothing
declared, nothing is done twice, what nobody can know is named, and a person's look settles it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.mcp.scenarios import ROOT, SCENARIOS
from tests.mcp.sweep import POINTS, Result, measure

REQUIREMENTS = ROOT / "tools" / "requirements-mcp-servers.txt"
PACKAGES = ("@modelcontextprotocol/server-filesystem", "@modelcontextprotocol/server-memory")

DOUBTFUL = set(POINTS) - {"before the claim", "recorded"}
"""Where a call is killed between its claim and its outcome: all that a server without an offer leaves to a person."""

TILL = [title for title in SCENARIOS if title.startswith("till over HTTP")]
THEIRS = [title for title in SCENARIOS if not title.startswith("till")]


def faults(results: Sequence[Result]) -> list[str]:
    """What went wrong in any case; must be empty."""
    return [
        f"{result.scenario}, {result.call} {result.at}: parked {result.parked}, doubled {result.doubled} {result.error}"
        for result in results
        if not result.is_exact or result.doubled or result.parked not in ([], [result.call])
    ]


def asked(results: Sequence[Result]) -> set[tuple[str, str]]:
    """The scenarios and points at which a person was asked."""
    return {(result.scenario, result.at) for result in results if result.parked}


def test_a_kill_in_an_mcp_call_ends_in_the_undisturbed_world() -> None:
    """Would catch a key that changes with the attempt, a probe that asks nobody, and a lost reply that is sent again."""
    results = measure(TILL, "--call", "c1", "--at", "acted, not answered")
    assert faults(results) == []
    assert asked(results) == {("till over HTTP, nothing", "acted, not answered")}
    assert [result.kills for result in results] == [1] * len(TILL)


@pytest.mark.slow
def test_every_point_of_every_call_over_http_and_stdio() -> None:
    """Would catch a point at which a transport, or a class of doubt, fares otherwise than in the sample."""
    titles = [title for title in SCENARIOS if title.startswith("till")]
    results = measure(titles)
    assert faults(results) == []
    assert asked(results) == {(title, point) for title in titles if title.endswith("nothing") for point in DOUBTFUL}


@pytest.mark.slow
def test_a_recovery_that_is_killed_in_the_call_too() -> None:
    """Would catch a recovery that forgets that the first call may have landed."""
    twice = [f"{first} then {second}" for first in DOUBTFUL for second in ("acted, not answered", "claimed, not sent")]
    titles = [title for title in TILL if not title.endswith("nothing")]
    results = measure(titles, "--call", "c1", *(word for at in twice for word in ("--at", at)))
    assert faults(results) == []
    assert asked(results) == set()


@pytest.mark.slow
def test_a_recovery_can_be_killed_at_each_of_its_steps() -> None:
    """Would catch a transaction of the recovery that must not be cut in two."""
    results = measure(TILL, "--call", "c1", "--at", "acted, not answered", "--deepens")
    assert faults(results) == []
    assert len(results) > 3 * 10


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The servers of others, installed by their own package managers."""
    if shutil.which("npm") is None or shutil.which("node") is None or shutil.which("git") is None:
        pytest.skip("the servers from npm need npm and node, and the one for git needs git")
    folder = tmp_path_factory.mktemp("servers")
    commands = [
        ["npm", "install", "--no-fund", "--no-audit", "--prefix", str(folder), *PACKAGES],
        [sys.executable, "-m", "venv", str(folder / "venv")],
        [str(folder / "venv/bin/pip"), "install", "--quiet", "-r", str(REQUIREMENTS)],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("title", THEIRS)
def test_every_point_of_every_call_at_servers_of_others(
    title: str, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch an assumption about servers that only ours keeps to."""
    monkeypatch.setitem(os.environ, "SUREFOOT_MCP_SERVERS", str(installed))
    results = measure([title])
    assert faults(results) == []
    assert asked(results) == ({(title, point) for point in DOUBTFUL} if title.endswith("nothing") else set())
