"""Claim, act, settle: how one call of an effect goes from a wish to an outcome.

replayed? -> the recorded outcome
claim     -> gates, then the ledger row, durable before anything is sent          (`guard`)
             taken: repeated, conflict, wait for whoever acts, or doubt
act       -> the function's code, once; what comes out is settled, first writer wins  (`attempt`)
in doubt  -> the same key again, a question behind a fence, a person               (`resolve`)
"""

from __future__ import annotations

import asyncio
from functools import partial

from surefoot.effects.classify import describe
from surefoot.effects.doubt import RETRY_PARKED_MS, Park, Transactional
from surefoot.effects.gates import around
from surefoot.effects.keys import BadEffect, Identity, call_key
from surefoot.effects.live.attempt import act, act_in_transaction
from surefoot.effects.live.case import Case
from surefoot.effects.live.guard import Guard, own_row
from surefoot.effects.live.look_again import note_stale
from surefoot.effects.live.resolve import ROW_LOOK_MAX_S, ROW_LOOK_S, Left, leave, resolve
from surefoot.effects.live.simulate import NothingRecorded
from surefoot.effects.live.told import told
from surefoot.effects.outcome import Outcome, told_to_model
from surefoot.effects.rows import ledger
from surefoot.effects.rows.ledger import Row
from surefoot.effects.spec import Bound, EffectSpec
from surefoot.effects.states import State
from surefoot.journal import Frame, Kind, Record, Step, Undecodable, current_frame, load_record
from surefoot.journal.records import Head
from surefoot.leases import LeaseLost, Life
from surefoot.store import StoreError, new_id

WAIT_S = 60.0
"""How long a caller waits for another that acts under the same key; then it is told that the outcome is unknown."""

SAME_CALL_MAX = 5
"""How often a model may ask for an identical call without a key, each time with the outcomes of the earlier ones in front
of it, before it is refused as a loop."""

_OF_EFFECTS = frozenset({Kind.CLAIMED, Kind.ASKED, Kind.DONE, Kind.REPEATED, Kind.NOT_DONE, Kind.CONFLICT, Kind.DENIED,
                         Kind.UNKNOWN, Kind.INTERRUPTED})  # fmt: skip
"""What a step that is an effect is recorded by."""


async def perform(
    guard: Guard,
    spec: EffectSpec,
    bound: Bound,
    key: str | None,
    *,
    identity: Identity | None = None,
    is_row_asked: bool = False,
) -> Outcome:
    """Perform one call and return what became of it.

    Args:
        guard: Where to claim.
        spec: The effect.
        bound: Its arguments, defaults applied.
        key: The caller's distinction between steps of one name in a run; None to count.
        identity: Which effect it is, where the caller knows better than the declaration; None to derive it.
        is_row_asked: Whether the outcome itself is asked for, and so which row of the ledger it is: on replay that must be
            looked up.
    """
    frame = current_frame.get()
    arguments, bound = spec.record(bound)
    held, declared = around.get(), spec.resources_of(bound)
    leads, resources = (declared[0], tuple(sorted(declared))) if declared else ("", ())
    if held and declared:  # what the code around holds already is not asked for again
        resources = tuple(name for name in resources if all(name not in gate.resources for gate in held))
    if frame is None:
        if spec.is_versioned:
            raise BadEffect(
                f"effect {spec.name}: unchanged= is about what a run has read, and this call is in no run",
                hint="call it in a run; outside, compare what you read: seen = await read.seen(...), await seen.check()",
            )
        await guard.duty.take_up()
        identity = identity or spec.identity(bound, None, "" if spec.template is not None else new_id())
        case = Case(spec, bound, arguments, identity, None, None, approve=spec.approve, around=held, resources=resources,
                    leads=leads)  # fmt: skip
        return await _claim_and_act(guard, case)
    if frame.sagas and spec.compensate is None:
        frame.refuse_in_saga(spec.name)
    if identity is None and spec.template is not None:  # before a step is taken: a key that means nothing takes none
        identity = spec.identity(bound, frame.run_id, "")
    step = frame.open_step(spec.name, key)
    identity = identity or spec.identity(bound, frame.run_id, _same_call(frame, step))
    telling = told_to_model.get()
    patience_s = None if telling is None else telling.timeout_s
    approve = spec.approve if telling is None or telling.approve is None else telling.approve
    case = Case(
        spec, bound, arguments, identity, frame, step, patience_s=patience_s, approve=approve, around=held,
        resources=resources, leads=leads
    )  # fmt: skip
    try:
        _check_recorded(case, step)
        if step.ended is not None:
            return await _replay(guard, case, step.ended, is_row_asked=is_row_asked)
        if spec.template is None and _is_loop(frame):
            return await _refuse_loop(guard, case, step)
        return await _claim_and_act(guard, case)
    except (LeaseLost, StoreError, Undecodable, NothingRecorded) as error:  # whatever the code catches, it stops here
        raise step.stop(error) from error
    except BaseException as error:
        step.interrupt(describe(error))
        raise
    finally:
        step.close()


