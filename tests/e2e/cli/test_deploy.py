"""Checking a deploy by typing."""

from __future__ import annotations

from tests.e2e.cli.conftest import Shell

CHANGED = """
import surefoot as sf
from floor import plan, send

@sf.durable(name="send_two_later")
async def send_two_later(order: str) -> None:
    await send(order + "-3")
"""

BEGUN = """
import surefoot as sf
from floor import send

@sf.durable(name="send_two_later")
async def send_two_later(order: str) -> None:
    await send(order + "-1")
    await sf.wait_signal("go")
"""


def test_a_deploy_is_checked_without_acting(shell: Shell) -> None:
    """Catches a check that executes runs, that calls a divergence fine, or that doesn't say where."""
    (shell.place / "begun.py").write_text(BEGUN)
    (shell.place / "changed.py").write_text(CHANGED)
    begun = shell.type("run", "begun:send_two_later", "A", "--id", "r-1", "--store", shell.url, "--timeout", "0.5")
    assert begun.code == 6, begun.err
    shell.submit("send_parcel", "B", id="r-2")
    same = shell.type("check-deploy", "begun", "--json")
    assert same.code == 0, same.err
    assert same.document["counts"] == {
        "same": 2, "drift": 0, "divergent": 0, "unknown_kind": 0, "unreadable": 0, "acts_outside": 0, "unfinished": 0,
    }  # fmt: skip
    assert [(one["run"], one["step"]) for one in same.document["runs"]] == [("r-1", "signal go"), ("r-2", "post")]
    other = shell.type("check-deploy", "changed")
    assert other.code == 1
    assert "r-1" in other.out
    assert "A-3" in other.out
    assert "2 open runs: 1 same, 1 divergent" in other.err
    assert shell.here("check-deploy", "floor", "--kind", "send_parcel").code == 0
    unknown = shell.here("check-deploy", "floor", "--json")
    assert (unknown.code, unknown.document["counts"]["unknown_kind"]) in {(1, 1)}
    assert shell.world() == ["sent A-1"]
    assert shell.here("runs", "--json").document["runs"][0]["state"] == "pending"
    assert shell.here("check-deploy", "floor", "--store", "sqlite:///none.db").code == 5
