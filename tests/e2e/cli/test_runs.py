"""Starting, looking at, signalling and cancelling runs by typing."""

from __future__ import annotations

import json
import re

from tests.e2e.cli.conftest import Shell


def test_a_run_from_start_to_show(shell: Shell) -> None:
    """Catches words or the user's prints on stdout, a wrong result, and a run that leaves no timeline."""
    done = shell.type("run", "floor:send_parcel", "A-1", "2.50", '["a"]', "--id", "t-1", "--store", shell.url)
    assert (done.code, done.out) == (0, "posted A-1\n")
    assert "a print of the user's code" in done.err
    assert "post" in done.err
    assert shell.world() == ["posted A-1"]
    shown = shell.here("show", "t-1").out
    assert '"amount": "2.50"' in shown
    assert 'effect · done · "posted A-1" · effect 1' in shown
    assert "Traceback" not in done.err + shown


def test_the_same_id_is_the_same_run(shell: Shell) -> None:
    """Catches a second execution, and a conflict that is told as something else."""
    first = ("run", "floor:send_parcel", "--input", '{"order": "A-1"}', "--id", "t-1", "--store", shell.url)
    assert shell.here(*first).code == 0
    again = shell.here(*first, "--json")
    assert (again.code, again.document["result"]) == (0, "posted A-1")
    other = shell.here("run", "floor:send_parcel", "A-2", "--id", "t-1")
    assert other.code == 4
    assert "A-1" in other.err
    assert "A-2" in other.err
    assert shell.world() == ["posted A-1"]


def test_input_by_name_order_file_and_words_is_the_same_input(shell: Shell) -> None:
    """Catches ways of giving arguments that mean different runs."""
    (shell.place / "input.json").write_text('{"tags": ["x"], "order": "7", "amount": 2}')
    ways = (["7", "2", '["x"]'], ["--input", "@input.json"], ["--input", '["7", 2, ["x"]]'],
            ["--input", '{"order": "7", "amount": "2", "tags": ["x"]}'])  # fmt: skip
    for way in ways:
        done = shell.here("run", "floor:send_parcel", *way, "--id", "one", "--store", shell.url)
        assert done.code == 0, done.err
    assert shell.world() == ["posted 7"]


def test_a_failed_run_is_an_exit_code_and_a_document(shell: Shell) -> None:
    """Catches a failure that a script can't see."""
    done = shell.here("run", "floor:break_parcel", "B", "--id", "f-1", "--store", shell.url, "--json")
    assert done.code == 1
    assert done.document["run"]["state"] == "failed"
    assert done.document["error"].startswith("ValueError: ")
    assert "surefoot show f-1" in done.err


def test_lists_and_filters(shell: Shell) -> None:
    """Catches filters that don't filter, and an empty list that is no document."""
    shell.submit("send_parcel", "A", id="s-1")
    shell.submit("ask_parcel", "A", id="a-1")
    assert [run["id"] for run in shell.here("runs", "--json").document["runs"]] == ["a-1", "s-1"]
    assert [run["id"] for run in shell.here("runs", "--kind", "ask_parcel", "--json").document["runs"]] == ["a-1"]
    assert shell.here("runs", "--state", "failed", "--json").document == {"runs": []}
    assert len(shell.here("runs", "--limit", "1").out.splitlines()) == 2  # the head and one row
    assert shell.here("runs", "--state", "nonsense").code == 2


def test_a_signal_reaches_the_run(shell: Shell) -> None:
    """Catches a payload that is lost, and a signal that is sent twice although its sender said once."""
    shell.submit("ask_parcel", "A", id="a-1")
    sent = shell.here("signal", "a-1", "approve", '{"yes": true}', "--by", "Ann", "--dedupe", "form 7", "--json")
    assert sent.document["is_new"] is True
    again = shell.here("signal", "a-1", "approve", '{"yes": false}', "--dedupe", "form 7", "--json")
    assert again.document["is_new"] is False
    done = shell.here("run", "floor:ask_parcel", "A", "--id", "a-1")
    assert json.loads(done.out) == ["A", {"yes": True}]
    late = shell.here("signal", "a-1", "approve")
    assert late.code == 4
    assert "completed" in late.err


def test_a_run_that_waits_says_what_for(shell: Shell) -> None:
    """Catches a command that hangs, or leaves without saying what goes on."""
    left = shell.here("run", "floor:ask_parcel", "A", "--id", "a-1", "--store", shell.url, "--timeout", "0.2")
    assert left.code == 6
    assert left.out == ""
    assert "surefoot worker MODULE" in left.err


def test_a_run_that_sleeps_says_until_when(shell: Shell) -> None:
    """Catches a sleeping run that is called pending when it is left, as if it had nothing to wait for."""
    left = shell.here("run", "floor:keep_parcel", "A", "--id", "a-1", "--store", shell.url, "--timeout", "0.5")
    assert (left.code, left.out) == (6, "")
    assert re.search(r"left; run a-1 sleeps until \d{4}-\d\d-\d\dT", left.err), left.err
    assert "surefoot show a-1" in left.err


def test_cancel_ends_a_run_and_names_who_did(shell: Shell) -> None:
    """Catches a cancellation that is lost, or nobody's."""
    shell.submit("ask_parcel", "A", id="a-1")
    assert shell.here("cancel", "a-1", "--reason", "no longer wanted", "--by", "Ann").code == 0
    done = shell.here("run", "floor:ask_parcel", "A", "--id", "a-1")
    assert done.code == 1
    assert "Ann: no longer wanted" in done.err
    assert shell.here("cancel", "a-1", "--reason", "again").code == 4


def test_a_blocked_run_goes_on_after_a_mend_and_a_wake(shell: Shell) -> None:
    """Catches a divergence that ends a run, or that no command leads out of."""
    here = ("run", "floor:change_parcel", "A", "--id", "c 1", "--store", shell.url)
    shell.here(*here, "--timeout", "0.1")
    (shell.place / "changed").touch()
    blocked = shell.here(*here)
    assert blocked.code == 6
    assert "surefoot signal 'c 1' wake" in blocked.err
    stuck = shell.here("unknowns", "--json").document["runs"]
    assert [(one["run"]["id"], one["run"]["waiting_for"]) for one in stuck] == [("c 1", "blocked")]
    (shell.place / "changed").unlink()
    assert shell.here("signal", "c 1", "wake").code == 0
    shell.here("signal", "c 1", "go", '"gone"')
    done = shell.here(*here)
    assert (done.code, done.out) == (0, "gone\n")
    assert shell.here("unknowns").out == ""
