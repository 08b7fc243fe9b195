"""A run's records as the steps a person thinks in: what was begun, what came of it, and in which words. Pure.

A step is one line: its beginning and its outcome are two records, and the second may be missing. Records about the run
itself (its start, its end, a drift, a passed deadline) are lines of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from surefoot.cli.shapes.runs import StepShape
from surefoot.cli.words import moment, state_words
from surefoot.effects.rows.ledger import Call, decode_call
from surefoot.journal import Kind, Record
from surefoot.journal.records import ENDS_STEP, OPENS_STEP


@dataclass(frozen=True, slots=True)
class EffectFact:
    """What the ledger says of an effect, beside the run's own records."""

    id: int
    state: str
    redact: tuple[str, ...] = ()


EffectName = tuple[str, str, str, int]
"""Name, key, scope and generation: what a claim's record and its row in the ledger have in common."""

WHAT: dict[Kind, str] = {
    Kind.STARTED: "start",
    Kind.DECIDED: "decision",
    Kind.RAISED: "decision",
    Kind.READ: "read",
    Kind.CLAIMED: "effect",
    Kind.DONE: "effect",
    Kind.NOT_DONE: "effect",
    Kind.UNKNOWN: "effect",
    Kind.REPEATED: "effect",
    Kind.CONFLICT: "effect",
    Kind.DENIED: "effect",
    Kind.TIMER_SET: "timer",
    Kind.TIMER_FIRED: "timer",
    Kind.SIGNAL: "signal",
    Kind.CHILD: "child",
    Kind.CHILD_ENDED: "child",
    Kind.DRIFT: "drift",
    Kind.ENDED: "end",
    Kind.VERDICT: "verdict",
    Kind.EXPIRED: "deadline",
    Kind.INTERRUPTED: "step",
    Kind.ASKED: "effect",
    Kind.PUBLISHED: "event",
}
"""What a record is about."""

WORDS: dict[str, str] = {
    "done": "done",
    "not_done": "not done: {reason}",
    "unknown": "not known whether it was done, and the caller was told so: {reason}",
    "repeated": "had been done before; not done again, the first outcome was given",
    "conflict": "not done: {reason}",
    "denied": "not done, not allowed: {reason}",
    "raised": "raised {error}",
    "fired": "waited for",
    "received": "received",
    "timed_out": "did not come in time",
    "expired": "the run's deadline had passed",
    "published": "published",
    "interrupted": "left without an outcome: its task was cancelled or timed out",
    "completed": "completed",
    "failed": "failed: {reason}",
    "cancelled": "cancelled: {reason}",
}
"""Outcomes as people read them."""

OUTCOME: dict[Kind, str] = {
    Kind.DECIDED: "done",
    Kind.RAISED: "raised",
    Kind.READ: "done",
    Kind.DONE: "done",
    Kind.NOT_DONE: "not_done",
    Kind.UNKNOWN: "unknown",
    Kind.REPEATED: "repeated",
    Kind.CONFLICT: "conflict",
    Kind.DENIED: "denied",
    Kind.TIMER_FIRED: "fired",
    Kind.EXPIRED: "expired",
    Kind.INTERRUPTED: "interrupted",
    Kind.PUBLISHED: "published",
}
"""The outcome a record tells; for the kinds not listed it depends on what is in the record."""


def steps_of(
    records: Iterable[Record],
    effects: Mapping[EffectName, EffectFact],
    hidden: Mapping[int, tuple[str, ...]] | None = None,
) -> list[StepShape]:
    """Return the steps of a run, in the order in which they began.

    Args:
        records: The run's records in order.
        effects: The ledger's rows of this run.
        hidden: What may not be shown of effects, by their numbers, also of those of other runs.
    """
    steps: list[StepShape] = []
    places: dict[str, int] = {}
    for record in records:
        is_of_step = record.kind in OPENS_STEP or record.kind in ENDS_STEP
        line = step_of(record, effects, hidden)
        if is_of_step and record.step in places:
            place = places[record.step]
            steps[place] = _joined(steps[place], line)
            continue
        if is_of_step:
            places[record.step] = len(steps)
        steps.append(line)
    return steps


