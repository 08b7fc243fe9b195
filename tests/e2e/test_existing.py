"""An agent of a hundred lines, as its team wrote it: MCP, streaming, an approval. A few lines make it durable."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXISTING = Path(__file__).parent / "existing"
LIMIT_S = 120

ADDED = """import surefoot as sf
app = sf.Surefoot("sqlite:///agents.db")
support = app.agent(agent, event_stream_handler=show)
"""
MAIN = """async def main() -> None:
    async with app:
        run = await support.start("My lamp A-4411 arrived broken.", id="ticket-991", deps=Desk("ann"))
        print(await run.result())


"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the agent in it."""
    return Path(shutil.copytree(EXISTING, tmp_path / "place"))


def run(place: Path, *words: str, says: str = "") -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=place, input=says, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_works_without_us(place: Path) -> None:
    """Catches an example that never was one."""
    assert "on its way" in run(place, "agent.py", says="y\n")
    assert (place / "refunds.txt").read_text() == "A-4411 12.5\n"


def test_it_becomes_durable(place: Path) -> None:
    """Catches an agent that more than a few lines are needed for, and an approval that doesn't outlive its process."""
    code = (place / "agent.py").read_text().replace("[Answer, DeferredToolRequests]", "Answer")
    before, _, rest = code.partition("async def main()")
    (place / "agent.py").write_text(before + ADDED + MAIN + rest[rest.index("if __name__") :])
    first = subprocess.Popen([sys.executable, "agent.py"], cwd=place, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    shown = [first.stdout.readline() for _ in range(3)]
    assert [line.split("(")[0].strip() for line in shown] == ["calls stock", "calls reserve", "calls refund"]
    waits = [sys.executable, "-m", "surefoot", "approvals", "--json"]
    while not (found := json.loads(run(place, *waits[1:]))["approvals"]):
        assert first.poll() is None
    first.kill()
    first.communicate()
    assert not (place / "refunds.txt").exists()
    run(place, "-m", "surefoot", "approve", str(found[0]["id"]), "--by", "ann", "--reason", "saw the photo")
    assert "on its way" in run(place, "agent.py")
    assert (place / "refunds.txt").read_text() == "A-4411 12.5\n"
    assert (place / "books.txt").read_text() == '["lamp", 1]\n'
    assert run(place, "agent.py").endswith("refunded=12.5\n")  # the same id is the same run: nothing is done again
    assert (place / "refunds.txt").read_text() == "A-4411 12.5\n"
