"""What nobody knows: a worker is killed in the middle of an act, a person looks, and the run goes on."""

from __future__ import annotations

import signal

from tests.e2e.cli.conftest import Shell, until


def test_killed_in_the_middle_of_an_act_then_resolved_as_done(shell: Shell) -> None:
    """Catches an effect that is sent twice, a doubt that is not listed, and a run that does not go on after it."""
    shell.submit("send_parcel", "A-1", id="t-1")
    with shell.hold():
        first = shell.start("worker", "floor", "--store", shell.url)
        until(shell.world)
        assert shell.here("unknowns", "--json").document["effects"] == []  # it is being acted on: nothing is in doubt
        early = shell.here("resolve", "1", "--not-done", "--by", "Ann", "--reason", "guess")
        assert early.code == 4
        assert f"(pid {first.pid})" in early.err
        first.kill()
        first.wait()
    doubt = shell.here("unknowns", "--json").document
    assert [(one["effect"]["key"], one["effect"]["run"]) for one in doubt["effects"]] == [("post:A-1", "t-1")]
    assert doubt["effects"][0]["effect"]["holder"] == {"name": doubt["effects"][0]["effect"]["holder"]["name"],
                                                       "pid": first.pid, "life": "dead"}  # fmt: skip
    number = str(doubt["effects"][0]["effect"]["id"])
    said = ("--by", "Ann", "--reason", "it is in the shop's books")
    done = shell.here("resolve", number, "--done", "--value", '"posted, says Ann"', *said, "--json")
    assert (done.code, done.document["effect"]["state"]) == (0, "done")
    assert shell.here("resolve", number, "--not-done", *said).code == 4  # an outcome is written once
    second = shell.start("worker", "floor", "--store", shell.url, "--json")
    until(lambda: shell.state("t-1") == "completed")
    second.send_signal(signal.SIGTERM)
    out, _ = second.communicate()
    assert second.returncode == 0
    assert '"stopped_by": "SIGTERM"' in out
    assert shell.here("show", "t-1", "--json").document["result"] == "posted, says Ann"
    assert shell.world() == ["posted A-1"]
    assert "Ann: it is in the shop's books" in shell.here("effects", "--id", number).out


def test_resolved_as_not_done_tells_the_run(shell: Shell) -> None:
    """Catches a "not done" that the run is not told, and an effect that is never offered to a person."""
    parked = shell.here("run", "floor:pay_parcel", "P", "--id", "p-1", "--store", shell.url)
    assert parked.code == 6
    assert "surefoot resolve 1 --not-done" in parked.err
    shown = shell.here("unknowns").out
    assert "p-1" in shown
    assert "surefoot resolve 1 --done" in shown
    assert shell.here("resolve", "1", "--not-done", "--by", "Ann", "--reason", "no trace").code == 0
    ended = shell.here("run", "floor:pay_parcel", "P", "--id", "p-1")
    assert ended.code == 1
    assert "Ann: no trace" in ended.err
    assert shell.here("effects", "--state", "not_done", "--json").document["effects"][0]["reason"] == "Ann: no trace"


def test_resolve_refuses_what_it_can_not_mean(shell: Shell) -> None:
    """Catches a resolution that is guessed: both answers, none, the placeholder's name, an effect that is not there."""
    shell.here("run", "floor:pay_parcel", "P", "--id", "p-1", "--store", shell.url)
    said = ("--by", "Ann", "--reason", "looked")
    assert shell.here("resolve", "1", *said).code == 2
    assert shell.here("resolve", "1", "--done", "--not-done", *said).code == 2
    assert shell.here("resolve", "1", "--not-done", "--value", "1", *said).code == 2
    assert shell.here("resolve", "1", "--done", "--by", "YOU", "--reason", "looked").code == 2
    assert shell.here("resolve", "1", "--done", "--by", " ", "--reason", "looked").code == 4
    assert shell.here("resolve", "99", "--done", *said).code == 3
    assert shell.here("effects", "--json").document["effects"][0]["state"] == "unknown"


def test_a_value_is_checked_where_the_code_is_named(shell: Shell) -> None:
    """Catches a typing mistake that is recorded for ever and blocks its run."""
    shell.here("run", "floor:bill_parcel", "B", "--id", "b-1", "--store", shell.url)
    said = ("--by", "Ann", "--reason", "in the books", "--module", "floor")
    unseen = shell.type("resolve", "1", "--done", "--value", '{"number": 7}', *said[:4])
    assert unseen.code == 2
    assert "floor.Receipt, and only its code can tell" in unseen.err
    assert "--module MODULE" in unseen.err
    assert "--value [JSON] --module MODULE" in shell.here("unknowns").out
    wrong = shell.here("resolve", "1", "--done", "--value", '{"number": "seven"}', *said)
    assert wrong.code == 2
    assert "number" in wrong.err
    assert shell.here("resolve", "1", "--done", *said).code == 2  # without --value it would be null
    assert shell.here("resolve", "1", "--done", "--value", '{"number": 7}', *said).code == 0
    assert shell.here("run", "floor:bill_parcel", "B", "--id", "b-1").out == "7\n"


def test_a_stopped_holder_may_still_send(shell: Shell) -> None:
    """Catches "not done" being taken while a stopped process could wake up and send."""
    shell.submit("send_parcel", "A-1", id="t-1")
    with shell.hold():
        worker = shell.start("worker", "floor", "--store", shell.url)
        until(shell.world)
        worker.send_signal(signal.SIGSTOP)
        refused = shell.here("resolve", "1", "--not-done", "--by", "Ann", "--reason", "no trace")
        assert refused.code == 4
        worker.send_signal(signal.SIGCONT)
    until(lambda: shell.state("t-1") == "completed")
    assert shell.world() == ["posted A-1"]


def test_a_run_in_doubt_over_the_effect_of_another(shell: Shell) -> None:
    """Catches a run that waits for a doubt which no command leads to, or that is not woken by its end."""
    for run in ("p-1", "p-2"):
        assert shell.here("run", "floor:pay_parcel", "P", "--id", run, "--store", shell.url).code == 6
    shown = shell.here("show", "p-2", "--json").document
    assert shown["effects"] == []
    assert any("surefoot resolve 1 --done" in str(step["command"]) for step in shown["next"])
    assert shell.here("resolve", "1", "--done", "--value", '"paid"', "--by", "Ann", "--reason", "saw it").code == 0
    assert {run["state"] for run in shell.here("runs", "--json").document["runs"]} == {"pending"}
    assert shell.here("run", "floor:pay_parcel", "P", "--id", "p-2").out == "paid\n"


def test_overdue_doubts_come_first(shell: Shell) -> None:
    """Catches a doubt that is overdue and not shown as such, or that is hidden below those that can wait."""
    shell.here("run", "floor:pay_parcel", "P", "--id", "p-1", "--store", shell.url)
    shell.here("run", "floor:call_parcel", "C", "--id", "c-1")
    overdue, other = shell.here("unknowns", "--json").document["effects"]
    assert (overdue["effect"]["key"], overdue["is_overdue"]) == ("call:C", True)
    assert overdue["unknown_since"] < overdue["deadline_at"] < other["deadline_at"]
    assert (other["effect"]["key"], other["is_overdue"]) == ("pay:P", False)
    listed = shell.here("unknowns").out.splitlines()
    assert f"overdue, {overdue['unknown_since'][:10]}" in listed[2]
    assert "overdue" not in listed[3]
    assert other["unknown_since"][:10] in listed[3]
