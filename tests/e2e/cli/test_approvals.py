"""People at the terminal: they approve and deny, their names and reasons are kept, and secrets are not shown."""

from __future__ import annotations

import asyncio
import signal

import apsw
import pytest
from tests.e2e.cli.conftest import Shell, until
from tests.e2e.cli.floor import HOSTILE

import surefoot as sf

SAID = ("--by", "anna", "--reason", "the customer called")


def asked(shell: Shell, order: str = "W", run: str = "w-1") -> None:
    """Let a run wait for its approval."""
    left = shell.here("run", "floor:wire_parcel", order, "--id", run, "--store", shell.url)
    assert left.code == 6
    assert "surefoot approve 1 --by YOU --reason 'HOW YOU KNOW'" in left.err


def test_approved_from_another_process_the_run_goes_on(shell: Shell) -> None:
    """Catches an approval that a worker elsewhere isn't woken by, or that a person can't read before they give it."""
    worker = None
    shell.submit("wire_parcel", "W", id="w-1")
    worker = shell.start("worker", "floor", "--store", shell.url)
    until(lambda: shell.here("approvals", "--json").document["approvals"])
    (one,) = shell.here("approvals", "--json").document["approvals"]
    assert (one["key"], one["runs"], one["by"], one["may"]) == ("wire:W", ["w-1"], ["finance"], [])
    assert one["arguments"] == {"order": "W", "amount": 500, "iban": "[redacted]", "api_key": "[redacted]"}
    shown = shell.here("approvals").out
    for words in (
        "approval 1: wire, wire:W",
        '"amount": 500',
        "w-1",
        "finance (the store has no rules",
        one["call"][:16],
    ):
        assert words in shown
    assert "1 approval to decide" in shell.here("unknowns").err
    done = shell.type("approve", "1", *SAID)
    assert (done.code, done.err) == (0, "approval 1 (wire:W) is approved. Run w-1 goes on with the next free worker\n")
    until(lambda: shell.state("w-1") == "completed")
    assert shell.world() == ["wired W 500"]
    late = shell.here("deny", "1", "--by", "bob", "--reason", "too late")
    assert late.code == 4
    assert "was approved, and is used: anna" in late.err
    assert shell.here("approvals", "--json").document["approvals"] == []
    (used,) = shell.here("approvals", "--state", "used", "--json").document["approvals"]
    assert [note["kind"] for note in used["notes"]] == ["approved", "used"]
    worker.send_signal(signal.SIGTERM)
    worker.communicate()


def test_denied_with_the_reason(shell: Shell) -> None:
    """Catches a denial that does something, or whose reason is lost on the way."""
    asked(shell)
    assert shell.here("deny", "1", "--by", "bob", "--reason", "not this month").code == 0
    ended = shell.here("run", "floor:wire_parcel", "W", "--id", "w-1")
    assert ended.code == 1
    assert "approval 1 was denied by bob: not this month" in ended.err
    assert shell.world() == []


def test_what_can_not_be_meant_is_refused(shell: Shell) -> None:
    """Catches a decision about nothing, by nobody, by the program, or in the words of the example."""
    asked(shell)
    for words, code in (
        (("approve", "99", *SAID), 3),
        (("approvals", "--id", "99"), 3),
        (("approve", "one", *SAID), 2),
        (("approve", "1", "--by", "YOU", "--reason", "fine"), 2),
        (("approve", "1", "--by", "api", "--reason", "fine"), 2),
        (("approve", "1", "--by", " ", "--reason", "fine"), 1),
        (("approve", "1", "--by", "anna"), 2),
        (("approvals", "--state", "gone"), 2),
        (("cancel", "w-1", "--by", "api", "--reason", "fine"), 2),
        (("audit", "--head", "00"), 2),
    ):
        assert shell.here(*words).code == code, words
    assert shell.here("approvals", "--json").document["approvals"][0]["state"] == "pending"
    assert shell.here("audit", "--json").document["entries"] == []


def test_roles_hold_where_only_the_store_knows_them(shell: Shell) -> None:
    """Catches rules that a command line without the app's code doesn't keep to."""

    async def set_rules() -> None:
        rules = sf.People({"anna": ["finance"], "bob": ["operator"]}, may={"undo": "operator", "resolve": "operator"})
        async with sf.Surefoot(shell.url, people=rules, is_worker=False):
            pass

    asyncio.run(set_rules())
    asked(shell)
    assert "finance: anna" in shell.here("approvals").out
    refused = shell.here("approve", "1", "--by", "bob", "--reason", "fine")
    assert (refused.code, "it needs finance" in refused.err, "ask anna" in refused.err) == (4, True, True)
    assert shell.here("cancel", "w-1", "--by", "mallory", "--reason", "fun").code == 4
    shell.here("run", "floor:pay_parcel", "P", "--id", "p-1")
    unknown = str(shell.here("unknowns", "--json").document["effects"][0]["effect"]["id"])
    assert shell.here("resolve", unknown, "--done", *SAID).code == 4
    assert shell.here("resolve", unknown, "--not-done", "--by", "bob", "--reason", "no trace").code == 0
    assert shell.here("approve", "1", *SAID).code == 0
    assert shell.here("run", "floor:wire_parcel", "W", "--id", "w-1").code == 0
    assert shell.here("undo", "w-1", "--module", "floor", "--by", "anna", "--reason", "oops").code == 4
    said = [(one["act"], one["who"]) for one in shell.here("audit", "--json").document["entries"]]
    assert said[1:] == [("resolve", "bob"), ("approve", "anna")]


