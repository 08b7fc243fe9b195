"""Compensating: what of a run is to be undone, and undoing one piece of it. What `undo` and `saga` share.

What holds: only what is known to be done is undone (undoing what never happened is itself a wrong effect); each generation
of an effect is compensated at most once, under a key made of its own, whoever asks; a compensation is an effect with its
own class of doubt; what was done by compensating is never itself undone.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any

import msgspec

from surefoot.effects import EffectSpec, bound_guard
from surefoot.effects.keys import fingerprint, identify
from surefoot.effects.live.perform import perform
from surefoot.effects.registry import spec_of, undo_spec_of
from surefoot.effects.rows import ledger
from surefoot.effects.rows.ledger import call_of
from surefoot.effects.spec import nothing_to_undo
from surefoot.effects.states import OPEN, State
from surefoot.journal import Kind, load_record, load_records
from surefoot.runs.children import child
from surefoot.runs.durable import UNDO, kind_of
from surefoot.runs.errors import CannotUndo
from surefoot.runs.handle import free_undo_id
from surefoot.runs.life import ENDED, RunState
from surefoot.runs.live.replay import Recorded, step_key
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import _parent
from surefoot.runs.rows import tables
from surefoot.runs.steps import live_run
from surefoot.store import Tx
from surefoot.store.connection import Connection

SCOPE = "undo"
"""The scope of the keys of compensations."""

Piece = dict[str, Any]
"""What is to be undone, as it is recorded: an effect by its row and identity, or {"child": its run's id}."""


class Found(msgspec.Struct, frozen=True):
    """What a run, or a part of it, has done.

    Attributes:
        done: What is to be undone, the last settled first.
        open_effects: The ledger's rows of effects nobody knows the outcome of.
        open_children: Child runs that have not ended, by row and id.
    """

    done: list[Piece]
    open_effects: list[int]
    open_children: list[tuple[int, str]]


def find(connection: Connection, run: int, path: str = "") -> Found:
    """Return what a run has done in the steps under a path; under all for an empty one."""
    done: list[tuple[int, Piece]] = []
    open_effects: list[int] = []
    open_children: list[tuple[int, str]] = []
    under = f"{path}/" if path else ""
    for record_id, kind, step in _begun(connection, run):
        if not step.startswith(under):
            continue
        if kind == Kind.CLAIMED:
            row = _row_of(connection, run, record_id)
            if row is not None and row.state in OPEN:
                open_effects.append(row.id)
            elif row is not None and row.state is State.DONE and call_of(connection, row).scope != SCOPE:
                done.append((row.record, _effect(connection, row)))
        else:
            there = tables.find_run(connection, load_record(connection, record_id).head.run)
            if there is None or there.parent != run or there.kind == UNDO:
                continue  # never started; another's; an undo
            if _is_undone(connection, there.run_id):
                continue
            if there.state in ENDED:
                done.append((there.ended or 0, {"child": there.run_id, "key": f"run {there.run_id}"}))
            else:
                open_children.append((there.id, there.run_id))
    done.sort(key=lambda piece: -piece[0])
    return Found([piece for _, piece in done], open_effects, open_children)


def _begun(connection: Connection, run: int) -> list[tuple[int, int, str]]:
    """Return the records by which effects and children of a run began."""
    rows = connection.execute(
        "SELECT id, kind, step FROM journal WHERE run = ? AND kind IN (?, ?) ORDER BY seq",
        (run, int(Kind.CLAIMED), int(Kind.CHILD)),
    )
    return [(int(str(record)), int(str(kind)), str(step)) for record, kind, step in rows]


def _row_of(connection: Connection, run: int, claim: int) -> ledger.Row | None:
    """Return the ledger's row that this claim made; None when it made none."""
    body = load_record(connection, claim).body
    assert body is not None, "a claim has its call"
    call = ledger.decode_call(body)
    digest = identify(call.scope, call.effect, call.key, b"").digest
    row = ledger.find(connection, digest, call.generation)
    return row if row is not None and row.claim == claim and row.run == run else None


def _is_undone(connection: Connection, run_id: str) -> bool:
    undo = tables.find_run(connection, free_undo_id(connection, run_id))
    return undo is not None and undo.state is RunState.COMPLETED


def _effect(connection: Connection, row: ledger.Row) -> Piece:
    call = call_of(connection, row)
    return {
        "id": row.id,
        "name": call.effect,
        "key": call.key,
        "digest": row.digest.hex(),
        "generation": row.generation,
    }


def _given(forward: EffectSpec, effect: int, connection: Connection) -> dict[str, Any]:
    """Return what a compensation can have parameters for: the effect's arguments, and its outcome."""
    row = ledger.get(connection, effect)
    assert row is not None, "rows of the ledger are never deleted"
    call, outcome = call_of(connection, row), load_record(connection, row.record).body
    if call.forgotten_at_ms:
        raise CannotUndo(
            f"effect {call.effect} ({call.key}) can't be undone any more: retention has deleted what it was called with",
            hint="undo it at the service by hand; keep runs for longer than they may have to be undone",
        )
    value = None if outcome is None else msgspec.json.decode(outcome)
    return {**forward.rebuild(bytes(call.arguments)), "outcome": value}


async def compensate(piece: Piece, reason: str, attempt: int = 1) -> bool:
    """Undo one piece; return False for one that needs no undoing.

    It awaits nothing but the step itself: a cancellation that hit elsewhere would be recorded nowhere, and a replay would
    come to another end.

    Args:
        piece: What.
        reason: Why; kept with the undo of a child.
        attempt: Counts the steps taken for this piece, for those that were not done at first.

    Raises:
        CannotUndo: It has no compensation.
        NotDone, EffectError, StepFailed: The compensation came to that.
    """
    name, key = step_of(piece, attempt)
    run = live_run("compensate")
    if "child" in piece:
        undo_id, reason = run.store.read_now(lambda connection: _undo_of(connection, piece["child"], reason))
        await child(kind_of(UNDO).function, piece["child"], reason, id=undo_id, key=key)
        return True
    forward = spec_of(piece["name"])
    if forward.compensate is nothing_to_undo:
        return False
    if not is_begun(piece, attempt) and run.store.read_now(partial(_is_compensated, piece["id"])):
        return True  # by somebody else, meanwhile: another undo, or a person who says so
    spec = parking(undo_spec_of(forward))
    given = run.store.read_now(partial(_given, forward, piece["id"]))
    bound = spec.bind((), {name: given[name] for name in spec.signature.parameters if name in given})
    guard = bound_guard.get()
    assert guard is not None, "a run has a guard"
    undone = _generation(piece)  # one compensation per generation, whoever asks for it
    identity = identify(SCOPE, name, undone, fingerprint(undone.encode()))
    (await perform(guard, spec, bound, key, identity=identity)).unwrap()
    run.append(partial(_note_compensated, run, piece["id"]), "compensated", 0)
    return True


def _undo_of(connection: Connection, run_id: str, reason: str) -> tuple[str, str]:
    """Return id and reason of a child's undo: of the one that goes on or is done, whoever began it, or of a new one."""
    undo_id = free_undo_id(connection, run_id)
    there = tables.find_run(connection, undo_id)
    if there is None:
        return undo_id, reason
    started = next(record for record in load_records(connection, there.id) if record.kind is Kind.STARTED)
    return undo_id, msgspec.json.decode(started.body or b"{}")["reason"]


def _note_compensated(run: LiveRun, effect: int, tx: Tx) -> None:
    run.require(tx)
    ledger.compensated(tx, effect)


def step_of(piece: Piece, attempt: int) -> tuple[str, str]:
    """Return name and key of the step that undoes a piece.

    Raises:
        CannotUndo: It has no compensation.
        BadEffect: Its code is not in this process.
    """
    again = "" if attempt == 1 else f".{attempt}"
    if "child" in piece:
        return UNDO, f"{piece['child']}{again}"
    forward = spec_of(piece["name"])
    if forward.compensate is None:
        raise CannotUndo(
            f"effect {piece['name']} ({piece['key']}) has no compensation",
            hint="declare compensate= on it and undo again: what was undone already is not undone twice",
        )
    return undo_spec_of(forward).name, f"{_generation(piece)}{again}"


def is_begun(piece: Piece, attempt: int) -> bool:
    """Whether an earlier execution of the run has begun this step: then it is asked for again, whatever is known now."""
    return _recorded(piece, attempt) is not None


def is_ended(piece: Piece, attempt: int) -> bool:
    """Whether an earlier execution of the run has ended this step."""
    recorded = _recorded(piece, attempt)
    return recorded is not None and recorded.ended is not None


def _recorded(piece: Piece, attempt: int) -> Recorded | None:
    return live_run("compensate").history.steps.get(step_key(_parent.get(), *step_of(piece, attempt)))


def _is_compensated(effect: int, connection: Connection) -> bool:
    row = ledger.get(connection, effect)
    return row is not None and row.state is State.COMPENSATED


def _generation(piece: Piece) -> str:
    return f"{piece['digest']}-{piece['generation']}"


def parking(spec: EffectSpec) -> EffectSpec:
    """Return an effect that waits for the end of its doubt, whatever it declares: nothing may go on over it."""
    if spec.when_unknown == "park":
        return spec
    parking = copy(spec)
    parking.when_unknown = "park"
    return parking
