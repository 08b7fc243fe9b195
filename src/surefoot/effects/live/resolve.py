"""Ending a doubt: by the same key again, by a question behind a fence, by reading back, or by a person.

Entered with a row whose outcome nobody knows: this process's own act gave no answer, or another's claim was left behind.
What holds: every move is durable before it is made, and takes the claim over (its token grows), so recovery may itself be
killed anywhere; nothing is ever sent again on a guess.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from surefoot.effects.cancellation import of_users
from surefoot.effects.classify import describe
from surefoot.effects.current import _current
from surefoot.effects.doubt import (
    RETRY_PARKED_MS,
    Answer,
    AskService,
    CannotTell,
    Facts,
    Landed,
    LookForReceipt,
    NotLanded,
    Overwrite,
    Park,
    Probe,
    ReadItBack,
    SendAgain,
    backoff_ms,
    next_move,
)
from surefoot.effects.live.attempt import Finding, _describe, _row, act, done, settle
from surefoot.effects.live.case import Acting, Case
from surefoot.effects.live.guard import Guard
from surefoot.effects.live.told import LEFT, told
from surefoot.effects.outcome import Outcome
from surefoot.effects.receipts import find_or_seal
from surefoot.effects.rows import ledger
from surefoot.effects.rows.ledger import Row, call_of
from surefoot.effects.states import State
from surefoot.journal import Kind, load_record
from surefoot.journal.records import Head
from surefoot.leases import LeaseLost, Life
from surefoot.store import StoreError, Tx
from surefoot.store.connection import Connection

SLEEP_MAX_MS = 2_000
"""Longest pause taken in place; a run that must wait longer is parked and woken, so that it holds no worker."""

ASK_TIMEOUT_S = 30.0
"""Longest time one question to a probe or a read-back may take."""


WAIT_S = 60.0
"""How long to stand by while another worker is at the same doubt; then the run is parked and looks again later."""

ROW_LOOK_S, ROW_LOOK_MAX_S = 0.02, 0.5
"""Pauses between two looks at a row that another process holds: the first, and the longest."""


class _Moved(Exception):
    """Somebody else has taken the row, or settled it, since we looked: nothing may be done under our view of it."""


class Left(Exception):
    """Whoever had claimed it has left before the act: who wants it claims it anew."""


class _TooSoon(Exception):
    """A fence lasts longer than anybody here waits: the next sweep looks again."""


async def resolve(guard: Guard, case: Case) -> Outcome:
    """Find out what became of the effect in `case.row`, or park it; return the outcome. One caller at a time does.

    Raises:
        Left: Nobody has acted, and nobody will.
    """
    row, mine = _row(case), Acting()
    while (other := guard.resolving.setdefault(row.id, mine)) is not mine:
        await other.wait()
        settled = await _reload(guard, case)
        if settled is not None:
            return settled
    try:
        return await _find_out(guard, case)
    except BaseException:
        _let_go(guard, row)
        raise
    finally:
        if guard.resolving.get(row.id) is mine:
            _step_aside(guard, row)


def _step_aside(guard: Guard, row: Row) -> None:
    """Let the next caller of this process look for itself."""
    resolving = guard.resolving.pop(row.id, None)
    if resolving is not None:
        resolving.end()


def _let_go(guard: Guard, row: Row) -> None:
    """Whoever looked into it was cancelled, or suspended: a claim taken over for that is nobody's now, and is in doubt.

    Nothing was sent under it, or the end of that act was noted before: the fence stays where it is.
    """
    if row.id in guard.acting:  # in a thread
        return

    def unit(tx: Tx) -> None:
        now = ledger.get(tx.connection, row.id)
        if now is not None and now.state is State.CLAIMED and now.holder == guard.duty.session.id:
            ledger.doubt(tx, now, guard.duty.session.id, now.sent_boot_ms)
            ledger.add_evidence(
                tx, row.id, "left to others", guard.duty.session.name, "whoever looked into it has left"
            )

    with contextlib.suppress(StoreError):  # without a store the next process notes it
        guard.store.append(unit, label="doubt", on_error=None)


async def _find_out(guard: Guard, case: Case) -> Outcome:
    is_noted = False
    while True:
        try:
            if not is_noted:
                settled = await _note_doubt(guard, case)
                if settled is not None:
                    return settled
                is_noted = True
            outcome = await _move(guard, case)
        except _Moved:
            outcome, is_noted = await _stand_by(guard, case), False
        except _TooSoon:
            return await leave(guard, case, Park("its fence is not over yet"))
        if outcome is not None:
            return outcome


async def _move(guard: Guard, case: Case) -> Outcome | None:
    facts = await _facts(guard, case)
    move = next_move(case.spec.in_doubt, facts)
    match move:
        case SendAgain(after_ms):
            return await _send_again(guard, case, after_ms)
        case AskService(after_ms):
            return await _ask(guard, case, after_ms)
        case ReadItBack():
            return await _read_back(guard, case)
        case LookForReceipt(after_ms):
            return await _look_for_receipt(guard, case, after_ms)
        case _:
            return await leave(guard, case, move)


async def _stand_by(guard: Guard, case: Case) -> Outcome | None:
    """Another has the row: wait until it has an outcome, or nobody alive is at it any more."""
    pause_s, until_s = ROW_LOOK_S, guard.store.clock.monotonic_s() + WAIT_S
    while True:
        settled = await _reload(guard, case)
        if settled is not None:
            return settled
        row = _row(case)
        if row.state is State.UNKNOWN or row.holder == guard.duty.session.id:
            return None
        holder = guard.store.read_now(partial(guard.sessions.holder, session=row.holder))
        if holder.life is not Life.ALIVE:
            return None
        if guard.store.clock.monotonic_s() >= until_s:
            return await leave(guard, case, Park(f"{holder.name} has been at it for {WAIT_S:.0f} s", RETRY_PARKED_MS))
        await asyncio.sleep(pause_s)
        pause_s = min(ROW_LOOK_MAX_S, pause_s * 2)


async def _note_doubt(guard: Guard, case: Case) -> Outcome | None:
    """Make the doubt a durable state of the row, and with it the moment from which a fence counts.

    A claim left behind may have been sent until its holder was seen to be gone: now, not when it was claimed. A doubt
    noted in an earlier boot of the machine has lost its moment, and is noted afresh. One that is noted already, by the
    end of our own act, is only looked at: from here on `case.row` has its moment. While a thread may still send, there
    is no such moment yet.
    """
    row, boot_ms = _row(case), guard.store.clock.boot_ms()
    acting = guard.acting.get(row.id)
    if acting is not None and acting.is_in_thread:
        return await leave(guard, case, Park("it still runs in a thread"))

    def unit(tx: Tx) -> Row | None:
        if case.step is not None and not case.step.is_held(tx):
            raise LeaseLost(f"run {case.run_id} is held by another worker", hint=f"surefoot show {case.run_id}")
        now = ledger.get(tx.connection, row.id)
        if now is None or not ledger.is_open(now):
            return None
        if now.token != row.token:
            raise _Moved
        if now.state is State.UNKNOWN and _boot_of(tx.connection, now.holder) == guard.store.clock.boot_id():
            return now
        ledger.doubt(tx, now, guard.duty.session.id, boot_ms)
        ledger.add_evidence(tx, now.id, "in doubt", guard.duty.session.name, {"token": now.token})
        return replace(now, state=State.UNKNOWN, holder=guard.duty.session.id, sent_boot_ms=boot_ms)

    doubted = await guard.store.commit(unit, label="doubt")
    if doubted is None:
        return await _reload(guard, case)
    case.row = doubted
    await _take_first_words(guard, case)
    return None


async def _take_first_words(guard: Guard, case: Case) -> None:
    """Go on with fresh copies of the arguments that were claimed: another caller of the key may word its free text
    differently, an earlier attempt may have changed its own, and what is sent again must be the same bytes."""
    row = _row(case)
    first = await guard.store.read(lambda connection: call_of(connection, row))
    case.bound = case.spec.rebound(case.bound, bytes(first.arguments))


async def _facts(guard: Guard, case: Case) -> Facts:
    row, clock = _row(case), guard.store.clock
    first_ms, first_boot_ms = await guard.store.read(lambda connection: _first_sent(connection, row, clock.boot_id()))
    return Facts(
        first_sent_ms=first_ms,
        first_sent_boot_ms=first_boot_ms,
        last_sent_boot_ms=row.sent_boot_ms,
        now_ms=clock.wall_ms(),
        now_boot_ms=clock.boot_ms(),
        sends=case.sends,
        asks=case.asks,
        is_precondition_failed=case.is_precondition_failed,
    )


def _first_sent(connection: Connection, row: Row, boot_id: str) -> tuple[int, int | None]:
    """Return when the effect was first claimed, by the wall clock and, within this boot, by the boot clock."""
    call = call_of(connection, row)
    if call.since_ms:  # by whom, and in which boot, was lost with the rest
        return call.since_ms, None
    is_this_boot = _boot_of(connection, call.session) == boot_id
    return load_record(connection, row.claim).at_ms, call.boot_ms if is_this_boot else None


def _boot_of(connection: Connection, session: int) -> str:
    row = next(connection.execute("SELECT boot_id FROM sessions WHERE id = ?", (session,)), None)
    return "" if row is None else str(row[0])


async def _pause(guard: Guard, case: Case, after_ms: int) -> None:
    if after_ms > SLEEP_MAX_MS and case.step is not None:
        _step_aside(guard, _row(case))
        reason = f"doubt: effect {case.identity.key} waits for its fence"
        await case.step.park(reason, guard.store.clock.wall_ms() + after_ms, _row(case).id)
    if after_ms > SLEEP_MAX_MS and not case.is_awaited:
        raise _TooSoon
    await asyncio.sleep(after_ms / 1_000)


async def _take_over(guard: Guard, case: Case, kind: str, *, is_sending: bool) -> None:
    """Make the claim ours under a new token, durably; raise `_Moved` if the row is no longer as we saw it: somebody else
    was faster, or whoever was taken for gone has noted a later end of its act, and so a later fence."""
    row = _row(case)
    sent_boot_ms = guard.store.clock.boot_ms() if is_sending else None

    def unit(tx: Tx) -> Row | None:
        if case.step is not None and not case.step.is_held(tx):
            raise LeaseLost(f"run {case.run_id} is held by another worker", hint=f"surefoot show {case.run_id}")
        if ledger.get(tx.connection, row.id) != row:
            return None
        ours = ledger.take_over(tx, row, guard.duty.session.id, sent_boot_ms)
        assert ours is not None, "what is as it was read can be taken over"
        body = {"token": ours.token, "session": guard.duty.session.id}
        ledger.add_evidence(tx, row.id, kind, guard.duty.session.name, body)
        guard.retake(tx, case)
        return ours

    ours = await guard.store.commit(unit, label=kind)
    if ours is None:
        raise _Moved
    case.row = ours


async def _reload(guard: Guard, case: Case) -> Outcome | None:
    """Look at the row again: another caller, evidence or a person has moved it."""
    row = _row(case)
    now = await guard.store.read(lambda connection: ledger.get(connection, row.id))
    if now is None or ledger.is_open(now):
        case.row = now or row
        return None
    record = await guard.store.read(lambda connection: load_record(connection, now.record))
    if record.head.state == LEFT and case.is_wanted and case.is_awaited:
        raise Left
    kind = Kind.NOT_DONE if now.state is State.NOT_DONE else Kind.DONE
    head = Head(name=case.spec.name, record=now.record, effect=now.id, reason=record.head.reason)
    await _tell_run(guard, case, kind, head)
    return told(case, kind, record, head)


async def _tell_run(guard: Guard, case: Case, kind: Kind, head: Head) -> None:
    if case.step is None:
        return
    step, record = case.step, case.step.draft(kind, head=head)
    await guard.store.commit(lambda tx: step.write(tx, record), label="told")
    step.end(record)


async def _send_again(guard: Guard, case: Case, after_ms: int, *, is_resent: bool = True) -> Outcome | None:
    """Send it once more. A send without an answer is a doubt of its own: its fence counts from its own end."""
    await _pause(guard, case, after_ms)
    await _take_over(guard, case, "resend", is_sending=True)
    case.sends += 1
    case.is_resent, case.receipt = is_resent, None
    await _take_first_words(guard, case)
    outcome = await act(guard, case)
    return outcome if outcome is not None else await _note_doubt(guard, case)


async def _ask(guard: Guard, case: Case, after_ms: int) -> Outcome | None:
    """Ask the probe, behind the fence: after it, no earlier request of ours can land."""
    in_doubt = case.spec.in_doubt
    assert isinstance(in_doubt, Probe)
    await _pause(guard, case, after_ms)
    await _take_over(guard, case, "probe", is_sending=False)
    case.asks += 1
    row = _row(case)
    answer = await _answer_of(guard, case, row, in_doubt)
    match answer:
        case Landed(value):
            return await settle(guard, case, row, done(case, value))
        case NotLanded(reason) if not case.is_wanted:
            finding = Finding(State.NOT_DONE, reason=f"probe: not landed: {reason}", is_of_all_sends=True)
            return await settle(guard, case, row, finding)
        case NotLanded(reason):
            return await _send_after(guard, case, "probe: not landed", reason)
        case _:
            await _note(guard, row, "probe could not tell", answer.reason)
            return None


async def _answer_of(guard: Guard, case: Case, row: Row, in_doubt: Probe) -> Answer:
    token = _current.set(lambda: _describe(guard, case, row))
    try:
        answer = await _ask_code(in_doubt.ask, case)
    except Exception as error:
        return CannotTell(describe(error))
    finally:
        _current.reset(token)
    if not isinstance(answer, Landed | NotLanded | CannotTell):
        return CannotTell(f"the probe returned {type(answer).__name__}, not sf.Landed, sf.NotLanded or sf.CannotTell")
    return answer


async def _ask_code(ask: Callable[..., object], case: Case) -> object:
    """Call a probe or a read-back, with those of the effect's arguments that it takes."""
    async with asyncio.timeout(ASK_TIMEOUT_S):
        answer = ask(**case.spec.known(ask, case.bound))
        return await of_users(answer) if inspect.isawaitable(answer) else answer


