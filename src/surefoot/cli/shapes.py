"""The shapes of what `--json` prints, field by field: what scripts rely on, and what the reference page is made from.

What holds: a command prints one document of one shape; a field is never missing (null where it does not apply); fields
may be added, never renamed or given another meaning. Times are ISO 8601 in UTC with milliseconds and sort as text.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct


class Advice(Struct, frozen=True):
    """What to do next."""

    words: Annotated[str, Meta(description="what, and why")]
    command: Annotated[str | None, Meta(description="what to type, quoted for a shell; capitals stand for your words")]


class RunShape(Struct, frozen=True):
    """A run."""

    id: Annotated[str, Meta(description="its business id")]
    kind: Annotated[str, Meta(description="the durable function it executes")]
    state: Annotated[
        str, Meta(description="scheduled, queued, pending, running, waiting, completed, failed or cancelled")
    ]
    waiting_for: Annotated[
        str | None, Meta(description="timer, signal, child, lease, approval, doubt, budget, model or blocked")
    ]
    reason: Annotated[str, Meta(description="why it waits or how it ended, in words")]
    parent: Annotated[str | None, Meta(description="the run that started it")]
    created_at: Annotated[str, Meta(description="when it was started")]
    ended_at: Annotated[str | None, Meta(description="when it ended")]
    wake_at: Annotated[str | None, Meta(description="when it goes on by itself")]
    deadline_at: Annotated[str | None, Meta(description="its deadline")]
    is_simulated: Annotated[bool, Meta(description="whether its effects are simulated: it can do nothing outside")]
    forked_from: Annotated[str | None, Meta(description="the run it was forked from")]


class HolderShape(Struct, frozen=True):
    """The process that holds a run or a claim."""

    name: Annotated[str, Meta(description="host and process id, or the name it was given")]
    pid: Annotated[int, Meta(description="its process id; 0 when it ended long ago")]
    life: Annotated[str, Meta(description="alive; expired: stopped, and may wake up; dead: proven gone")]


class StepShape(Struct, frozen=True):
    """One step of a run, in the order in which the steps began."""

    number: Annotated[int, Meta(description="the number of its first record")]
    step: Annotated[str, Meta(description="its identity in the run; empty for what concerns the run itself")]
    what: Annotated[
        str,
        Meta(
            description="start, step, decision, read, effect, event, timer, signal, child, drift, deadline, verdict or end"
        ),
    ]
    outcome: Annotated[
        str | None,
        Meta(
            description="done, not_done, unknown, repeated, conflict, denied, raised, fired, received, timed_out, "
            "expired, interrupted, or the state a run ended in; null while it is open"
        ),
    ]
    words: Annotated[str, Meta(description="the outcome in words")]
    began_at: Annotated[str, Meta(description="when its first record was written")]
    ended_at: Annotated[str | None, Meta(description="when its outcome was written")]
    value: Annotated[
        Any, Meta(description="the outcome's value; the input for the start, the arguments for an open effect")
    ]
    effect: Annotated[int | None, Meta(description="the effect's number, for `surefoot effects --id`")]
    redact: Annotated[list[str], Meta(description='parameters that are not shown, "return" for the value')]
    cost: Annotated[dict[str, float] | None, Meta(description="what a decision used, as the provider reported it")]


class SignalShape(Struct, frozen=True):
    """A signal that came and was not taken by the run's code."""

    id: Annotated[int, Meta(description="its number")]
    name: Annotated[str, Meta(description="its name")]
    payload: Annotated[Any, Meta(description="what came with it")]
    by: Annotated[str, Meta(description="who sent it")]
    at: Annotated[str, Meta(description="when it was sent")]
    dedupe: Annotated[str | None, Meta(description="the text by which it reaches the run once")]


