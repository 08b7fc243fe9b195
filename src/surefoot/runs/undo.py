"""Undoing a run: its effects are compensated, the last one first, each compensation an effect of its own.

What holds: nothing is undone whose outcome is unknown (undoing what never happened is itself a wrong effect); each effect
is compensated at most once, under a key made of its own; an effect without `compensate=` stops the undo, and is named.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from surefoot.effects import bound_guard, ledger
from surefoot.effects.guard import call_of
from surefoot.effects.keys import fingerprint, identify
from surefoot.effects.perform import perform
from surefoot.effects.registry import spec_of, undo_spec_of
from surefoot.effects.states import OPEN, State
from surefoot.journal import codec_of, load_record
from surefoot.problem import SurefootError
from surefoot.runs import tables
from surefoot.runs.durable import durable
from surefoot.runs.steps import live_run, take_step

UNDO = "surefoot undo"


class CannotUndo(SurefootError):
    """The run can't be undone as it is. Nothing, or nothing more, was compensated."""


@durable(name=UNDO)
async def undo(run_id: str, reason: str) -> list[str]:
    """Compensate what a run has done, in reverse; return the keys of what was undone."""
    done: list[dict[str, Any]] = await take_step(
        "list effects", None, codec_of(object, "list effects"), lambda: _list(run_id)
    )
    undone: list[str] = []
    for effect in done:
        await _compensate(effect)
        undone.append(effect["key"])
    return undone


async def _list(run_id: str) -> list[dict[str, Any]]:
    """Return the run's effects that are done, the last settled first."""

    def query(connection: Any) -> list[dict[str, Any]]:
        run = tables.find_run(connection, run_id)
        if run is None:
            raise CannotUndo(f"there is no run {run_id!r}", hint="surefoot runs")
        rows = [ledger.get(connection, int(row[0])) for row in _ids(connection, run.id)]
        found = [row for row in rows if row is not None]
        if any(row.state in OPEN for row in found):
            raise CannotUndo(
                f"run {run_id} has effects whose outcome is unknown", hint="surefoot unknowns; then undo again"
            )
        done = sorted((row for row in found if row.state is State.DONE), key=lambda row: -row.record)
        return [_as_data(connection, row) for row in done]

    return await live_run("undo").store.read(query)


def _ids(connection: Any, run: int) -> Any:
    return connection.execute("SELECT id FROM ledger WHERE run = ?", (run,)).fetchall()


def _as_data(connection: Any, row: ledger.Row) -> dict[str, Any]:
    call, outcome = call_of(connection, row), load_record(connection, row.record)
    if call.forgotten_at_ms:
        raise CannotUndo(
            f"effect {call.effect} ({call.key}) can't be undone any more: retention has deleted what it was called with",
            hint="undo it at the service by hand; keep runs for longer than they may have to be undone",
        )
    return {
        "id": row.id,
        "name": call.effect,
        "key": call.key,
        "digest": row.digest.hex(),
        "generation": row.generation,
        "arguments": msgspec.json.decode(call.arguments),
        "outcome": None if outcome.body is None else msgspec.json.decode(outcome.body),
    }


async def _compensate(effect: dict[str, Any]) -> None:
    forward = spec_of(effect["name"])
    if forward.compensate is None:
        raise CannotUndo(
            f"effect {effect['name']} ({effect['key']}) has no compensation",
            hint="declare compensate= on it and undo again: what was undone already is not undone twice",
        )
    spec = undo_spec_of(forward)
    given = {**forward.rebuild(msgspec.json.encode(effect["arguments"])), "outcome": effect["outcome"]}
    bound = spec.bind((), {name: given[name] for name in spec.signature.parameters if name in given})
    guard = bound_guard.get()
    assert guard is not None, "a run has a guard"
    undone = f"{effect['digest']}-{effect['generation']}"  # one compensation per generation, whoever asks for it
    identity = identify("undo", spec.name, undone, fingerprint(undone.encode()))
    outcome = await perform(
        guard, spec, bound, undone, identity=identity, also=partial(ledger.compensated, effect=effect["id"])
    )
    outcome.unwrap()