async def _look_for_receipt(guard: Guard, case: Case, after_ms: int) -> Outcome | None:
    """Find the receipt of an attempt, or seal them all: then none of them has happened, and none ever can.

    Nothing is taken over for the question: sealing an attempt that is in doubt harms nobody, and who wants to send after it
    must take the claim over, which fails if somebody else has.
    """
    receipts = case.spec.receipts
    assert receipts is not None
    await _pause(guard, case, after_ms)
    case.asks += 1
    row = _row(case)
    key = case.identity.idempotency_key(row.generation)
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            body = await asyncio.to_thread(find_or_seal, receipts, key, row.token)
    except Exception as error:
        await _note(guard, row, "its receipt could not be looked for", describe(error))
        return None
    if body is not None:
        outcome = await settle(guard, case, row, Finding(State.DONE, body=body))
        if outcome is None:  # somebody else has settled it meanwhile
            raise _Moved
        return replace(outcome, value=case.spec.codec.load(body))
    if not case.why_unknown and case.is_wanted:  # left behind by a crash: nobody was told anything, so it still is
        return await _send_after(guard, case, "no receipt, and none can come", f"{row.token} attempts sealed")
    await _take_over(guard, case, "no receipt, and none can come", is_sending=False)
    finding = Finding(State.NOT_DONE, reason=f"rolled back: {case.why_unknown or 'no receipt'}", is_of_all_sends=True)
    return await settle(guard, case, _row(case), finding)


