"""The effects this process knows, by name: for whoever must act on a recorded one, such as an undo."""

from __future__ import annotations

from surefoot.effects.keys import BadEffect
from surefoot.effects.spec import EffectSpec

_known: dict[str, EffectSpec] = {}


def register(spec: EffectSpec) -> None:
    """Note an effect under its name; the newest declaration counts."""
    _known[spec.name] = spec


def spec_of(name: str) -> EffectSpec:
    """Return the effect of a name.

    Raises:
        BadEffect: None is declared in this process.
    """
    if name not in _known:
        raise BadEffect(f"no effect is called {name!r} in this process", hint="import the module that declares it")
    return _known[name]