class EffectShape(Struct, frozen=True):
    """An effect: one generation of one key in the ledger."""

    id: Annotated[int, Meta(description="its number")]
    name: Annotated[str, Meta(description="the function")]
    key: Annotated[str, Meta(description="its business key, or its place in the run")]
    scope: Annotated[str, Meta(description="where the key is unique: app, or one run")]
    generation: Annotated[int, Meta(description="counts how often the key was free to act again")]
    state: Annotated[str, Meta(description="claimed, unknown, done, not_done or compensated")]
    in_doubt: Annotated[str, Meta(description="what may be done in doubt, as declared: ask a person, resend, ...")]
    run: Annotated[str | None, Meta(description="the run that claimed it; null outside runs")]
    token: Annotated[int, Meta(description="counts its claims; a writer with an older one is refused")]
    holder: Annotated[HolderShape, Meta(description="who may act on it, or did last")]
    sender: Annotated[
        HolderShape, Meta(description="who may have sent it: the last that may still live, else the last")
    ]
    arguments: Annotated[Any, Meta(description="the call's arguments")]
    returns: Annotated[str, Meta(description="the type of its value, if not every JSON value fits it; else empty")]
    redact: Annotated[list[str], Meta(description='parameters that are not shown, "return" for the value')]
    value: Annotated[Any, Meta(description="what it returned; null while it has no outcome")]
    reason: Annotated[str, Meta(description="why it was not done, or who resolved it and how they knew")]
    claimed_at: Annotated[str, Meta(description="when it was claimed first")]
    settled_at: Annotated[str | None, Meta(description="when its outcome was recorded")]


class EvidenceShape(Struct, frozen=True):
    """One thing learned of an effect beside its first outcome."""

    id: Annotated[int, Meta(description="its number")]
    effect: Annotated[int, Meta(description="the effect's number")]
    at: Annotated[str, Meta(description="when it was noted")]
    kind: Annotated[str, Meta(description="what it is: unknown, resend, probe, late answer, resolved as done, ...")]
    who: Annotated[str, Meta(description="the process or person it comes from")]
    is_open: Annotated[bool, Meta(description="whether it contradicts the outcome and nobody has closed that yet")]
    body: Annotated[Any, Meta(description="the details")]


class UnknownShape(Struct, frozen=True):
    """An effect nobody knows the outcome of."""

    effect: Annotated[EffectShape, Meta(description="the effect")]
    why: Annotated[str, Meta(description="what was learned last, in words")]
    age_s: Annotated[float, Meta(description="seconds since it was claimed")]
    unknown_since: Annotated[str | None, Meta(description="when the doubt was noted; null while nobody has looked")]
    deadline_at: Annotated[str | None, Meta(description="when it is escalated; null unless only a person can end it")]
    is_overdue: Annotated[bool, Meta(description="whether that time has passed")]
    next: Annotated[list[Advice], Meta(description="what ends the doubt")]


class ContradictionShape(Struct, frozen=True):
    """Late evidence that disagrees with a recorded outcome."""

    effect: Annotated[EffectShape, Meta(description="the effect, with the outcome that stands")]
    evidence: Annotated[EvidenceShape, Meta(description="what came later")]
    age_s: Annotated[float, Meta(description="seconds since it came")]
    next: Annotated[list[Advice], Meta(description="what closes it")]


class StuckShape(Struct, frozen=True):
    """A run that waits for a person."""

    run: Annotated[RunShape, Meta(description="the run")]
    age_s: Annotated[float, Meta(description="seconds since its last record")]
    next: Annotated[list[Advice], Meta(description="what lets it go on")]


class AgainShape(Struct, frozen=True):
    """Something that a run has done after the step at which it is forked."""

    step: Annotated[str, Meta(description="its step")]
    name: Annotated[str, Meta(description="the effect's function, or the child's kind")]
    key: Annotated[str, Meta(description="the effect's key, or the child's id")]
    arguments: Annotated[Any, Meta(description="the effect's arguments; null for a child")]
    acts_again: Annotated[bool, Meta(description="whether an acting fork that asks for the same would do it once more")]
    words: Annotated[str, Meta(description="why, or why not")]


class ShadowShape(Struct, frozen=True):
    """An open run, walked along its journal by other code."""

    run: Annotated[str, Meta(description="its business id")]
    kind: Annotated[str, Meta(description="the durable function it executes")]
    state: Annotated[str, Meta(description="pending, running or waiting")]
    waiting_for: Annotated[str | None, Meta(description="what it waits for; blocked: it already was")]
    verdict: Annotated[
        str,
        Meta(
            description="same; drift: a model is asked in other words; divergent; unknown_kind; unreadable; "
            "acts_outside: the code opens a connection or a process outside of steps; unfinished: not within --limit"
        ),
    ]
    step: Annotated[str, Meta(description="where it diverges or drifts; else where the code stands")]
    asked: Annotated[str, Meta(description="what the code asks for there")]
    recorded: Annotated[str, Meta(description="what the journal holds there")]
    words: Annotated[str, Meta(description="the same in words")]


