"""The room's face: what a name means, what is public, and what is said when a part is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

from surefoot import models
from surefoot.models import MissingExtra, WeightsMissing, resolve_model
from surefoot.models.remote import RemoteLocalModel


def test_the_public_names_are_these_and_exist() -> None:
    """Catches a name that disappears, or appears unnoticed."""
    assert models.__all__ == [
        "GrammarIgnored",
        "LoadFailed",
        "LocalModel",
        "LocalModelError",
        "MissingExtra",
        "PullFailed",
        "RemoteLocalModel",
        "WeightsMissing",
        "find",
        "pull",
        "resolve_model",
    ]
    assert all(getattr(models, name) for name in models.__all__)
    with pytest.raises(AttributeError, match="no attribute 'LocalModle'"):
        _ = models.LocalModle


def test_names_of_other_providers_pass_unchanged() -> None:
    """Catches a name that is taken for ours."""
    for name in ("openai:gpt-5", "test", "localhost:x", "ollama:local"):
        assert resolve_model(name) == name


def test_a_served_model_is_resolved_without_asking_it() -> None:
    """Catches a worker that can't start before the model does."""
    model = resolve_model("local+http://127.0.0.1:1")
    assert isinstance(model, RemoteLocalModel)
    assert model.base_url == "http://127.0.0.1:1"
    for wrong in ("local+", "local+https://h:1", "local+127.0.0.1:80"):
        with pytest.raises(ValueError, match="expected http://HOST:PORT"):
            resolve_model(wrong)


def test_without_weights_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches a silent download, and an error without a way out."""
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing, match="surefoot model pull"):
        resolve_model("local")


@pytest.mark.parametrize("package", ["pydantic_ai", "xllamacpp"])
@pytest.mark.parametrize("use", ["resolve_model('local')", "LocalModel()"])
def test_without_an_extra_the_room_opens_and_its_use_names_the_extra(package: str, use: str) -> None:
    """Catches an import that needs an extra, and an ImportError that doesn't say what to install."""
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "import surefoot.models as m\n"
        "assert m.resolve_model('openai:gpt-5') == 'openai:gpt-5'\n"
        f"try: m.{use}\n"
        "except m.MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert 'pip install "surefoot[local]"' in done.stdout, done.stderr
    assert package in done.stdout


def test_the_server_names_its_extra() -> None:
    """Catches a traceback from `python -m surefoot.models.server` on a half-installed machine."""
    program = "import sys; sys.modules['uvicorn'] = None\nimport surefoot.models.server"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert 'pip install "surefoot[demo]"' in done.stderr
    assert isinstance(MissingExtra("x"), ImportError)
