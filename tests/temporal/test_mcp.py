"""An MCP server's tools on Temporal: sessions that die with their server, and workers that die in the middle of a call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mcp.conftest import Call, Script, Till
from tests.support.postgres import Postgres, schema
from tests.support.temporal import Temporal

import surefoot as sf
from surefoot.store import new_id

PATIENCE_S = 120.0
"""How long a test waits for what must come; servers start in seconds."""


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    """A till of one's own, not started yet."""
    found = Till(tmp_path / "till")
    yield found
    found.kill()


@pytest.mark.slow
async def test_a_session_that_has_died_is_opened_again(till: Till, postgres: Postgres, temporal: Temporal) -> None:
    """Catches a session that is used for ever after its server's death: by a read, by an effect, by discovery."""
    look: Call = ("payments", {"order": "A"})
    pay: Call = ("pay", {"order": "A", "cents": 5})
    script = Script(look, pay, look, pay, look)
    script.meanwhile = {1: till.kill_own, 2: till.kill_own, 4: till.kill_own, 5: till.kill_own}
    with schema(postgres.url) as url:
        async with till.own() as toolset:
            app = sf.Surefoot(url, engine=temporal.url(f"queue-{new_id()}"))
            clerk = app.agent(script.agent(toolset), reads=["payments"])
            async with app:
                for answers in ([0, "paid A", 1, "paid A", 2], [2, "paid A", 3, "paid A", 4]):
                    run = await clerk.start("go", id=f"r-{new_id()}")
                    assert json.loads(await run.result(timeout_s=PATIENCE_S)) == answers
    assert script.meanwhile == {}
