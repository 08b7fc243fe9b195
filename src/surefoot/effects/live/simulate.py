"""Effects of a simulated run: the outcome that is recorded of the same effect, or a stop. Nothing is ever claimed.

What holds: what `SimulatedGuard` answers to a claim is never a claim, so nothing in a simulated run can act, whichever way
it comes here: a new execution, a takeover, a resume. It writes no row of the ledger, and asks no gate.

    recorded done, or compensated since   -> repeated, with the first outcome
    recorded not done                     -> not done, with its reason
    no key, and other arguments           -> as never done
    the key is taken by other arguments   -> conflict, as for real
    unknown, or never done                -> the run stops: what it would do is told, and only a real run can go on
"""

from __future__ import annotations

from surefoot.effects.gates import Wait
from surefoot.effects.keys import identify
from surefoot.effects.live.case import Case, Claim
from surefoot.effects.live.guard import Guard
from surefoot.effects.live.told import note, taken, told
from surefoot.effects.outcome import Outcome
from surefoot.effects.rows import ledger
from surefoot.effects.rows.ledger import Row
from surefoot.effects.states import State
from surefoot.journal import Kind, Record, load_record
from surefoot.journal.records import Head
from surefoot.leases import LeaseLost
from surefoot.problem import SurefootError
from surefoot.store import Tx


class NothingRecorded(SurefootError):
    """A simulated run has come to an effect that nobody knows an outcome of. Nothing was done; the run stands there."""


class SimulatedGuard(Guard):
    """A guard that lets nothing act."""

    @classmethod
    def like(cls, guard: Guard) -> SimulatedGuard:
        """Return one over the same store and session."""
        simulated = cls(guard.store, guard.sessions, guard.duty.session, guard.incarnation)
        simulated.duty = guard.duty
        return simulated

    def write_claim(self, case: Case, draft: Record, boot_ms: int, tx: Tx) -> Claim | Outcome | Wait:
        """Answer a claim; see `Guard.write_claim`. Never with a claim of ours."""
        assert case.step is not None, "a simulated effect is a step of its run"
        if not case.step.is_held(tx):
            raise LeaseLost(f"run {case.run_id} is held by another worker", hint=f"surefoot show {case.run_id}")
        row = self._recorded(case, tx)
        if row is None or ledger.is_open(row):
            raise _nothing(case, row)
        if case.spec.template is None and row.fingerprint != case.identity.fingerprint:
            raise _nothing(case, None)  # its place is all its identity: with other arguments it is another effect
        if row.fingerprint != case.identity.fingerprint:
            return taken(tx, case, row, draft)
        kind = Kind.NOT_DONE if row.state is State.NOT_DONE else Kind.REPEATED
        record = load_record(tx.connection, row.record)
        head = Head(name=case.spec.name, record=row.record, effect=row.id, reason=record.head.reason)
        note(tx, case, draft, kind, head)
        return told(case, kind, record, head)

    def _recorded(self, case: Case, tx: Tx) -> Row | None:
        """Return the same effect's newest row: of its key in the app, or of its place in the run that was forked."""
        identity, frame = case.identity, case.frame
        digest = identity.digest
        if frame is not None and identity.scope == f"run {frame.run_id}":
            digest = identify(f"run {frame.source}", identity.name, identity.key, identity.fingerprint).digest
        return ledger.find(tx.connection, digest)


# Under whichever name `Guard` decides about a claim, this one must stand in its place: a rename fails here, not in a run.
assert SimulatedGuard.write_claim is not Guard.write_claim, "a simulated run could act"


def _nothing(case: Case, row: Row | None) -> NothingRecorded:
    why = "no outcome of it is recorded" if row is None else f"its outcome is not known: effect {row.id}"
    call = f"{case.spec.name}({case.arguments.decode()}), key {case.identity.key}"
    return NothingRecorded(
        f"simulated: run {case.run_id} would do {call}; {why}",
        hint="a simulation ends here; fork with --act to do it for real, or cancel this run",
    )
