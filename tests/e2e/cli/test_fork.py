"""Forking by typing."""

from __future__ import annotations

from tests.e2e.cli.conftest import Shell


def test_a_fork_simulates_unless_it_is_told_to_act(shell: Shell) -> None:
    """Catches a fork that acts by default, or again without anybody having agreed to it, and one that doesn't show it."""
    assert shell.here("run", "floor:send_two", "A", "--id", "s-1", "--store", shell.url).code == 0
    made = shell.here("fork", "s-1", "--at", "send#2", "--id", "s-2", "--json")
    assert made.code == 0, made.err
    assert (made.document["run"]["is_simulated"], made.document["run"]["forked_from"]) == (True, "s-1")
    assert [(one["key"], one["acts_again"]) for one in made.document["again"]] == [("send:A-2", False)]
    worked = shell.here("run", "floor:send_two", "A", "--id", "s-3", "--store", shell.url)  # takes the others too
    assert worked.code == 0
    document = shell.here("show", "s-2", "--json").document
    assert (document["run"]["state"], document["result"]) == ("completed", "parcel A-1, parcel A-2")
    assert shell.world() == ["sent A-1", "sent A-2"]
    shown = shell.here("show", "s-2")
    assert "forked from" in shown.out
    assert "nothing outside is done" in shown.out
    assert "simulated send_two" in shell.here("runs").out


def test_what_can_not_be_forked(shell: Shell) -> None:
    """Catches an acting fork that nobody was warned of, and a step that is not there."""
    assert shell.here("run", "floor:label_parcel", "A", "--id", "l-1", "--store", shell.url).code == 0
    assert shell.here("fork", "l-1", "--at", "nowhere", "--id", "l-2").code == 4
    assert shell.here("fork", "nobody", "--at", "x", "--id", "l-2").code == 3
    shell.submit("send_two", "B", id="s-1")
    undone = shell.here("run", "floor:send_two", "C", "--id", "s-9", "--store", shell.url)
    assert undone.code == 0
    shell.here("undo", "s-9", "--module", "floor", "--reason", "no")
    refused = shell.here("fork", "s-9", "--at", "send", "--id", "s-10", "--act")
    assert refused.code == 4
    assert "2 of what s-9 has done from send on could be done AGAIN" in refused.err
    agreed = shell.here("fork", "s-9", "--at", "send", "--id", "s-10", "--act", "--yes")
    assert agreed.code == 0, agreed.err
    assert "AGAIN  send [send:C-1]" in agreed.err
