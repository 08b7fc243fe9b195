"""Claiming: the first of claim, act, settle. One transaction decides who acts, and says to all others what is there.

What holds: nothing is sent before its claim and every earlier record of the run are on disk; one caller acts per key; a key
means one set of matched arguments for as long as its scope lives.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from surefoot.effects.gates import AroundGate, Gate, HoldingGate, Pass, Refuse, Wait
from surefoot.effects.keys import BadEffect
from surefoot.effects.live.case import Acting, Case, Claim
from surefoot.effects.live.told import LEFT, approved_generation, moment_words, note, of_own_row, taken
from surefoot.effects.outcome import Outcome
from surefoot.effects.rows import ledger
from surefoot.effects.rows.ledger import Call, Row
from surefoot.effects.rows.lost import TRUST, LostSince, may_be_lost
from surefoot.effects.states import State
from surefoot.journal import Kind, Record, insert_record, take_record_id
from surefoot.journal.records import Head
from surefoot.leases import Duty, LeaseLost, Session, Sessions
from surefoot.store import Store, StoreError, Tx
from surefoot.store.connection import Connection

PASS = Pass()

GATE_POLL_S, GATE_POLL_MAX_S = 0.05, 0.5
"""Pauses between two looks at what a gate waits for, outside runs: the first, and the longest."""

CLAIMED = State.CLAIMED


class Guard:
    """Performs effects over one store for one session."""

    def __init__(
        self, store: Store, sessions: Sessions, session: Session, incarnation: int, gates: Sequence[Gate] = ()
    ) -> None:
        self.store = store
        self.sessions = sessions
        self.duty = Duty(store, sessions, session, lambda: bool(self.acting))
        self.incarnation = incarnation
        self.gates = tuple(gates)
        self.holding: HoldingGate | None = None
        self.lost_since: LostSince | None = None  # of a store that was restored: see `lost`
        self.on_settled: Callable[[Tx, int], object] = _nobody_waits
        self.wake: Callable[[Tx, int | None, str], object] = _nobody_sleeps
        self.acting: dict[int, Acting] = {}
        self.resolving: dict[int, Acting] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def claim(self, case: Case) -> Claim | Outcome:
        """Claim the effect in one transaction, or say what is there instead; one record tells the run either way."""
        step, size = case.step, len(case.arguments)
        while True:  # anew after a pause: it may be sent from now on, not from before it
            unit = self.claim_unit(case)
            try:
                if step is None:
                    found = await self.store.commit(unit, label="claim", size=size)
                else:
                    found = await step.commit(unit, "claim", size)
            except asyncio.CancelledError:
                self.abandon(case)
                raise
            if isinstance(found, Wait):
                await self.wait_at_gate(case, found)
                continue
            if step is not None and isinstance(found, Outcome):
                step.end(unit.draft)
            return found

    async def wait_at_gate(self, case: Case, wait: Wait) -> None:
        """Return when a gate is to be asked again.

        A run is parked until somebody has decided, and then begins anew; only if other tasks of it go on meanwhile does it
        wait here. Nothing was claimed: the wait is not part of the effect.
        """
        step = case.step
        if wait.target is None:
            await self._wait_in_place(case, wait)
            return
        if step is not None:
            step.opened = case.asking or step.opened
            await step.wait(wait.target[0], wait.reason, wait.target)
            return
        if wait.problem is not None:
            raise wait.problem
        assert wait.is_over is not None, "a gate that lets callers wait says for what"
        pause_s = GATE_POLL_S
        while not await self.store.read(wait.is_over):
            await asyncio.sleep(pause_s)
            pause_s = min(GATE_POLL_MAX_S, pause_s * 2)

    async def _wait_in_place(self, case: Case, wait: Wait) -> None:
        since_s = self.store.clock.monotonic_s()
        try:
            await (asyncio.sleep(wait.retry_ms / 1_000) if wait.comes is None else wait.comes())
        except BaseException:
            self._leave(case)
            raise
        case.waited_s += self.store.clock.monotonic_s() - since_s

    def _leave(self, case: Case) -> None:
        """The caller has left while it waited at a gate: nobody is to wait for its turn."""
        holding = self.holding
        if case.resources and holding is not None:
            with contextlib.suppress(StoreError):  # without a store nobody waits
                leave = holding.leave
                self.store.append(lambda tx: leave(tx, case.gate_request()), label="leave", on_error=None)

    def abandon(self, case: Case) -> None:
        """The caller has left between its claim, which may still be on its way, and the act: nothing was sent. A run that
        comes to the same step again claims it anew."""

        def unit(tx: Tx) -> None:
            row = case.row  # what the claim's own unit, which comes before this one, has left there
            if row is not None:
                record = Record(
                    None, 0, Kind.NOT_DONE, "", head=Head(reason="its caller left before the act", state=LEFT)
                )
                self.settle(tx, case, row, State.NOT_DONE, record)
            elif case.resources and self.holding is not None:
                self.holding.leave(tx, case.gate_request())

        with contextlib.suppress(StoreError):  # without a store the next process notes it
            self.store.append(unit, label="left", on_error=None)

    def claim_unit(self, case: Case) -> ClaimUnit:
        """Return the unit that claims, for the caller's own task to make: it may ask the caller's code."""
        step, own = case.step, case.approve
        if own is not None and case.is_gate_needed is None:
            case.is_gate_needed = own.is_needed(case.spec, case.spec.rebuild(case.arguments))
        draft = Record(None, 0, Kind.CLAIMED, "") if step is None else step.draft(Kind.CLAIMED)
        return ClaimUnit(self, case, draft, self.store.clock.boot_ms())

    def write_claim(self, case: Case, draft: Record, boot_ms: int, tx: Tx) -> Claim | Outcome | Wait:
        """See `claim_unit`."""
        step, frame, identity, generation = case.step, case.frame, case.identity, 1
        case.row = case.asking = None
        if step is not None:
            if not step.is_held(tx):
                raise LeaseLost(f"run {case.run_id} is held by another worker", hint=f"surefoot show {case.run_id}")
            own = None if step.opened is None else own_row(tx.connection, case)
            found = None if own is None else of_own_row(tx, case, own, draft)
            if found is not None:
                return found
        if self.gates or case.has_gates:  # without gates the insertion itself finds what is there
            passed = self._pass_gates(tx, case, draft)
            if not isinstance(passed, int):
                return passed
            generation = passed
        run, session = None if frame is None else frame.run, self.duty.session.id
        since_ms = None
        if self.lost_since is not None and may_be_lost(case.spec.in_doubt):
            since_ms = self.lost_since(tx.connection, run)
        while True:
            claim = take_record_id(tx)
            row = Row(ledger.take_row_id(tx), identity.digest, generation, CLAIMED, 1, session, session, run,
                      identity.fingerprint, claim, claim, boot_ms)  # fmt: skip
            if since_ms is not None:
                row = replace(row, state=State.UNKNOWN, sender=0)
            if ledger.insert(tx, row):
                if since_ms is not None:
                    return self._doubt_lost(tx, case, row, draft, since_ms)
                insert_record(tx, draft, claim, self._call(case, generation, boot_ms))
                case.row = row
                return Claim(row, is_ours=True)
            there = ledger.find(tx.connection, identity.digest)
            assert there is not None, "the identity that stood in the way is there"
            if not ledger.is_free(there):
                return taken(tx, case, there, draft)
            generation = there.generation + 1

    def _doubt_lost(self, tx: Tx, case: Case, row: Row, draft: Record, since_ms: int) -> Claim:
        """Write a claim that is in doubt from the beginning: in the lost time of a restored store it may have been done."""
        call = self._call(case, row.generation, row.sent_boot_ms, since_ms)
        insert_record(tx, replace(draft, body=call), row.claim)
        reason = f"the store was restored: it may have been done since {moment_words(since_ms)}; afterwards: {TRUST}"
        ledger.add_evidence(tx, row.id, "in doubt", self.duty.session.name, reason)
        return Claim(row, is_ours=False)

    def _pass_gates(self, tx: Tx, case: Case, draft: Record) -> int | Claim | Outcome | Wait:
        """Return the generation to claim, or what is there or was said instead."""
        there = ledger.find(tx.connection, case.identity.digest)
        if there is not None and not ledger.is_free(there):
            return taken(tx, case, there, draft)
        admission = self._admit(tx, case, 1 if there is None else there.generation + 1, draft)
        if isinstance(admission, Wait):
            return admission
        if isinstance(admission, Refuse):
            kind = Kind.DENIED if admission.told == "denied" else Kind.NOT_DONE
            note(tx, case, draft, kind, Head(name=case.spec.name, reason=admission.reason))
            return Outcome(admission.told, reason=admission.reason)
        return 1 if there is None else there.generation + 1

    def _call(self, case: Case, generation: int, boot_ms: int, since_ms: int = 0) -> bytes:
        return ledger.encode_call(
            Call(effect=case.spec.name, doubt=case.spec.in_doubt.name, key=case.identity.key,
                 scope=case.identity.scope, arguments=msgspec.Raw(case.arguments), generation=generation,
                 session=self.duty.session.id, boot_ms=boot_ms, deadline_ms=case.spec.deadline_ms,
                 returns=case.spec.returns, redact=case.spec.redact, since_ms=since_ms)
        )  # fmt: skip

    def _asking(self, case: Case, draft: Record) -> Record:
        """Return the record by which a step asks for what its gate waits for: it has the call, as a claim does."""
        case.asking = replace(draft, kind=Kind.ASKED, body=self._call(case, 1, self.store.clock.boot_ms()))
        return case.asking

    def _admit(self, tx: Tx, case: Case, generation: int, draft: Record) -> Pass | Wait | Refuse:
        if case.approve is not None:
            generation = approved_generation(tx.connection, case.identity.digest, generation)
        request = case.gate_request(generation, self.duty.session.id, partial(self._asking, case, draft))
        case.tokens = ()
        for passed, gate in enumerate(self._gates_of(case)):
            answer = gate.admit(tx, request)
            if not isinstance(answer, Pass):
                self.release(tx, case, passed)
                return answer
            case.tokens += answer.tokens
        return PASS

    def _gates_of(self, case: Case) -> tuple[Gate, ...]:
        """Return what a case must pass, in this order. The approval comes last: what lets a call through once must not be
        used by one that then has to wait for something else."""
        if not case.has_gates:
            return self.gates
        own = () if case.approve is None else (case.approve,)
        return (*self.gates, *case.around, *self._holding(case), *own)

    def _holding(self, case: Case) -> tuple[HoldingGate, ...]:
        if not case.resources:
            return ()
        if self.holding is None:
            raise BadEffect(
                f"effect {case.spec.name} holds {', '.join(case.resources)} while it acts, and this store leases nothing",
                hint="open the store with sf.Surefoot(...)",
            )
        return (self.holding,)

    def release(self, tx: Tx, case: Case, passed: int | None = None, *, is_stale: bool = False) -> None:
        """Give back, in the settlement's transaction, what the gates took.

        Args:
            tx: The transaction.
            case: The call.
            passed: Of the first so many gates only; None for all.
            is_stale: Whether its run was told what has changed, and keeps what the effect held.
        """
        gates = self._gates_of(case)
        if gates:
            request = case.gate_request(session=self.duty.session.id)
            for gate in reversed(gates[:passed]):
                if is_stale and gate is self.holding:
                    self.holding.keep(tx, request)
                else:
                    gate.release(tx, request)

    def retake(self, tx: Tx, case: Case) -> None:
        """Take over, in the transaction that takes over an effect, what it holds, under tokens of our own."""
        if case.resources or case.around:
            request = case.gate_request(session=self.duty.session.id)
            holding: tuple[AroundGate | HoldingGate, ...] = (*case.around, *self._holding(case))
            found = [gate.retake(tx, request) for gate in holding]
            case.tokens = tuple(token for one in found for token in one.tokens)

    def settle(self, tx: Tx, case: Case, row: Row, state: State, record: Record, *, is_stale: bool = False) -> bool:
        """Write an outcome under the claim's token, give back what the gates took, and wake whoever waits for the effect,
        and the run it belongs to; return whether it was still ours to say. If not, nothing is written.

        Args:
            tx: The transaction.
            case: The call.
            row: Its claim.
            state: What it came to.
            record: That, as a record of the run or of nobody's.
            is_stale: See `release`.
        """
        record_id = take_record_id(tx)
        if not ledger.settle(tx, row.id, row.token, state, record_id):
            return False
        insert_record(tx, record, record_id)
        self.on_settled(tx, row.id)
        if row.run is not None and row.run != record.run:
            self.wake(tx, row.run, self.duty.session.name)
        self.release(tx, case, is_stale=is_stale)
        if record.head.state == LEFT and case.approve is not None:
            case.approve.give_back(tx, case.call(approved_generation(tx.connection, row.digest, row.generation)))
        return True

    def spawn(self, work: Any) -> None:
        """Keep a task alive until it ends: a sync tool that timed out, a late answer."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class ClaimUnit(msgspec.Struct, gc=False):
    """The unit that claims; `draft` becomes the claim's record, or that of what was there instead.

    (Units wait in the writer's queue by the hundred; as closures they keep the collector busy.)
    """

    guard: Guard
    case: Case
    draft: Record
    boot_ms: int

    def __call__(self, tx: Tx) -> Claim | Outcome | Wait:
        """Claim it, or return what is there instead."""
        return self.guard.write_claim(self.case, self.draft, self.boot_ms, tx)


def _nobody_waits(_tx: Tx, _effect: int) -> None:
    """Outside runs nothing is parked."""


def _nobody_sleeps(_tx: Tx, _run: int | None, _who: str) -> None:
    """Outside runs nothing is woken."""


def own_row(connection: Connection, case: Case) -> Row | None:
    """Return the row that an earlier attempt of this very step claimed."""
    opened = None if case.step is None else case.step.opened
    if opened is None or opened.kind is not Kind.CLAIMED or opened.body is None:
        return None
    generation = ledger.decode_call(opened.body).generation
    return ledger.find(connection, case.identity.digest, generation)
