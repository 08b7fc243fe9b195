"""Help, reference page and documents agree with each other and with what the commands print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from tests.e2e.cli.conftest import Shell

import surefoot as sf
from surefoot.cli import exits, reference
from surefoot.cli.shapes.describe import title_of
from surefoot.cli.shapes.documents import DOCUMENTS
from surefoot.cli.shapes.doubts import UnknownsDocument
from surefoot.cli.shapes.effects import EffectDocument, EffectsDocument, ResolveDocument
from surefoot.cli.shapes.people import ApprovalsDocument, AuditDocument
from surefoot.cli.shapes.runs import CancelDocument, OutcomeDocument, RunsDocument, ShowDocument, SignalDocument
from surefoot.cli.show import step_tail
from surefoot.cli.timeline import step_of, steps_of
from surefoot.journal import Kind, Record
from surefoot.journal.records import Head
from surefoot.problem import SurefootError

ROOT = Path(__file__).parents[3]
NAMES = [name for name, _ in reference.commands()]
WITHOUT_JSON = {"demo"}


def test_the_page_is_not_stale() -> None:
    """Catches a help text that was changed without its page: run `python -m surefoot.cli.reference`."""
    assert (ROOT / reference.PAGE).read_text(encoding="utf-8") == reference.page()


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help(shell: Shell, name: str) -> None:
    """Catches a command without help, without `--json`, or whose document has no described shape."""
    done = shell.here(*name.split(), "--help")
    assert done.code == 0
    assert f"\n## {name}\n" in reference.page()
    if name not in WITHOUT_JSON:
        assert "--json" in done.out
        for shape in DOCUMENTS[name]:
            assert all(field in done.out for field in shape.__struct_fields__)
            assert f"### {title_of(shape)}\n" in reference.page()


def test_the_root_help_lists_all(shell: Shell) -> None:
    """Catches a command or an exit code that the help forgets."""
    done = shell.here("--help")
    assert done.code == 0
    assert all(f"  {name.split()[0]} " in done.out for name in NAMES)
    assert all(f"{code.value:>3}  {meaning}" in done.out for code, meaning in exits.MEANING.items())
    assert set(exits.MEANING) == set(exits.ExitCode)
    assert shell.here("--version").out == f"surefoot {sf.__version__}\n"
    assert shell.here("nonsense").code == 2
    assert shell.here("runs", "--nonsense").code == 2


def read(text: str, shape: type[msgspec.Struct]) -> Any:
    """Return the document, and refuse one that has other fields or types than its shape says."""
    document = msgspec.json.decode(text, type=shape)
    assert msgspec.to_builtins(document) == json.loads(text)
    return document


def test_documents_have_their_shapes(shell: Shell) -> None:
    """Catches a field that is missing, new, or of another type than the page says."""
    here, store = shell.here, ("--store", shell.url)
    read(here("run", "floor:label_parcel", "A", "--id", "l-1", *store, "--json").out, OutcomeDocument)
    read(here("run", "floor:pay_parcel", "P", "--id", "p-1", *store, "--json").out, OutcomeDocument)
    shell.submit("ask_parcel", "A", id="a-1")
    read(here("runs", "--json").out, RunsDocument)
    for run in ("l-1", "p-1", "a-1"):
        read(here("show", run, "--json").out, ShowDocument)
    read(here("effects", "--json").out, EffectsDocument)
    read(here("effects", "--id", "2", "--json").out, EffectDocument)
    read(here("unknowns", "--json").out, UnknownsDocument)
    read(here("approvals", "--json").out, ApprovalsDocument)
    read(here("audit", "--json").out, AuditDocument)
    read(here("signal", "a-1", "approve", "1", "--json").out, SignalDocument)
    read(here("cancel", "a-1", "--reason", "x", "--json").out, CancelDocument)
    said = ("--by", "Ann", "--reason", "looked")
    read(here("resolve", "2", "--done", *said, "--json").out, ResolveDocument)


def test_the_steps_of_a_run_by_outcome(shell: Shell) -> None:
    """Catches a step that is told twice, or whose outcome is lost."""
    shell.here("run", "floor:send_parcel", "A", "--id", "t-1", "--store", shell.url)
    shell.submit("send_parcel", "A", id="t-2")
    shell.here("run", "floor:send_parcel", "A", "--id", "t-2")
    first, second = (shell.here("show", run, "--json").document["steps"] for run in ("t-1", "t-2"))
    assert [(step["what"], step["outcome"], step["effect"]) for step in first] == [
        ("start", None, None), ("effect", "done", 1), ("end", "completed", None)]  # fmt: skip
    assert [(step["what"], step["outcome"], step["effect"]) for step in second] == [
        ("start", None, None), ("effect", "repeated", 1), ("end", "completed", None)]  # fmt: skip
    assert second[1]["value"] == "posted A"


def test_every_kind_of_record_has_words() -> None:
    """Catches a record of a kind that a timeline can't tell."""
    call = b'{"effect":"e","doubt":"d","key":"k","scope":"app","arguments":{}}'
    claim = Record(1, 1, Kind.CLAIMED, "step", body=call)
    for kind in Kind:
        body = call if kind is Kind.CLAIMED else b'["E","text"]'
        records = [claim, Record(1, 2, kind, "step", head=Head(state="failed"), body=body)]
        for steps in (steps_of(records, {}), steps_of(records[1:], {})):
            assert steps
            assert all(step.what and step.words for step in steps), kind


