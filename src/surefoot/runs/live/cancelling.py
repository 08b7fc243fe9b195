"""Cancelling a run's code: where a cancellation hits it, on its first way there and on every replay.

What holds: a cancellation is recorded when it first hits. A replay is let go on until it has asked for all that had been
recorded before, and is up to what it was in the middle of then; so it meets the cancellation at the same place, and
clean-up that was begun is taken up again. A cancellation that is new is met where the code goes live.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from surefoot.effects.cancellation import EngineCancellation
from surefoot.journal import Kind
from surefoot.journal.records import Head
from surefoot.runs.live.replay import Recorded
from surefoot.runs.rows.inbox import CANCEL

if TYPE_CHECKING:
    from surefoot.runs.live.run import LiveRun
    from surefoot.runs.live.taken import LiveStep

WAIT_S = 60.0
"""How long a replay may take to come to where a cancellation hits; then the code is cancelled wherever it stands."""


@dataclass(slots=True, eq=False)
class Cancellation:
    """One cancellation on its way to the code.

    Attributes:
        letter: The row of the inbox it came with.
        by: Who sent it, and why.
        is_recorded: Whether it hit the code before, in an earlier execution.
        before: Recorded steps that the code has yet to ask for before it is hit.
        replays: Steps that are being given their recorded outcome.
    """

    letter: int
    by: str
    is_recorded: bool
    before: set[str]
    replays: set[str] = field(default_factory=set)

    @property
    def is_due(self) -> bool:
        """Whether the code stands where it belongs."""
        return not self.before and not self.replays


class Cancels:
    """The cancellations on their way to the code of one run, in order.

    Attributes:
        by: Who sent the first one that hit; empty for none.
        pending: Those that have not hit yet.
    """

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._is_begun = False
        self.by = ""
        self.pending: deque[Cancellation] = deque()
        for record in run.history.cancels.values():
            before = {*run.history.left_over(before=record.seq), *(record.head.detail or ())}
            self.pending.append(Cancellation(record.head.signal, record.head.reason, is_recorded=True, before=before))

    def begin(self) -> None:
        """Note that the code starts now: from here on it can be hit."""
        self._is_begun = True
        if self.pending:
            self._seek()

    def finish(self) -> None:
        """Note that the code has ended: nothing is there to be hit."""
        self._is_begun = False

    def add(self, by: str, letter: int) -> None:
        """Take a new cancellation."""
        before = set(self._run.history.left_over())
        self.pending.append(Cancellation(letter, by, is_recorded=False, before=before))
        if self._is_begun:
            self._seek()

    def come_to(self, identity: str, recorded: Recorded | None) -> None:
        """A step is asked for: one nearer to the place, or, when it is a new one, the place itself.

        Raises:
            CancelledError: This is the place, and the main code asks: nothing new is begun.
        """
        for cancellation in self.pending:
            cancellation.before.discard(identity)
        if not self.pending[0].before:
            if recorded is None and asyncio.current_task() is self._run.task:
                self._note_hit(self.pending.popleft())
                raise EngineCancellation(f"cancelled by {self.by}")
            self._run.loop.call_soon(self._hit)

    def note_replay(self, step: LiveStep) -> None:
        """Note that a recorded step is being given its outcome: the code is not hit there again."""
        if step.ended is not None and step.ended.kind is not Kind.INTERRUPTED:
            self.pending[0].replays.add(step.key)

    def note_closed(self, step: LiveStep) -> None:
        """Note that nobody works on a step any more."""
        self.pending[0].replays.discard(step.key)
        self._run.loop.call_soon(self._hit)

    def _seek(self) -> None:
        self._run.loop.call_soon(self._hit)
        self._run.loop.call_later(WAIT_S, self._hit_anyway, self.pending[0])

    def _hit(self) -> None:
        """Cancel the code if it has come to where the next cancellation belongs."""
        run = self._run
        if not self.pending or not self._is_begun or not self.pending[0].is_due or run.stopped is not None:
            return
        self._note_hit(self.pending.popleft())
        assert run.task is not None, "its code has begun"
        run.task.cancel(f"cancelled by {self.by}")
        if self.pending:
            self._seek()

    def _hit_anyway(self, cancellation: Cancellation) -> None:
        if cancellation in self.pending:
            cancellation.before.clear()
            cancellation.replays.clear()
            self._hit()

    def _note_hit(self, cancellation: Cancellation) -> None:
        self.by = self.by or cancellation.by or "somebody"
        if not cancellation.is_recorded:
            run = self._run
            middle_of = list(run.open_steps) or None
            head = Head(name=CANCEL, signal=cancellation.letter, reason=cancellation.by, detail=middle_of)
            run.record(run.about_run(Kind.SIGNAL, head=head), "cancel")
