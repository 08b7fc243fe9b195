"""What an agent's owner declares about tools that somebody else wrote: MCP tools, third-party toolsets, run-time toolsets.

What holds: a declaration goes by the name the model sees, prefixes included, so that tools of two servers never share one;
what nobody declared is an effect whose doubts a person ends, whatever its server says of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from surefoot.adapters.pydantic_ai.mcp import ToolRefused
from surefoot.effects import BadEffect, Declaration, OpenSpec, effect
from surefoot.effects.registry import register

Effects: TypeAlias = Mapping[str, Declaration | Callable[..., Any]]
"""Tools by name, each with `sf.effect(...)`, or with `sf.effect` alone for its defaults."""


class Declarations:
    """The declared tools of one agent, by the names the model sees."""

    def __init__(self, reads: Iterable[str] = (), effects: Effects | None = None) -> None:
        self.reads = frozenset(reads)
        self.effects = {name: _spec(name, declared) for name, declared in (effects or {}).items()}
        both = self.reads & self.effects.keys()
        if both:
            raise BadEffect(
                f"tool {min(both)!r} is declared as a read and as an effect", hint="does it change anything? say one"
            )
        for spec in self.effects.values():
            register(spec)


def _spec(name: str, declared: object) -> OpenSpec:
    if isinstance(declared, Declaration):
        options: dict[str, Any] = {"refused_on": (ToolRefused,), "name": name, **declared.options}
    elif declared is effect:
        options = {"refused_on": (ToolRefused,), "name": name}
    else:
        raise BadEffect(
            f"tool {name!r}: {declared!r} is no declaration",
            hint='effects={"create_issue": sf.effect(key="issue:{title}")}',
        )
    spec = OpenSpec(**options)
    if spec.is_read:
        raise BadEffect(f"tool {name!r} is declared as a read among the effects", hint=f'reads=["{name}"]')
    return spec
