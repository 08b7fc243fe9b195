"""Claiming: the first of claim, act, settle. One transaction decides who acts, and says to all others what is there.

What holds: nothing is sent before its claim and every earlier record of the run are on disk; one caller acts per key; a key
means one set of matched arguments for as long as its scope lives.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import apsw
import msgspec
from msgspec.structs import replace

from surefoot.effects import ledger
from surefoot.effects.gates import Gate, Pass, Refuse, Request, Wait
from surefoot.effects.keys import Identity
from surefoot.effects.ledger import Call, Row
from surefoot.effects.outcome import Outcome
from surefoot.effects.spec import Bound, EffectSpec
from surefoot.effects.states import State
from surefoot.journal import Frame, Kind, Record, Step, Unserializable, insert_record, load_record, take_record_id
from surefoot.journal.records import Head
from surefoot.leases import LeaseLost, Session, Sessions
from surefoot.problem import SurefootError
from surefoot.store import Store, StoreError, Tx, Unit

PASS = Pass()
CLAIMED = State.CLAIMED


class Case(msgspec.Struct):
    """One call of an effect on its way to an outcome."""

    spec: EffectSpec
    bound: Bound
    arguments: bytes
    identity: Identity
    frame: Frame | None
    step: Step | None
    row: Row | None = None
    is_resent: bool = False
    sends: int = 0
    asks: int = 0
    is_precondition_failed: bool = False
    also: Callable[[Tx], object] | None = None
    patience_s: float | None = None
    is_wanted: bool = True
    why_unknown: str = ""
    receipt: tuple[bytes, Any] | None = None

    @property
    def run_id(self) -> str | None:
        """The run this call belongs to."""
        return None if self.frame is None else self.frame.run_id

    @property
    def request(self) -> dict[str, Any]:
        """The arguments as data."""
        asked: dict[str, Any] = msgspec.json.decode(self.arguments)
        return asked

    def gate_request(self) -> Request:
        """What gates are shown."""
        return Request(self.spec.name, self.identity.key, self.request, self.run_id)


class Acting(msgspec.Struct, eq=False):
    """An effect this process acts on, or looks into, right now, and who waits for it: in any loop of the process.

    `is_in_thread` says that its caller has left and a thread still runs it.
    """

    is_in_thread: bool = False
    has_ended: bool = False
    _waits: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return when it has ended."""
        future = asyncio.get_running_loop().create_future()
        self._waits.append(future)
        if not self.has_ended:  # asked after we stand in the list: who ends it in another thread sees us, or we the end
            await future

    def end(self) -> None:
        """Tell who waits; the act is no longer among those in progress."""
        self.has_ended = True
        for future in self._waits:
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits in it any more
                future.get_loop().call_soon_threadsafe(_come, future)


