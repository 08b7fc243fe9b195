"""Errors of the local model: what happened, and the command to run next.

Owns: the error classes that need none of the optional packages. What goes wrong while a request is served is raised
with Pydantic AI's own model errors, so that its fallbacks and limits treat this model like any other.
"""

from surefoot.problem import SurefootError


class LocalModelError(SurefootError):
    """Something is wrong with the local model itself, not with a request to it."""


class MissingExtra(LocalModelError, ImportError):
    """An optional package that this part needs is not installed."""

    def __init__(self, package: str, extra: str = "local") -> None:
        super().__init__(f"{package} is not installed", hint=f'pip install "surefoot[{extra}]"')


class WeightsMissing(LocalModelError):
    """The weights are not in the cache; nothing was downloaded, because nobody asked for it."""


class PullFailed(LocalModelError):
    """The weights could not be brought into the cache; what was there before is untouched."""

    is_retryable = True


class LoadFailed(LocalModelError):
    """The runtime refused the weights."""


class GrammarIgnored(LocalModelError):
    """The runtime generated text outside its grammar; the answer was thrown away."""
