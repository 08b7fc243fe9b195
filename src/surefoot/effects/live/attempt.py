"""One attempt at an effect: run its code once, find out what that says about the world, and settle the row.

What holds: right before the code runs this process still holds its session; whatever comes out of the code is settled
under the claim's token; what comes too late is evidence, and a contradiction where it disagrees.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from surefoot.effects.cancellation import own_cancellation
from surefoot.effects.classify import NotDone, describe, is_never_sent, not_done_reason
from surefoot.effects.current import CurrentEffect, Receipt, _current
from surefoot.effects.doubt import Overwrite, Probe, Resend
from surefoot.effects.gates import Wait
from surefoot.effects.live.case import Acting, Case, Claim
from surefoot.effects.live.guard import ClaimUnit, Guard
from surefoot.effects.live.look_again import find_stale
from surefoot.effects.outcome import Outcome, told_to_model
from surefoot.effects.receipts import Receipts
from surefoot.effects.rows import ledger
from surefoot.effects.rows.ledger import Row
from surefoot.effects.states import State
from surefoot.effects.versions import Stale
from surefoot.journal import Kind, Record, Step, Unserializable, ValueTooLarge, insert_record, load_record
from surefoot.journal.records import NO_HEAD, Head
from surefoot.leases import LeaseLost
from surefoot.leases.tables import token_of
from surefoot.store import Tx

NOWHERE = nullcontext()
"""Where an act outside any run happens."""

DONE, NOT_DONE, UNKNOWN = State.DONE, State.NOT_DONE, State.UNKNOWN
"""By their short names: before Python 3.12 it takes 0.2 us to find a member of an enumeration."""

_KINDS = {DONE: Kind.DONE, NOT_DONE: Kind.NOT_DONE, UNKNOWN: Kind.UNKNOWN}


class Finding(msgspec.Struct, frozen=True, gc=False):
    """What an attempt found out: done with a value, not done with a reason, or unknown with a reason.

    `is_of_all_sends` says of a refusal that no other send of the effect can have landed either.
    """

    state: State
    body: bytes | None = None
    value: Any = None
    reason: str = ""
    problem: Unserializable | ValueTooLarge | None = None
    is_of_all_sends: bool = False
    stale: Any = None

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return 0 if self.body is None else len(self.body)


async def act(guard: Guard, case: Case) -> Outcome | None:
    """Run the effect's code under the claim in `case.row`; return the outcome, or None when it isn't known here:
    there was no answer, or it came too late, and the outcome is another's.

    Raises:
        LeaseLost: This process no longer holds its session; nothing was sent.
        Unserializable: The effect is done, and recorded as done, but its value can't be kept.
    """
    row = _row(case)
    _require_session(guard, case)
    if case.around and (lost := _lost(case)) is not None:
        state = UNKNOWN if case.is_resent else NOT_DONE
        await settle(guard, case, row, Finding(state, reason=lost.message))
        raise lost
    acting = guard.acting[row.id] = Acting()
    token = _current.set(partial(_describe, guard, case, row))
    # What the effect's own code calls is told to that code, not to a model.
    telling = None if told_to_model.get() is None else told_to_model.set(None)
    inside = NOWHERE if case.step is None else case.step.inside()
    try:
        with inside:
            finding = await _look_again(guard, case) if case.spec.is_versioned else None
            if finding is None:
                finding = await (_run_async(case) if case.spec.is_async else _run_sync(guard, case, row, acting))
    except LeaseLost:  # nothing was sent
        raise
    except BaseException as error:  # cancelled, or the process is going down, in the middle of the act
        if not acting.is_in_thread:
            _settle_later(guard, case, row, Finding(UNKNOWN, reason=f"interrupted: {describe(error)}"))
        raise
    finally:
        if telling is not None:
            told_to_model.reset(telling)
        _current.reset(token)
        if not acting.is_in_thread:
            guard.acting.pop(row.id, None)
            acting.end()
    if acting.is_in_thread:
        return None
    return await settle(guard, case, row, finding) if case.step is None else _settle_later(guard, case, row, finding)


def _require_session(guard: Guard, case: Case) -> None:
    if not guard.duty.may_act_for(_row(case).holder):
        if not case.is_resent:
            guard.abandon(case)
        raise LeaseLost(
            f"effect {case.identity.key}: this worker's lease has run out; nothing was sent",
            hint="was the process stopped, or the disk stuck? another worker goes on",
        )


def _lost(case: Case) -> LeaseLost | None:
    """Return what says that the code around has lost what this effect needs."""
    try:
        for held in case.around:
            held.require()
    except LeaseLost as lost:
        return lost
    return None


async def _look_again(guard: Guard, case: Case) -> Finding | None:
    """Return that nothing is to be sent, because what was read has changed."""
    try:
        stale = await find_stale(case)
    except BaseException:
        guard.abandon(case)
        raise
    if stale is None:
        _require_session(guard, case)  # once more: the look has taken its time
        return None
    return Finding(NOT_DONE, reason=stale.reason, stale=stale.difference)


async def _run_async(case: Case) -> Finding:
    timeout_s, function, bound = _timeout_s(case), case.spec.function, case.bound
    try:
        if timeout_s is None:
            return done(case, await function(*bound.args, **bound.kwargs))
        async with asyncio.timeout(timeout_s) as limit:
            value = await function(*bound.args, **bound.kwargs)
    except TimeoutError as error:
        if timeout_s is not None and limit.expired():
            return Finding(UNKNOWN, reason=f"no answer within {timeout_s} s")
        return _failed(case, error)
    except Exception as error:
        return _failed(case, error)
    except asyncio.CancelledError as error:
        own = own_cancellation(error)
        if own is None:
            raise
        return _failed(case, own)
    return done(case, value)


async def _run_sync(guard: Guard, case: Case, row: Row, acting: Acting) -> Finding:
    """Run a synchronous tool in a thread. A thread can't be stopped: when its time is up, or its caller is cancelled, the
    claim stays ours until it ends, and its answer is the outcome."""
    work = asyncio.ensure_future(case.spec.call(case.bound))
    try:
        await asyncio.wait([work], timeout=_timeout_s(case))
    except asyncio.CancelledError:
        acting.is_in_thread = True
        guard.spawn(_await_thread(guard, case, row, work))
        raise
    if not work.done():
        acting.is_in_thread = True
        guard.spawn(_await_thread(guard, case, row, work))
        return Finding(UNKNOWN, reason=f"no answer within {_timeout_s(case)} s; it still runs")
    return _found(case, work)


def _timeout_s(case: Case) -> float | None:
    return case.patience_s if case.spec.timeout_s is None else case.spec.timeout_s


def _found(case: Case, work: asyncio.Future[Any]) -> Finding:
    error = work.exception()
    return done(case, work.result()) if error is None else _failed(case, error)


def _failed(case: Case, error: BaseException) -> Finding:
    if case.spec.receipts is not None and (case.receipt is not None or not isinstance(error, NotDone)):
        return Finding(UNKNOWN, reason=describe(error))  # the table of receipts knows better than an exception
    reason = not_done_reason(error, case.spec.refused_on, is_one_request=case.spec.one_request)
    if reason is None:
        return Finding(UNKNOWN, reason=describe(error))
    is_of_all_sends = _speaks_for_all_sends(case, error)
    if case.is_resent and not is_of_all_sends:
        return Finding(UNKNOWN, reason=f"said of a later send, not of the first: {reason}")
    stale = error.difference if isinstance(error, Stale) else None
    return Finding(NOT_DONE, reason=reason, is_of_all_sends=is_of_all_sends, stale=stale)


def _speaks_for_all_sends(case: Case, error: BaseException) -> bool:
    """Whether a refusal of one send says that no other landed either.

    A service that dedupes answers a key with its stored outcome: a refusal is the refusal of them all. Anywhere else it
    may be the echo of our own first send ("already exists", "precondition failed").
    """
    if is_never_sent(error):
        return False
    if isinstance(case.spec.in_doubt, Overwrite):
        case.is_precondition_failed = True
    return isinstance(case.spec.in_doubt, Resend)


def done(case: Case, value: Any) -> Finding:
    """Return the finding of an effect that happened; what can't be kept of its value is a problem, not a doubt."""
    if case.spec.receipts is not None:
        return _receipted(case)
    try:
        body, copy = case.spec.codec.dump(value)
    except (Unserializable, ValueTooLarge) as problem:
        return Finding(DONE, reason=problem.message, problem=problem)
    return Finding(DONE, body=body, value=copy)


