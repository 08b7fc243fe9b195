"""Where a Temporal cluster is, from one URL. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from surefoot.problem import SurefootError

SCHEME = "temporal"
PORT = 7233
NAMESPACE = "default"
TASK_QUEUE = "surefoot"

_SHAPE = 'engine="temporal://host:7233/namespace?task_queue=agents"'
_PARAMETERS = ("task_queue", "tls")


@dataclass(frozen=True, slots=True)
class Address:
    """A namespace of a cluster, and the task queue of our workers in it.

    Attributes:
        host: Its frontend, as "host:port".
        namespace: The namespace.
        task_queue: The queue: workers of one queue know the same agents.
        is_tls: Whether to connect by TLS.
    """

    host: str
    namespace: str = NAMESPACE
    task_queue: str = TASK_QUEUE
    is_tls: bool = False

    def __str__(self) -> str:
        return f"{SCHEME}://{self.host}/{self.namespace}?task_queue={self.task_queue}"


def parse(url: str) -> Address:
    """Return what a URL names: `temporal://host:7233/namespace?task_queue=agents&tls=true`.

    Raises:
        SurefootError: It is none of Temporal, or has parts that mean nothing.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme != SCHEME or not parts.hostname or port == 0 or parts.username is not None or parts.fragment:
        raise SurefootError(f"engine={_shown(url)!r} is no address of a Temporal cluster", hint=_SHAPE)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(given.keys() - set(_PARAMETERS)):
        raise SurefootError(
            f"engine={url!r}: {unknown[0]!r} is no parameter", hint=f"use {' and '.join(_PARAMETERS)}: {_SHAPE}"
        )
    if given.get("tls", "false") not in ("true", "false"):
        raise SurefootError(f"engine={url!r}: tls={given['tls']!r}", hint="tls=true or tls=false")
    namespace = parts.path.strip("/") or NAMESPACE
    task_queue = given.get("task_queue", TASK_QUEUE)
    if "/" in namespace or not task_queue:
        raise SurefootError(f"engine={url!r}: one namespace, and a task queue with a name", hint=_SHAPE)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{host}:{port or PORT}", namespace, task_queue, given.get("tls") == "true")


def _shown(url: str) -> str:
    """Return a URL without what stands before an @: somebody may have put a password there."""
    return url if "@" not in url else f"{url.partition('://')[0]}://***@{url.rpartition('@')[2]}"
