"""The pytest plugin: the fixture `crash_points`, and the option that repeats one schedule. Found by pytest by itself.

A package of its own, so that a pytest which doesn't ask for the fixture imports nothing of Surefoot.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--crash-points`."""
    group = parser.getgroup("surefoot")
    group.addoption(
        "--crash-points", metavar="SCHEDULE", default=None,
        help="execute this one schedule of kills, as a failing test has printed it, instead of all",
    )  # fmt: skip


@pytest.fixture
def crash_points(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Kill an agent at every boundary: `surefoot.testing.crash_points`, knowing how to repeat this very test."""
    from surefoot.testing.sweep import crash_points as sweep

    command = f"pytest {shlex.quote(request.node.nodeid)}"
    return partial(sweep, only=request.config.getoption("--crash-points"), command=command)
