"""The effects this process knows, by name: for whoever must act on a recorded one, such as an undo."""

from __future__ import annotations

from surefoot.effects.keys import BadEffect
from surefoot.effects.spec import SPEC, EffectSpec

_known: dict[str, EffectSpec] = {}

UNDO = "undo "
"""What a compensation that is a plain function is called: this, and the name of what it undoes."""


def register(spec: EffectSpec) -> None:
    """Note an effect under its name; the newest declaration counts.

    Raises:
        BadEffect: It is called as the compensation of another is, or the other way round.
    """
    backward = _known.get(spec.name.removeprefix(UNDO))
    for forward, is_taken in ((backward, spec.name.startswith(UNDO)), (spec, f"{UNDO}{spec.name}" in _known)):
        if is_taken and forward is not None and forward.compensate is not None and _declared(forward) is None:
            raise BadEffect(
                f"effect '{UNDO}{forward.name}': so is called what undoes {forward.name!r}, which is a plain function",
                hint="call the effect otherwise, or make it what undoes: compensate=",
            )
    _known[spec.name] = spec


def all_specs() -> list[EffectSpec]:
    """Return all effects and reads, in the order in which their names were declared first."""
    return list(_known.values())


def spec_of(name: str) -> EffectSpec:
    """Return the effect of a name.

    Raises:
        BadEffect: None is declared in this process.
    """
    if name not in _known:
        forward = _known.get(name.removeprefix(UNDO))
        if name.startswith(UNDO) and forward is not None and forward.compensate is not None:
            return undo_spec_of(forward)
        raise BadEffect(f"no effect is called {name!r} in this process", hint="import the module that declares it")
    return _known[name]


def undo_spec_of(forward: EffectSpec) -> EffectSpec:
    """Return an effect's compensation as an effect of its own class; a plain function is named after what it undoes."""
    assert forward.compensate is not None
    return _declared(forward) or EffectSpec(forward.compensate, name=f"{UNDO}{forward.name}")


def _declared(forward: EffectSpec) -> EffectSpec | None:
    """Return an effect's compensation where that is an effect by its own declaration."""
    return getattr(forward.compensate, SPEC, None)