def _same_call(frame: Frame, step: Step) -> str:
    """Return the step whose identity a call without a key has: its own, or that of an identical call it repeats.

    A model that asks again without the first outcome in front of it (two identical calls in one answer, a shortened
    history) means the same effect; so does one that was told it is unknown. With the outcome before it, it means another.
    """
    place = frame.place
    if place is None:
        return step.key
    of_call = step.key.removeprefix(place.path)
    earlier = f"{place.previous if place.twin is None else place.twin}{of_call}"
    earlier = frame.same_as.get(earlier, earlier)
    if place.twin is None and call_key(earlier) not in frame.unknown_steps:
        return step.key
    frame.same_as[step.key] = earlier
    return earlier


def _is_loop(frame: Frame) -> bool:
    place = frame.place
    return place is not None and place.twin is None and place.times >= SAME_CALL_MAX


async def _refuse_loop(guard: Guard, case: Case, step: Step) -> Outcome:
    reason = f"the model has asked for this identical call {SAME_CALL_MAX} times and has seen each outcome"
    record = step.draft(Kind.DENIED, head=Head(name=case.spec.name, reason=reason))
    await guard.store.commit(lambda tx: step.write(tx, record), label="denied")
    step.end(record)
    return Outcome("denied", reason=reason)


def _check_recorded(case: Case, step: Step) -> None:
    for record in (step.opened, step.ended):
        if record is not None and record.kind not in _OF_EFFECTS:
            step.raise_divergence(f"an effect {case.spec.name}", f"a {record.kind.name} of that name")
    if step.opened is None:
        return
    assert step.opened.body is not None, "what was claimed, or asked for, was recorded with its call"
    call, identity = ledger.decode_call(step.opened.body), case.identity
    asked = (identity.name, identity.scope, identity.key, case.arguments)
    if asked != (call.effect, call.scope, call.key, bytes(call.arguments)):
        step.raise_divergence(
            f"{identity.name}({case.arguments.decode()}) under {identity.scope}, key {identity.key}",
            f"{call.effect}({bytes(call.arguments).decode()}) under {call.scope}, key {call.key}",
        )


async def _replay(guard: Guard, case: Case, ended: Record, *, is_row_asked: bool) -> Outcome:
    if ended.kind is Kind.INTERRUPTED:  # its task was cancelled then, and will be again
        await asyncio.Event().wait()
    if ended.kind is Kind.UNKNOWN and case.frame is not None:
        case.frame.unknown_steps.add(case.identity.key)
    if is_row_asked and not ended.head.effect:
        case.row = guard.store.read_now(partial(own_row, case=case))
    record = ended
    if ended.head.record and ended.body is None:
        record = await guard.store.read(lambda connection: load_record(connection, ended.head.record))
    outcome = told(case, ended.kind, record, ended.head)
    if outcome.told == "stale":
        note_stale(case, outcome.detail)
    return outcome


async def _claim_and_act(guard: Guard, case: Case) -> Outcome:
    if isinstance(case.spec.in_doubt, Transactional) and case.spec.receipts is None:
        return await act_in_transaction(guard, case)
    pause_s, waited_s = ROW_LOOK_S, 0.0
    while True:
        found = await guard.claim(case)
        if isinstance(found, Outcome):
            return found
        case.row = found.row
        if found.is_ours:
            case.sends += 1
            outcome = await act(guard, case)
            return outcome if outcome is not None else await resolve(guard, case)
        if _is_in_doubt(guard, found.row):
            try:
                return await resolve(guard, case)
            except Left:
                if case.step is not None:
                    case.step.begin_anew()
                continue
        if waited_s >= WAIT_S:
            return await leave(guard, case, Park(f"another caller still acts after {WAIT_S:.0f} s", RETRY_PARKED_MS))
        waited_s += await _wait_for_actor(guard, found.row, pause_s)
        pause_s = min(ROW_LOOK_MAX_S, pause_s * 2)


def _is_in_doubt(guard: Guard, row: Row) -> bool:
    """Whether nobody acts on an open row any more: it was left unknown, or its holder is gone or stopped."""
    if row.id in guard.acting:
        return False
    if row.state is State.UNKNOWN or row.id in guard.resolving:
        return True
    if row.holder == guard.duty.session.id:  # claimed, and its caller, in a loop that is busy, has yet to hear of it
        return False
    holder = guard.store.read_now(lambda connection: guard.sessions.holder(connection, row.holder))
    return holder.life is not Life.ALIVE


async def _wait_for_actor(guard: Guard, row: Row, pause_s: float) -> float:
    started_s = guard.store.clock.monotonic_s()
    acting = guard.acting.get(row.id)
    try:
        async with asyncio.timeout(WAIT_S):
            await (asyncio.sleep(pause_s) if acting is None else acting.wait())
    except TimeoutError:
        pass
    return guard.store.clock.monotonic_s() - started_s
