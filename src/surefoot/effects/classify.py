"""What an exception out of an effect says about the world: nothing, unless it says so. Pure.

An exception is *unknown* by default. It is *not done* when it is `NotDone`, when the effect declares it (`refused_on`), or,
for an effect that declares to make one request (`one_request`), when a well-known client raises it before anything was
sent. Of a tool that makes two requests, or whose client retries by itself, such an error says nothing about the first.
The table holds names, so that no client need be installed.
"""

from __future__ import annotations

from surefoot.journal.texts import without_surrogates
from surefoot.problem import SurefootError

NEVER_SENT = frozenset(
    {
        "surefoot.effects.classify.NeverSent",
        # A refused or impossible connection: no byte of the request has left. Resets, timeouts of reading and protocol
        # errors are not here: they may come after the request was acted on.
        "builtins.ConnectionRefusedError",
        "socket.gaierror",
        "httpx.ConnectError",
        "httpx.ConnectTimeout",
        "httpx.PoolTimeout",
        "httpx.UnsupportedProtocol",
        "httpx.InvalidURL",
        "httpcore.ConnectError",
        "httpcore.ConnectTimeout",
        "httpcore.PoolTimeout",
        "requests.exceptions.ConnectTimeout",
        "requests.exceptions.InvalidURL",
        "requests.exceptions.MissingSchema",
        "urllib3.exceptions.NewConnectionError",
        "urllib3.exceptions.ConnectTimeoutError",
        "aiohttp.client_exceptions.ClientConnectorError",
        "aiohttp.client_exceptions.InvalidURL",
        "botocore.exceptions.EndpointConnectionError",
        "botocore.exceptions.NoCredentialsError",
    }
)


SAYS_NOT_DONE = frozenset({"pydantic_ai.exceptions.ModelRetry"})
"""Frameworks' own ways for a tool to say that it refused the call and did nothing."""

REFUSED_THE_CALL = "the tool refused the call"
"""How a reason begins that a tool gave in its framework's own way."""


class NotDone(SurefootError):
    """Raise it from an effect to say: this did not happen, and why. Also what a caller gets for an effect not done."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason, hint=hint)
        self.reason = reason


class NeverSent(NotDone):
    """Says of one attempt that nothing of it has left this process. It says nothing of earlier ones."""


class PreconditionFailed(NotDone):
    """Raise it from an `Overwrite` effect when the service answers that the precondition failed (HTTP 412)."""


def is_never_sent(error: BaseException) -> bool:
    """Return whether the error's class, or one it derives from, is known to come before anything is sent."""
    return _is_named_in(error, NEVER_SENT)


def _is_named_in(error: BaseException, names: frozenset[str]) -> bool:
    return any(f"{kind.__module__}.{kind.__qualname__}" in names for kind in type(error).__mro__)


def not_done_reason(
    error: BaseException, refused_on: tuple[type[BaseException], ...], *, is_one_request: bool
) -> str | None:
    """Return why the effect is known not to have happened, or None: then nobody knows."""
    if isinstance(error, NotDone):
        return without_surrogates(error.reason)
    if _is_named_in(error, SAYS_NOT_DONE):
        return f"{REFUSED_THE_CALL}: {without_surrogates(str(error))}"
    if isinstance(error, refused_on):
        return f"refused by the service: {describe(error)}"
    if is_one_request and is_never_sent(error):
        return f"never sent: {describe(error)}"
    return None


def describe(error: BaseException) -> str:
    """Return an error in one line."""
    text = " ".join(without_surrogates(str(error)).split())
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__
