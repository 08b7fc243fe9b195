"""Every planted bug is found by something, and nothing is found in the engine as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.planted.__main__ import row
from tests.planted.detectors import DETECTORS, Finding, broken_anyway, look
from tests.planted.patches import Bug, bugs, plant

QUICK = {"key-not-injective": "rules", "probe-without-a-fence": "rules"}
"""The sample of the fast lane: bugs that one quick detector finds in a second."""


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name)
def test_a_patch_still_fits(bug: Bug, tmp_path: Path) -> None:
    """Would catch a patch that the engine has grown out of."""
    plant(bug, tmp_path)


@pytest.mark.parametrize("name", QUICK)
def test_a_sample_is_found(name: str) -> None:
    """Would catch a runner that plants nothing, or takes a failure for a pass."""
    (bug,) = [bug for bug in bugs() if bug.name == name]
    assert look(bug, [one for one in DETECTORS if one.name == QUICK[name]])[-1].is_caught


def test_a_line_names_all_who_found_it() -> None:
    """Would catch a table that shows one method where two have found the bug, or one that has not."""
    findings = [
        Finding("contract", True, "test_a|b", None, 2.0),
        Finding("rules", False, "", None, 9.0),
        Finding("schedules", True, "at most one landing", 3, 1.0),
    ]
    assert row(Bug("x", "a mistake", ""), findings) == (
        "| a mistake | contract, schedules | test_a b; at most one landing | 3 | 2, 1 |\n"
    )
    assert row(Bug("x", "a mistake", ""), findings[1:2]) == "| a mistake | **nobody** |  | not tried | 9 |\n"
    missed = Finding("schedules", False, "", None, 8.0)
    assert row(Bug("x", "a mistake", ""), [missed]) == "| a mistake | **nobody** |  | not in 400 | 8 |\n"


@pytest.mark.slow
@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    """Would catch tests that have gone blind."""
    findings = look(bug)
    print(bug.title, findings)
    assert findings[-1].is_caught, f"nothing finds this: {bug.title}"


@pytest.mark.slow
def test_the_engine_as_it_is_passes_all_detectors() -> None:
    """Would catch a detector that finds whatever it looks at."""
    assert [finding for finding in look(None) if finding.is_caught] == []
    assert broken_anyway() == ()
