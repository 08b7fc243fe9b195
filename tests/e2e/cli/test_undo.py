"""Undoing a run by typing."""

from __future__ import annotations

from tests.e2e.cli.conftest import Shell, until


def test_a_run_is_undone_once_and_in_reverse(shell: Shell) -> None:
    """Catches an undo that does nothing, does it twice, or in the order of the doing."""
    assert shell.here("run", "floor:send_two", "A", "--id", "s-1", "--store", shell.url).code == 0
    undo = ("undo", "s-1", "--module", "floor", "--reason", "sent by mistake")
    done = shell.type(*undo)
    assert (done.code, done.out) == (0, '["send:A-2", "send:A-1"]\n')
    again = shell.here(*undo, "--json")
    assert (again.code, again.document["result"]) == (0, ["send:A-2", "send:A-1"])
    assert again.document["run"]["id"] == "s-1/undo"
    assert shell.world() == ["sent A-1", "sent A-2", "took back A-2: parcel A-2", "took back A-1: parcel A-1"]
    assert {one["state"] for one in shell.here("effects", "--run", "s-1", "--json").document["effects"]} == {
        "compensated"
    }
    other = shell.here("undo", "s-1", "--module", "floor", "--reason", "in other words")
    assert other.code == 4
    assert "sent by mistake" in other.err


def test_an_undo_survives_its_process(shell: Shell) -> None:
    """Catches an undo that is lost with the process that executed it, or begun anew."""
    shell.here("run", "floor:send_two", "A", "--id", "s-1", "--store", shell.url)
    undo = ("undo", "s-1", "--module", "floor", "--reason", "sent by mistake")
    with shell.hold():
        first = shell.start(*undo)
        until(lambda: shell.state("s-1/undo") == "running")
        early = shell.here(*undo, "--timeout", "0.1", "--json")
        assert early.code == 6
        first.kill()
        first.wait()
    assert shell.here(*undo, "--quiet").out == '["send:A-2", "send:A-1"]\n'
    assert shell.world()[2:] == ["took back A-2: parcel A-2", "took back A-1: parcel A-1"]


def test_what_can_not_be_undone(shell: Shell) -> None:
    """Catches an undo of a run that goes on, and one that stops without saying where."""
    shell.submit("ask_parcel", "A", id="a-1")
    said = ("--module", "floor", "--reason", "a mistake")
    going = shell.here("undo", "a-1", *said)
    assert going.code == 4
    assert "surefoot cancel a-1" in going.err
    assert shell.here("undo", "nobody", *said).code == 3
    assert shell.here("undo", "a-1", "--reason", "a mistake").code == 2
    shell.here("run", "floor:send_parcel", "A", "--id", "p-1")
    failed = shell.here("undo", "p-1", *said)
    assert failed.code == 1
    assert "post (post:A) has no compensation" in failed.err
    assert shell.here("undo", "p-1", *said, "--id", "p-1 once more").code == 1


def test_no_store_is_made_for_an_undo(shell: Shell) -> None:
    """Catches an empty store made where somebody mistyped its name."""
    done = shell.here("undo", "s-1", "--module", "floor", "--reason", "x", "--store", "sqlite:///other.db")
    assert done.code == 5
    assert not (shell.place / "other.db").exists()


def test_what_was_undone_by_hand_is_told(shell: Shell) -> None:
    """Catches a command that says so of what was never done, or that leaves the key taken."""
    assert shell.here("run", "floor:send_two", "A", "--id", "s-1", "--store", shell.url).code == 0
    said = ("--by", "ann", "--reason", "called the carrier")
    assert shell.here("resolve", "1", "--undone", "--done", *said).code == 2
    told = shell.here("resolve", "1", "--undone", *said, "--json")
    assert (told.code, told.document["effect"]["state"]) == (0, "compensated")
    assert shell.here("resolve", "1", "--undone", *said).code == 4
    undo = shell.here("undo", "s-1", "--module", "floor", "--reason", "the rest", "--quiet")
    assert (undo.code, undo.out) == (0, '["send:A-2"]\n')
    assert shell.world() == ["sent A-1", "sent A-2", "took back A-2: parcel A-2"]
