"""The shapes of runs: how one stands, its steps, and what was asked of it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from surefoot.cli.shapes.effects import EffectShape
from surefoot.cli.shapes.parts import Advice, HolderShape


class RunShape(Struct, frozen=True):
    """A run."""

    id: Annotated[str, Meta(description="its business id")]
    kind: Annotated[str, Meta(description="the durable function it executes")]
    state: Annotated[
        str, Meta(description="scheduled, queued, pending, running, waiting, completed, failed or cancelled")
    ]
    waiting_for: Annotated[
        str | None, Meta(description="timer, signal, child, lease, approval, doubt, budget, model or blocked")
    ]
    reason: Annotated[str, Meta(description="why it waits or how it ended, in words")]
    parent: Annotated[str | None, Meta(description="the run that started it")]
    created_at: Annotated[str, Meta(description="when it was started")]
    ended_at: Annotated[str | None, Meta(description="when it ended")]
    wake_at: Annotated[str | None, Meta(description="when it goes on by itself")]
    deadline_at: Annotated[str | None, Meta(description="its deadline")]
    is_simulated: Annotated[bool, Meta(description="whether its effects are simulated: it can do nothing outside")]
    forked_from: Annotated[str | None, Meta(description="the run it was forked from")]


class StepShape(Struct, frozen=True):
    """One step of a run, in the order in which the steps began."""

    number: Annotated[int, Meta(description="the number of its first record")]
    step: Annotated[str, Meta(description="its identity in the run; empty for what concerns the run itself")]
    what: Annotated[
        str,
        Meta(
            description="start, step, decision, read, effect, event, timer, signal, child, drift, deadline, verdict or end"
        ),
    ]
    outcome: Annotated[
        str | None,
        Meta(
            description="done, not_done, unknown, repeated, conflict, denied, raised, fired, received, timed_out, "
            "expired, interrupted, or the state a run ended in; null while it is open"
        ),
    ]
    words: Annotated[str, Meta(description="the outcome in words")]
    began_at: Annotated[str, Meta(description="when its first record was written")]
    ended_at: Annotated[str | None, Meta(description="when its outcome was written")]
    value: Annotated[
        Any, Meta(description="the outcome's value; the input for the start, the arguments for an open effect")
    ]
    effect: Annotated[int | None, Meta(description="the effect's number, for `surefoot effects --id`")]
    redact: Annotated[list[str], Meta(description='parameters that are not shown, "return" for the value')]
    cost: Annotated[dict[str, float] | None, Meta(description="what a decision used, as the provider reported it")]


class SignalShape(Struct, frozen=True):
    """A signal that came and was not taken by the run's code."""

    id: Annotated[int, Meta(description="its number")]
    name: Annotated[str, Meta(description="its name")]
    payload: Annotated[Any, Meta(description="what came with it")]
    by: Annotated[str, Meta(description="who sent it")]
    at: Annotated[str, Meta(description="when it was sent")]
    dedupe: Annotated[str | None, Meta(description="the text by which it reaches the run once")]


class RunsDocument(Struct, frozen=True):
    """`surefoot runs`."""

    runs: Annotated[list[RunShape], Meta(description="newest first")]


class ShowDocument(Struct, frozen=True):
    """`surefoot show`."""

    run: Annotated[RunShape, Meta(description="the run")]
    holder: Annotated[HolderShape | None, Meta(description="who executes it; null unless it is running")]
    input: Annotated[Any, Meta(description="its arguments by name")]
    result: Annotated[Any, Meta(description="what it returned, once it is completed")]
    error: Annotated[str | None, Meta(description="how it failed or who cancelled it")]
    steps: Annotated[list[StepShape], Meta(description="its timeline")]
    effects: Annotated[list[EffectShape], Meta(description="the effects it claimed, oldest first")]
    unread: Annotated[list[SignalShape], Meta(description="signals that its code has not taken, oldest first")]
    next: Annotated[list[Advice], Meta(description="what lets it go on; empty when it has ended well")]


class SignalDocument(Struct, frozen=True):
    """`surefoot signal`."""

    run: Annotated[RunShape, Meta(description="the run as it was when the signal had been sent")]
    signal: Annotated[str, Meta(description="its name")]
    is_new: Annotated[bool, Meta(description="false if the same --dedupe had been sent before")]


class CancelDocument(Struct, frozen=True):
    """`surefoot cancel`."""

    run: Annotated[RunShape, Meta(description="the run as it was when it had been asked to stop")]


class OutcomeDocument(Struct, frozen=True):
    """`surefoot run`, and `surefoot undo`, whose run is the undo."""

    run: Annotated[RunShape, Meta(description="the run as it was in the end")]
    result: Annotated[Any, Meta(description="what it returned, once it is completed")]
    error: Annotated[str | None, Meta(description="how it failed or who cancelled it")]
    next: Annotated[list[Advice], Meta(description="what lets it go on, if it has not ended")]


class WorkerDocument(Struct, frozen=True):
    """`surefoot worker`, when it ends."""

    name: Annotated[str, Meta(description="its name in the ledger")]
    store: Annotated[str, Meta(description="the store's URL")]
    kinds: Annotated[list[str], Meta(description="the durable functions it could execute")]
    stopped_by: Annotated[str, Meta(description="SIGINT, SIGTERM, or what went wrong")]
    handed_back: Annotated[list[str], Meta(description="runs it was executing, free for the next worker")]
