"""`surefoot doctor MODULE`: what a new user sees of their own code, and that looking does nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.cli.conftest import Shell

CARELESS = Path(__file__).parents[2] / "unit" / "doctor" / "careless.py"


@pytest.fixture
def code(shell: Shell) -> Shell:
    """A directory with a careless module, which prints and has a store that is not there."""
    (shell.place / "careless.py").write_text(CARELESS.read_text() + '\nprint("careless is imported")\n')
    return shell


def test_tools_and_findings_are_shown_with_what_to_write(code: Shell) -> None:
    """Would catch a table that is not shown, words of the module among the data, and a look that makes a store."""
    done = code.type("doctor", "careless")
    assert (done.code, "careless is imported" in done.out) == (0, False)
    lines = done.out.splitlines()
    assert lines[0] == "10 tools, the worst first"
    assert [line.split()[0] for line in lines[2:5]] == ["cancel_order", "find_order", "careless.ship"]
    assert (
        "retries beneath us: careless.mail uses an httpx client 'patient', which seems to retry by itself" in done.out
    )
    assert "    write httpx.HTTPTransport(retries=0); Surefoot sends again where the declaration allows it" in lines
    assert not (code.place / "careless.db").exists()


def test_the_document_has_the_tools_and_the_findings(code: Shell) -> None:
    """Would catch a document without what the screen shows."""
    document = code.type("doctor", "careless", "--json").document
    first = document["tools"][0]
    assert (first["name"], first["doubt"], first["risk"]) == ("cancel_order", "undeclared", "undeclared")
    assert first["agents"] == ["careless support"]
    assert {one["severity"] for one in document["findings"]} == {"warning", "note"}
    assert document["store"] is None


def test_a_module_that_can_not_be_imported_says_why(code: Shell) -> None:
    """Would catch a traceback of ours for a mistake of the user's."""
    (code.place / "broken.py").write_text("import surefoot as sf\nraise LookupError('no settings')\n")
    done = code.type("doctor", "broken")
    assert done.code == 2
    assert "importing broken raised LookupError: no settings" in done.err
    assert "Traceback" not in done.err
