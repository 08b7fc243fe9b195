"""Every scenario on every engine: the same ledger, the same runs, the same world, and models that are told the same.

Would catch an engine that claims under another identity, acts once more, forgets a fact, or tells it in other words.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenarios import served  # noqa: F401  its scenes
from tests.scenarios.scenes import SAMPLE, SCENES
from tests.scenarios.stage import Books, Stage
from tests.support.postgres import Postgres, schema
from tests.support.temporal import Temporal, missing, server

import surefoot as sf
from surefoot.store import new_id

ENGINES = ("postgres", "temporal")


@pytest.fixture(scope="session")
def temporal() -> Iterator[Temporal]:
    """A Temporal server of this test process."""
    if why := missing():
        pytest.skip(why)
    with server() as running:
        yield running


async def play(title: str, app: sf.Surefoot, tag: str = "") -> Books:
    """Play a scene, and return its books."""
    stage = Stage(app, tag=tag)
    try:
        told = await SCENES[title](stage)
        return await stage.books(told)
    finally:
        await stage.close()


def cases() -> list[object]:
    """Return each scene on each engine; a sample of them is in the fast lane."""
    return [
        pytest.param(title, engine, marks=() if title in SAMPLE else pytest.mark.slow, id=f"{title}-{engine}")
        for title in SCENES
        for engine in ENGINES
    ]


@pytest.mark.parametrize(("title", "engine"), cases())
async def test_the_same_on_every_engine(
    title: str, engine: str, tmp_path: Path, postgres: Postgres, request: pytest.FixtureRequest
) -> None:
    expected = await play(title, sf.Surefoot(f"sqlite:///{tmp_path}/agents.db"))
    tag, address = f"-{new_id()}", None
    if engine == "temporal":
        address = request.getfixturevalue("temporal").url(f"queue{tag}")
    with schema(postgres.url) as url:
        assert await play(title, sf.Surefoot(url, engine=address), tag) == expected
