"""A store's URL on a PostgreSQL, whatever engine the other tests run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.postgres import Postgres, Proxy, schema, server


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    """A store nobody else uses."""
    with schema(postgres.url) as found:
        yield found


@pytest.fixture
def proxy(postgres: Postgres, tmp_path: Path) -> Iterator[Proxy]:
    """A way to the server that can be cut."""
    with Proxy(postgres.socket, tmp_path) as found:
        yield found


@pytest.fixture
def own() -> Iterator[Postgres]:
    """A server that may be killed."""
    with server() as running:
        yield running