def test_the_trail_tells_each_decision_and_finds_what_was_changed(shell: Shell) -> None:
    """Catches a decision without an entry, and an entry that is edited, deleted, cut off or missing unseen."""
    asked(shell)
    shell.here("signal", "w-1", "hello", '"there"', "--by", "carl")
    shell.here("approve", "1", *SAID)
    shell.here("run", "floor:wire_parcel", "W", "--id", "w-1")
    shell.here("run", "floor:pay_parcel", "P", "--id", "p-1")
    shell.here("resolve", "2", "--done", "--value", '"paid"', "--by", "dora", "--reason", "saw it")
    shell.submit("ask_parcel", "A", id="a-1")
    shell.here("cancel", "a-1", "--by", "emil", "--reason", "not wanted")
    whole = shell.here("audit", "--verify", "--json")
    assert (whole.code, whole.document["problems"]) == (0, [])
    assert [(one["act"], one["who"], one["target"]) for one in whole.document["entries"]] == [
        ("signal", "carl", "run w-1"),
        ("approve", "anna", "approval 1"),
        ("resolve", "dora", "effect 2"),
        ("cancel", "emil", "run a-1"),
    ]
    assert all(one["host"] and one["pid"] and one["reason"] for one in whole.document["entries"])
    assert shell.here("audit", "--verify", "--head", whole.document["head"]).code == 0
    assert shell.here("audit", "--verify", "--head", "ab" * 32).code == 1
    for change, told in (
        ("UPDATE trail SET who = 'mallory' WHERE id = 2", "entry 2"),
        ("UPDATE trail SET digest = x'00' WHERE id = 3", "entry 3"),
        ("DELETE FROM trail WHERE id = 3", "entries 3 to 3 are missing"),
        ("DELETE FROM trail WHERE id = 4", "entries 4 to 4 are missing at the end"),
        ("DELETE FROM trail WHERE id = 2", "approval 1 is used, and the trail has no such decision"),
        ("INSERT OR REPLACE INTO people VALUES (1, '{}', 0, 'mallory')", "the rules of who may do what"),
        ("UPDATE approvals SET call = x'00' WHERE id = 1", "no such decision of that call"),
    ):
        connection = apsw.Connection("agents.db")
        connection.execute("BEGIN")
        kept = (shell.place / "agents.db").read_bytes(), (shell.place / "agents.db-wal")
        connection.execute(change)
        connection.execute("COMMIT")
        connection.close()
        found = shell.here("audit", "--verify")
        (shell.place / "agents.db").write_bytes(kept[0])
        for left in ("agents.db-wal", "agents.db-shm"):
            (shell.place / left).unlink(missing_ok=True)
        assert (found.code, told in found.err) == (1, True), (change, found.err)
    assert shell.here("audit", "--verify").code == 0


def test_secrets_are_shown_only_for_a_reason(shell: Shell) -> None:
    """Catches a secret on a terminal or in JSON: by its name, by declaration, by its look; and one shown unseen."""
    asked(shell)
    shell.here("approve", "1", *SAID)
    told = shell.here("run", "floor:wire_parcel", "W", "--id", "w-1")
    told_too = shell.here("run", "floor:fetch_parcel", "F", "--id", "f-1")
    again = shell.here("run", "floor:fetch_parcel", "F", "--id", "f-2")  # gets the first outcome, of another run
    shown = [told, told_too, again]
    for run in ("w-1", "f-1", "f-2"):
        shown += [shell.here("show", run), shell.here("show", run, "--json"), shell.here("show", run, "--full")]
    for number in ("1", "2"):
        shown += [shell.here("effects", "--id", number), shell.here("effects", "--id", number, "--json")]
    shown += [
        shell.here("effects"),
        shell.here("effects", "--json"),
        shell.here("approvals", "--state", "all", "--json"),
    ]
    for one in shown:
        for secret in ("hunter2", "DE02", "sk-live-", "vault F", "4711"):
            assert secret not in one.out + one.err
    assert "[redacted]" in shell.here("show", "w-1").out
    assert shell.here("show", "f-1", "--show-secrets").code == 2
    assert shell.here("show", "f-1", "--reason", "why not").code == 2
    raw = shell.here("show", "f-1", "--json", "--show-secrets", "--by", "anna", "--reason", "a complaint")
    assert "hunter2" in raw.out
    assert "vault F" in raw.out
    assert "4711" in shell.here("effects", "--id", "2", "--show-secrets", "--by", "bob", "--reason", "me too").out
    said = [one for one in shell.here("audit", "--json").document["entries"] if one["act"] == "show secrets"]
    assert [(one["who"], one["target"], one["reason"]) for one in said] == [
        ("anna", "run f-1", "a complaint"), ("bob", "effect 2", "me too")]  # fmt: skip


