"""What to do next: for each state of a run and of an effect, the words and the command, as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from surefoot.cli.place import HOW, YOU
from surefoot.cli.shapes.effects import EffectShape
from surefoot.cli.shapes.parts import Advice, HolderShape
from surefoot.cli.shapes.runs import RunShape
from surefoot.cli.words import one_line

Command = Callable[..., str]
"""Builds a command to type from its words; see `place.command`."""

BY_PERSON = ("--by", YOU, "--reason", HOW)

FINDS_OUT = {
    "resend": "sends it again under the same key",
    "overwrite": "sends it again with its precondition",
    "probe": "asks the service, once no earlier request can still land",
    "read": "asks again",
    "transactional": "looks for its receipt, and acts again once there can be none",
}
"""What a worker does by itself about an effect in doubt, by its class."""


def for_effect(effect: EffectShape, command: Command) -> list[Advice]:
    """Return what ends the doubt about an effect; nothing for one that has its outcome."""
    if effect.state not in ("claimed", "unknown"):
        return []
    if effect.state == "claimed" and effect.holder.life == "alive":
        return [Advice(f"{effect.holder.name} acts on it right now", None)]
    steps = []
    if effect.in_doubt in FINDS_OUT:
        steps.append(Advice(f"a worker {FINDS_OUT[effect.in_doubt]}", command("worker", "MODULE")))
    number, sender = str(effect.id), effect.sender
    is_gone = sender.life == "dead"
    landed = "if it did not" if is_gone else f"if it did not, and nothing that {sender.name} has sent can still land"
    fence = () if is_gone else ("--fence-passed",)
    typed = ("--value", "[JSON]", "--module", "MODULE") if effect.returns else ()
    return [
        *steps,
        Advice("look at the service; if it happened", command("resolve", number, "--done", *typed, *BY_PERSON)),
        Advice(landed, command("resolve", number, "--not-done", *fence, *BY_PERSON)),
    ]


def for_contradiction(effect: EffectShape, command: Command) -> list[Advice]:
    """Return what closes a contradiction: the outcome stands, and somebody has seen to the rest."""
    which = "--not-done" if effect.state == "not_done" else "--done"
    resolve = command("resolve", str(effect.id), which, *BY_PERSON)
    return [Advice("put it right at the service; the recorded outcome stands. Then close it", resolve)]


def for_run(
    run: RunShape, holder: HolderShape | None, effects: Sequence[EffectShape], command: Command
) -> list[Advice]:
    """Return what lets a run go on.

    Args:
        run: The run.
        holder: Who executes it, if it is running.
        effects: The effects it claimed or waits for.
        command: How to write a command.
    """
    if run.state == "pending":
        return [Advice("it goes on as soon as a worker that knows it has room", command("worker", "MODULE"))]
    if run.state == "scheduled" and run.reason:
        return [_known(command)]
    if run.state == "scheduled":
        return [Advice(f"it begins at {run.wake_at}, or later", None)]
    if run.state == "queued":
        return [Advice("it begins when those of its key before it have ended", command("runs", "--state", "waiting"))]
    if run.state == "running" and holder is not None and holder.life != "alive":
        return [Advice("the next worker that knows it takes it over", command("worker", "MODULE"))]
    if run.state == "failed":
        return [Advice("its end stands; to do the work again, start it under another id", None)]
    if run.state != "waiting":
        return []
    is_timed = run.wake_at is not None and run.waiting_for != "blocked"
    by_itself = [Advice(f"it goes on by itself at {run.wake_at}", None)] if is_timed else []
    return [*_for_wait(run, effects, command), *by_itself]


def _known(command: Command) -> Advice:
    return Advice("start a worker that knows its kind", command("worker", "MODULE"))


def _for_wait(run: RunShape, effects: Sequence[EffectShape], command: Command) -> list[Advice]:
    wake = command("signal", run.id, "wake")
    match run.waiting_for:
        case "signal":
            name = run.reason.removeprefix("signal ").partition("; ")[0]
            return [Advice("send what it waits for", command("signal", run.id, name, "[JSON]"))]
        case "approval":
            number = run.reason.partition(" of ")[0].removeprefix("approval ")
            if not number.isdigit():
                return [Advice("see what waits for an approval", command("approvals"))]
            return [
                Advice("see what exactly is asked", command("approvals", "--id", number)),
                Advice("if it is right", command("approve", number, *BY_PERSON)),
                Advice("if it is not", command("deny", number, *BY_PERSON)),
            ]
        case "child":
            return [Advice("see what its child does", command("show", run.reason.removeprefix("child ")))]
        case "doubt":
            open_ones = [effect for effect in effects if effect.state in ("claimed", "unknown")]
            if open_ones:
                return [advice for effect in open_ones for advice in for_effect(effect, command)]
            return [Advice("its doubt has ended: let it look again", wake)]
        case "blocked" if run.wake_at is not None:  # due at once, for whoever knows its kind
            return [_known(command)]
        case "blocked":
            return [Advice("mend the code or bring back the one it began with, restart its worker, then wake it", wake)]
        case "lease":
            return [Advice("see who holds it", command("leases"))]
        case "timer":
            return []
        case _:
            return [Advice("when that has changed, let it look again", wake)]


WAITS = {"blocked": "blocked", "doubt": "in doubt"}
"""How waiting for something is said, where "waiting for ..." would be odd."""


def waits_words(run: RunShape) -> str:
    """Return where a run is, and for a waiting one why, in one line."""
    if run.state == "scheduled" and run.reason:
        return f"scheduled for {run.wake_at}: {about(run)}"
    return about(run) if run.waiting_for else run.state


def about(run: RunShape) -> str:
    """Return what a run waits for or how it ended; what the reason already names is not said twice."""
    if run.waiting_for is None:
        return "" if run.state in ("pending", "running") else one_line(run.reason)  # else that of an earlier wait
    waits = WAITS.get(run.waiting_for)
    reason = one_line(run.reason).removeprefix(f"{run.waiting_for}: ")
    if waits is None:
        return f"waiting for {reason if reason.startswith(run.waiting_for) else f'{run.waiting_for}: {reason}'}"
    return f"{waits}: {reason}"
