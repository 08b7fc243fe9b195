"""Events at the terminal: how far groups are, what died and why, and the way back."""

from __future__ import annotations

import signal

from tests.e2e.cli.conftest import Shell, until

CLERKS = """
import surefoot as sf

PARCELS = sf.Topic("parcels", str)


@sf.durable
async def announce(*parcels: str) -> None:
    for parcel in parcels:
        await PARCELS.publish(parcel, key=parcel)


@sf.on(PARCELS, group="clerks", since="beginning")
async def look(parcel: str) -> None:
    if "bad" in parcel:
        raise ValueError(f"nobody knows {parcel}")
"""
"""A module with a topic and a group."""

SAID = ("--by", "anna", "--reason", "the rule is mended")


def test_a_dead_letter_is_seen_and_brought_back(shell: Shell) -> None:
    """Catches a dead letter that a person can't find, read, bring back or close; and a decision that nobody kept."""
    (shell.place / "clerks.py").write_text(CLERKS)
    told = shell.type("run", "clerks:announce", "A-1", "A-bad \x1b[2J", "B-bad", "--id", "news", "--store", shell.url)
    assert told.code == 0
    worker = shell.start("worker", "clerks", "--concurrency", "3", "--store", shell.url)
    until(lambda: len(shell.here("events", "--json").document["dead"]) == 2)
    document = shell.here("events", "--json").document
    assert [(one["group"], one["topic"], one["behind"], one["dead"]) for one in document["groups"]] == [
        ("clerks", "parcels", 0, 2)
    ]
    first, second = document["dead"]
    assert first["reason"] == "ValueError: nobody knows A-bad \x1b[2J"
    shown = shell.here("events").out
    assert "\x1b[2J" not in shown
    for words in ("clerks", "group clerks could not act on it", "nobody knows A-bad", "attempt 1"):
        assert words in shown
    command = f"surefoot redeliver {first['event']} --group clerks --by YOU --reason 'HOW YOU KNOW'"
    assert command in shown
    refused = shell.here("redeliver", str(first["event"]), "--group", "clerks", "--by", "YOU", "--reason", "x")
    assert refused.code == 2
    assert shell.here("redeliver", "99", "--group", "clerks", *SAID).code == 3
    assert shell.here("redeliver", str(first["event"]), "--group", "others", *SAID).code == 3
    done = shell.here("redeliver", str(first["event"]), "--group", "clerks", *SAID)
    assert (done.code, done.err) == (
        0,
        f"event {first['event']} of group clerks is brought to it again by the next free worker\n",
    )
    until(lambda: [one["attempt"] for one in shell.here("events", "--json").document["dead"]] == [1, 2])
    closed = shell.here("discard", str(second["event"]), "--group", "clerks", *SAID, "--json")
    assert closed.document == {"event": second["event"], "group": "clerks", "state": "discarded"}
    assert shell.here("discard", str(second["event"]), "--group", "clerks", *SAID).code == 3
    trail = shell.here("audit", "--json").document["entries"]
    assert {(one["act"], one["who"], one["target"]) for one in trail} == {
        ("redeliver", "anna", f"event {first['event']} of group clerks"),
        ("discard", "anna", f"event {second['event']} of group clerks"),
    }
    assert "no event waits for a person" in shell.here("doctor").out
    worker.send_signal(signal.SIGTERM)
    worker.communicate()
    gone = ("drop-group", "clerks", "--topic", "parcels", *SAID)
    assert shell.here(*gone, "--json").document == {
        "topic": "parcels", "group": "clerks", "behind": 0, "started": 0, "dead": 1}  # fmt: skip
    assert shell.here("events", "--json").document["groups"] == []
    assert shell.here(*gone).code == 3
    assert "drop group" in shell.here("audit").out
    steps = shell.here("show", "news").out
    assert "published" in steps
