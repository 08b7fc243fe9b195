"""The commands about approvals and the trail: `approvals`, `approve`, `deny`, `audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from surefoot.approvals import State
from surefoot.cli import questions
from surefoot.cli.exits import ExitCode, WrongUsage
from surefoot.cli.inputs import countable, one_of
from surefoot.cli.place import (
    HOW,
    YOU,
    ByOption,
    Desk,
    JsonOption,
    ModuleOption,
    SecretsOption,
    StoreOption,
    WhyOption,
    asked_secrets,
    at_desk,
    refuse_program,
)
from surefoot.cli.runs import FullOption, LimitOption
from surefoot.cli.screen import emit, say
from surefoot.cli.shapes.people import ApprovalsDocument, AuditDocument, DecisionDocument

STATES = tuple(state.name.lower() for state in State)

ApprovalArgument = Annotated[
    int,
    typer.Argument(metavar="APPROVAL", callback=countable, help="The approval's number, from `surefoot approvals`."),
]


def approvals(
    *,
    state: Annotated[
        str, typer.Option(metavar="STATE", callback=one_of((*STATES, "all")), help=f"{', '.join(STATES)} or all.")
    ] = "pending",
    approval: Annotated[
        int | None,
        typer.Option(
            "--id", metavar="APPROVAL", callback=countable, help="One approval, with all that was said of it."
        ),
    ] = None,
    limit: LimitOption = 50,
    is_full: FullOption = False,
    is_secret: SecretsOption = False,
    by: ByOption = None,
    reason: WhyOption = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """List what waits for an approval: what exactly, since when, who may decide, and until when.

    The most urgent come first. What nobody waits for any more is left out: its run has ended or was
    cancelled, or its code went on.
    """
    target = "approvals" if approval is None else f"approval {approval}"
    secrets = asked_secrets(target, is_secret=is_secret, by=by, reason=reason)

    async def work(desk: Desk) -> None:
        sessions, now_ms = desk.app.worker.sessions, desk.now_ms
        wanted = None if state == "all" else State[state.upper()]
        if approval is None:
            found = await desk.read(
                lambda connection: questions.list_approvals(
                    connection, sessions, now_ms, desk.command, state=wanted, limit=limit
                )
            )
        else:
            found = [
                await desk.read(
                    lambda connection: questions.get_approval(connection, sessions, now_ms, desk.command, approval)
                )
            ]
        document = desk.seen(ApprovalsDocument(found))
        if is_json:
            return emit(document)
        if not document.approvals:
            return say("nothing waits for an approval" if state == "pending" else f"no approval is {state}")
        return questions.show_approvals(document.approvals, is_full=is_full or approval is not None)

    at_desk(store, work, secrets)


def approve(
    *,
    approval: ApprovalArgument,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept for ever.")],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who decides; kept for ever.")],
    module: ModuleOption = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Say yes: the call that asks acts, once, with the arguments that it showed.

    Other arguments are another approval. Whoever waits goes on at once. Your name is a claim that is recorded in the
    trail; who may decide is what the app's sf.People(...) says, if it says anything.
    """
    _decide(approval, is_yes=True, by=by, reason=reason, module=module, store=store, is_json=is_json)


def deny(
    *,
    approval: ApprovalArgument,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; whoever asks is told. Kept for ever.")],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who decides; kept for ever.")],
    module: ModuleOption = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Say no: the call is told that it is denied, and why, and does nothing.

    An approval that was given can be taken back with this until it is used.
    """
    _decide(approval, is_yes=False, by=by, reason=reason, module=module, store=store, is_json=is_json)


def _decide(
    approval: int, *, is_yes: bool, by: str, reason: str, module: str | None, store: str | None, is_json: bool
) -> None:
    refuse_placeholders(by, reason)
    refuse_program(by)

    async def work(desk: Desk) -> None:
        act = desk.app.approve if is_yes else desk.app.deny
        await act(approval, by=by, reason=reason)
        sessions, now_ms = desk.app.worker.sessions, desk.now_ms
        after = await desk.read(
            lambda connection: questions.get_approval(connection, sessions, now_ms, desk.command, approval)
        )
        if is_json:
            return emit(desk.seen(DecisionDocument(after)))
        if after.state == "pending":
            missing = after.needs - len(after.approved_by)
            return say(f"approval {approval} ({after.key}): noted; {missing} more must approve it")
        goes_on = f". Run {', '.join(after.runs)} goes on with the next free worker" if after.runs else ""
        return say(f"approval {approval} ({after.key}) is {'approved' if is_yes else 'denied'}{goes_on}")

    at_desk(store, work, module=module)


def refuse_placeholders(by: str, reason: str) -> None:
    """Refuse the words that a suggested command has in the place of a name and a reason."""
    if by == YOU or reason == HOW:
        raise WrongUsage(f"{YOU} and {HOW} stand for your own words", hint="who decided, and how do they know?")


def audit(
    *,
    limit: LimitOption = 50,
    is_verify: Annotated[
        bool, typer.Option("--verify", help="Check that no entry was changed, taken out or put in; exit code 1 if so.")
    ] = False,
    noted: Annotated[
        str | None,
        typer.Option("--head", metavar="DIGEST", help="With --verify: a seal you noted earlier, which must be in it."),
    ] = None,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Show the trail of decisions: who approved, denied, resolved, cancelled, undid or signalled what, when and why.

    Each entry is sealed with the one before it. The last seal stands for all of them: note it elsewhere, for whoever can
    write the file could write the whole trail anew.
    """
    if noted is not None and not is_verify:
        raise WrongUsage("--head goes with --verify", hint="surefoot audit --verify --head DIGEST")

    async def work(desk: Desk) -> AuditDocument:
        document = await desk.read(
            lambda connection: questions.audit(connection, limit, is_verify=is_verify, noted=noted)
        )
        document = desk.seen(document)
        if is_json:
            emit(document)
        else:
            questions.show_audit(document)
        return document

    document = at_desk(store, work)
    if document.problems:
        raise typer.Exit(ExitCode.FAILED)


__all__ = ["approvals", "approve", "audit", "deny", "refuse_placeholders"]