async def _send_after(guard: Guard, case: Case, kind: str, reason: str) -> Outcome | None:
    """Send once more, now that no earlier send has landed or can; `kind` and `reason` say how that is known."""
    await _note(guard, _row(case), kind, reason)
    if case.sends >= ledger.SENDS_MAX:
        return await leave(guard, case, Park(f"no answer after {case.sends} sends", RETRY_PARKED_MS))
    return await _send_again(guard, case, backoff_ms(case.sends), is_resent=False)


async def _read_back(guard: Guard, case: Case) -> Outcome | None:
    in_doubt = case.spec.in_doubt
    assert isinstance(in_doubt, Overwrite)
    assert in_doubt.read_back is not None
    await _take_over(guard, case, "read back", is_sending=False)
    row = _row(case)
    try:
        is_equal = await _ask_code(in_doubt.read_back, case)
    except Exception as error:
        return await leave(guard, case, Park(f"reading back failed: {describe(error)}", RETRY_PARKED_MS))
    if is_equal is not True:
        return await leave(guard, case, Park("read back: the service holds something else than we set"))
    return await settle(guard, case, row, Finding(State.DONE, reason="read back: equal to what we set"))


async def _note(guard: Guard, row: Row, kind: str, reason: str) -> None:
    await guard.store.commit(
        lambda tx: ledger.add_evidence(tx, row.id, kind, guard.duty.session.name, reason), label="note"
    )


