"""The shapes of what people decide: approvals, and the trail."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from surefoot.cli.shapes.parts import Advice


class NoteShape(Struct, frozen=True):
    """One thing said of an approval."""

    at: Annotated[str, Meta(description="when")]
    kind: Annotated[
        str,
        Meta(description="yes (one of several), approved, denied, used, returned, withdrawn, lapsed, escalated, ..."),
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


class ApprovalsDocument(Struct, frozen=True):
    """`surefoot approvals`."""

    approvals: Annotated[
        list[ApprovalShape], Meta(description="pending ones: the most urgent first; others: the newest first")
    ]


class DecisionDocument(Struct, frozen=True):
    """`surefoot approve` and `surefoot deny`."""

    approval: Annotated[ApprovalShape, Meta(description="the approval as it stands now")]


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


class AuditDocument(Struct, frozen=True):
    """`surefoot audit`."""

    entries: Annotated[list[EntryShape], Meta(description="decisions, oldest first")]
    head: Annotated[str, Meta(description="the last seal: it stands for the whole trail")]
    is_verified: Annotated[bool, Meta(description="whether the trail was checked")]
    problems: Annotated[list[str], Meta(description="what is wrong with it, in words")]
