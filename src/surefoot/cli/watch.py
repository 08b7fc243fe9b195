"""Following one run from the command line: its steps told as they are recorded, then how it ended or why it stays.

What holds: following never changes the run; it ends when the run does, when only a person can let the run go on, when
its time is up, or when somebody asks this process to stop.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from surefoot.app import Surefoot
from surefoot.cli import advice, look
from surefoot.cli.exits import ExitCode
from surefoot.cli.place import command
from surefoot.cli.screen import emit, raw, say
from surefoot.cli.secrets import seen
from surefoot.cli.shapes.runs import OutcomeDocument, RunShape, StepShape
from surefoot.cli.show import step_head, step_tail
from surefoot.cli.stopping import Stopping
from surefoot.cli.timeline import step_of
from surefoot.cli.words import moment, value_words
from surefoot.journal import Kind, Record, load_record
from surefoot.leases import Sessions
from surefoot.runs.rows import desk as runs_desk
from surefoot.store.connection import Connection

LOOK_S = 0.1
"""How often the run is looked at; a person reads slower, and the look is one query."""

FOR_PERSON = frozenset({"blocked", "doubt", "approval"})
"""Waits that only a person can end, unless the run also has a time at which it goes on."""

ENDS = {"completed": ExitCode.OK, "failed": ExitCode.FAILED, "cancelled": ExitCode.FAILED}


class Watch:
    """One run being followed."""

    def __init__(self, run_id: str, url: str, stopping: Stopping, *, is_quiet: bool) -> None:
        self._id = run_id
        self._url = url
        self._stopping = stopping
        self._is_quiet = is_quiet
        self._seen = 0
        self._sleeps: dict[str, int] = {}
        self._hidden: dict[str, list[str]] = {}
        self._told = ""
        self.document: OutcomeDocument | None = None

    async def follow(self, app: Surefoot, timeout_s: float | None) -> None:
        """Return when there is nothing left to follow."""
        clock = app.store.clock
        until_s = None if timeout_s is None else clock.monotonic_s() + timeout_s
        while True:
            run = await self._look(app)
            if run.state in ENDS or (run.waiting_for in FOR_PERSON and run.wake_at is None):
                return
            if app.worker.failure is not None:
                raise app.worker.failure
            left_s = LOOK_S if until_s is None else min(LOOK_S, until_s - clock.monotonic_s())
            if left_s <= 0 or await self._stopping.wait(left_s):
                return

    @property
    def is_ended(self) -> bool:
        """Whether the run has ended, as far as was seen."""
        return self.document is not None and self.document.run.state in ENDS

    async def look_again(self) -> None:
        """Read where the run is, now that it was handed back and our store is closed."""
        async with Surefoot(self._url, is_worker=False) as app:
            await self._look(app)

    async def _look(self, app: Surefoot) -> RunShape:
        """Read where the run is, and tell what is new."""
        sessions = app.worker.sessions
        document, steps = await app.store.read(lambda connection: self._query(connection, sessions))
        self.document = document
        if not self._is_quiet:
            for step in steps:
                say(f"{step_head(step, document.run.created_at)}  {step_tail(step, is_full=False)}", style="dim")
            self._tell_wait(document.run)
        return document.run

    def _query(self, connection: Connection, sessions: Sessions) -> tuple[OutcomeDocument, list[StepShape]]:
        with connection:  # one snapshot
            row = look.find(connection, self._id)
            run = look.run_shape(connection, row)
            records = runs_desk.records_after(connection, row.id, self._seen)
            is_left = run.state not in ("completed", "running")
            effects = look.effects_of(connection, sessions, row.id) if is_left else []
            body = load_record(connection, row.ended or 0).body if run.state in ENDS else None
        self._seen = max([self._seen, *(record.seq for record in records)])
        self._note_sleeps(records)
        result, error = look.end_of(run, None if body is None else msgspec.json.decode(body))
        steps = advice.for_run(run, None, effects, self._command) if is_left else []
        return seen(OutcomeDocument(run, result, error, steps)), [
            seen(step) for step in self._steps(connection, records)
        ]

    def _steps(self, connection: Connection, records: Sequence[Record]) -> list[StepShape]:
        """Return what is new as steps; what a step may not show was said when it was claimed, here or by another run."""
        hidden = look.hidden_of(connection, records)
        steps = [step_of(record, {}, hidden) for record in records]
        self._hidden |= {step.step: step.redact for step in steps if step.redact}
        return [replace(step, redact=self._hidden.get(step.step, [])) for step in steps]

    def _note_sleeps(self, records: Sequence[Record]) -> None:
        """Learn until when the run sleeps: handed back in the middle of it, it is pending, and says nothing of that."""
        for record in records:
            if record.kind is Kind.TIMER_SET and record.step.rpartition("/")[2].startswith("sleep"):
                self._sleeps[record.step] = record.head.wake_at_ms
            else:
                self._sleeps.pop(record.step, None)

    def _command(self, *words: str) -> str:
        return command(self._url, *words)

    def _tell_wait(self, run: RunShape) -> None:
        waits = advice.waits_words(run) if run.state == "waiting" else ""
        if waits and waits != self._told:
            say(f"{run.id} is {waits}")
            self._tell_next()
        self._told = waits

    def _tell_next(self) -> None:
        assert self.document is not None
        for step in self.document.next:
            say(f"  {step.words}" + (f": {step.command}" if step.command else ""))

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        assert self.document is not None
        ended = ENDS.get(self.document.run.state)
        if ended is not None:
            return ended
        return ExitCode.INTERRUPTED if self._stopping.by is not None else ExitCode.WAITING

    def tell(self, *, is_json: bool) -> None:
        """Print the result on stdout, or, on stderr, why there is none."""
        document = self.document
        assert document is not None
        if is_json:
            emit(document)
        elif document.run.state == "completed":
            raw(document.result if isinstance(document.result, str) else value_words(document.result, None))
        if document.error is not None:
            say(f"run {document.run.id} {document.run.state}: {document.error}")
            say(f"  {self._command('show', document.run.id)}")
        elif self._sleeps and (document.run.state == "pending" or document.run.waiting_for == "timer"):
            say(f"left; run {document.run.id} sleeps until {moment(min(self._sleeps.values()))}")
            say(f"  a worker goes on with it then: {self._command('worker', 'MODULE')}")
            say(f"  to see it: {self._command('show', document.run.id)}")
        elif document.run.state not in ENDS:
            say(f"left; run {document.run.id} is {advice.waits_words(document.run)}")
            self._tell_next()
