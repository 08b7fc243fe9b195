"""What all tests share: a store in a directory of its own, and a way to be another process."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.groups import serve_only
from tests.support.postgres import Postgres, schema, server

import surefoot as sf
from surefoot.coordination.events.groups import served
from surefoot.effects import remove_open
from surefoot.store import SystemClock
from surefoot.store.postgres_clock import ServerClock


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Take SIGINT back where a shell started the tests in its background, which makes every child deaf to Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the same tests run on either engine."""
    parser.addoption("--engine", choices=["sqlite", "postgres"], default="sqlite", help="where the tests' stores are")
    parser.addoption("--app-workers", type=int, default=1, help="how many workers execute the runs of a test's app")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this test process."""
    with server() as running:
        yield running


@pytest.fixture(autouse=True)
def _engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Skip what is about SQLite's file, or one worker, and let a clock that is moved by hand move the server's too."""
    if request.config.getoption("app_workers") > 1 and (mark := request.node.get_closest_marker("one_worker")):
        pytest.skip(mark.args[0])
    if request.config.getoption("engine") == "sqlite":
        yield
        return
    if mark := request.node.get_closest_marker("sqlite_only"):
        pytest.skip(mark.args[0])

    def wall_ms(clock: ServerClock) -> int:
        return clock.boot_ms() + clock._host.wall_ms() - SystemClock().wall_ms()

    with pytest.MonkeyPatch.context() as patch:  # of its own: a test's is undone when the test expects it
        patch.setattr(ServerClock, "wall_ms", wall_ms)
        yield


@pytest.fixture(autouse=True)
def _groups() -> Iterator[None]:
    """Let a test's process serve no groups but those that the test makes: `sf.on` says so to the whole process."""
    before = dict(served())
    yield
    serve_only(before)


@pytest.fixture
def url(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database URL nobody else uses."""
    if request.config.getoption("engine") == "postgres":
        with schema(request.getfixturevalue("postgres").url) as found:
            yield found
    else:
        yield f"sqlite:///{tmp_path}/agents.db"


@pytest.fixture
async def app(url: str, request: pytest.FixtureRequest) -> AsyncIterator[sf.Surefoot]:
    """An open app that executes runs, alone or beside others."""
    async with contextlib.AsyncExitStack() as stack:
        peers = [sf.Surefoot(url, name=f"peer {one}") for one in range(1, request.config.getoption("app_workers"))]
        for peer in peers:
            await stack.enter_async_context(peer)
            remove_open(peer.guard)  # what is called outside runs is claimed by the app itself
        yield await stack.enter_async_context(sf.Surefoot(url))
