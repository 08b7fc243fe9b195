"""Groups of events in a process of tests: `sf.on` says to the whole process that it serves one."""

from __future__ import annotations

from collections.abc import Mapping

from surefoot.coordination.events.groups import Subscription, served
from surefoot.runs.durable import _registered

NONE: Mapping[tuple[str, str], Subscription] = {}


def serve_only(groups: Mapping[tuple[str, str], Subscription] = NONE) -> None:
    """Serve these groups and no others, and know the kinds of runs of no others."""
    for one in served().values():
        _registered.pop(one.kind.name, None)
    served().clear()
    served().update(groups)
    _registered.update({one.kind.name: one.kind for one in groups.values()})