def _receipted(case: Case) -> Finding:
    """Return the finding of an effect that left its receipt: what the receipt says, as recovery would find it."""
    if case.receipt is None:
        problem = Unserializable(
            f"effect {case.spec.name} returned without a receipt: after a crash nobody could tell that it is done",
            hint="call sf.current_effect().receipt(execute, value) in its transaction",
        )
        return Finding(DONE, reason=problem.message, problem=problem)
    body, value = case.receipt
    return Finding(DONE, body=body, value=value)


async def _await_thread(guard: Guard, case: Case, row: Row, work: asyncio.Future[Any]) -> None:
    await asyncio.wait([work])
    finding = _found(case, work)
    settlement = _Settlement(guard, case, row, finding, _record(case, finding, is_told=False))

    def settle_and_wake(tx: Tx) -> None:
        if settlement(tx) and finding.state is UNKNOWN:  # its run was parked until the thread would end
            guard.wake(tx, row.run, guard.duty.session.name)

    await guard.store.commit(settle_and_wake, label="settle", size=finding.size)
    guard.acting.pop(row.id).end()


async def settle(guard: Guard, case: Case, row: Row, finding: Finding) -> Outcome | None:
    """Record what was found. In a run it joins the next sync; outside, the caller's answer waits for it."""
    if case.step is not None or finding.state is UNKNOWN:
        return _settle_later(guard, case, row, finding)
    settlement = _Settlement(guard, case, row, finding, _record(case, finding, is_told=False))
    is_ours = await guard.store.commit(settlement, label="settle", size=finding.size)
    return _told(finding, row) if is_ours else None


