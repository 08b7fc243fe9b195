"""`surefoot doctor MODULE`: what a new user sees of their own code, and that looking does nothing."""

from __future__ import annotations

import pytest
from tests.e2e.cli.conftest import Shell

CARELESS = """
import time
import surefoot as sf

@sf.effect(name="careless.ship")
def ship(order_id: str, note: str) -> str:
    return order_id

@sf.effect(key="refund:{order_id}", in_doubt=sf.Resend(key_ttl="30m"), name="careless.refund")
async def refund(order_id: str) -> str:
    return order_id

@sf.durable(name="careless run")
async def careless_run() -> float:
    return time.time()

app = sf.Surefoot("sqlite:///careless.db")
print("careless is imported")
"""
"""It prints, and its store is not there."""


@pytest.fixture
def code(shell: Shell) -> Shell:
    """A directory with a careless module."""
    (shell.place / "careless.py").write_text(CARELESS)
    return shell


def test_tools_and_findings_are_shown_with_what_to_write(code: Shell) -> None:
    """Would catch a table that is not shown, words of the module among the data, and a look that makes a store."""
    done = code.type("doctor", "careless")
    lines = done.out.splitlines()
    assert (done.code, lines[0], "careless is imported" in done.out) == (0, "2 tools, the worst first", False)
    assert [line.split()[0] for line in lines[2:4]] == ["careless.ship", "careless.refund"]
    assert "  resends: careless.refund is sent again, and its code never seems to use the key" in done.out
    assert '    key="careless.ship:{order_id}", if two of these would be a mistake' in lines
    assert "    write sf.now(), or put it into a step of its own (@sf.step)" in lines
    assert not (code.place / "careless.db").exists()


def test_the_document_has_the_tools_and_the_findings(code: Shell) -> None:
    """Would catch a document without what the screen shows."""
    document = code.type("doctor", "careless", "--json").document
    shown = [(one["name"], one["doubt"], one["key"], one["risk"]) for one in document["tools"]]
    assert shown == [
        ("careless.ship", "ask a person", None, "no key"),
        ("careless.refund", "resend", "refund:{order_id}", "keys"),
    ]
    assert {one["severity"] for one in document["findings"]} == {"warning", "note"}
    assert document["store"] is None


def test_a_module_that_can_not_be_imported_says_why(code: Shell) -> None:
    """Would catch a traceback of ours for a mistake of the user's."""
    (code.place / "broken.py").write_text("import surefoot as sf\nraise LookupError('no settings')\n")
    done = code.type("doctor", "broken")
    assert done.code == 2
    assert "importing broken raised LookupError: no settings" in done.err
    assert "Traceback" not in done.err
