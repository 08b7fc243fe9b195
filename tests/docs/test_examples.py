"""The examples do what their last lines say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.pages import EXAMPLES, run_as_program


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Catches an example that no longer runs, or whose comment tells something else than happens."""
    text = example.read_text()
    ending = re.search(r"(?:^#.*\n)+\Z", text, flags=re.MULTILINE)
    assert ending, f"{example.name} ends with no expected output"
    expected = [line.removeprefix("#").removeprefix(" ") for line in ending[0].splitlines()]
    run_as_program(example, tmp_path, monkeypatch)
    printed, complained = capfd.readouterr()
    assert (complained, printed.splitlines()) == ("", expected)
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing behind"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(example: Path) -> None:
    """Catches examples that nobody reads."""
    assert len(example.read_text().splitlines()) < 60
