"""A pytest plugin for the hunt: tells coverage which test is running, in all its threads, by the test's own name."""

from __future__ import annotations

from collections.abc import Iterator

import coverage
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Switch the context for the time of one test."""
    now = coverage.Coverage.current()
    assert now is not None, "the hunt runs under coverage"
    now.switch_context(item.nodeid)
    return (yield)