async def leave(guard: Guard, case: Case, park: Park) -> Outcome:
    """Nothing more can be found out now: keep it unknown, tell whoever must know, and suspend the run."""
    row, is_acting = _row(case), _row(case).id in guard.acting
    reason = f"{case.why_unknown}; {park.reason}" if case.why_unknown else park.reason
    is_model_told = case.spec.when_unknown == "tell_model" and case.step is not None
    draft = (
        case.step.draft(Kind.UNKNOWN, head=Head(reason=reason, effect=row.id)) if case.step and is_model_told else None
    )

    def unit(tx: Tx) -> bool:
        now = ledger.get(tx.connection, row.id) or row
        if not ledger.is_open(now):
            return False
        is_ours = now.token == row.token and now.holder == guard.duty.session.id and now.state is State.CLAIMED
        if (
            is_ours and not is_acting and ledger.doubt(tx, now, guard.duty.session.id, now.sent_boot_ms)
        ):  # leaving it moves no fence
            ledger.add_evidence(tx, row.id, "left to others", guard.duty.session.name, reason)
        if draft is not None and case.step is not None:
            case.step.write(tx, draft)
        return True

    if not await guard.store.commit(unit, label="doubt"):
        settled = await _reload(guard, case)
        assert settled is not None, "an outcome is written once and stays"
        return settled
    if case.step is None or draft is not None:
        if case.step is not None and draft is not None and case.frame is not None:
            case.frame.unknown_steps.add(case.identity.key)
            case.step.end(draft)
        return Outcome("unknown", reason=reason, effect=row.id)
    _step_aside(guard, row)
    wake_at_ms = None if park.retry_after_ms is None else guard.store.clock.wall_ms() + park.retry_after_ms
    return await case.step.park(f"doubt: effect {case.identity.key}: {reason}", wake_at_ms, row.id)
