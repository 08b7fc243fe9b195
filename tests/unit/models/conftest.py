"""The weights for the tests that need the real model: pulled once, kept in the user's cache."""

from pathlib import Path

import pytest

from surefoot.models import weights
from surefoot.models.engine import Engine, shared_engine


@pytest.fixture(scope="session")
def real_weights() -> Path:
    return weights.find() or weights.pull()


@pytest.fixture(scope="session")
def engine(real_weights: Path) -> Engine:
    """The process's engine; loading takes a second, so the tests share it."""
    return shared_engine(real_weights)
