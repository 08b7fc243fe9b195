"""The examples do what their last lines say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.pages import EXAMPLES, NEEDS_SERVERS, run_as_program

ALONE = [example for example in EXAMPLES if example.stem not in NEEDS_SERVERS]


def says(example: Path) -> list[str]:
    """Return what an example says that it prints."""
    ending = re.search(r"(?:^#.*\n)+\Z", example.read_text(), flags=re.MULTILINE)
    assert ending, f"{example.name} ends with no expected output"
    return [line.removeprefix("#").removeprefix(" ") for line in ending[0].splitlines()]


@pytest.mark.parametrize("example", ALONE, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Catches an example that no longer runs, or whose comment tells something else than happens."""
    expected = says(example)
    run_as_program(example, tmp_path, monkeypatch)
    printed, complained = capfd.readouterr()
    assert (complained, printed.splitlines()) == ("", expected)
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing behind"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(example: Path) -> None:
    """Catches examples that nobody reads."""
    assert len(example.read_text().splitlines()) < 60
