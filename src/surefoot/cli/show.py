"""The documents as text for people: the same facts as `--json`, in an order in which one reads them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from surefoot.cli.advice import about, waits_words
from surefoot.cli.screen import Column, fields, heading, line, listing, say, to_type
from surefoot.cli.shapes.doubts import UnknownsDocument, UnknownShape
from surefoot.cli.shapes.effects import EffectDocument, EffectShape, EvidenceShape
from surefoot.cli.shapes.parts import Advice
from surefoot.cli.shapes.runs import RunShape, ShowDocument, StepShape
from surefoot.cli.words import (
    CELL_CHARS_MAX,
    VALUE_CHARS_MAX,
    count_words,
    offset_words,
    one_line,
    shorten,
    span_words,
    state_words,
    value_words,
)

RUN_COLUMNS = (Column("run"), Column("kind", is_flexible=True), Column("state"), Column("age"),
               Column("why", is_flexible=True, style="dim"))  # fmt: skip
EFFECT_COLUMNS = (Column("effect"), Column("function", is_flexible=True), Column("key", is_flexible=True),
                  Column("state"), Column("run", is_flexible=True), Column("age"),
                  Column("outcome", is_flexible=True, style="dim"))  # fmt: skip
UNKNOWN_COLUMNS = (Column("effect"), Column("function", is_flexible=True), Column("key", is_flexible=True),
                   Column("run", is_flexible=True), Column("unknown since", is_flexible=True),
                   Column("why", is_flexible=True))  # fmt: skip


def since_ms(now_ms: int, moment: str) -> int:
    """Return milliseconds from a moment, as in a shape, until now."""
    return now_ms - _ms(moment)


def _ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1_000)


def show_runs(runs: Sequence[RunShape], now_ms: int) -> None:
    """Print a list of runs."""
    rows = [
        (
            run.id,
            run.kind,
            run.state,
            span_words(since_ms(now_ms, run.created_at)),
            shorten(about(run), CELL_CHARS_MAX),
        )
        for run in runs
    ]
    listing(RUN_COLUMNS, rows)


def show_run(document: ShowDocument, now_ms: int, *, is_full: bool) -> None:
    """Print a run: its state, its timeline, its effects, and what to do next."""
    run, limit = document.run, None if is_full else VALUE_CHARS_MAX
    facts = [("run", run.id), ("kind", run.kind), ("state", _state(document))]
    facts += [("parent", run.parent)] if run.parent else []
    facts += [("forked from", run.forked_from)] if run.forked_from else []
    facts += [("simulated", "its effects are: nothing outside is done")] if run.is_simulated else []
    facts += [("deadline", run.deadline_at)] if run.deadline_at else []
    facts += [("started", f"{run.created_at}, {span_words(since_ms(now_ms, run.created_at))} ago")]
    facts += [("input", value_words(document.input, limit))]
    facts += [("result", value_words(document.result, limit))] if run.state == "completed" else []
    facts += [("error", shorten(document.error, limit))] if document.error else []
    fields(facts)
    show_steps(document.steps, run.created_at, is_full=is_full)
    if document.effects:
        line("")
        heading("effects")
        show_effects(document.effects, now_ms, is_with_run=False)
    if document.unread:
        line("")
        heading("signals that nobody has taken")
        fields([(f"#{one.id} {one_line(one.name)}", f"{value_words(one.payload, limit)} · {one_line(one.by)}, {one.at}")
                for one in document.unread])  # fmt: skip
    show_advice(document.next)


def _state(document: ShowDocument) -> str:
    run, holder = document.run, document.holder
    if holder is None:
        return waits_words(run)
    fate = {"alive": "executed by", "dead": "left behind by", "expired": "left behind by"}[holder.life]
    gone = {"alive": "", "dead": ", which is gone", "expired": ", which is stopped"}[holder.life]
    return f"{run.state}, {fate} {holder.name} (pid {holder.pid}){gone}"


def show_steps(steps: Sequence[StepShape], since: str, *, is_full: bool) -> None:
    """Print a timeline."""
    line("")
    heading("steps")
    fields([(step_head(step, since), step_tail(step, is_full=is_full)) for step in steps])


def step_head(step: StepShape, since: str) -> str:
    """Return when a step began, and which it is."""
    offset = since_ms(_ms(step.began_at), since)
    return f"{offset_words(offset):>10}  {step.step or step.what}"


def step_tail(step: StepShape, *, is_full: bool) -> str:
    """Return what came of a step, in one line."""
    is_valued = step.value is not None and step.outcome not in ("raised", "failed", "cancelled")
    is_plain = is_valued and step.words == "done" and step.what != "effect"
    parts = [step.what if step.step else "", "" if is_plain else one_line(step.words)]
    parts += [_value(step, None if is_full else VALUE_CHARS_MAX // 2)] if is_valued else []
    parts += [f"effect {step.effect}"] if step.effect else []
    parts += [", ".join(f"{name} {amount:g}" for name, amount in step.cost.items())] if step.cost else []
    return " · ".join(one_line(part) for part in parts if part)


def _value(step: StepShape, limit: int | None) -> str:
    """Return a step's value; of a model's response what it says and which tools it calls."""
    parts = step.value.get("parts") if step.what == "decision" and isinstance(step.value, dict) else None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        return value_words(step.value, limit)
    said = [
        f"calls {part['tool_name']}({part.get('args')})" if "tool_name" in part else f"says {part.get('content')}"
        for part in parts
    ]
    return shorten(one_line("; ".join(said)), limit)


def show_effects(effects: Sequence[EffectShape], now_ms: int, *, is_with_run: bool = True) -> None:
    """Print a list of effects."""
    rows = [
        (str(effect.id), effect.name, effect.key, state_words(effect.state), effect.run or "",
         span_words(since_ms(now_ms, effect.claimed_at)), _outcome(effect))
        for effect in effects
    ]  # fmt: skip
    kept = [place for place, column in enumerate(EFFECT_COLUMNS) if is_with_run or column.title != "run"]
    listing([EFFECT_COLUMNS[place] for place in kept], [[row[place] for place in kept] for row in rows])


def _outcome(effect: EffectShape) -> str:
    if effect.state == "claimed":
        return {"alive": "in progress", "dead": "left behind", "expired": "its holder is stopped"}[effect.holder.life]
    if effect.state in ("done", "compensated"):
        value = value_words(effect.value, CELL_CHARS_MAX)
        return f"{value} ({one_line(effect.reason)})" if effect.reason else value
    return shorten(one_line(effect.reason), CELL_CHARS_MAX)


def show_effect(document: EffectDocument, now_ms: int, *, is_full: bool) -> None:
    """Print one effect with all that was learned of it."""
    effect, limit = document.effect, None if is_full else VALUE_CHARS_MAX
    again = f" (generation {effect.generation})" if effect.generation > 1 else ""
    facts = [
        ("effect", str(effect.id)),
        ("function", effect.name),
        ("key", f"{effect.key}{again}, unique in: {effect.scope}"),
        ("state", state_words(effect.state) + (f": {one_line(effect.reason)}" if effect.reason else "")),
        ("in doubt", effect.in_doubt),
        ("run", effect.run or "outside runs"),
        ("holder", f"{effect.holder.name} (pid {effect.holder.pid}), {effect.holder.life}"),
        ("claimed", f"{effect.claimed_at}, {span_words(since_ms(now_ms, effect.claimed_at))} ago"),
    ]
    facts += [("settled", effect.settled_at)] if effect.settled_at else []
    facts += [("arguments", value_words(effect.arguments, limit))]
    facts += [("value", value_words(effect.value, limit))] if effect.settled_at and effect.state == "done" else []
    fields(facts)
    if document.evidence:
        line("")
        heading("evidence")
        fields([(f"{item.at}  {item.who}", _evidence(item, limit)) for item in document.evidence])
    show_advice(document.next)


def _evidence(item: EvidenceShape, limit: int | None) -> str:
    body = "" if item.body is None else item.body if isinstance(item.body, str) else value_words(item.body, limit)
    mark = " · CONTRADICTS THE OUTCOME" if item.is_open else ""
    return f"{item.kind}{': ' if body else ''}{shorten(one_line(body), limit)}{mark}"


def show_unknowns(document: UnknownsDocument) -> None:
    """Print what waits for a person."""
    if document.effects:
        heading(count_words(len(document.effects), "unknown effect"))
        rows = [(str(u.effect.id), u.effect.name, u.effect.key, u.effect.run or "", _since(u),
                 shorten(u.why, CELL_CHARS_MAX)) for u in document.effects]  # fmt: skip
        listing(UNKNOWN_COLUMNS, rows)
        for unknown in document.effects:
            show_advice(unknown.next, f"next, effect {unknown.effect.id}")
        line("")
    if document.contradictions:
        heading(count_words(len(document.contradictions), "open contradiction"))
        for item in document.contradictions:
            effect = item.effect
            recorded = f"recorded as {state_words(effect.state)}, {effect.key}"
            fields([(f"effect {effect.id}", recorded), (_span(item.age_s), _evidence(item.evidence, VALUE_CHARS_MAX))])
            show_advice(item.next, f"next, effect {effect.id}")
        line("")
    if document.runs:
        heading(count_words(len(document.runs), "run that waits for a person", "runs that wait for a person"))
        columns = (Column("run"), Column("kind", is_flexible=True), Column("age"), Column("why", is_flexible=True))
        listing(columns, [(s.run.id, s.run.kind, _span(s.age_s), about(s.run)) for s in document.runs])
        told = {advice.command for unknown in document.effects for advice in unknown.next}
        for stuck in document.runs:
            show_advice([step for step in stuck.next if step.command not in told], f"next, {stuck.run.id}")
    if document.approvals:
        say(f"{count_words(document.approvals, 'approval')} to decide: surefoot approvals")
    if not (document.effects or document.contradictions or document.runs):
        say("nothing is unknown, contradicted or blocked")


def _since(unknown: UnknownShape) -> str:
    """Return since when an effect is unknown; that it is overdue comes first, so that a narrow terminal shows it."""
    if unknown.unknown_since is None:
        return "not noted yet"
    since = f"{unknown.unknown_since[:16].replace('T', ' ')} UTC"
    return f"overdue, {since}" if unknown.is_overdue else since


def _span(age_s: float) -> str:
    return span_words(int(age_s * 1_000))


def show_advice(steps: Sequence[Advice], title: str = "next") -> None:
    """Print what to do next."""
    if steps:
        line("")
        heading(title)
    for step in steps:
        line(f"  {step.words}{':' if step.command else ''}")
        if step.command:
            to_type(f"    {step.command}")
