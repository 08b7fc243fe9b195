"""Ending doubts that nobody asks about any more: an effect whose caller is gone, was cancelled, or went on without it.

Only classes that can find out by themselves are tried, and only effects whose code this process knows; the rest waits for a
person. A doubt that somebody in this process looks into already is left to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from surefoot.effects.doubt import Overwrite, Probe, Resend
from surefoot.effects.keys import BadEffect, Identity
from surefoot.effects.live.case import Case
from surefoot.effects.live.guard import Guard
from surefoot.effects.live.resolve import resolve
from surefoot.effects.registry import spec_of
from surefoot.effects.rows import ledger
from surefoot.effects.rows.ledger import Row, call_of
from surefoot.effects.spec import Bound
from surefoot.effects.strays import strays_as_errors
from surefoot.journal import Step, Undecodable
from surefoot.leases import LeaseLost, Life
from surefoot.store import StoreError
from surefoot.store.connection import Connection

AT_ONCE = 8
"""Doubts looked into at the same time; a probe may be slow, and a service in trouble is not to be stormed."""

BATCH = 100
"""Doubts looked at by one sweep."""

IDLE_MS = 30_000
"""How long a doubt is left to its own caller before a sweep looks into it."""


async def sweep(guard: Guard, after: int = 0, complain: Callable[[str, Exception], object] | None = None) -> int:
    """Try once to end the next doubts that are old enough and that their classes can end.

    Args:
        guard: Where they are.
        after: The last row that was looked at; what it returned the last time, 0 to begin.
        complain: Told of a doubt that can't be looked into, so that the others are all the same; None to raise.

    Returns:
        The last row that was looked at now; 0 when there are no more, so that the next sweep begins anew.
    """
    now_boot_ms = guard.store.clock.boot_ms()
    last, cases = await guard.store.read(partial(_find, guard, now_boot_ms - IDLE_MS, after))
    gate = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(_look_into(guard, case, gate, complain) for case in cases))
    return last


async def _look_into(
    guard: Guard, case: Case, gate: asyncio.Semaphore, complain: Callable[[str, Exception], object] | None
) -> None:
    async with gate:
        try:
            with strays_as_errors():
                await resolve(guard, case)
        except LeaseLost:  # this worker has lost its place: whoever has it now will look
            return
        except StoreError:
            raise
        except Exception as error:
            if complain is None:
                raise
            complain(f"looking into the doubt of {case.identity.key} failed", error)


def _find(guard: Guard, before_boot_ms: int, after: int, connection: Connection) -> tuple[int, list[Case]]:
    rows = connection.execute(
        "SELECT id FROM ledger WHERE state = 3 AND state <= 3 AND (sent_boot_ms < ? OR sent_boot_ms > ?) AND id > ?"
        " ORDER BY id LIMIT ?",
        (before_boot_ms, before_boot_ms + IDLE_MS, after, BATCH),  # the second: noted in an earlier boot of the machine
    ).fetchall()
    ids = [int(str(row[0])) for row in rows]
    found = [ledger.get(connection, effect) for effect in ids]
    cases = [case for row in found if row is not None and (case := _case(guard, connection, row)) is not None]
    return ids[-1] if len(ids) == BATCH else 0, cases


def _case(guard: Guard, connection: Connection, row: Row) -> Case | None:
    if row.id in guard.acting or row.id in guard.resolving:
        return None
    if row.holder != guard.duty.session.id and guard.sessions.holder(connection, row.holder).life is Life.ALIVE:
        return None
    return case_of(connection, row)


def case_of(connection: Connection, row: Row, step: Step | None = None) -> Case | None:
    """Return a row in doubt as a case to look into, on behalf of a step or of nobody; None when the code that is here can't
    find out what became of it."""
    try:
        call = call_of(connection, row)
        spec = spec_of(call.effect)
    except (BadEffect, Undecodable):  # its code is elsewhere, or the key of what was called
        return None
    can_tell = isinstance(spec.in_doubt, Resend | Probe | Overwrite) or spec.receipts is not None
    if not can_tell or spec.needs_context:
        return None
    arguments = bytes(call.arguments)
    identity = Identity(call.scope, call.effect, call.key, row.digest, row.fingerprint)
    try:
        bound = spec.rebound(Bound((), {}, {}), arguments)
        resources = spec.resources_of(bound)
    except Exception:  # its code here takes other arguments, by its types or its validators: it can't be sent here
        return None
    return Case(spec, bound, arguments, identity, None, step, row=row, is_resent=True, is_awaited=step is not None,
                resources=tuple(sorted(resources)), leads=resources[0] if resources else "")  # fmt: skip
