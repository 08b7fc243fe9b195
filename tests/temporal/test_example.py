"""The example for Temporal does what its last lines say."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.pages import ROOT, run_as_program
from tests.docs.test_examples import says
from tests.support.postgres import Postgres, schema
from tests.support.temporal import Temporal


def test_the_example_prints_what_it_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    postgres: Postgres,
    temporal: Temporal,
) -> None:
    """Catches an example that no longer runs, or whose comment tells something else than happens."""
    example = ROOT / "examples" / "20_temporal.py"
    with schema(postgres.url) as url:
        capfd.readouterr()
        run_as_program(example, tmp_path, monkeypatch, SUREFOOT_URL=url, TEMPORAL_URL=temporal.url("example"))
        printed, complained = capfd.readouterr()
    assert (complained, printed.splitlines()) == ("", says(example))
