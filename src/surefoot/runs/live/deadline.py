"""The deadline of a run: where its code hears that it has passed, on its first way there and on every replay."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from surefoot.effects.live.told import was_left
from surefoot.journal import Kind, Record
from surefoot.runs.errors import DeadlinePassed
from surefoot.runs.life import WaitFor

if TYPE_CHECKING:
    from surefoot.runs.live.run import LiveRun
    from surefoot.runs.live.taken import LiveStep


class Deadline:
    """The deadline of one run.

    Attributes:
        is_over: Whether it has passed.
    """

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        at_ms = run.row.deadline_ms
        self.is_over = at_ms is not None and at_ms <= run.store.clock.wall_ms()

    def check(self, step: LiveStep) -> None:
        """Raise `DeadlinePassed` once, at the step that comes first after the deadline; on replay at the same one.

        An effect that is claimed already is looked into first: the deadline says nothing about what it did. One whose claim
        was left before the act has done nothing: it is claimed anew, and so has not begun.
        """
        if step.ended is not None:
            if step.ended.kind is Kind.EXPIRED:
                step.close()
                raise self._overdue()
        elif self._run.history.expired is None and not self._may_have_acted(step.opened):
            self._end_expired(step)
            raise self._overdue()

    def _may_have_acted(self, opened: Record | None) -> bool:
        if opened is None or opened.kind is not Kind.CLAIMED:
            return False
        return not self._run.store.read_now(partial(was_left, claim=opened))

    def expire(self) -> None:
        """Note that it has passed: what waits now raises, or else the next step."""
        run, self.is_over = self._run, True
        for waiting in run.waits:
            step = run.open_steps.get(waiting.step)
            is_free = waiting.wait_for is not WaitFor.DOUBT and not waiting.future.done()
            if is_free and step is not None and run.history.expired is None and run.stopped is None:
                self._end_expired(step)
                waiting.future.set_exception(self._overdue())

    def _end_expired(self, step: LiveStep) -> None:
        record = step.draft(Kind.EXPIRED)
        self._run.history.expired = record
        self._run.record(record, "expired")
        step.end(record)

    def _overdue(self) -> DeadlinePassed:
        return DeadlinePassed(
            f"run {self._run.run_id}: its deadline has passed", hint="catch sf.DeadlinePassed to finish in order"
        )
