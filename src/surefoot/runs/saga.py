"""Sagas: effects that are done all together, or undone again in reverse.

    enter     -> a branch of the run: what is done inside stands under its path
    error     -> nothing new begins inside; acts in progress get their answer, other tasks inside are cancelled
    list      -> every doubt inside is ended first, children that go on are cancelled; then what is done is recorded
    undo      -> one compensation after another, the last settled first; then the error goes on its way

What holds: an unknown is never compensated; what has begun to be undone is undone to its end, through crashes, deadlines
and cancellations; a compensation that was not done parks its run with words, and is tried again when the run is woken.
(Sagas: Garcia-Molina & Salem 1987. There every step has an outcome; here a step may be unknown, and is found out first.)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import Token
from functools import partial
from types import TracebackType
from typing import TypeVar

from surefoot.effects.classify import describe
from surefoot.effects.live.case import Case
from surefoot.effects.live.resolve import resolve
from surefoot.effects.live.sweep import case_of
from surefoot.effects.rows import ledger
from surefoot.effects.rows.ledger import call_of
from surefoot.journal import Kind, codec_of
from surefoot.journal.texts import without_surrogates
from surefoot.problem import SurefootError
from surefoot.runs.compensate import Piece, compensate, find, is_ended, parking
from surefoot.runs.errors import GOING_DOWN, Blocked, DeadlinePassed, Divergence
from surefoot.runs.life import WaitFor
from surefoot.runs.live.looking import Looking
from surefoot.runs.live.replay import step_key
from surefoot.runs.live.run import UNDOING
from surefoot.runs.live.strand import _parent, _saga
from surefoot.runs.live.taken import LiveStep
from surefoot.runs.rows import inbox, waiters
from surefoot.runs.rows.inbox import CANCEL
from surefoot.runs.steps import live_run, meet_again_if_interrupted, take_step
from surefoot.store import Tx
from surefoot.store.connection import Connection

T = TypeVar("T")

LIST = "$list"
"""The step that records what is to be undone."""

ENDING = "$ending"
"""The step that records that a cancellation came while the tasks inside were ended."""

PARKED = "$parked"
"""The step that records the same of the wait after a compensation that was not done."""

LOOK_AGAIN_S = 0.02
"""How often to look whether the acts inside a saga have ended, while they are waited for."""

_PIECES = codec_of(object, "what a saga has done")


def saga(name: str = "saga", key: str | None = None) -> Saga:
    """Undo the effects done inside, in reverse, when the block is left with an error or a cancellation.

    Each effect inside needs `compensate=`. Before anything is undone, every effect inside whose outcome is unknown is found
    out, as its class says. Then the error goes on.

    Args:
        name: The saga's name: part of the identity of the steps inside.
        key: A distinction between sagas of one name opened by different tasks.
    """
    return Saga(name, key)


class Saga:
    """See `saga`.

    Attributes:
        undone: The keys of what was undone, in that order; empty as long as nothing has failed.
    """

    def __init__(self, name: str, key: str | None) -> None:
        self._name = name
        self._key = key
        self._tokens: tuple[Token[str], Token[str]] | None = None
        self._cancelled: asyncio.CancelledError | None = None
        self._hits: Counter[tuple[str, str | None]] = Counter()
        self.undone: list[str] = []

    async def __aenter__(self) -> Saga:
        if self._tokens is not None:
            raise SurefootError(f"saga {self._name} is entered twice", hint="async with sf.saga(...): each time anew")
        run = self._run = live_run("saga", self._name)
        path = self._path = run.enter(self._name, self._key)
        if (
            f"{path}/{UNDOING}/{LIST}" in run.history.steps
        ):  # it failed in an earlier execution: nothing new begins in it
            run.aborted[path] = asyncio.current_task()
        self._tokens = _parent.set(path), _saga.set(path)
        run.sagas += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._tokens is not None, "it was entered"
        run, (parent, outer) = self._run, self._tokens
        _saga.reset(outer)
        _parent.reset(parent)
        run.sagas -= 1
        if run.stopped is not None:  # suspended, or taken away: the next execution comes here again
            return
        if error is None:
            if self._path in run.aborted:
                recorded = f"{self._path}/{UNDOING}/{LIST}"
                raise run.stop(Divergence(run.run_id, recorded, "the end of the saga without an error", recorded))
        elif not isinstance(error, GOING_DOWN):
            await self._undo(without_surrogates(describe(error)))

    async def _undo(self, why: str) -> None:
        run, inside = self._run, _saga.set("")
        run.aborted[self._path] = asyncio.current_task()
        parent = _parent.set(f"{self._path}/{UNDOING}")
        try:
            await self._through(partial(self._hit_again, ENDING, None, self._end_tasks))
            pieces: list[Piece] = await self._through(partial(take_step, LIST, None, _PIECES, self._find))
            for piece in pieces:
                if await self._undo_piece(piece, why):
                    self.undone.append(piece["key"])
        finally:
            _parent.reset(parent)
            _saga.reset(inside)
        if self._cancelled is not None:
            raise self._cancelled

    async def _through(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do a piece of the undoing to its end: a deadline or a cancellation that comes meanwhile is heard of after it."""
        while True:
            try:
                return await work()
            except DeadlinePassed:
                continue
            except asyncio.CancelledError as error:
                if self._run.stopped is not None or self._run.worker.is_stopping:
                    raise
                self._cancelled = error

    async def _hit_again(self, name: str, key: str | None, work: Callable[[], Awaitable[object]]) -> None:
        """Do what is no step, and is done on every replay. That a cancellation hits it is recorded as one, so that a replay
        is hit here, too."""
        run = self._run
        if step_key(_parent.get(), name, key, self._hits[name, key] + 1) in run.history.steps:
            self._hits[name, key] += 1
            await meet_again_if_interrupted(run, run.open_step(name, key))
        try:
            await work()
        except asyncio.CancelledError as error:
            if run.stopped is None and not run.worker.is_stopping:
                self._hits[name, key] += 1
                hit = run.open_step(name, key)
                hit.interrupt(describe(error))
                hit.close()
            raise

    # -- until it is known what was done ------------------------------------------------------------------------------

    async def _end_tasks(self) -> None:
        """Let acts in progress inside get their answer; cancel what else is inside."""
        run, me, asked = self._run, asyncio.current_task(), set[LiveStep]()
        while tasks := {step.task: step for step in self._open_steps() if step.task not in (me, None)}:
            for task, step in tasks.items():
                if task is not None and step.key not in run.acting and step not in asked:
                    asked.add(step)
                    task.cancel(f"surefoot: saga {self._path} is being undone")
            await asyncio.wait([task for task in tasks if task is not None], timeout=LOOK_AGAIN_S)
            run.check()

    def _open_steps(self) -> list[LiveStep]:
        return [step for step in self._run.open_steps.values() if step.key.startswith(f"{self._path}/")]

    async def _find(self) -> list[Piece]:
        """Return what was done inside, once nothing of it is open."""
        run = self._run
        self._refuse_foreign()
        while True:
            await run.store.barrier()
            found = await run.store.read(lambda connection: find(connection, run.run, self._path))
            if not found.open_effects and not found.open_children:
                return found.done
            for child, run_id in found.open_children:
                await self._end_child(child, run_id)
            for effect in found.open_effects:
                await self._find_out(effect)

    def _refuse_foreign(self) -> None:
        """A fork undoes nothing of its source, so it can't undo a saga that its source had begun."""
        run, started = self._run, self._run.history.started
        if run.is_simulated or started is None or not isinstance(started.head.detail, dict):
            return
        for key, step in run.history.steps.items():
            is_copied = step.began <= started.head.detail.get("records", 0)
            is_done = step.ended is not None and step.ended.kind is Kind.DONE
            if key.startswith(f"{self._path}/") and is_copied and is_done:
                raise Blocked(
                    f"run {run.run_id}: saga {self._path} was begun by run {run.source}, which has done {key}",
                    hint=f"undo that run, and cancel this one: surefoot undo {run.source}; or fork before the saga",
                )

    async def _end_child(self, child: int, run_id: str) -> None:
        """Cancel a child that goes on, and wait for its end."""
        run, by = self._run, f"saga {self._path} of run {self._run.run_id} failed"

        def unit(tx: Tx) -> bool:
            run.require(tx)
            inbox.post(tx, child, CANCEL, None, sent_by=by, dedupe=by)
            return waiters.is_over(tx.connection, ("run", child))

        if not await run.store.commit(unit, label="cancel child"):
            run.worker.nudge()
            reason = f"child {run_id}, which is cancelled, before the saga is undone"
            await run.wait(_parent.get(), WaitFor.CHILD, reason, None, ("run", child))

    async def _find_out(self, effect: int) -> None:
        """End a doubt as its class says, or park the run until it has ended."""
        run = self._run
        step = Looking(run, _parent.get(), f"saga {self._path} undoes nothing before this is known: ")

        def query(connection: Connection) -> tuple[str, Case | None] | None:
            row = ledger.get(connection, effect)
            if row is None or not ledger.is_open(row):
                return None
            return call_of(connection, row).key, case_of(connection, row, step)

        found = await run.store.read(query)
        if found is None:
            return
        key, case = found
        if case is None:  # only a person can tell, or other code
            await step.park(f"effect {key}: only a person can tell what became of it", None, effect)
        case.spec, case.is_wanted = parking(case.spec), False
        await resolve(run.worker.guard, case)

    # -- then ---------------------------------------------------------------------------------------------------------

    async def _undo_piece(self, piece: Piece, why: str) -> bool:
        """Undo one piece, however often that takes."""
        attempt = 1
        while True:
            is_replayed = False
            try:
                is_replayed = is_ended(piece, attempt)
                return await self._through(partial(compensate, piece, f"saga {self._path} failed: {why}", attempt))
            except Exception as error:
                self._run.check()
                parking = partial(self._park, piece, describe(error), is_over=is_replayed)
                await self._through(
                    partial(self._hit_again, PARKED, f"{piece.get('id', piece['key'])}.{attempt}", parking)
                )
            attempt += 1

    async def _park(self, piece: Piece, why: str, *, is_over: bool) -> None:
        """Wait until somebody has looked: a half-undone saga is nothing to go on from. An earlier execution's wait is over,
        else the run would not be executed again."""
        if is_over:
            return
        by_hand = f"; if you have undone it by hand: surefoot resolve {piece['id']} --undone" if "id" in piece else ""
        again = f"it is tried again when the run is woken{by_hand}"
        reason = f"saga {self._path}: {piece['key']} is not undone: {why}; {again}"
        await self._run.wait(_parent.get(), WaitFor.BLOCKED, without_surrogates(reason), None)


__all__ = ["Saga", "saga"]
