"""The shapes of runs under other code: forks, and open runs walked before a deploy."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from surefoot.cli.shapes.runs import RunShape


class AgainShape(Struct, frozen=True):
    """Something that a run has done after the step at which it is forked."""

    step: Annotated[str, Meta(description="its step")]
    name: Annotated[str, Meta(description="the effect's function, the child's kind, or the event's topic")]
    key: Annotated[str, Meta(description="the effect's key, or the id of the child or the event")]
    arguments: Annotated[Any, Meta(description="the effect's arguments; null for others")]
    acts_again: Annotated[bool, Meta(description="whether an acting fork that asks for the same would do it once more")]
    words: Annotated[str, Meta(description="why, or why not")]


class ForkDocument(Struct, frozen=True):
    """`surefoot fork`."""

    run: Annotated[RunShape, Meta(description="the new run")]
    again: Annotated[list[AgainShape], Meta(description="what its source did after the step, in its order")]


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


class DeployDocument(Struct, frozen=True):
    """`surefoot check-deploy`."""

    is_fine: Annotated[bool, Meta(description="whether it ends with 0")]
    counts: Annotated[dict[str, int], Meta(description="how many runs there are of each verdict")]
    runs: Annotated[list[ShadowShape], Meta(description="all open runs, oldest first")]
