"""Names of steps: which one is meant when code asks for a step of a name, counted within one task.

What holds: a step's identity is the same on every replay, whichever of the run's tasks comes first.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from surefoot.journal.texts import NAME_CHARS_MAX
from surefoot.runs.errors import AmbiguousStep
from surefoot.runs.live.replay import step_key
from surefoot.runs.live.strand import Strand, _place

if TYPE_CHECKING:
    from surefoot.runs.live.run import LiveRun


def id_of_place(run_id: str, step: str) -> str:
    """Return the id of what a run makes in a step, where its code gives none."""
    found = f"{run_id}/{step}"
    return (
        found if len(found) <= NAME_CHARS_MAX else f"run {hashlib.blake2b(found.encode(), digest_size=16).hexdigest()}"
    )


class _Counted(msgspec.Struct):
    """Who counts a name under a parent, the identities of the first and the newest step of that name, and how many there
    are."""

    strand: Strand
    first: str
    newest: str
    count: int = 0


class Names:
    """The names that the code of one run has asked for."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._counted: dict[tuple[str, str, str | None], _Counted] = {}

    def next(self, parent: str, name: str, key: str | None, strand: Strand) -> str:
        """Return the identity of the next step of this name.

        Raises:
            AmbiguousStep: Another task has asked for it too, and which of them comes first is chance.
        """
        names = self._counted.get((parent, name, key))
        if names is None:
            first = step_key(parent, name, key)
            names = self._counted[parent, name, key] = _Counted(strand, first, first)
        elif names.strand is not strand:
            place = _place.get()
            is_asked_again = place is not None and place.path == parent and names.newest not in self._run.open_steps
            if not is_asked_again:
                where = f" under {parent}" if parent else ""
                raise AmbiguousStep(
                    f"run {self._run.run_id}: two tasks ask for step {name!r}{where}"
                    + (f" with key {key!r}" if key is not None else ""),
                    hint=f"tell them apart: {name}.keyed(...), or `async with sf.branch(...)` around each task's part",
                )
            names.strand = strand  # a framework makes an approved tool call again: after the first, in another task
        names.count += 1
        if names.count > 1:
            names.newest = f"{names.first}#{names.count}"
        return names.newest
