"""The pages: their code runs, their links lead somewhere, their tables say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.pages import (
    DOCS,
    MADE_ELSEWHERE,
    PAGES,
    ROOT,
    anchor,
    headings,
    name_of,
    python_blocks,
    rows,
    run_as_program,
    without_code,
)

from surefoot import store
from surefoot.app import MIGRATIONS
from surefoot.approvals import states as approvals
from surefoot.effects import MEANING, AskPerson, CannotTell, Overwrite, Probe, Read, Resend, Transactional
from surefoot.effects import states as effects
from surefoot.effects.doubt import InDoubt
from surefoot.journal import Kind
from surefoot.runs import life as runs

BLOCKS = [(page, number, code) for page in PAGES for number, code in enumerate(python_blocks(page.read_text()), 1)]
CLASSES: tuple[InDoubt, ...] = (
    Read(), Resend("`key_ttl`"), Overwrite(), Probe(CannotTell, "`longest_life`"), Transactional(), AskPerson()
)  # fmt: skip


@pytest.mark.parametrize(("page", "number", "code"), BLOCKS, ids=[f"{name_of(p)}-{n}" for p, n, _ in BLOCKS])
def test_code_of_a_page_runs(
    page: Path,
    number: int,
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Catches code that can't be pasted into a file and run."""
    file = tmp_path / "pasted.py"
    file.write_text(code)
    run_as_program(file, tmp_path, monkeypatch)
    printed, complained = capfd.readouterr()
    assert complained == ""
    assert printed or "print(" not in code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    """Catches links to pages, files and headings that are not there."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()).replace("\n", " ")):
        if target.startswith(("http://", "https://")):
            continue
        place, _, fragment = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        if not file.exists():
            if not file.is_relative_to(ROOT) or name_of(file) not in MADE_ELSEWHERE:
                broken.append(target)
        elif fragment and fragment not in {anchor(title) for _, title in headings(file.read_text())}:
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("*.md")), ids=lambda path: path.stem)
def test_a_decision_is_short_and_whole(page: Path) -> None:
    """Catches decision records that have grown into essays, or leave out what was dropped."""
    text = page.read_text()
    assert len(text.splitlines()) < 40
    assert [title for level, title in headings(text) if level == 2] == [
        "Context", "Choice", "Dropped", "What would change our mind",
    ]  # fmt: skip


def _terms() -> set[str]:
    return {term.lower() for term in re.findall(r"\*\*(.+?)\*\*", (DOCS / "glossary.md").read_text())}


def test_the_glossary_has_the_words_of_the_code() -> None:
    """Catches a state, an outcome, a class of doubt or a reason to wait that nobody explains."""
    words = {state.name.lower() for state in runs.RunState}
    words |= {state.name.lower().replace("_", " ") for state in effects.State}
    words |= {wait.value for wait in runs.WaitFor}
    words |= set(MEANING)
    words |= {type(one).__name__.lower() for one in CLASSES}
    assert words - _terms() == set()


EXPLANATIONS = [DOCS / "life-of-a-run.md", DOCS / "life-of-an-effect.md"]


@pytest.mark.parametrize("page", EXPLANATIONS, ids=name_of)
def test_the_glossary_has_the_terms_used_as_headings(page: Path) -> None:
    """Catches a term that is explained at length and defined nowhere."""
    used = {title.lower() for level, title in headings(page.read_text()) if level > 1} - {"states"}
    assert used - _terms() == set()


@pytest.mark.parametrize(("page", "table"), [("life-of-a-run.md", runs.TABLE), ("life-of-an-effect.md", effects.TABLE)])
def test_the_state_tables_are_those_of_the_code(
    page: str, table: dict[runs.RunState, dict[runs.RunEvent, runs.RunState]]
) -> None:
    """Catches a page that tells of a life the code doesn't lead."""
    expected = [
        tuple(word.lower().replace("_", " ") for word in (before.name, event.value, after.name))
        for before, ways in table.items()
        for event, after in ways.items()
    ]
    assert rows((DOCS / page).read_text(), "States", first="state") == expected


def test_the_life_of_an_approval_is_that_of_the_code() -> None:
    """Catches a page, or a glossary, that tells of approvals otherwise than the table of states."""
    expected = [
        tuple(word.lower() for word in (before.name, event.value, after.name))
        for before, ways in approvals.TABLE.items()
        for event, after in ways.items()
    ]
    assert rows((DOCS / "life-of-an-effect.md").read_text(), "Approval", first="state") == expected
    assert {state.name.lower() for state in approvals.State} - {"pending", "approved"} - _terms() == set()


def test_what_a_model_is_told_is_told_here() -> None:
    """Catches a page that words an outcome otherwise than the model reads it."""
    told = rows((DOCS / "life-of-an-effect.md").read_text(), "Outcome", first="told")
    assert told == [(f"`{name}`", meaning) for name, meaning in MEANING.items()]


def test_the_readme_has_each_class_with_its_assumption() -> None:
    """Catches a promise printed without the assumption it stands on."""
    table = rows((ROOT / "README.md").read_text(), "What is promised", first="`in_doubt=`")
    assert [re.sub(r"\W.*", "", row[0].removeprefix("`sf.")) for row in table] == [
        type(one).__name__ for one in CLASSES
    ]
    assert [row[2] for row in table] == [one.assumption for one in CLASSES]


def test_the_storage_format_is_complete() -> None:
    """Catches a table, a column, a record kind or a version that the page doesn't have."""
    text = (DOCS / "storage-format.md").read_text()
    kinds = [(int(number), kind.strip("`")) for number, kind, *_ in rows(text, "Record kinds", first="number")]
    assert kinds == [(kind.value, kind.name) for kind in Kind]
    versions = {migration.room: migration.version for migration in (*store.MIGRATIONS, *MIGRATIONS)}
    assert all(f"{room} {version}" in text for room, version in versions.items())
    sql = "\n".join(migration.sql for migration in MIGRATIONS)
    for table, columns in re.findall(r"CREATE TABLE (\w+) \((.*?)\)(?:;|\Z|\n)", sql, flags=re.DOTALL):
        section = re.split(r"^#", text.split(f"### `{table}`\n", maxsplit=1)[1], maxsplit=1, flags=re.MULTILINE)[0]
        words = [column.split()[0].strip("()") for column in columns.split(",")]
        names = {word for word in words if word.islower()}
        assert names - set(re.findall(r"`(\w+)`", section)) == set(), table


def test_the_claim_is_never_exactly_once() -> None:
    """Catches the one promise nobody can keep."""
    for page in PAGES:
        assert not re.search(r"exactly[\s-]once", page.read_text(), flags=re.IGNORECASE), name_of(page)