class NoteShape(Struct, frozen=True):
    """One thing said of an approval."""

    at: Annotated[str, Meta(description="when")]
    kind: Annotated[
        str, Meta(description="yes (one of several), approved, denied, used, withdrawn, lapsed, escalated, ...")
    ]
    who: Annotated[str, Meta(description="the person or process")]
    body: Annotated[Any, Meta(description="the reason, or details")]


class ApprovalShape(Struct, frozen=True):
    """A call that a person must approve before it acts."""

    id: Annotated[int, Meta(description="its number")]
    state: Annotated[str, Meta(description="pending, approved, denied, used, withdrawn or lapsed")]
    name: Annotated[str, Meta(description="the effect's function")]
    key: Annotated[str, Meta(description="its business key, or its place in the run")]
    arguments: Annotated[Any, Meta(description="the call's arguments: what exactly is approved")]
    redact: Annotated[list[str], Meta(description='parameters that are not shown, "return" for the value')]
    call: Annotated[str, Meta(description="digest of effect, key, generation and all arguments, which it is bound to")]
    runs: Annotated[list[str], Meta(description="the runs that wait for it")]
    asked_at: Annotated[str, Meta(description="when it was asked for")]
    age_s: Annotated[float, Meta(description="seconds since then")]
    deadline_at: Annotated[str, Meta(description="when it is escalated; nothing is decided by that")]
    is_overdue: Annotated[bool, Meta(description="whether it is pending and that time has passed")]
    by: Annotated[list[str], Meta(description="roles or names of which one may decide; empty: anybody")]
    may: Annotated[list[str], Meta(description="the people who may; empty: anybody, the store has no rules")]
    needs: Annotated[int, Meta(description="how many people must approve")]
    approved_by: Annotated[list[str], Meta(description="who has so far")]
    requester: Annotated[str, Meta(description="who may not approve it, as it is done for them; else empty")]
    notes: Annotated[list[NoteShape], Meta(description="what was said of it, in order")]
    next: Annotated[list[Advice], Meta(description="what decides it")]


class LeaseShape(Struct, frozen=True):
    """One that holds a resource, or waits for it."""

    kind: Annotated[str, Meta(description="lease, election or semaphore")]
    resource: Annotated[str, Meta(description="its name")]
    state: Annotated[str, Meta(description="held, waiting, or left: its owner is gone, and the next one takes it")]
    places: Annotated[int, Meta(description="how many may hold it at once")]
    token: Annotated[int | None, Meta(description="the fencing token that goes out; null while it waits")]
    owner: Annotated[str, Meta(description="process, run or effect: what its end gives it back")]
    holder: Annotated[str, Meta(description="who that is")]
    run: Annotated[str | None, Meta(description="the run it is for")]
    process: Annotated[str, Meta(description="the process that acts for it, or did last")]
    pid: Annotated[int, Meta(description="that process")]
    life: Annotated[str, Meta(description="alive, expired (not renewed in time) or dead")]
    asked_at: Annotated[str, Meta(description="when it was asked for")]
    since: Annotated[str | None, Meta(description="since when it is held")]
    until: Annotated[str | None, Meta(description="when whoever waits gives up; null: never")]


class EntryShape(Struct, frozen=True):
    """One decision of a person, in the trail."""

    id: Annotated[int, Meta(description="its number, from 1, without gaps")]
    at: Annotated[str, Meta(description="when")]
    act: Annotated[
        str, Meta(description="approve, deny, resolve, cancel, signal, undo, show secrets; people: new rules")
    ]
    who: Annotated[str, Meta(description="the person, as they said")]
    target: Annotated[str, Meta(description="what about: approval 7, effect 3, run ticket-991")]
    call: Annotated[str, Meta(description="digest of the call it was about; empty where there is none")]
    reason: Annotated[str, Meta(description="why, or how they knew")]
    host: Annotated[str, Meta(description="on which host")]
    pid: Annotated[int, Meta(description="in which process")]
    digest: Annotated[str, Meta(description="its seal: of all this, and of the seal before it")]


class ToolShape(Struct, frozen=True):
    """A tool that `surefoot doctor` found in code."""

    name: Annotated[str, Meta(description="what ledger and journal call it")]
    agents: Annotated[list[str], Meta(description="the agents that may ask for it")]
    doubt: Annotated[str, Meta(description="its class of doubt, read, or undeclared")]
    key: Annotated[str | None, Meta(description="its key, as declared")]
    match: Annotated[list[str], Meta(description="the parameters that must agree for one key")]
    scope: Annotated[str, Meta(description="where its key is unique: app or run; call without a key")]
    risk: Annotated[
        str, Meta(description="undeclared, no key, person, fence, writer, keys, database or read: the worst first")
    ]
    words: Annotated[str, Meta(description="what that means")]


