"""The shapes of effects: what is claimed, and what was learned of it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from surefoot.cli.shapes.parts import Advice, HolderShape


class EffectShape(Struct, frozen=True):
    """An effect: one generation of one key in the ledger."""

    id: Annotated[int, Meta(description="its number")]
    name: Annotated[str, Meta(description="the function")]
    key: Annotated[str, Meta(description="its business key, or its place in the run")]
    scope: Annotated[str, Meta(description="where the key is unique: app, or one run")]
    generation: Annotated[int, Meta(description="counts how often the key was free to act again")]
    state: Annotated[str, Meta(description="claimed, unknown, done, not_done or compensated")]
    in_doubt: Annotated[str, Meta(description="what may be done in doubt, as declared: ask a person, resend, ...")]
    run: Annotated[str | None, Meta(description="the run that claimed it; null outside runs")]
    token: Annotated[int, Meta(description="counts its claims; a writer with an older one is refused")]
    holder: Annotated[HolderShape, Meta(description="who may act on it, or did last")]
    sender: Annotated[
        HolderShape, Meta(description="who may have sent it: the last that may still live, else the last")
    ]
    arguments: Annotated[Any, Meta(description="the call's arguments")]
    returns: Annotated[str, Meta(description="the type of its value, if not every JSON value fits it; else empty")]
    redact: Annotated[list[str], Meta(description='parameters that are not shown, "return" for the value')]
    value: Annotated[Any, Meta(description="what it returned; null while it has no outcome")]
    reason: Annotated[str, Meta(description="why it was not done, or who resolved it and how they knew")]
    claimed_at: Annotated[str, Meta(description="when it was claimed first")]
    settled_at: Annotated[str | None, Meta(description="when its outcome was recorded")]


class EvidenceShape(Struct, frozen=True):
    """One thing learned of an effect beside its first outcome."""

    id: Annotated[int, Meta(description="its number")]
    effect: Annotated[int, Meta(description="the effect's number")]
    at: Annotated[str, Meta(description="when it was noted")]
    kind: Annotated[str, Meta(description="what it is: unknown, resend, probe, late answer, resolved as done, ...")]
    who: Annotated[str, Meta(description="the process or person it comes from")]
    is_open: Annotated[bool, Meta(description="whether it contradicts the outcome and nobody has closed that yet")]
    body: Annotated[Any, Meta(description="the details")]


class EffectsDocument(Struct, frozen=True):
    """`surefoot effects`."""

    effects: Annotated[list[EffectShape], Meta(description="newest first")]


class EffectDocument(Struct, frozen=True):
    """`surefoot effects --id`."""

    effect: Annotated[EffectShape, Meta(description="the effect")]
    evidence: Annotated[list[EvidenceShape], Meta(description="all that was learned of it, oldest first")]
    next: Annotated[list[Advice], Meta(description="what ends the doubt, if it is in doubt")]


class ResolveDocument(Struct, frozen=True):
    """`surefoot resolve`."""

    effect: Annotated[EffectShape, Meta(description="the effect as it stands now")]
