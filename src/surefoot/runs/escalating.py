"""Escalating what waits for a person: noted once, told aloud, and never decided.

    waiting, past its deadline                -> "escalated": one transaction looks and notes, and its process warns in
                                                 the log
    noted, and this process has a hook        -> "telling of it": the hook is called; other processes leave that to this
                                                 one for as long as it lives
    the hook has returned                     -> "told": nobody calls one again

What holds: whatever the clocks do, and however many processes look, each thing is escalated once; a hook is told at least
once, again after an error or a crash; nothing here decides anything. What waits for people is `overdue`'s matter.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TypeAlias

from surefoot.effects import Guard
from surefoot.effects.strays import strays_as_errors
from surefoot.journal import Undecodable
from surefoot.leases import Life
from surefoot.runs.rows.overdue import ESCALATED, TELLING, TOLD, Doubts, Escalation, Questions, Subject
from surefoot.store import Tx
from surefoot.store.connection import Connection

TELL_TIMEOUT_S = 30.0
"""Longest time one call of a hook may take; then it counts as failed."""

TELL_AGAIN_S, TELL_AGAIN_MAX_S = 10.0, 3_600.0
"""Pause after a failed call of a hook; doubles up to an hour, so that a broken hook doesn't fill the log."""

LOOK_AGAIN_S = 60.0
"""How often to look whether another process has told its hook."""

Hook: TypeAlias = Callable[[Escalation], Awaitable[object] | object]


Key: TypeAlias = tuple[int, int]
"""Which subject, and the number in it."""


class Escalating:
    """Looks for what is overdue, for one worker.

    Args:
        guard: Where it is.
        tell: The user's hook; None for a log line only.
        complain: Says aloud that the hook has failed.
    """

    def __init__(self, guard: Guard, tell: Hook | None, complain: Callable[[str, Exception], object]) -> None:
        self._guard = guard
        self._tell = tell
        self._complain = complain
        self._subjects: tuple[Subject, ...] = (Doubts(), Questions(guard.sessions))
        self._due_ms: dict[Key, int | None] = {}
        self._failures: dict[Key, int] = {}
        self._not_before_s: dict[Key, float] = {}

    async def look(self) -> None:
        """Escalate all that is due."""
        for key in await self._guard.store.read(self._find):
            try:
                then = await self._escalate(key)
            except Undecodable as error:  # who has its key escalates it
                self._complain(
                    f"{self._subjects[key[0]].name} {key[1]} is overdue, or may be, and can't be read", error
                )
                then = _Then.OVER
            if then is _Then.OVER:
                self._due_ms[key] = None
                self._failures.pop(key, None)
                self._not_before_s.pop(key, None)
            elif then is _Then.FAILED:  # the next one would most likely fail too, and take as long
                return

    def _find(self, connection: Connection) -> list[Key]:
        """Return what is past its deadline; each one's declaration is read once, when it is first seen."""
        known, self._due_ms = self._due_ms, {}
        for place, subject in enumerate(self._subjects):
            for number in subject.all_open(connection):
                key = (place, number)
                self._due_ms[key] = known[key] if key in known else _due_ms(subject, connection, number)
        now_ms = self._guard.store.clock.wall_ms()
        return [key for key, due_ms in self._due_ms.items() if due_ms is not None and due_ms <= now_ms]

    async def _escalate(self, key: Key) -> _Then:
        """Take the next step with one overdue thing."""
        now_s = self._guard.store.clock.monotonic_s()
        if self._not_before_s.get(key, now_s) > now_s:
            return _Then.LATER
        noted = await self._guard.store.commit(partial(self._note, key), label="escalate")
        if noted is None:
            return _Then.OVER
        if noted.is_new:
            self._subjects[key[0]].warn(noted.escalation)
        if noted.is_told or self._tell is None:
            return _Then.OVER
        if noted.is_ours:
            return await self._call(self._tell, key, noted.escalation)
        self._not_before_s[key] = now_s + LOOK_AGAIN_S
        return _Then.LATER

    def _note(self, key: Key, tx: Tx) -> _Noted | None:
        subject, number = self._subjects[key[0]], key[1]
        escalation = subject.look(tx, number)
        if escalation is None:
            return None
        session, known = self._guard.duty.session, subject.stages(tx.connection, number)
        if is_new := ESCALATED not in known:
            times = {"unknown_since_ms": escalation.unknown_since_ms, "deadline_ms": escalation.deadline_ms}
            subject.note(tx, number, ESCALATED, session.name, times)
        if self._tell is None or TOLD in known:
            return _Noted(escalation, is_new=is_new, is_told=TOLD in known, is_ours=False)
        teller = known.get(TELLING)
        is_ours = teller == session.id
        if not is_ours and (
            teller is None or self._guard.sessions.holder(tx.connection, teller).life is not Life.ALIVE
        ):
            subject.note(tx, number, TELLING, session.name, {"session": session.id})
            is_ours = True
        return _Noted(escalation, is_new=is_new, is_told=False, is_ours=is_ours)

    async def _call(self, tell: Hook, key: Key, escalation: Escalation) -> _Then:
        """Call the hook, and note that it was told."""
        guard, subject, number = self._guard, self._subjects[key[0]], key[1]
        try:
            with strays_as_errors():
                async with asyncio.timeout(TELL_TIMEOUT_S):
                    await _told(tell, escalation)
        except Exception as error:  # the user's code: it must not stop the worker, and is called again
            tries = self._failures[key] = self._failures.get(key, 0) + 1
            pause_s = min(TELL_AGAIN_MAX_S, TELL_AGAIN_S * 2 ** (tries - 1))
            self._not_before_s[key] = guard.store.clock.monotonic_s() + pause_s
            self._complain(f"on_escalation failed for {subject.name} {number}, again in {pause_s:.0f} s", error)
            return _Then.FAILED
        who = guard.duty.session.name
        await guard.store.commit(lambda tx: subject.note(tx, number, TOLD, who), label="escalate")
        return _Then.OVER


def _due_ms(subject: Subject, connection: Connection, number: int) -> int | None:
    """Return when something is overdue; of what can't be read at once, so that somebody hears of it."""
    try:
        return subject.due_ms(connection, number)
    except Undecodable:
        return 0


class _Then(Enum):
    """What is left to do about an overdue doubt."""

    OVER = "nothing"
    LATER = "look again later"
    FAILED = "call the hook again later"


@dataclass(frozen=True, slots=True)
class _Noted:
    escalation: Escalation
    is_new: bool
    is_told: bool
    is_ours: bool


async def _told(tell: Hook, escalation: Escalation) -> None:
    """Call the hook; a synchronous one in a thread, for it may wait for a network."""
    if inspect.iscoroutinefunction(tell):
        await tell(escalation)
        return
    answer = await asyncio.to_thread(tell, escalation)
    if inspect.isawaitable(answer):
        await answer


__all__ = ["Escalating", "Escalation", "Hook"]
