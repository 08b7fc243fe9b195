"""Escalating doubts that only a person can end: noted once, told aloud, and never decided.

    unknown, past the deadline of its class   -> "escalated": one transaction looks and notes, and its process warns in
                                                 the log
    noted, and this process has a hook        -> "telling of it": the hook is called; other processes leave that to this
                                                 one for as long as it lives
    the hook has returned                     -> "told": nobody calls one again

What holds: whatever the clocks do, and however many processes look, a doubt is escalated once; a hook is told at least
once, again after an error or a crash; nothing here changes the state of an effect.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, TypeAlias

import apsw
import msgspec

from surefoot.effects import Guard, desk, ledger
from surefoot.effects.guard import call_of
from surefoot.effects.states import State
from surefoot.leases import Life
from surefoot.runs.tables import get_run
from surefoot.store import Tx

ESCALATED, TELLING, TOLD = "escalated", "telling of it", "told"
"""The kinds of evidence that an escalation leaves, in this order."""

TELL_TIMEOUT_S = 30.0
"""Longest time one call of a hook may take; then it counts as failed."""

TELL_AGAIN_S, TELL_AGAIN_MAX_S = 10.0, 3_600.0
"""Pause after a failed call of a hook; doubles up to an hour, so that a broken hook doesn't fill the log."""

LOOK_AGAIN_S = 60.0
"""How often to look whether another process has told its hook."""

_log = logging.getLogger("surefoot")


@dataclass(frozen=True, slots=True)
class Escalation:
    """A doubt that has been open for longer than its class allows.

    Attributes:
        effect: The effect's number, for `surefoot resolve`.
        name: The function.
        key: Its key.
        arguments: The call's arguments, as data.
        run_id: The run that claimed it, or None.
        unknown_since_ms: Wall clock in milliseconds when the doubt was noted.
        deadline_ms: Wall clock in milliseconds when it became overdue.
    """

    effect: int
    name: str
    key: str
    arguments: Any
    run_id: str | None
    unknown_since_ms: int
    deadline_ms: int


Hook: TypeAlias = Callable[[Escalation], Awaitable[object] | object]


