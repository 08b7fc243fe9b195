"""The shapes of what `surefoot doctor` finds."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class FindingShape(Struct, frozen=True):
    """One thing that `surefoot doctor` found."""

    severity: Annotated[str, Meta(description="error, warning or note")]
    check: Annotated[str, Meta(description="what was looked at")]
    words: Annotated[str, Meta(description="what was found, with the values")]
    next: Annotated[str | None, Meta(description="what to do about it: a command, or words")]


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


class DoctorDocument(Struct, frozen=True):
    """`surefoot doctor`."""

    target: Annotated[str, Meta(description="what was looked at, as it was named")]
    store: Annotated[str | None, Meta(description="the store's URL; null for code without one")]
    checks: Annotated[list[str], Meta(description="the checks that were made")]
    findings: Annotated[list[FindingShape], Meta(description="errors first, then warnings, then notes")]
    tools: Annotated[list[ToolShape], Meta(description="of code: all tools, the worst first; empty for a store")]