def test_a_model_response_is_told_in_words() -> None:
    """Catches a timeline in which the decision is buried in the provider's JSON, or that trusts its form."""
    response = {"parts": [{"content": "I look [red]\x1b[2J"}, {"tool_name": "refund", "args": {"order": "A"}}]}
    for value, said in (
        (response, "says I look [red]\\u001b[2J; calls refund({'order': 'A'})"),
        ({"parts": "none"}, '{"parts": "none"}'),
        ({"parts": [1]}, '{"parts": [1]}'),
        ("text", '"text"'),
    ):
        body = msgspec.json.encode(value)
        step = step_of(Record(1, 1, Kind.DECIDED, "agent/decision[1]", head=Head(request="d"), body=body), {})
        assert said in step_tail(step, is_full=True)


def test_an_exit_code_for_every_error() -> None:
    """Catches an error of Surefoot that would end as one nobody expected."""

    def below(kind: type[SurefootError]) -> list[type[SurefootError]]:
        return [kind, *(one for child in kind.__subclasses__() for one in below(child))]

    for kind in below(SurefootError):
        error = kind.__new__(kind)
        assert exits.exit_code_of(error) not in (exits.ExitCode.OK, exits.ExitCode.BUG), kind
    assert exits.exit_code_of(ValueError()) is exits.ExitCode.BUG


def test_an_error_nobody_expected(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a bug that is told as the user's mistake, or whose text reaches the terminal raw."""

    def fails(**_: object) -> None:
        raise RuntimeError("a bug\x1b[2J")

    fake = ModuleType("surefoot.demo.main")
    fake.__dict__["run_demo"] = fails
    monkeypatch.setitem(sys.modules, "surefoot.demo.main", fake)
    done = shell.here("demo")
    assert done.code == 70
    assert "Traceback" in done.err
    assert "\x1b" not in done.err


def test_demo_and_model_pull_pass_on_what_was_typed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an option that is swallowed on its way."""
    seen: list[dict[str, object]] = []
    fake = ModuleType("surefoot.demo.main")
    fake.__dict__["run_demo"] = lambda **given: seen.append(given)
    monkeypatch.setitem(sys.modules, "surefoot.demo.main", fake)
    assert shell.here("demo").code == 0
    assert shell.here("demo", "--seed", "7", "--tickets", "t.json", "--kills", "3", "--workers", "2").code == 0
    assert seen == [
        {"seed": None, "tickets": None, "model": "local", "kills": 10, "workers": None},
        {"seed": 7, "tickets": Path("t.json"), "model": "local", "kills": 3, "workers": 2},
    ]
    monkeypatch.setattr("surefoot.models.weights.pull", lambda progress: (progress("fetching"), Path("w.gguf"))[1])
    done = shell.here("model", "pull", "--json")
    assert (done.document, done.err) == ({"path": "w.gguf"}, "fetching\n")
