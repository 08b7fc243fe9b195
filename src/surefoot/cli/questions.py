"""Approvals and the trail as documents, and as text for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from surefoot.approvals import ApprovalNotFound, ApprovalView, State, desk, tables
from surefoot.cli.advice import BY_PERSON
from surefoot.cli.screen import fields, heading, line, say
from surefoot.cli.shapes.parts import Advice
from surefoot.cli.shapes.people import ApprovalShape, AuditDocument, EntryShape, NoteShape
from surefoot.cli.show import show_advice
from surefoot.cli.words import VALUE_CHARS_MAX, moment, one_line, shorten, span_words, value_words
from surefoot.leases import Sessions
from surefoot.people import trail
from surefoot.runs.rows.desk import is_open
from surefoot.runs.rows.tables import get_run
from surefoot.store.connection import Connection

Command = Callable[..., str]

SHOWN_DIGITS = 16
"""Digits of a digest that a person compares; `--json` has all."""


def list_approvals(
    connection: Connection, sessions: Sessions, now_ms: int, command: Command, *, state: State | None, limit: int
) -> list[ApprovalShape]:
    """Return approvals: pending ones the most urgent first, else the newest first."""
    views = desk.list_approvals(connection, sessions, is_open, state=state, limit=limit)
    return [_shape(connection, view, now_ms, command) for view in views]


def get_approval(
    connection: Connection, sessions: Sessions, now_ms: int, command: Command, approval: int
) -> ApprovalShape:
    """Return an approval by its number.

    Raises:
        ApprovalNotFound: There is none.
    """
    row = tables.get(connection, approval)
    if row is None:
        raise ApprovalNotFound(f"there is no approval {approval} in {connection.filename}", hint=command("approvals"))
    return _shape(connection, desk.view(connection, sessions, is_open, row), now_ms, command)


def _shape(connection: Connection, view: ApprovalView, now_ms: int, command: Command) -> ApprovalShape:
    rules, rule = trail.rules(connection), view.rule
    able = [] if rules is None else sorted({name for one in rule.by or (None,) for name in rules.who(one)})
    is_pending = view.state == "pending"
    return ApprovalShape(
        id=view.id,
        state=view.state,
        name=view.name,
        key=view.key,
        arguments=view.arguments,
        redact=list(view.redact),
        call=view.call,
        runs=[get_run(connection, run).run_id for run in view.runs],
        asked_at=moment(view.asked_at_ms) or "",
        age_s=max(0, now_ms - view.asked_at_ms) / 1_000,
        deadline_at=moment(view.deadline_ms) or "",
        is_overdue=is_pending and view.deadline_ms <= now_ms,
        by=list(rule.by),
        may=[name for name in able if name != rule.requester],
        needs=rule.count,
        approved_by=view.approved_by,
        requester=rule.requester,
        notes=[NoteShape(moment(note.at_ms) or "", note.kind, note.who, note.body) for note in view.notes],
        next=_advice(view, command),
    )


def _advice(view: ApprovalView, command: Command) -> list[Advice]:
    number = str(view.id)
    if view.state == "approved":
        return [Advice("to take it back until it is used", command("deny", number, *BY_PERSON))]
    if view.state != "pending" or not view.is_waited_for:
        return []
    return [
        Advice("if it is right", command("approve", number, *BY_PERSON)),
        Advice("if it is not", command("deny", number, *BY_PERSON)),
    ]


def audit(connection: Connection, limit: int, *, is_verify: bool, noted: str | None) -> AuditDocument:
    """Return the trail, checked if that was asked for."""
    problems = [*trail.verify(connection, noted), *desk.untold(connection)] if is_verify else []
    entries = [
        EntryShape(one.id, moment(one.at_ms) or "", one.act, one.who, one.target, one.call.hex(), one.reason, one.host,
                   one.pid, one.digest.hex())
        for one in trail.entries(connection, limit=limit)
    ]  # fmt: skip
    return AuditDocument(entries, trail.head(connection), is_verify, problems)


def show_approvals(approvals: Sequence[ApprovalShape], *, is_full: bool) -> None:
    """Print approvals, each with what exactly is asked."""
    limit = None if is_full else VALUE_CHARS_MAX
    for place, one in enumerate(approvals):
        if place:
            line("")
        heading(f"approval {one.id}: {one.name}, {one_line(one.key)}")
        facts = [("state", one.state if not one.is_overdue else f"{one.state}, overdue since {one.deadline_at}")]
        facts += [("arguments", value_words(one.arguments, limit))]
        facts += [("call", one.call[:SHOWN_DIGITS])]
        facts += [("run", ", ".join(map(one_line, one.runs)))] if one.runs else []
        facts += [("asked", f"{one.asked_at}, {span_words(int(one.age_s * 1_000))} ago")]
        facts += [("deadline", one.deadline_at)] if one.state == "pending" else []
        facts += [("who may", _who_may(one))]
        facts += [("so far", f"{len(one.approved_by)} of {one.needs}: {', '.join(one.approved_by)}")] * (one.needs > 1)
        facts += [(f"{note.kind}", _note(note, limit)) for note in one.notes]
        fields(facts)
        show_advice(one.next, f"next, approval {one.id}")


def _who_may(one: ApprovalShape) -> str:
    role = " or ".join(one.by) if one.by else "anybody"
    if one.may:
        role = f"{role}: {', '.join(one.may)}" if one.by else ", ".join(one.may)
    elif one.by:
        role += " (the store has no rules, so any name is taken; see sf.People)"
    return role + (f"; not {one.requester}, who it is for" if one.requester else "")


def _note(note: NoteShape, limit: int | None) -> str:
    body = "" if note.body is None else note.body if isinstance(note.body, str) else value_words(note.body, limit)
    return f"{note.at}  {one_line(note.who)}" + (f": {shorten(one_line(body), limit)}" if body else "")


def show_audit(document: AuditDocument) -> None:
    """Print the trail, and what is wrong with it."""
    for one in document.entries:
        heading(f"{one.id}  {one.at}  {one_line(one.who)}: {one.act} {one_line(one.target)}")
        fields([("reason", one_line(one.reason)), ("from", f"{one.host}, pid {one.pid}")])
    if not document.entries:
        say("nobody has decided anything yet")
    line(f"seal {document.head}")
    for problem in document.problems:
        say(problem, style="bold red")
    if document.is_verified and not document.problems:
        say("the trail is whole")