def _settle_later(guard: Guard, case: Case, row: Row, finding: Finding) -> Outcome | None:
    is_known, step = finding.state is not UNKNOWN, case.step
    record = _record(case, finding, is_told=is_known)
    settlement = _Settlement(guard, case, row, finding, record)
    if step is None:
        guard.store.append(settlement, label="settle", size=finding.size, on_error=None)
    else:
        step.append(settlement, "settle", finding.size)
    if not is_known:
        case.why_unknown = finding.reason
        return None
    assert step is not None, "outside a run a known outcome is waited for"
    step.end(record)
    return _told(finding, row)


def _told(finding: Finding, row: Row) -> Outcome:
    if finding.problem is not None:
        raise finding.problem
    if finding.state is DONE:
        return Outcome("done", finding.value, "", row.id)
    if finding.stale is not None:
        return Outcome("stale", reason=finding.reason, effect=row.id, detail=finding.stale)
    return Outcome("not_done", reason=finding.reason, effect=row.id)


def _record(case: Case, finding: Finding, *, is_told: bool) -> Record:
    kind, head = _KINDS[finding.state], NO_HEAD
    if finding.reason:
        state = "unserializable" if finding.problem else "stale" if finding.stale is not None else ""
        head = Head(reason=finding.reason, state=state, detail=finding.stale)
    if is_told and case.step is not None:
        return case.step.draft(kind, head=head, body=finding.body)
    return Record(None, 0, kind, "", head=head, body=finding.body)


def _is_told_what_is_now(finding: Finding) -> bool:
    return isinstance(finding.stale, dict) and finding.stale["now"] is not None


class _Settlement(msgspec.Struct, gc=False):
    """The unit that writes what was found; it returns whether that was still ours to say."""

    guard: Guard
    case: Case
    row: Row
    finding: Finding
    record: Record
    ended_boot_ms: int = 0

    def __post_init__(self) -> None:
        if self.finding.state is UNKNOWN:
            self.ended_boot_ms = self.guard.store.clock.boot_ms()

    def __call__(self, tx: Tx) -> bool:
        guard, case, row, finding, record = self.guard, self.case, self.row, self.finding, self.record
        if finding.state is UNKNOWN:
            if ledger.doubt(tx, row, guard.duty.session.id, self.ended_boot_ms):
                ledger.add_evidence(tx, row.id, "unknown", guard.duty.session.name, finding.reason)
                return True
            return False
        is_held = case.step is not None and record.run is not None and case.step.is_held(tx)
        # Without the run's lease the fact is still a fact: it goes beside the run, whose new holder finds it by the row.
        fact = record if is_held else replace(record, run=None, seq=0)
        is_stale = is_held and _is_told_what_is_now(finding)
        if not guard.settle(tx, case, row, finding.state, fact, is_stale=is_stale):
            _note_late(tx, guard, row, ledger.get(tx.connection, row.id), finding)
            if case.step is not None and record.run is not None:  # the run was told at once, and may not build on it
                case.step.refuse(
                    LeaseLost(f"effect {case.identity.key}: another has taken it over", hint="it is found anew")
                )
            return False
        return True


def _note_late(tx: Tx, guard: Guard, row: Row, now: Row | None, finding: Finding) -> None:
    """Somebody else has the claim, or the outcome is written: ours is evidence. Where it disagrees, say so aloud."""
    is_contradiction = now is not None and not ledger.is_open(now) and _contradicts(tx, row, now, finding)
    body = {"found": finding.state.name.lower(), "reason": finding.reason, "token": row.token,
            "value": (finding.body or b"null").decode()}  # fmt: skip
    ledger.add_evidence(tx, row.id, "late answer", guard.duty.session.name, body, is_open=is_contradiction)