class FindingShape(Struct, frozen=True):
    """One thing that `surefoot doctor` found."""

    severity: Annotated[str, Meta(description="error, warning or note")]
    check: Annotated[str, Meta(description="what was looked at")]
    words: Annotated[str, Meta(description="what was found, with the values")]
    next: Annotated[str | None, Meta(description="what to do about it: a command, or words")]


# -- one per command --------------------------------------------------------------------------------------------------


class RunsDocument(Struct, frozen=True):
    """`surefoot runs`."""

    runs: Annotated[list[RunShape], Meta(description="newest first")]


class ShowDocument(Struct, frozen=True):
    """`surefoot show`."""

    run: Annotated[RunShape, Meta(description="the run")]
    holder: Annotated[HolderShape | None, Meta(description="who executes it; null unless it is running")]
    input: Annotated[Any, Meta(description="its arguments by name")]
    result: Annotated[Any, Meta(description="what it returned, once it is completed")]
    error: Annotated[str | None, Meta(description="how it failed or who cancelled it")]
    steps: Annotated[list[StepShape], Meta(description="its timeline")]
    effects: Annotated[list[EffectShape], Meta(description="the effects it claimed, oldest first")]
    unread: Annotated[list[SignalShape], Meta(description="signals that its code has not taken, oldest first")]
    next: Annotated[list[Advice], Meta(description="what lets it go on; empty when it has ended well")]


class EffectsDocument(Struct, frozen=True):
    """`surefoot effects`."""

    effects: Annotated[list[EffectShape], Meta(description="newest first")]


class EffectDocument(Struct, frozen=True):
    """`surefoot effects --id`."""

    effect: Annotated[EffectShape, Meta(description="the effect")]
    evidence: Annotated[list[EvidenceShape], Meta(description="all that was learned of it, oldest first")]
    next: Annotated[list[Advice], Meta(description="what ends the doubt, if it is in doubt")]


class UnknownsDocument(Struct, frozen=True):
    """`surefoot unknowns`."""

    effects: Annotated[
        list[UnknownShape],
        Meta(description="effects nobody knows the outcome of: overdue ones, then the oldest, first"),
    ]
    contradictions: Annotated[list[ContradictionShape], Meta(description="outcomes that late evidence disagrees with")]
    runs: Annotated[list[StuckShape], Meta(description="runs that wait for the end of a doubt, or are blocked")]
    approvals: Annotated[int, Meta(description="how many approvals wait: see `surefoot approvals`")]


class ApprovalsDocument(Struct, frozen=True):
    """`surefoot approvals`."""

    approvals: Annotated[
        list[ApprovalShape], Meta(description="pending ones: the most urgent first; others: the newest first")
    ]


class LeasesDocument(Struct, frozen=True):
    """`surefoot leases`."""

    leases: Annotated[list[LeaseShape], Meta(description="by kind and name; who waits, after who holds")]


class DecisionDocument(Struct, frozen=True):
    """`surefoot approve` and `surefoot deny`."""

    approval: Annotated[ApprovalShape, Meta(description="the approval as it stands now")]


class AuditDocument(Struct, frozen=True):
    """`surefoot audit`."""

    entries: Annotated[list[EntryShape], Meta(description="decisions, oldest first")]
    head: Annotated[str, Meta(description="the last seal: it stands for the whole trail")]
    is_verified: Annotated[bool, Meta(description="whether the trail was checked")]
    problems: Annotated[list[str], Meta(description="what is wrong with it, in words")]


class ResolveDocument(Struct, frozen=True):
    """`surefoot resolve`."""

    effect: Annotated[EffectShape, Meta(description="the effect as it stands now")]


class SignalDocument(Struct, frozen=True):
    """`surefoot signal`."""

    run: Annotated[RunShape, Meta(description="the run as it was when the signal had been sent")]
    signal: Annotated[str, Meta(description="its name")]
    is_new: Annotated[bool, Meta(description="false if the same --dedupe had been sent before")]


class CancelDocument(Struct, frozen=True):
    """`surefoot cancel`."""

    run: Annotated[RunShape, Meta(description="the run as it was when it had been asked to stop")]