def step_of(
    record: Record,
    effects: Mapping[EffectName, EffectFact],
    hidden: Mapping[int, tuple[str, ...]] | None = None,
) -> StepShape:
    """Return what one record says, as a step."""
    value = None if record.body is None else msgspec.json.decode(record.body)
    at = moment(record.at_ms) or ""
    outcome = _outcome(record)
    line = StepShape(
        number=record.seq,
        step=record.step,
        what=WHAT[record.kind],
        outcome=outcome,
        words=_words(record, outcome, value),
        began_at=at,
        ended_at=None if outcome is None else at,
        value=value,
        effect=record.head.effect or None,
        redact=list((hidden or {}).get(record.head.effect, ())),
        cost=record.head.cost,
    )
    if record.head.sealed:  # its key is missing: its value says so
        return line
    if record.kind is Kind.CLAIMED and record.body is not None:
        return _claimed(line, decode_call(record.body), effects)
    if record.kind is Kind.ASKED and isinstance(value, dict):
        call = decode_call(record.body or b"")
        words = f"asks for an approval as {call.key}; nothing is claimed yet"
        arguments = msgspec.json.decode(call.arguments)
        return msgspec.structs.replace(line, words=words, value=arguments, redact=list(call.redact))
    return line


def _outcome(record: Record) -> str | None:
    if record.kind is Kind.SIGNAL:
        return "timed_out" if record.body is None and record.head.reason else "received"
    if record.kind in (Kind.ENDED, Kind.CHILD_ENDED):
        return record.head.state
    return OUTCOME.get(record.kind)


def _words(record: Record, outcome: str | None, value: Any) -> str:
    head = record.head
    match record.kind:
        case Kind.STARTED:
            return "started"
        case Kind.TIMER_SET:
            return f"waits until {moment(head.wake_at_ms)}"
        case Kind.CHILD:
            return f"started run {head.run}"
        case Kind.DRIFT:
            return "asked with another request than the recorded one; the recorded answer was used"
        case Kind.VERDICT:
            return f"checked: {head.state} {head.reason}".rstrip()
        case Kind.RAISED:
            return WORDS["raised"].format(error=error_words(value))
        case Kind.ENDED:
            return WORDS[head.state].format(reason=end_words(head.state, value))
        case _:
            words = WORDS.get(outcome or "", "no outcome yet").format(reason=head.reason)
            return f"{words} ({head.reason})" if outcome == "done" and head.reason else words


def error_words(value: Any) -> str:
    """Return a recorded error, [class, text], in words."""
    return ": ".join(str(part) for part in value if part) if isinstance(value, list) else str(value)


def end_words(state: str, value: Any) -> str:
    """Return how a run that did not complete has ended, from the body of its last record."""
    if state == "cancelled" and isinstance(value, list) and value:
        return f"by {value[0]}"
    return error_words(value)


def _claimed(line: StepShape, call: Call, effects: Mapping[EffectName, EffectFact]) -> StepShape:
    fact = effects.get((call.effect, call.key, call.scope, call.generation))
    state = "claimed" if fact is None else fact.state
    words = f"claimed as {call.key}; {_LEDGER_WORDS.get(state) or f'{state_words(state)}, the run has yet to see it'}"
    arguments = msgspec.json.decode(call.arguments)
    return msgspec.structs.replace(
        line, words=words, effect=None if fact is None else fact.id, value=arguments, redact=list(call.redact)
    )


_LEDGER_WORDS = {"claimed": "no outcome yet", "unknown": "not known whether it was done"}
"""What the ledger says of a claim the run has no outcome of."""


def _joined(begun: StepShape, ended: StepShape) -> StepShape:
    """Return a step with its outcome, or, if it has one already, unchanged: the first stands."""
    if begun.outcome is not None:
        return begun
    if ended.outcome is None:  # what was asked for is claimed
        return msgspec.structs.replace(ended, number=begun.number, began_at=begun.began_at)
    # A signal with a time limit begins as a timer; a step that is cut short ends as something that says less.
    is_cut = ended.outcome in ("expired", "interrupted")
    return msgspec.structs.replace(
        ended,
        number=begun.number,
        what=begun.what if is_cut else ended.what,
        value=begun.value if is_cut else ended.value,
        began_at=begun.began_at,
        effect=ended.effect or begun.effect,
        redact=ended.redact or begun.redact,
    )


__all__ = ["EffectFact", "EffectName", "end_words", "error_words", "step_of", "steps_of"]