def _contradicts(tx: Tx, row: Row, now: Row, finding: Finding) -> bool:
    if finding.state is NOT_DONE and now.sender != row.sender and not finding.is_of_all_sends:
        return False  # it speaks of its own request; the outcome is that of another's
    if now.state is finding.state is DONE and finding.body is not None:
        return load_record(tx.connection, now.record).body not in (None, finding.body)
    return now.state is not finding.state and not (now.state is State.COMPENSATED and finding.state is DONE)


def _describe(guard: Guard, case: Case, row: Row, tx: Tx | None = None) -> CurrentEffect:
    in_doubt = case.spec.in_doubt
    expires_at_ms = None
    if isinstance(in_doubt, Probe):
        # Counted from where the fence is counted from, not from now: the service must not act behind the fence.
        since_sent_ms = guard.store.clock.boot_ms() - row.sent_boot_ms
        expires_at_ms = guard.store.clock.wall_ms() - since_sent_ms + in_doubt.longest_life_ms
    tokens = {resource: token_of(guard.incarnation, counter) for resource, counter in case.tokens}
    seen = {} if case.frame is None else case.frame.seen
    versions = {name: seen[name].version for name in case.spec.unchanged_of(case.bound) if name in seen}
    return CurrentEffect(
        name=case.spec.name,
        key=case.identity.key,
        idempotency_key=case.identity.idempotency_key(row.generation),
        generation=row.generation,
        attempt=row.token,
        token=tokens.get(case.leads) or token_of(guard.incarnation, row.token),
        tokens=tokens,
        versions=versions,
        expires_at_ms=expires_at_ms,
        run_id=case.run_id,
        transaction=tx,
        _write_receipt=None if case.spec.receipts is None else partial(_write_receipt, case, case.spec.receipts, row),
    )


def _write_receipt(case: Case, receipts: Receipts, row: Row, value: Any) -> Receipt:
    """Return the statement that leaves a receipt for this attempt; its value counts once it was executed."""
    body, copy = case.spec.codec.dump(value)

    def note() -> Any:
        case.receipt = (body, copy)
        return copy

    key = case.identity.idempotency_key(row.generation)
    return (*receipts.insertion(key, row.token, body.decode()), note)


def _row(case: Case) -> Row:
    assert case.row is not None, "act and resolve are called with a claim"
    return case.row


class _Raised(Exception):
    """Carries whatever a `Transactional` function raised out of the commit, its class included."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(describe(error))
        self.error = error


async def act_in_transaction(guard: Guard, case: Case) -> Outcome:
    """Perform a `Transactional` effect: claim, act and settlement are one commit of its own. The run is told after it."""
    step = case.step
    commit = guard.store.commit if step is None else step.commit
    while True:
        unit = guard.claim_unit(case)
        draft = unit.draft
        try:
            found = await commit(partial(_act_in, unit), label="transaction", is_alone=True)
        except _Raised as raised:  # rolled back with the claim: known not to have happened
            reason = not_done_reason(raised.error, (), is_one_request=False) or f"rolled back: {describe(raised.error)}"
            found = Outcome("not_done", reason=reason)
            if step is not None:
                draft = _tell(step, step.draft(Kind.NOT_DONE, head=Head(reason=reason)))
        if isinstance(found, Wait):
            await guard.wait_at_gate(case, found)
            continue
        if isinstance(found, _Done):
            row, found = found.row, Outcome("done", value=found.value, effect=found.row.id)
            if step is not None:
                draft = _tell(step, step.draft(Kind.DONE, head=Head(record=row.record, effect=row.id)))
        if step is not None:
            step.end(draft)
        return found


class _Done(Claim, frozen=True, gc=False):
    """A claim that was acted on and settled in its own transaction."""

    value: Any


def _tell(step: Step, record: Record) -> Record:
    step.append(partial(step.write, record=record), "settle", 0)
    return record


def _act_in(unit: ClaimUnit, tx: Tx) -> _Done | Outcome | Wait:
    guard, case, claim = unit.guard, unit.case, unit(tx)
    if not isinstance(claim, Claim):
        return claim
    if not claim.is_ours:
        return Outcome("unknown", reason="its row is open, which one commit can't leave behind", effect=claim.row.id)
    token = _current.set(partial(_describe, guard, case, claim.row, tx))
    telling = told_to_model.set(None)
    try:
        body, copy = case.spec.codec.dump(case.spec.function(*case.bound.args, **case.bound.kwargs))
    except BaseException as error:
        raise _Raised(error) from error
    finally:
        told_to_model.reset(telling)
        _current.reset(token)
    record = insert_record(tx, Record(None, 0, Kind.DONE, "", body=body))
    ledger.settle(tx, claim.row.id, 1, DONE, record)
    guard.release(tx, case)
    return _Done(replace(claim.row, record=record), is_ours=True, value=copy)