class OutcomeDocument(Struct, frozen=True):
    """`surefoot run`, and `surefoot undo`, whose run is the undo."""

    run: Annotated[RunShape, Meta(description="the run as it was in the end")]
    result: Annotated[Any, Meta(description="what it returned, once it is completed")]
    error: Annotated[str | None, Meta(description="how it failed or who cancelled it")]
    next: Annotated[list[Advice], Meta(description="what lets it go on, if it has not ended")]


class WorkerDocument(Struct, frozen=True):
    """`surefoot worker`, when it ends."""

    name: Annotated[str, Meta(description="its name in the ledger")]
    store: Annotated[str, Meta(description="the store's URL")]
    kinds: Annotated[list[str], Meta(description="the durable functions it could execute")]
    stopped_by: Annotated[str, Meta(description="SIGINT, SIGTERM, or what went wrong")]
    handed_back: Annotated[list[str], Meta(description="runs it was executing, free for the next worker")]


class ForkDocument(Struct, frozen=True):
    """`surefoot fork`."""

    run: Annotated[RunShape, Meta(description="the new run")]
    again: Annotated[list[AgainShape], Meta(description="what its source did after the step, in its order")]


class DeployDocument(Struct, frozen=True):
    """`surefoot check-deploy`."""

    is_fine: Annotated[bool, Meta(description="whether it ends with 0")]
    counts: Annotated[dict[str, int], Meta(description="how many runs there are of each verdict")]
    runs: Annotated[list[ShadowShape], Meta(description="all open runs, oldest first")]


class ModelDocument(Struct, frozen=True):
    """`surefoot model pull`."""

    path: Annotated[str, Meta(description="the file with the weights")]


class DoctorDocument(Struct, frozen=True):
    """`surefoot doctor`."""

    target: Annotated[str, Meta(description="what was looked at, as it was named")]
    store: Annotated[str | None, Meta(description="the store's URL; null for code without one")]
    checks: Annotated[list[str], Meta(description="the checks that were made")]
    findings: Annotated[list[FindingShape], Meta(description="errors first, then warnings, then notes")]
    tools: Annotated[list[ToolShape], Meta(description="of code: all tools, the worst first; empty for a store")]


class GroupShape(Struct, frozen=True):
    """A group that acts on the events of a topic."""

    topic: Annotated[str, Meta(description="the topic")]
    group: Annotated[str, Meta(description="its name")]
    behind: Annotated[int, Meta(description="events that it was not brought yet")]
    oldest_s: Annotated[float | None, Meta(description="how long ago the oldest of them was published, in seconds")]
    started: Annotated[int, Meta(description="events that its runs are at, or wait to be")]
    dead: Annotated[int, Meta(description="its dead letters")]


class LetterShape(Struct, frozen=True):
    """A dead letter: an event that a group could not act on."""

    event: Annotated[int, Meta(description="the event's number")]
    topic: Annotated[str, Meta(description="its topic")]
    id: Annotated[str, Meta(description="its id")]
    key: Annotated[str | None, Meta(description="what it is about")]
    group: Annotated[str, Meta(description="the group")]
    attempt: Annotated[int, Meta(description="how often the group was brought it")]
    run: Annotated[str | None, Meta(description="the run that failed; null where none could be started")]
    reason: Annotated[str, Meta(description="why, in words")]
    at: Annotated[str, Meta(description="when")]
    value: Annotated[Any, Meta(description="what the event says")]
    next: Annotated[list[Advice], Meta(description="what to do")]


class EventsDocument(Struct, frozen=True):
    """`surefoot events`."""

    groups: Annotated[list[GroupShape], Meta(description="all groups, by topic and name")]
    dead: Annotated[list[LetterShape], Meta(description="dead letters, oldest first")]


class LetterDocument(Struct, frozen=True):
    """`surefoot redeliver` and `surefoot discard`."""

    event: Annotated[int, Meta(description="the event's number")]
    group: Annotated[str, Meta(description="the group")]
    state: Annotated[str, Meta(description="again or discarded")]


class DroppedDocument(Struct, frozen=True):
    """`surefoot drop-group`."""

    topic: Annotated[str, Meta(description="the topic")]
    group: Annotated[str, Meta(description="the group that is no more")]
    behind: Annotated[int, Meta(description="events that it was never brought")]
    started: Annotated[int, Meta(description="events that its runs are at; the runs stay")]
    dead: Annotated[int, Meta(description="dead letters that went with it")]