class Guard:
    """Performs effects over one store for one session."""

    def __init__(
        self, store: Store, sessions: Sessions, session: Session, incarnation: int, gates: Sequence[Gate] = ()
    ) -> None:
        self.store = store
        self.sessions = sessions
        self.session = session
        self.incarnation = incarnation
        self.gates = tuple(gates)
        self.on_settled: Callable[[Tx, int], object] = _nobody_waits
        self.wake: Callable[[Tx, int | None, str], object] = _nobody_sleeps
        self.acting: dict[int, Acting] = {}
        self.resolving: dict[int, Acting] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def claim(self, case: Case) -> Claim | Outcome:
        """Claim the effect in one transaction, or say what is there instead; one record tells the run either way."""
        step, size = case.step, len(case.arguments)
        draft = Record(None, 0, Kind.CLAIMED, "") if step is None else step.draft(Kind.CLAIMED)
        while True:
            unit = self.claim_unit(case, draft)  # anew after a pause: it may be sent from now on, not from before it
            try:
                if step is None:
                    found = await self.store.commit(unit, label="claim", size=size)
                else:
                    found = await step.commit(unit, "claim", size)
            except asyncio.CancelledError:
                self._abandon(case)
                raise
            if isinstance(found, Wait):
                await asyncio.sleep(found.retry_ms / 1_000)  # a gate asked for the pause
                continue
            if isinstance(found, Outcome) and step is not None:
                step.end(draft)
            return found

    def _abandon(self, case: Case) -> None:
        """The caller has left while its claim was on its way: nobody will act on it, so it is in doubt at once."""

        def unit(tx: Tx) -> None:
            row = case.row  # what the claim's own unit, which comes before this one, has left there
            if row is not None and ledger.doubt(tx, row, self.session.id, row.sent_boot_ms):
                ledger.add_evidence(tx, row.id, "in doubt", self.session.name, "its caller left before the act")

        with contextlib.suppress(StoreError):  # without a store the next process notes it
            self.store.append(unit, label="doubt", on_error=None)

    def claim_unit(self, case: Case, draft: Record) -> Unit[Claim | Outcome | Wait]:
        """Return the unit that claims; `draft` becomes the claim's record, or that of what was there instead."""
        return _Claiming(self, case, draft, self.store.clock.boot_ms())

    def write_claim(self, case: Case, draft: Record, boot_ms: int, tx: Tx) -> Claim | Outcome | Wait:
        """See `claim_unit`."""
        step, frame, identity, generation = case.step, case.frame, case.identity, 1
        case.row = None
        if step is not None:
            if not step.is_held(tx):
                raise LeaseLost(f"run {case.run_id} is held by another worker", hint=f"surefoot show {case.run_id}")
            own = None if step.opened is None else _own_row(tx.connection, case)
            if own is not None:
                return _own(tx, case, own, draft)
        if self.gates:  # without gates the insertion itself finds what is there
            passed = self._pass_gates(tx, case, draft)
            if not isinstance(passed, int):
                return passed
            generation = passed
        run, session = None if frame is None else frame.run, self.session.id
        while True:
            claim = take_record_id(tx)
            row = Row(ledger.take_row_id(tx), identity.digest, generation, CLAIMED, 1, session, session, run,
                      identity.fingerprint, claim, claim, boot_ms)  # fmt: skip
            if ledger.insert(tx, row):
                insert_record(tx, draft, claim, self._call(case, generation, boot_ms))
                case.row = row
                return Claim(row, is_ours=True)
            there = ledger.find(tx.connection, identity.digest)
            assert there is not None, "the identity that stood in the way is there"
            if not ledger.is_free(there):
                return _taken(tx, case, there, draft)
            generation = there.generation + 1

    def _pass_gates(self, tx: Tx, case: Case, draft: Record) -> int | Claim | Outcome | Wait:
        """Return the generation to claim, or what is there or was said instead."""
        there = ledger.find(tx.connection, case.identity.digest)
        if there is not None and not ledger.is_free(there):
            return _taken(tx, case, there, draft)
        admission = self._admit(tx, case)
        if isinstance(admission, Wait):
            return admission
        if isinstance(admission, Refuse):
            _note(tx, case, draft, Kind.DENIED, Head(name=case.spec.name, reason=admission.reason))
            return Outcome("denied", reason=admission.reason)
        return 1 if there is None else there.generation + 1

    def _call(self, case: Case, generation: int, boot_ms: int) -> bytes:
        return ledger.encode_call(
            Call(effect=case.spec.name, doubt=case.spec.in_doubt.name, key=case.identity.key,
                 scope=case.identity.scope, arguments=msgspec.Raw(case.arguments), generation=generation,
                 session=self.session.id, boot_ms=boot_ms, deadline_ms=case.spec.deadline_ms,
                 returns=case.spec.returns)
        )  # fmt: skip

    def _admit(self, tx: Tx, case: Case) -> Pass | Wait | Refuse:
        for passed, gate in enumerate(self.gates):
            answer = gate.admit(tx, case.gate_request())
            if not isinstance(answer, Pass):
                self._release(tx, case, passed)
                return answer
        return PASS

    def _release(self, tx: Tx, case: Case, passed: int | None = None) -> None:
        for gate in reversed(self.gates[:passed]):
            gate.release(tx, case.gate_request())

    def settled(self, tx: Tx, row: Row, by_run: int | None) -> None:
        """Wake, in the transaction that settles it, whoever waits for the effect, and the run it belongs to."""
        self.on_settled(tx, row.id)
        if row.run is not None and row.run != by_run:
            self.wake(tx, row.run, self.session.name)

    def spawn(self, work: Any) -> None:
        """Keep a task alive until it ends: a sync tool that timed out, a late answer."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait for what `spawn` still runs."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


class _Claiming(msgspec.Struct, gc=False):
    """The unit that claims. (Units wait in the writer's queue by the hundred; as closures they keep the collector busy.)"""

    guard: Guard
    case: Case
    draft: Record
    boot_ms: int

    def __call__(self, tx: Tx) -> Claim | Outcome | Wait:
        return self.guard.write_claim(self.case, self.draft, self.boot_ms, tx)


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What the ledger answered: the row, and whether we may act on it."""

    row: Row
    is_ours: bool


def _come(future: asyncio.Future[None]) -> None:
    if not future.done():  # who waited may have lost patience
        future.set_result(None)


def _nobody_waits(_tx: Tx, _effect: int) -> None:
    """Outside runs nothing is parked."""


def _nobody_sleeps(_tx: Tx, _run: int | None, _who: str) -> None:
    """Outside runs nothing is woken."""


def _note(tx: Tx, case: Case, draft: Record, kind: Kind, head: Head) -> None:
    """Tell the run what its step came to; outside a run there is nobody to tell."""
    if case.step is not None:
        insert_record(tx, replace(draft, kind=kind, head=head))


def _own_row(connection: apsw.Connection, case: Case) -> Row | None:
    """Return the row that an earlier attempt of this very step claimed."""
    if case.step is None or case.step.opened is None or case.step.opened.body is None:
        return None
    generation = ledger.decode_call(case.step.opened.body).generation
    return ledger.find(connection, case.identity.digest, generation)


def _own(tx: Tx, case: Case, row: Row, draft: Record) -> Claim | Outcome:
    if ledger.is_open(row):
        return Claim(row, is_ours=False)
    kind = Kind.NOT_DONE if row.state is State.NOT_DONE else Kind.DONE
    record = load_record(tx.connection, row.record)
    head = Head(name=case.spec.name, record=row.record, effect=row.id, reason=record.head.reason)
    _note(tx, case, draft, kind, head)
    return told(case, kind, record, head)


def _taken(tx: Tx, case: Case, row: Row, draft: Record) -> Claim | Outcome:
    """The key is taken: say by what. Nothing is sent."""
    if row.fingerprint != case.identity.fingerprint:
        first = call_of(tx.connection, row)
        detail = {"recorded": msgspec.json.decode(first.arguments), "asked": case.request}
        reason = f"key {case.identity.key!r} was used with other values: {_difference(detail)}"
        _note(tx, case, draft, Kind.CONFLICT, Head(name=case.spec.name, reason=reason, detail=detail, effect=row.id))
        return Outcome("conflict", reason=reason, effect=row.id, detail=detail)
    if row.state is not State.DONE:
        return Claim(row, is_ours=False)
    head = Head(name=case.spec.name, record=row.record, effect=row.id)
    _note(tx, case, draft, Kind.REPEATED, head)
    return told(case, Kind.REPEATED, load_record(tx.connection, row.record), head)


def call_of(connection: apsw.Connection, row: Row) -> Call:
    """Return what was called under a row."""
    body = load_record(connection, row.claim).body
    if body is None:
        raise SurefootError(f"effect {row.id}: its claim has no body", hint=f"surefoot effects --id {row.id}")
    return ledger.decode_call(body)


def told(case: Case, kind: Kind, record: Record, head: Head) -> Outcome:
    """Return a recorded outcome as the caller learns it."""
    effect = case.row.id if case.row is not None else head.effect
    match kind:
        case Kind.DONE | Kind.READ:
            return Outcome("done", value=_value(case, record), effect=effect)
        case Kind.REPEATED:
            return Outcome("repeated", value=_value(case, record), effect=effect)
        case Kind.NOT_DONE:
            return Outcome("not_done", reason=head.reason or record.head.reason, effect=effect)
        case Kind.CONFLICT:
            return Outcome("conflict", reason=head.reason, effect=effect, detail=head.detail)
        case Kind.DENIED:
            return Outcome("denied", reason=head.reason, effect=effect)
        case Kind.UNKNOWN:
            return Outcome("unknown", reason=head.reason, effect=effect)
        case _:
            raise SurefootError(f"record {record.id} of kind {kind.name} is no outcome of an effect")


def _value(case: Case, record: Record) -> Any:
    if record.head.state == "unserializable":
        raise Unserializable(record.head.reason, hint="the effect itself is done; mend what it returns")
    return None if record.body is None else case.spec.codec.load(record.body)


def _difference(detail: dict[str, Any]) -> str:
    recorded, asked = detail["recorded"], detail["asked"]
    return ", ".join(
        f"{name}={asked.get(name)!r} (recorded {recorded.get(name)!r})"
        for name in asked
        if asked.get(name) != recorded.get(name)
    )
