"""From the store to the shapes: the queries behind what is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from surefoot.approvals.desk import count_waiting
from surefoot.cli import advice
from surefoot.cli.exits import EffectNotFound
from surefoot.cli.shapes.doubts import ContradictionShape, StuckShape, UnknownsDocument, UnknownShape
from surefoot.cli.shapes.effects import EffectDocument, EffectShape, EvidenceShape
from surefoot.cli.shapes.parts import HolderShape
from surefoot.cli.shapes.runs import RunShape, ShowDocument, SignalShape
from surefoot.cli.timeline import EffectFact, end_words, steps_of
from surefoot.cli.words import moment, one_line
from surefoot.effects.rows import desk as effects_desk
from surefoot.effects.rows import ledger
from surefoot.effects.rows.desk import EffectView, EvidenceView
from surefoot.effects.rows.ledger import Call, Row, call_to_show
from surefoot.effects.states import State
from surefoot.journal import Record, load_to_show
from surefoot.leases import Sessions
from surefoot.runs import RunNotFound, RunState
from surefoot.runs.durable import SIMULATED
from surefoot.runs.fork import source_of
from surefoot.runs.rows import desk as runs_desk
from surefoot.runs.rows.tables import RunRow, find_run, get_run, list_runs
from surefoot.store.connection import Connection

ALL = 2**62
"""A limit that is none."""

UNREAD_MAX = 100
"""How many unread signals of a run are shown."""

STUCK = ("doubt", "blocked")
"""What a run waits for that only a person can end."""


def run_shape(connection: Connection, row: RunRow) -> RunShape:
    """Return a run."""
    return RunShape(
        id=row.run_id,
        kind=row.kind,
        state=row.state.name.lower(),
        waiting_for=row.waiting_for,
        reason=row.reason,
        parent=None if row.parent is None else get_run(connection, row.parent).run_id,
        created_at=moment(row.created_at_ms) or "",
        ended_at=moment(row.ended_at_ms),
        wake_at=moment(row.wake_at_ms),
        deadline_at=moment(row.deadline_ms),
        is_simulated=row.kind.startswith(SIMULATED),
        forked_from=source_of(connection, row.id),
    )


def find(connection: Connection, run_id: str) -> RunRow:
    """Return a run by its business id.

    Raises:
        RunNotFound: There is none.
    """
    row = find_run(connection, run_id)
    if row is None:
        raise RunNotFound(f"there is no run {run_id!r} in {connection.filename}", hint="surefoot runs")
    return row


def holder_shape(connection: Connection, sessions: Sessions, session: int) -> HolderShape:
    """Return who a session is, and whether it lives."""
    holder = sessions.holder(connection, session)
    return HolderShape(holder.name, holder.pid, holder.life.value)


def effect_shape(connection: Connection, sessions: Sessions, view: EffectView) -> EffectShape:
    """Return an effect."""
    row = ledger.get(connection, view.id)
    assert row is not None, "a view is made from its row"
    return EffectShape(
        id=view.id,
        name=view.name,
        key=view.key,
        scope=view.scope,
        generation=view.generation,
        state=view.state,
        in_doubt=view.doubt,
        run=None if view.run is None else get_run(connection, view.run).run_id,
        token=view.token,
        holder=holder_shape(connection, sessions, row.holder),
        sender=holder_shape(connection, sessions, effects_desk.sender_to_show(connection, sessions, row).session),
        arguments=view.arguments,
        returns=view.returns,
        redact=list(view.redact),
        value=view.value,
        reason=view.reason,
        claimed_at=moment(view.claimed_at_ms) or "",
        settled_at=moment(view.settled_at_ms),
    )


def get_effect(connection: Connection, sessions: Sessions, effect: int) -> EffectShape:
    """Return an effect by its number.

    Raises:
        EffectNotFound: There is none.
    """
    row = ledger.get(connection, effect)
    if row is None:
        raise EffectNotFound(f"there is no effect {effect} in {connection.filename}", hint="surefoot effects")
    return effect_shape(connection, sessions, effects_desk.view(connection, row))


def list_effects(
    connection: Connection, sessions: Sessions, *, run: str | None, state: State | None, limit: int
) -> list[EffectShape]:
    """Return effects, newest first."""
    row = None if run is None else find(connection, run).id
    views = effects_desk.list_effects(connection, run=row, state=state, limit=limit)
    return [effect_shape(connection, sessions, view) for view in views]


def effects_of(connection: Connection, sessions: Sessions, run: int) -> list[EffectShape]:
    """Return the effects a run claimed, oldest first, and those of other runs that it waits for."""
    own = [effect_shape(connection, sessions, view)
           for view in effects_desk.list_effects(connection, run=run, limit=ALL)[::-1]]  # fmt: skip
    known = {effect.id for effect in own}
    others = [effect for effect in runs_desk.awaited_effects(connection, run) if effect not in known]
    return [*own, *(get_effect(connection, sessions, effect) for effect in others)]


def evidence_shape(view: EvidenceView) -> EvidenceShape:
    """Return one thing learned of an effect."""
    return EvidenceShape(
        view.id, view.effect, moment(view.at_ms) or "", view.kind, view.who, bool(view.is_open), view.body
    )


def show_effect(connection: Connection, sessions: Sessions, effect: int, command: Callable[..., str]) -> EffectDocument:
    """Return an effect with all that was learned of it."""
    shape = get_effect(connection, sessions, effect)
    views = effects_desk.evidence(connection, effect)
    contradicted = advice.for_contradiction(shape, command) if any(view.is_open for view in views) else []
    return EffectDocument(
        shape, [evidence_shape(view) for view in views], [*advice.for_effect(shape, command), *contradicted]
    )


def show_run(connection: Connection, sessions: Sessions, run_id: str, command: Callable[..., str]) -> ShowDocument:
    """Return a run with its steps and effects.

    Raises:
        RunNotFound: There is none.
    """
    row = find(connection, run_id)
    view = runs_desk.show(connection, run_id)
    views = effects_desk.list_effects(connection, run=row.id, limit=ALL)[::-1]
    facts = {(v.name, v.key, v.scope, v.generation): EffectFact(v.id, v.state) for v in views}
    records = runs_desk.records_after(connection, row.id)
    run = run_shape(connection, row)
    result, error = end_of(run, view.result)
    holder = None if row.holder is None else holder_shape(connection, sessions, row.holder)
    return ShowDocument(
        run=run,
        holder=holder,
        input=view.input,
        result=result,
        error=error,
        steps=steps_of(records, facts, hidden_of(connection, records)),
        effects=[effect_shape(connection, sessions, v) for v in views],
        unread=[
            SignalShape(one.id, one.name, one.payload, one.sent_by, moment(one.at_ms) or "", one.dedupe)
            for one in runs_desk.unread(connection, row.id, UNREAD_MAX)
        ],
        next=advice.for_run(run, holder, effects_of(connection, sessions, row.id), command),
    )


def hidden_of(connection: Connection, records: Sequence[Record]) -> dict[int, tuple[str, ...]]:
    """Return what may not be shown of the effects that a run's records speak of, its own and those of other runs."""
    found = {}
    for effect in {record.head.effect for record in records if record.head.effect}:
        row = ledger.get(connection, effect)
        if row is not None and (redact := _call_to_show(connection, row).redact):
            found[effect] = redact
    return found