class GcDocument(Struct, frozen=True):
    """`surefoot gc`."""

    is_dry_run: Annotated[bool, Meta(description="whether it was only counted")]
    before: Annotated[str, Meta(description="what ended before this was swept")]
    runs: Annotated[int, Meta(description="runs whose records were deleted")]
    effects: Annotated[int, Meta(description="effects whose arguments and values were deleted; their keys stay")]
    records: Annotated[int, Meta(description="records that were deleted")]
    events: Annotated[int, Meta(description="events that say nothing any more; their ids stay")]
    bytes_before: Annotated[int, Meta(description="the database's size before")]
    bytes_after: Annotated[int, Meta(description="its size after; the file has it after the next checkpoint")]


class BackupDocument(Struct, frozen=True):
    """`surefoot backup`."""

    path: Annotated[str, Meta(description="the backup")]
    bytes: Annotated[int, Meta(description="its size")]
    taken_at: Annotated[str, Meta(description="all that was acknowledged before is in it")]


class RestoreDocument(Struct, frozen=True):
    """`surefoot restore`."""

    store: Annotated[str, Meta(description="the URL of the restored store")]
    incarnation: Annotated[
        int, Meta(description="its number; tokens begin with it, and so are above those of the old store")
    ]
    lost_since: Annotated[str, Meta(description="what was done from here on, the store doesn't know")]
    open_runs: Annotated[int, Meta(description="runs that go on as soon as a worker has them")]
    unknown_effects: Annotated[int, Meta(description="effects that are in doubt now")]


class TrustDocument(Struct, frozen=True):
    """`surefoot trust`."""

    restores: Annotated[int, Meta(description="how many restores it was said of; 0 if there was nothing to say")]


class RotateDocument(Struct, frozen=True):
    """`surefoot rotate-keys`."""

    rows: Annotated[int, Meta(description="rows that were written anew under the current key")]


SHARED: tuple[type[Struct], ...] = (
    RunShape, HolderShape, StepShape, SignalShape, EffectShape, EvidenceShape, UnknownShape, ContradictionShape,
    StuckShape, AgainShape, ShadowShape, ApprovalShape, GroupShape, LetterShape,
    NoteShape, EntryShape, Advice, FindingShape, ToolShape,
)  # fmt: skip
"""The shapes that documents are made of."""

DOCUMENTS: dict[str, tuple[type[Struct], ...]] = {
    "run": (OutcomeDocument,),
    "worker": (WorkerDocument,),
    "runs": (RunsDocument,),
    "show": (ShowDocument,),
    "signal": (SignalDocument,),
    "cancel": (CancelDocument,),
    "undo": (OutcomeDocument,),
    "effects": (EffectsDocument, EffectDocument),
    "unknowns": (UnknownsDocument,),
    "approvals": (ApprovalsDocument,),
    "leases": (LeasesDocument,),
    "audit": (AuditDocument,),
    "events": (EventsDocument,),
    "approve": (DecisionDocument,),
    "deny": (DecisionDocument,),
    "resolve": (ResolveDocument,),
    "redeliver": (LetterDocument,),
    "discard": (LetterDocument,),
    "drop-group": (DroppedDocument,),
    "check-deploy": (DeployDocument,),
    "fork": (ForkDocument,),
    "model pull": (ModelDocument,),
    "doctor": (DoctorDocument,),
    "gc": (GcDocument,),
    "backup": (BackupDocument,),
    "restore": (RestoreDocument,),
    "trust": (TrustDocument,),
    "rotate-keys": (RotateDocument,),
}
"""What each command prints with `--json`."""


def to_json(document: Struct) -> str:
    """Return the document as JSON of ASCII characters only, so that it is safe on any terminal and in any encoding."""
    return json.dumps(msgspec.to_builtins(document), indent=2)


def fields_of(shape: type[Struct]) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and meaning of a shape's fields, for people."""
    for name, hint in typing.get_type_hints(shape, include_extras=True).items():
        declared, meta = typing.get_args(hint)
        yield name, _type_words(declared), meta.description


def title_of(shape: type[Struct]) -> str:
    """Return the name of a shape as it is written in help and docs."""
    return shape.__name__.removesuffix("Shape").removesuffix("Document") + (
        " document" if shape.__name__.endswith("Document") else ""
    )


def _type_words(declared: Any) -> str:
    if declared is Any:
        return "any JSON"
    if declared is type(None):
        return "null"
    if typing.get_origin(declared) is list:
        return f"list of {_type_words(typing.get_args(declared)[0])}"
    if typing.get_origin(declared) is dict:
        return "object of numbers"
    parts = typing.get_args(declared)
    if parts:
        return " or ".join(_type_words(part) for part in parts)
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names[declared] if declared in names else title_of(declared)
