"""The local model: 135M weights in this process or in one that serves many; importing this needs none of the extras."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surefoot.models.errors import LocalModelError, MissingExtra, PullFailed, WeightsMissing

if TYPE_CHECKING:
    from pydantic_ai.models import Model

LOCAL = "local"
REMOTE = "local+http://"


def resolve_model(name: str) -> Model | str:
    """Return the model a name means.

    Args:
        name: "local" (in this process), "local+http://127.0.0.1:PORT" (served by `python -m surefoot.models.server`), or
            any name Pydantic AI knows, which is returned unchanged.

    Raises:
        MissingExtra: The extra "local" is not installed.
        WeightsMissing: The weights were not pulled yet.
    """
    if name != LOCAL and not name.startswith(REMOTE):
        return name
    try:
        from surefoot.models.local import LocalModel
        from surefoot.models.server import RemoteLocalModel
    except ImportError as missing:
        raise MissingExtra(missing.name or "pydantic-ai") from missing
    return LocalModel() if name == LOCAL else RemoteLocalModel(name.removeprefix("local+"))


__all__ = ["LocalModelError", "MissingExtra", "PullFailed", "WeightsMissing", "resolve_model"]
