"""The local model's face: what a name means, and what is said when a part is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from surefoot.models import MissingExtra, WeightsMissing, resolve_model
from surefoot.models import weights as cached


def test_names_of_other_providers_pass_unchanged() -> None:
    """Catches a name that is taken for ours."""
    assert resolve_model("openai:gpt-5") == "openai:gpt-5"


def test_without_weights_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches a silent download, and an error without a way out."""
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    assert cached.find() is None
    with pytest.raises(WeightsMissing, match="surefoot model pull"):
        resolve_model("local")


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an ImportError that doesn't say what to install."""
    monkeypatch.setitem(sys.modules, "surefoot.models.local", None)
    monkeypatch.setitem(sys.modules, "surefoot.models.server", None)
    with pytest.raises(MissingExtra, match=r'pip install "surefoot\[local\]"'):
        resolve_model("local")
