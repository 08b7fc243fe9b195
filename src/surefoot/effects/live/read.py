"""Reads: run when asked, recorded once, never claimed."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from surefoot.effects.classify import describe
from surefoot.effects.keys import BadEffect
from surefoot.effects.outcome import Outcome, told_to_model
from surefoot.effects.spec import Bound, EffectSpec
from surefoot.effects.versions import Look, Seen, remember, remembered, version_of
from surefoot.journal import Kind, Record, Step, current_frame
from surefoot.journal.records import Head


async def perform_read(spec: EffectSpec, bound: Bound, key: str | None) -> Outcome:
    """Run a read, or return what was recorded of it; in a run, an error is recorded like an answer."""
    frame, thing = current_frame.get(), spec.thing_of(bound)
    if frame is None:
        return Outcome("done", value=(await _call(spec, bound, thing))[0])
    data, bound = spec.record(bound)
    arguments = data.decode()
    step = frame.open_step(spec.name, key)
    try:
        if step.ended is not None:
            outcome = await _replay(spec, step, step.ended, arguments)
        else:
            outcome = await _read(spec, step, bound, arguments, thing)
        if thing is not None and outcome.told == "done":
            frame.seen[thing] = _look(spec, bound, outcome.value)
        return outcome
    except BaseException as error:
        step.interrupt(describe(error))
        raise
    finally:
        step.close()


async def _replay(spec: EffectSpec, step: Step, recorded: Record, arguments: str) -> Outcome:
    if recorded.kind is Kind.INTERRUPTED:  # its task was cancelled then, and will be again
        await asyncio.Event().wait()
    if recorded.head.detail != arguments:
        step.raise_divergence(f"{spec.name}({arguments})", f"{spec.name}({recorded.head.detail})")
    if recorded.kind is Kind.NOT_DONE:
        return Outcome("not_done", reason=recorded.head.reason)
    return Outcome("done", value=None if recorded.body is None else spec.codec.load(recorded.body))


async def _read(spec: EffectSpec, step: Step, bound: Bound, arguments: str, thing: str | None) -> Outcome:
    try:
        with step.inside():
            value, is_remembered = await _call(spec, bound, thing)
        body, copy = spec.codec.dump(value)
    except Exception as error:
        reason = describe(error)
        _record(step, Kind.NOT_DONE, Head(name=spec.name, reason=reason, detail=arguments), None)
        return Outcome("not_done", reason=reason)
    _record(step, Kind.READ, Head(detail=arguments, state="remembered" if is_remembered else ""), body)
    return Outcome("done", value=copy)


async def _call(spec: EffectSpec, bound: Bound, thing: str | None) -> tuple[Any, bool]:
    """Return what the read gives, and whether that is only what this process remembers of it."""
    token = told_to_model.set(None)  # what the read's own code calls is told to that code, not to a model
    try:
        async with asyncio.timeout(spec.timeout_s):
            value = await spec.call(bound)
    except Exception:
        kept = remembered(f"{spec.name} {thing}") if spec.consistency == "available" else None
        if kept is None:
            raise
        return spec.codec.load(kept), True
    finally:
        told_to_model.reset(token)
    if spec.consistency == "available":
        remember(f"{spec.name} {thing}", spec.codec.dump(value)[0])
    return value, False


def _look(spec: EffectSpec, bound: Bound, value: Any) -> Look:
    """Return what a run has seen of a thing, and how to look at it again: never at what is only remembered."""

    async def again() -> tuple[str, Any]:
        async with asyncio.timeout(spec.timeout_s):
            now = await spec.call(bound)
        body, copy = spec.codec.dump(now)
        return version_of(copy, spec.version, spec.name), msgspec.json.decode(body)

    body, copy = spec.codec.dump(value)
    return Look(version_of(copy, spec.version, spec.name), msgspec.json.decode(body), again)


async def see(spec: EffectSpec, bound: Bound) -> Seen[Any]:
    """Read a thing outside runs, with its version."""
    thing = spec.thing_of(bound)
    assert thing is not None, "only versioned reads have this"
    if current_frame.get() is not None:
        raise BadEffect(
            f"read {spec.name}: in a run its version is kept by the run", hint=f"call {spec.name}(...) itself"
        )
    value, is_remembered = await _call(spec, bound, thing)
    look = _look(spec, bound, value)
    return Seen(thing, look.version, value, look, is_remembered)


def _record(step: Step, kind: Kind, head: Head, body: bytes | None) -> None:
    record = step.draft(kind, head=head, body=body)
    step.append(lambda tx: step.write(tx, record), "read", len(body or b""))
    step.end(record)
