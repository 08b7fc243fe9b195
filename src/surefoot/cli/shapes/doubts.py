"""The shapes of what waits for somebody to find out."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from surefoot.cli.shapes.effects import EffectShape, EvidenceShape
from surefoot.cli.shapes.parts import Advice
from surefoot.cli.shapes.runs import RunShape


class UnknownShape(Struct, frozen=True):
    """An effect nobody knows the outcome of."""

    effect: Annotated[EffectShape, Meta(description="the effect")]
    why: Annotated[str, Meta(description="what was learned last, in words")]
    age_s: Annotated[float, Meta(description="seconds since it was claimed")]
    unknown_since: Annotated[str | None, Meta(description="when the doubt was noted; null while nobody has looked")]
    deadline_at: Annotated[str | None, Meta(description="when it is escalated; null unless only a person can end it")]
    is_overdue: Annotated[bool, Meta(description="whether that time has passed")]
    next: Annotated[list[Advice], Meta(description="what ends the doubt")]


class ContradictionShape(Struct, frozen=True):
    """Late evidence that disagrees with a recorded outcome."""

    effect: Annotated[EffectShape, Meta(description="the effect, with the outcome that stands")]
    evidence: Annotated[EvidenceShape, Meta(description="what came later")]
    age_s: Annotated[float, Meta(description="seconds since it came")]
    next: Annotated[list[Advice], Meta(description="what closes it")]


class StuckShape(Struct, frozen=True):
    """A run that waits for a person."""

    run: Annotated[RunShape, Meta(description="the run")]
    age_s: Annotated[float, Meta(description="seconds since its last record")]
    next: Annotated[list[Advice], Meta(description="what lets it go on")]


class UnknownsDocument(Struct, frozen=True):
    """`surefoot unknowns`."""

    effects: Annotated[
        list[UnknownShape],
        Meta(description="effects nobody knows the outcome of: overdue ones, then the oldest, first"),
    ]
    contradictions: Annotated[list[ContradictionShape], Meta(description="outcomes that late evidence disagrees with")]
    runs: Annotated[list[StuckShape], Meta(description="runs that wait for the end of a doubt, or are blocked")]
    approvals: Annotated[int, Meta(description="how many approvals wait: see `surefoot approvals`")]
