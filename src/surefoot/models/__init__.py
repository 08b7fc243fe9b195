"""Models: the LLM as an unreliable service, and the small local one that stands in for it without an account.

`resolve_model` turns the names below into models; every other name is Pydantic AI's business.

| name                         | model                                                          |
|------------------------------|----------------------------------------------------------------|
| `local`                      | SmolLM2-135M in this process                                   |
| `local+http://127.0.0.1:N`   | the same, served by `python -m surefoot.models.server`         |

Importing this package needs no optional package; using a model raises `MissingExtra` with the command to run.
"""

from typing import TYPE_CHECKING

from surefoot.models.errors import GrammarIgnored, LoadFailed, LocalModelError, MissingExtra, PullFailed, WeightsMissing
from surefoot.models.weights import find, pull

if TYPE_CHECKING:
    from pydantic_ai.models import Model

    from surefoot.models.local import LocalModel
    from surefoot.models.remote import RemoteLocalModel

__all__ = [
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

_SERVED = "local+"


def resolve_model(name: str) -> "Model[None] | str":
    """Return the model of a name.

    Args:
        name: "local", "local+http://HOST:PORT", or any name Pydantic AI knows.

    Returns:
        The model, or the name itself for Pydantic AI to resolve.

    Raises:
        WeightsMissing: "local", and the weights were never pulled.
        MissingExtra: Pydantic AI, xllamacpp or httpx is not installed.
        ValueError: "local+" is not followed by a URL.
    """
    if name == "local":
        return _local_model()()
    if name.startswith(_SERVED):
        return _remote_model()(name.removeprefix(_SERVED))
    return name


def _local_model() -> "type[LocalModel]":
    try:
        from surefoot.models.local import LocalModel
    except ImportError as error:
        raise _missing(error) from error
    return LocalModel


def _remote_model() -> "type[RemoteLocalModel]":
    try:
        from surefoot.models.remote import RemoteLocalModel
    except ImportError as error:
        raise _missing(error) from error
    return RemoteLocalModel


def _missing(error: ImportError) -> ImportError:
    return error if isinstance(error, MissingExtra) else MissingExtra((error.name or "a package").partition(".")[0])


def __getattr__(name: str) -> object:
    if name == "LocalModel":
        return _local_model()
    if name == "RemoteLocalModel":
        return _remote_model()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