def end_of(run: RunShape, body: Any) -> tuple[Any, str | None]:
    """Return a run's result, and how it failed or who cancelled it, from what its last record holds."""
    if run.state == "completed":
        return body, None
    return None, end_words(run.state, body) if run.state in ("failed", "cancelled") else None


def unknowns(connection: Connection, sessions: Sessions, now_ms: int, command: Callable[..., str]) -> UnknownsDocument:
    """Return all that waits for a person: overdue effects first, then the oldest.

    An effect that is claimed by a process that is dead or stopped counts: nobody knows what became of it.
    """
    left = [
        _unknown(connection, effect_shape(connection, sessions, view), now_ms, view.claimed_at_ms, command)
        for state in (State.UNKNOWN, State.CLAIMED)
        for view in effects_desk.list_effects(connection, state=state, limit=ALL)
    ]
    effects = [one for one in left if one.effect.state == "unknown" or one.effect.holder.life != "alive"]
    effects.sort(key=lambda one: (not one.is_overdue, one.effect.claimed_at))
    contradictions = []
    for view in effects_desk.evidence(connection):
        shape = get_effect(connection, sessions, view.effect)
        closes = advice.for_contradiction(shape, command)
        contradictions.append(ContradictionShape(shape, evidence_shape(view), _age_s(now_ms, view.at_ms), closes))
    waiting = [row for row in list_runs(connection, state=RunState.WAITING, limit=ALL) if row.waiting_for in STUCK]
    stuck = [_stuck(connection, sessions, row, now_ms, command) for row in reversed(waiting)]
    asked = count_waiting(connection, sessions, runs_desk.is_open)
    return UnknownsDocument(effects, contradictions, stuck, asked)


def _call_to_show(connection: Connection, row: Row) -> Call:
    return call_to_show(load_to_show(connection, row.claim), row.id)


def _unknown(
    connection: Connection, shape: EffectShape, now_ms: int, claimed_at_ms: int, command: Callable[..., str]
) -> UnknownShape:
    row = ledger.get(connection, shape.id)
    assert row is not None, "a shape is made from its row"
    doubt = effects_desk.doubt_of(connection, row, _call_to_show(connection, row))
    return UnknownShape(
        effect=shape,
        why=_why(connection, shape),
        age_s=_age_s(now_ms, claimed_at_ms),
        unknown_since=moment(doubt.since_ms),
        deadline_at=moment(doubt.deadline_ms),
        is_overdue=doubt.is_overdue(now_ms),
        next=advice.for_effect(shape, command),
    )


def _stuck(
    connection: Connection, sessions: Sessions, row: RunRow, now_ms: int, command: Callable[..., str]
) -> StuckShape:
    run = run_shape(connection, row)
    effects = effects_of(connection, sessions, row.id)
    since_ms = runs_desk.last_record_ms(connection, row.id) or row.created_at_ms
    return StuckShape(run, _age_s(now_ms, since_ms), advice.for_run(run, None, effects, command))


def _age_s(now_ms: int, then_ms: int) -> float:
    return max(0, now_ms - then_ms) / 1_000


def _why(connection: Connection, effect: EffectShape) -> str:
    """Return what was learned last of an effect in doubt."""
    if effect.state == "claimed":
        fate = "is gone" if effect.holder.life == "dead" else "is stopped"
        return f"{effect.holder.name} (pid {effect.holder.pid}) {fate}; it had claimed it and left no outcome"
    texts = [view.body for view in effects_desk.evidence(connection, effect.id) if isinstance(view.body, str)]
    return one_line(texts[-1]) if texts else "no outcome was recorded"
