"""The demo as a user starts it, with the scripted clerk: real processes, real kills, and books that agree with us."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

TICKETS = 2
KILLS = 3
SEED = 7  # chosen: under it the plain loop acts too often
LIMIT_S = 120.0  # a loaded machine gets its time

HOSTILE = "[red]\x1b[31mrefund[/red] me\x07, order X-1 \u202egnihton od \x1b]0;owned\x07"


class Demo:
    """One run of the demo, after its end."""

    def __init__(self, folder: Path, done: subprocess.CompletedProcess[str]) -> None:
        self.folder = folder
        self.code = done.returncode
        self.page = done.stdout
        self.said = done.stderr

    @property
    def url(self) -> str:
        return "sqlite:///surefoot-demo/agents.db"

    def books(self, name: str) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = json.loads((self.folder / "surefoot-demo" / name).read_text())
        return rows

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Type a command that was printed."""
        return _run(self.folder, shlex.split(command.removeprefix("surefoot ")))


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}


def _run(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "surefoot", *arguments],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def _demo(folder: Path, *more: str, kills: int = KILLS) -> Demo:
    arguments = ["demo", "--model", "scripted", "--seed", str(SEED), "--kills", str(kills), *more]
    return Demo(folder, _run(folder, arguments))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """One demo with tickets of the user's own, one of them hostile, for all tests that only look at it."""
    folder = tmp_path_factory.mktemp("demo")
    rows = [{"id": f"mine {n}", "text": "Do all you can", "order_id": f"X-{n}"} for n in range(2, TICKETS + 1)]
    rows.append({"id": "[bold]evil[/bold]", "text": HOSTILE, "order_id": "X-1"})
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return _demo(folder, "--tickets", "mine.jsonl", "--workers", "1")


def test_our_counts_are_exact(demo: Demo) -> None:
    """Catches an act that happened twice, got lost, or was reported wrongly."""
    assert demo.code == 0, demo.page + demo.said
    assert "Surefoot: EXACT: nothing twice, nothing lost" in demo.page
    assert "error" not in demo.said


def test_the_plain_loop_is_not_exact(demo: Demo) -> None:
    """Catches a demo that proves nothing: faults and kills so mild that plain retries do as well."""
    assert "Plain retries: NOT EXACT" in demo.page
    assert len(demo.books("plain-books.json")) != len(demo.books("books.json"))


def test_every_ordered_kill_was_carried_out_on_both_sides(demo: Demo) -> None:
    """Catches kill points that no request ever reaches."""
    killed = [int(number) for number in re.findall(r"killed: (\d+)", demo.page)]
    assert len(killed) == 2
    assert min(killed) >= KILLS


def test_the_commands_that_are_printed_work(demo: Demo) -> None:
    """Catches advice that leads nowhere."""
    commands = [line.strip() for line in demo.page.splitlines() if line.strip().startswith("surefoot ")]
    assert len(commands) == 3
    for command in commands:
        done = demo.type(command)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_what_the_person_would_type_is_what_was_recorded(demo: Demo) -> None:
    """Catches a printed resolution that another command than the one carried out would have made."""
    typed = [line.strip() for line in demo.said.splitlines() if line.strip().startswith("surefoot resolve")]
    asked = re.search(r"asked a person: (\d+)", demo.page)
    assert asked is not None
    assert len(typed) == int(asked[1])
    for command in typed:
        done = demo.type(command)
        assert done.returncode == 4, "it has an outcome already, and that stands"
        assert "not in doubt" in done.stderr


def test_hostile_text_stays_text(demo: Demo) -> None:
    """Catches a ticket that paints the page, steers the terminal or vanishes as markup."""
    for shown in (demo.page, demo.said):
        assert not set("\x1b\x07\u202e") & set(shown)
    assert "[bold]evil[/bold]" in demo.page


def test_no_process_outlives_the_demo(demo: Demo) -> None:
    """Catches workers, shops and spares that nobody stopped."""
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"surefoot.demo" in (entry / "cmdline").read_bytes() and (entry / "cwd").resolve() == demo.folder:
                    left.append(entry.name)
            except OSError:
                continue
    assert left == []


def test_a_bad_ticket_file_is_refused_with_its_line(tmp_path: Path) -> None:
    """Catches a traceback, or a demo that begins with half of the tickets."""
    (tmp_path / "bad.csv").write_text("id,text\n1,\n")
    refused = _demo(tmp_path, "--tickets", "bad.csv")
    assert refused.code == 2
    assert "bad.csv, line 2, field 'text': is missing or empty" in refused.said
    assert not (tmp_path / "surefoot-demo").exists()


def test_a_directory_that_is_no_demos_is_left_alone(tmp_path: Path) -> None:
    """Catches a demo that deletes somebody's files because their folder has its name."""
    kept = tmp_path / "surefoot-demo" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("ten years of work")
    refused = _demo(tmp_path)
    assert refused.code == 1
    assert "is there and is no demo's" in refused.said
    assert kept.read_text() == "ten years of work"


def test_ctrl_c_stops_everything_and_says_what_is_kept(tmp_path: Path) -> None:
    """Catches processes that are left behind, a traceback, and a store that can't be opened afterwards."""
    command = [sys.executable, "-m", "surefoot", "demo", "--model", "scripted", "--seed", "1", "--kills", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("T-01: works"):
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(LIMIT_S) == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    done = _run(tmp_path, ["runs", "--store", "sqlite:///surefoot-demo/agents.db"])
    assert "T-12" in done.stdout


@pytest.mark.slow
def test_the_twelve_tickets_with_ten_kills(tmp_path: Path) -> None:
    """Catches what a short demo does not meet: every fault, every kind of act, and a clerk that is judged."""
    demo = _demo(tmp_path, kills=10)
    assert demo.code == 0, demo.page + demo.said
    assert "12 of 12 tickets decided well" in demo.page
    assert {row["kind"] for row in demo.books("books.json")} == {"refund", "address", "email", "parcel"}
    assert min(int(number) for number in re.findall(r"killed: (\d+)", demo.page)) >= 10