class Escalating:
    """Looks for overdue doubts, for one worker.

    Args:
        guard: Where they are.
        tell: The user's hook; None for a log line only.
        complain: Says aloud that the hook has failed.
    """

    def __init__(self, guard: Guard, tell: Hook | None, complain: Callable[[str, Exception], object]) -> None:
        self._guard = guard
        self._tell = tell
        self._complain = complain
        self._due_ms: dict[int, int | None] = {}
        self._failures: dict[int, int] = {}
        self._not_before_s: dict[int, float] = {}

    async def look(self) -> None:
        """Escalate each doubt that is due."""
        for effect in await self._guard.store.read(self._find):
            match await self._escalate(effect):
                case _Then.OVER:
                    self._due_ms[effect] = None
                    self._failures.pop(effect, None)
                    self._not_before_s.pop(effect, None)
                case _Then.FAILED:  # the next one would most likely fail too, and take as long
                    return
                case _Then.LATER:
                    pass

    def _find(self, connection: apsw.Connection) -> list[int]:
        """Return the doubts past their deadline; each one's claim is read once, when it is first seen."""
        rows = connection.execute(
            "SELECT id FROM ledger INDEXED BY ledger_open WHERE state = 3 AND state <= 3 ORDER BY id"
        )
        known, self._due_ms = self._due_ms, {}
        for effect in [int(str(row[0])) for row in rows]:
            self._due_ms[effect] = known[effect] if effect in known else _due_ms(connection, effect)
        now_ms = self._guard.store.clock.wall_ms()
        return [effect for effect, due_ms in self._due_ms.items() if due_ms is not None and due_ms <= now_ms]

    async def _escalate(self, effect: int) -> _Then:
        """Take the next step with one overdue doubt."""
        now_s = self._guard.store.clock.monotonic_s()
        if self._not_before_s.get(effect, now_s) > now_s:
            return _Then.LATER
        noted = await self._guard.store.commit(partial(self._note, effect), label="escalate")
        if noted is None:
            return _Then.OVER
        if noted.is_new:
            _warn(noted.escalation)
        if noted.is_told or self._tell is None:
            return _Then.OVER
        if noted.is_ours:
            return await self._call(self._tell, noted.escalation)
        self._not_before_s[effect] = now_s + LOOK_AGAIN_S
        return _Then.LATER

    def _note(self, effect: int, tx: Tx) -> _Noted | None:
        row = ledger.get(tx.connection, effect)
        if row is None or row.state is not State.UNKNOWN:  # it has ended since
            return None
        escalation = _escalation(tx.connection, row)
        if escalation is None:
            return None
        session, known = self._guard.session, _stages(tx.connection, effect)
        if is_new := ESCALATED not in known:
            times = {"unknown_since_ms": escalation.unknown_since_ms, "deadline_ms": escalation.deadline_ms}
            ledger.add_evidence(tx, effect, ESCALATED, session.name, times)
        if self._tell is None or TOLD in known:
            return _Noted(escalation, is_new=is_new, is_told=TOLD in known, is_ours=False)
        teller = known.get(TELLING)
        is_ours = teller == session.id
        if not is_ours and (
            teller is None or self._guard.sessions.holder(tx.connection, teller).life is not Life.ALIVE
        ):
            ledger.add_evidence(tx, effect, TELLING, session.name, {"session": session.id})
            is_ours = True
        return _Noted(escalation, is_new=is_new, is_told=False, is_ours=is_ours)

    async def _call(self, tell: Hook, escalation: Escalation) -> _Then:
        """Call the hook, and note that it was told."""
        effect, guard = escalation.effect, self._guard
        try:
            async with asyncio.timeout(TELL_TIMEOUT_S):
                await _told(tell, escalation)
        except Exception as error:  # the user's code: it must not stop the worker, and is called again
            tries = self._failures[effect] = self._failures.get(effect, 0) + 1
            pause_s = min(TELL_AGAIN_MAX_S, TELL_AGAIN_S * 2 ** (tries - 1))
            self._not_before_s[effect] = guard.store.clock.monotonic_s() + pause_s
            self._complain(f"on_escalation failed for effect {effect}, again in {pause_s:.0f} s", error)
            return _Then.FAILED
        who = guard.session.name
        await guard.store.commit(lambda tx: ledger.add_evidence(tx, effect, TOLD, who), label="escalate")
        return _Then.OVER


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


def _stages(connection: apsw.Connection, effect: int) -> dict[str, int | None]:
    """Return which stages of an escalation are noted, each with the session that its newest note names."""
    rows = connection.execute(
        "SELECT kind, json_extract(body, '$.session') FROM evidence WHERE effect = ? AND kind IN (?, ?, ?) ORDER BY id",
        (effect, ESCALATED, TELLING, TOLD),
    )
    return {str(kind): None if session is None else int(str(session)) for kind, session in rows}


def _due_ms(connection: apsw.Connection, effect: int) -> int | None:
    row = ledger.get(connection, effect)
    return None if row is None else desk.doubt_of(connection, row, call_of(connection, row)).deadline_ms


def _escalation(connection: apsw.Connection, row: ledger.Row) -> Escalation | None:
    call = call_of(connection, row)
    doubt = desk.doubt_of(connection, row, call)
    if doubt.since_ms is None or doubt.deadline_ms is None:
        return None
    return Escalation(
        effect=row.id,
        name=call.effect,
        key=call.key,
        arguments=msgspec.json.decode(call.arguments),
        run_id=None if row.run is None else get_run(connection, row.run).run_id,
        unknown_since_ms=doubt.since_ms,
        deadline_ms=doubt.deadline_ms,
    )


def _warn(escalation: Escalation) -> None:
    hours = (escalation.deadline_ms - escalation.unknown_since_ms) / 3_600_000
    _log.warning(
        "effect %d (%s) has been unknown for more than %.3g h: surefoot unknowns",
        escalation.effect,
        escalation.key,
        hours,
    )
