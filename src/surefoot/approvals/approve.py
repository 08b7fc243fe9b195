"""`sf.Approve`: the gate before an effect that a person must say yes to.

    nobody has asked     -> the question is written, with all that led to it before it, and the caller waits
    pending              -> the caller waits; others who ask the same wait for the same answer
    approved             -> used, in the claim's own transaction: this one claim acts, and no other
    used                 -> returned by a claim that is left before the act: the next one needs no other
    denied               -> the caller is told so, with the reason; whoever asks anew asks a new question
    lapsed               -> approved, but too long ago: asked for anew

What holds: an answer is bound to the call it was asked for, by a digest of effect, key, generation and all arguments; other
arguments are another question. What was asked must be answered, whatever `when` says later. A deadline never decides.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from surefoot.approvals import tables
from surefoot.approvals.errors import ApprovalNeeded
from surefoot.approvals.states import Event, State
from surefoot.approvals.tables import Asker, Row, Rule
from surefoot.effects.classify import describe
from surefoot.effects.doubt import duration_ms
from surefoot.effects.gates import Admission, Pass, Refuse, Request, Wait
from surefoot.effects.keys import BadEffect
from surefoot.effects.spec import EffectSpec
from surefoot.journal import insert_record
from surefoot.store import Tx
from surefoot.store.connection import Connection

COUNT_MAX = 20
"""Most people that one approval can ask for."""


@dataclass(frozen=True, slots=True)
class Approve:
    """A person must approve the call before it acts: `@sf.effect(approve=sf.Approve(by="finance"))`.

    In a run the call waits, for as long as it takes: the run is parked as waiting(approval), and wakes when somebody has
    decided. Denied, it is `sf.Denied` with the reason.

    Args:
        by: The role, or the name, or several of them, of whom one may decide; see `sf.People`. None: anybody.
        deadline: How long it may be pending before it is escalated (`Surefoot(on_escalation=...)`), as "4h" or seconds.
            Nothing is decided by it.
        when: Which calls need it: called with those of the effect's arguments that it has parameters for, validated.
            Must return True or False, and must be pure: the same arguments, the same answer. None: all calls.
        count: How many different people must approve; 1 to 20. One denial is enough.
        requester: The parameter that names who it is done for: that person may not approve it. None: nobody is left out.
        valid_for: How long a decision stands, as "7d" or seconds: an approval that is not used in that time is asked for
            anew.
        outside: What a call outside runs does: "raise" `sf.ApprovalNeeded`, and act when it is called again once it is
            approved, which needs a `key=`; or "wait".
    """

    by: str | Sequence[str] | None = None
    deadline: str | float = "24h"
    when: Callable[..., bool] | None = None
    count: int = 1
    requester: str | None = None
    valid_for: str | float = "7d"
    outside: Literal["raise", "wait"] = "raise"
    name = "approval"

    # -- declaring ------------------------------------------------------------------------------------------------

    def check(self, spec: EffectSpec) -> None:
        """See `OwnGate.check`."""
        duration_ms(self.deadline)
        duration_ms(self.valid_for)
        if not 1 <= self.count <= COUNT_MAX:
            raise BadEffect(f"effect {spec.name}: Approve(count={self.count})", hint=f"use 1 to {COUNT_MAX}")
        if self.outside not in ("raise", "wait"):
            raise BadEffect(f"effect {spec.name}: Approve(outside={self.outside!r})", hint='use "raise" or "wait"')
        if spec.is_read:
            raise BadEffect(
                f"effect {spec.name}: a read is not approved", hint="declare what it changes, or leave it out"
            )
        wanted = [] if self.when is None else [name for name, is_free in _named(self.when) if not is_free]
        for name in (*wanted, *([] if self.requester is None else [self.requester])):
            if not spec.takes(name):
                raise BadEffect(
                    f"effect {spec.name}: Approve asks for {name!r}, which is no parameter of it",
                    hint=f"use some of: {', '.join(spec.signature.parameters)}; or take the rest as **_",
                )

    def is_needed(self, spec: EffectSpec, arguments: Mapping[str, Any]) -> bool:
        """See `OwnGate.is_needed`. What can't be told needs nobody's approval and is not done: it is an error."""
        if self.when is None:
            return True
        takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in _parameters(self.when))
        named = {name: arguments[name] for name, _ in _named(self.when) if name in arguments}
        given = dict(arguments) if takes_all else named
        try:
            answer = self.when(**given)
        except Exception as error:
            raise BadEffect(
                f"effect {spec.name}: Approve(when=...) raised {describe(error)}; nothing was done",
                hint="it must say True or False of all arguments that the effect takes",
            ) from error
        if not isinstance(answer, bool):
            raise BadEffect(
                f"effect {spec.name}: Approve(when=...) returned a {type(answer).__name__}; nothing was done",
                hint="return True or False: when=lambda amount: amount > 100",
            )
        return answer

    def _rule(self, request: Request) -> Rule:
        by = (self.by,) if isinstance(self.by, str) else tuple(self.by or ())
        requester = "" if self.requester is None else str(request.arguments.get(self.requester) or "")
        return Rule(by, self.count, duration_ms(self.deadline), duration_ms(self.valid_for), requester)

    # -- admitting ------------------------------------------------------------------------------------------------

    def admit(self, tx: Tx, request: Request) -> Admission:
        """See `Gate.admit`. Runs in the claim's transaction: what it uses is used by this claim or by none."""
        asker = Asker(request.run, request.step, None if request.is_keyed else request.session)
        row = tables.newest(tx.connection, request.call)
        state = None if row is None else row.state
        if row is not None and row.decided_at_ms is not None and tx.now_ms > row.decided_at_ms + row.rule.valid_for_ms:
            if state is State.APPROVED:
                tables.move(
                    tx, row, Event.LAPSED, "surefoot", f"approved, and not used within {row.rule.valid_for_ms} ms"
                )
            row = None
        if row is not None and state is State.APPROVED:
            used_by = {"run": request.run_id, "step": request.step, "session": request.session}
            if tables.move(tx, row, Event.USED, f"session {request.session}", used_by):
                return Pass()
        if row is not None and state is State.DENIED and _has_asked(tx, row, asker):
            return Refuse(_denial(tx, row))
        if row is not None and state is State.PENDING:
            return self._join(tx, row, asker, request)
        return self._ask(tx, asker, request) if request.is_needed or request.is_asked else Pass()

    def _ask(self, tx: Tx, asker: Asker, request: Request) -> Admission:
        if not request.is_keyed and self.outside == "raise":
            raise BadEffect(
                f"effect {request.name} was called outside a run and has no key, so that an approval could not be found by "
                "its next call; nothing was done",
                hint='declare key=, or sf.Approve(outside="wait"), or call it in a run',
            )
        assert request.asked is not None, "whoever claims says what is asked"
        number = tables.insert(tx, request.call, insert_record(tx, request.asked()), self._rule(request))
        tables.add_asker(tx, number, asker)
        return self._wait(number, request)

    def _join(self, tx: Tx, row: Row, asker: Asker, request: Request) -> Wait:
        if request.run is not None and not request.is_asked:
            assert request.asked is not None, "whoever claims says what is asked"
            insert_record(tx, request.asked())
        tables.add_asker(tx, row.id, asker)
        return self._wait(row.id, request)

    def _wait(self, approval: int, request: Request) -> Wait:
        what = f"{request.name}, {request.key}" + (f", by {self._who()}" if self.by else "")
        problem = ApprovalNeeded(approval, what) if self.outside == "raise" else None

        def is_over(connection: Connection) -> bool:
            row = tables.get(connection, approval)
            return row is None or row.state is not State.PENDING

        return Wait(f"approval {approval} of {what}", 0, ("approval", approval), is_over, problem)

    def _who(self) -> str:
        return self.by if isinstance(self.by, str) else " or ".join(self.by or ())

    def release(self, tx: Tx, request: Request) -> None:
        """See `Gate.release`. What was used stays used."""

    def give_back(self, tx: Tx, call: bytes) -> None:
        """See `OwnGate.give_back`."""
        row = tables.newest(tx.connection, call)
        if row is not None:
            tables.move(tx, row, Event.RETURNED, "surefoot", "its claim was left before the act; nothing was sent")


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def _named(function: Callable[..., Any]) -> list[tuple[str, bool]]:
    """Return the names that a function has parameters for, each with whether it can do without."""
    loose = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [(one.name, one.default is not one.empty) for one in _parameters(function) if one.kind not in loose]


def _has_asked(tx: Tx, row: Row, asker: Asker) -> bool:
    """Whether the same run, or a caller outside runs as this one, has had this answer."""
    return any(one.run == asker.run for one in tables.askers(tx.connection, row.id))


def _denial(tx: Tx, row: Row) -> str:
    said = [note for note in tables.notes(tx.connection, row.id) if note.kind == Event.DENIED.value]
    return f"approval {row.id} was denied by {said[-1].who}: {said[-1].body}"
