"""What all tests share: a store in a directory of its own, and a way to be another process."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import surefoot as sf


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Take SIGINT back where a shell started the tests in its background, which makes every child deaf to Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database URL nobody else uses."""
    return f"sqlite:///{tmp_path}/agents.db"


@pytest.fixture
async def app(url: str) -> AsyncIterator[sf.Surefoot]:
    """An open app that executes runs."""
    async with sf.Surefoot(url) as opened:
        yield opened
