"""The laws of sagas: what was done in one that failed is undone, in reverse, once, and only once it is known to be done."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.property.effects import about

from surefoot.testing.laws import COMPENSATED, COMPLETED, DONE, require

Rows = Callable[..., list[Any]]

UNDOING = "$undo"
"""Where, below its saga, a run's journal has what was undone."""


def check_sagas(rows: Rows) -> None:
    """Check all sagas that have failed, and all that was undone.

    Raises:
        LawBroken: Something was undone that must not be, or not undone that must be.
    """
    done = rows(
        "SELECT l.id, l.run, j.step, l.state, l.claim, l.record, j.body, l.digest, l.generation FROM ledger l"
        " JOIN journal j ON j.id = l.claim"
    )
    rows_of = {(digest.hex(), generation): row for *row, digest, generation in done}
    for run, path, listed, state in rows(
        "SELECT j.run, substr(j.step, 1, length(j.step) - 12), j.id, r.state FROM journal j JOIN runs r ON r.id = j.run"
        f" WHERE j.step LIKE '%/{UNDOING}/$list' AND j.kind = 2"
    ):
        _check_saga(rows, run, path, listed, done, is_over=state >= COMPLETED)
    for *_, state, claim, _record, body, _digest, _generation in done:
        call = json.loads(body)
        if about(call)[0] != "undo" or state != DONE:
            continue
        digest, _, generation = call["key"].partition("-")
        undone = rows_of.get((digest, int(generation or 0)))
        require(undone is not None, "what is undone was done", undo=call)
        assert undone is not None
        require(undone[3] == COMPENSATED, "what was undone is noted so", undone=undone)
        require(undone[5] < claim, "an unknown is not undone before it is known", undone=undone, undo=claim)


def _check_saga(rows: Rows, run: int, path: str, listed: int, done: list[Any], *, is_over: bool) -> None:
    inside = [row for row in done if row[1] == run and row[2].startswith(f"{path}/")]
    forward = [row for row in inside if not row[2].startswith(f"{path}/{UNDOING}/")]
    late = [row for row in forward if row[4] > listed]
    require(not late, "nothing new begins in a saga that is being undone", run=run, saga=path, late=late)
    left = [row for row in forward if row[3] == DONE]
    require(not is_over or not left, "what a failed saga has done is undone", run=run, saga=path, left=left)
    begun = rows(
        "SELECT id, body FROM journal WHERE run = ? AND kind = 5 AND step LIKE ? || '/%' ORDER BY id",
        run,
        f"{path}/{UNDOING}",
    )
    order = {f"{row[7].hex()}-{row[8]}": row[5] for row in forward}
    undone = [order.get(json.loads(body)["key"]) for _, body in begun]
    settled = list(dict.fromkeys(record for record in undone if record is not None))
    require(settled == sorted(settled, reverse=True), "what was done last is undone first", run=run, saga=path,
            settled=settled)  # fmt: skip
