"""Undoing a run: its effects and its children are compensated, the last one first, each compensation an effect of its own.

What holds: nothing is undone whose outcome is unknown, or while a child still goes on; what was undone already is not
undone twice; an effect without `compensate=` stops the undo, and is named. How a piece is undone: `compensate`.
"""

from __future__ import annotations

from functools import partial

from surefoot.journal import codec_of
from surefoot.runs.compensate import Piece, compensate, find
from surefoot.runs.durable import UNDO, durable
from surefoot.runs.errors import CannotUndo
from surefoot.runs.rows import tables
from surefoot.runs.rows.desk import is_forgotten
from surefoot.runs.steps import live_run, take_step
from surefoot.store.connection import Connection


@durable(name=UNDO)
async def undo(run_id: str, reason: str) -> list[str]:
    """Compensate what a run has done, in reverse; return the keys of what was undone."""
    done: list[Piece] = await take_step("list effects", None, codec_of(object, "list effects"), lambda: _list(run_id))
    return [piece["key"] for piece in done if await compensate(piece, reason)]


async def _list(run_id: str) -> list[Piece]:
    """Return what the run has done, the last settled first."""
    return await live_run("undo").store.read(partial(_find_done, run_id))


def _find_done(run_id: str, connection: Connection) -> list[Piece]:
    """Return what a run has done, if all of it, and all that its children have done, can be undone now.

    Raises:
        CannotUndo: It can't: nothing of it is.
    """
    run = tables.find_run(connection, run_id)
    if run is None:
        raise CannotUndo(f"there is no run {run_id!r}", hint="surefoot runs")
    if is_forgotten(connection, run):
        raise CannotUndo(
            f"run {run_id} can't be undone any more: retention has deleted what it did it with",
            hint="undo it at the service by hand; keep runs for longer than they may have to be undone",
        )
    found = find(connection, run.id)
    if found.open_effects:
        raise CannotUndo(
            f"run {run_id} has effects whose outcome is unknown", hint="surefoot unknowns; then undo again"
        )
    if found.open_children:
        _, child_id = found.open_children[0]
        raise CannotUndo(
            f"run {run_id} has a child that still goes on: {child_id}",
            hint=f"surefoot cancel {child_id} --reason ...; then undo again",
        )
    for piece in found.done:
        if "child" in piece:
            _find_done(piece["child"], connection)
    return found.done
