"""Worker processes: two of them, stopped politely, stopped twice, killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.e2e.cli.conftest import Shell, until


def test_of_two_workers_the_other_goes_on(shell: Shell) -> None:
    """Catches a run that dies with its worker, or is executed by both."""
    shell.submit("plan_parcel", "A", id="t-1")
    with shell.hold():
        workers = {one.pid: one for one in (shell.start("worker", "floor", "--store", shell.url) for _ in range(2))}
        until(shell.world)
        holder = workers.pop(int(shell.world()[0].split()[-1]))
        holder.kill()
        until(lambda: len(shell.world()) == 2)  # the step had no result yet: the other takes it again
    until(lambda: shell.state("t-1") == "completed")
    assert shell.world()[1] == f"planned A {next(iter(workers))}"


def test_ctrl_c_hands_runs_back(shell: Shell) -> None:
    """Catches a stop that loses a run, hangs, or does not say what goes on."""
    shell.submit("ask_parcel", "A", id="a-1")
    worker = shell.start("worker", "floor", "--store", shell.url, "--json")
    until(lambda: shell.state("a-1") == "running")
    worker.send_signal(signal.SIGINT)
    out, err = worker.communicate()
    assert worker.returncode == 0
    assert json.loads(out)["handed_back"] == ["a-1"]
    assert "stopping" in err
    assert shell.state("a-1") == "pending"


def test_a_second_ctrl_c_leaves_at_once_and_loses_nothing(shell: Shell) -> None:
    """Catches a process that can't be left while an act hangs, and a doubt that is lost by leaving."""
    with shell.hold():
        run = shell.start("run", "floor:send_parcel", "A-1", "--id", "t-1", "--store", shell.url)
        until(shell.world)
        run.send_signal(signal.SIGINT)
        assert run.stderr is not None
        until(lambda: "stopping" in run.stderr.readline())  # type: ignore[union-attr]  # checked above
        run.send_signal(signal.SIGINT)
        _, err = run.communicate()
        assert run.returncode == 130
        assert "leaving at once" in err
    assert [one["effect"]["key"] for one in shell.here("unknowns", "--json").document["effects"]] == ["post:A-1"]


def test_ctrl_c_leaves_a_run_that_waits(shell: Shell) -> None:
    """Catches an interruption that ends the run, or leaves without a word."""
    run = shell.start("run", "floor:ask_parcel", "A", "--id", "a-1", "--store", shell.url, "--json")
    until(lambda: shell.state("a-1") == "running")
    run.send_signal(signal.SIGINT)
    out, err = run.communicate()
    assert run.returncode == 130
    assert json.loads(out)["run"]["state"] == "pending"
    assert "surefoot worker MODULE" in err


def test_the_store_fails_under_a_worker(shell: Shell) -> None:
    """Catches a worker that lives on although it can record nothing."""
    worker = shell.start("worker", "floor", "--store", f"sqlite:///{os.fspath(shell.place)}/nowhere/agents.db")
    _, err = worker.communicate()
    assert worker.returncode == 5
    assert "mkdir -p" in err
    assert "Traceback" not in err


def test_modules_that_can_not_be_served(shell: Shell) -> None:
    """Catches a worker that idles because it knows no runs, and tracebacks for a typing mistake."""
    (shell.place / "raises.py").write_text("raise RuntimeError('no \\x1b[31mkey')\n")
    (shell.place / "two_apps.py").write_text(
        "import surefoot as sf\na, b = sf.Surefoot('sqlite:///a'), sf.Surefoot('sqlite:///b')\n"
    )
    for words, said in (
        (("worker", "nowhere"), "no module 'nowhere'"),
        (("worker", "floor.py"), "is a path"),
        (("worker", "raises"), "importing raises raised RuntimeError"),
        (("worker", "two_apps"), "several apps: a, b"),
        (("worker", "floor:send_parcel"), "is no app"),
        (("run", "floor", "--id", "x"), "names no function"),
        (("run", "floor:nothing", "--id", "x"), "is not there"),
        (("run", "floor:post", "--id", "x"), "no durable function"),
    ):
        done = shell.here(*words)
        assert done.code == 2, words
        assert said in done.err, done.err
        assert "\x1b" not in done.err
        assert "Traceback" not in done.err


def test_an_app_in_the_module_keeps_its_store_and_gates(shell: Shell) -> None:
    """Catches a command line that goes around the gates a team has set up."""
    (shell.place / "gated.py").write_text(
        "import surefoot as sf\n"
        "class Never:\n"
        "    def admit(self, tx, request):\n"
        "        from surefoot.effects import Refuse\n"
        "        return Refuse('never on a Sunday')\n"
        "    def release(self, tx, request): ...\n"
        "app = sf.Surefoot('sqlite:///gated.db', gates=[Never()])\n"
        "@sf.effect(key='gated:{x}')\n"
        "async def act(x: str) -> str: return x\n"
        "@sf.durable\n"
        "async def gated_run(x: str) -> str: return await act(x)\n"
    )
    done = shell.here("run", "gated:gated_run", "1", "--id", "g-1")
    assert done.code == 1
    assert "never on a Sunday" in done.err
    other = shell.here("run", "gated:gated_run", "1", "--id", "g-1", "--store", "sqlite:///other.db")
    assert other.code == 2
    assert "gated.db" in other.err
    assert not Path("other.db").exists()