def test_an_authenticating_app_is_asked(shell: Shell) -> None:
    """Catches a name that is taken as it is typed where the app proves names, with its code at hand or without."""
    (shell.place / "guarded.py").write_text(GUARDED)
    left = shell.type("run", "guarded:wire_parcel", "W", "--id", "w-1")
    assert left.code == 6
    said, there = ("--reason", "fine", "--store", shell.url), ("--module", "guarded")
    unproven = shell.type("approve", "1", "--by", "anna", *said)
    assert (unproven.code, "--module MODULE" in unproven.err) == (4, True)
    assert shell.type("cancel", "w-1", "--by", "anna", *said).code == 4
    assert shell.type("show", "w-1", "--show-secrets", "--by", "anna", *said).code == 4
    mallory = shell.type("approve", "1", "--by", "mallory", *said, *there)
    assert (mallory.code, "no badge for mallory" in mallory.err) == (4, True)
    (shell.place / "badge").write_text("anna")
    done = shell.type("approve", "1", "--by", "whoever I am", *said, *there)
    assert (done.code, done.err.count("approved")) == (0, 1)
    assert [one["who"] for one in shell.here("audit", "--json", "--store", shell.url).document["entries"]][1:] == [
        "anna"
    ]
    assert shell.type("cancel", "w-1", "--by", "anna", *said, *there).code == 0
    assert shell.type("signal", "w-1", "hi", "--by", "anna", *said[2:], *there).code == 0


GUARDED = """
from pathlib import Path
import surefoot as sf
from floor import wire_parcel

def prove(name):
    badge = Path("badge")
    if not badge.exists():
        raise sf.NotAllowed(f"no badge for {name}")
    return badge.read_text()

app = sf.Surefoot("sqlite:///agents.db", people=sf.People({"anna": ["finance"]}, authenticate=prove))
"""


def test_what_a_model_wrote_is_shown_as_data(shell: Shell) -> None:
    """Catches a call that paints over what it asks for, before a person approves it."""
    shell.here("run", "floor:wire_parcel", HOSTILE, "--id", HOSTILE, "--store", shell.url)
    for shown in (shell.here("approvals"), shell.here("approvals", "--id", "1"), shell.here("approvals", "--json")):
        assert shown.code == 0
        assert not set(shown.out) & set("\x1b\x07\x7f\x9b\u202e\u2066")
    assert shell.here("deny", "1", "--by", HOSTILE, "--reason", HOSTILE).code == 0
    for shown in (shell.here("audit"), shell.here("audit", "--json"), shell.here("approvals", "--state", "denied")):
        assert "owned" in shown.out
        assert not set(shown.out) & set("\x1b\x07\x7f\x9b\u202e\u2066")
    assert shell.here("audit", "--verify").code == 0


def test_the_most_urgent_come_first_and_nothing_hides_them(shell: Shell) -> None:
    """Catches an approval that is pushed off the list by others that nobody waits for any more."""
    for number in range(4):
        shell.here("run", "floor:wire_parcel", f"W-{number}", "--id", f"w-{number}", "--store", shell.url)
    for number in (1, 2, 3):
        shell.here("cancel", f"w-{number}", "--reason", "not any more")
        assert shell.here("run", "floor:wire_parcel", f"W-{number}", "--id", f"w-{number}").code == 1
    listed = shell.here("approvals", "--limit", "1", "--json").document["approvals"]
    assert [one["key"] for one in listed] == ["wire:W-0"]
    assert shell.here("unknowns", "--json").document["approvals"] == 1


@pytest.mark.parametrize("words", [("approve", "1", *SAID), ("deny", "1", *SAID), ("approvals",), ("audit",)])
def test_a_store_that_is_not_there_is_not_made(shell: Shell, words: tuple[str, ...]) -> None:
    """Catches a decision that is written into a store of its own, because its place was mistyped."""
    done = shell.here(*words, "--store", "sqlite:///typo.db")
    assert done.code == 5
    assert "there is no store at" in done.err
    assert not (shell.place / "typo.db").exists()
