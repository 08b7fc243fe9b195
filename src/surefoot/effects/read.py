"""Reads: run when asked, recorded once, never claimed."""

from __future__ import annotations

import asyncio
from typing import Any

from surefoot.effects.classify import describe
from surefoot.effects.outcome import Outcome, told_to_model
from surefoot.effects.spec import Bound, EffectSpec
from surefoot.journal import Kind, Record, Step, current_frame
from surefoot.journal.records import Head


async def perform_read(spec: EffectSpec, bound: Bound, key: str | None) -> Outcome:
    """Run a read, or return what was recorded of it; in a run, an error is recorded like an answer."""
    frame = current_frame.get()
    if frame is None:
        return Outcome("done", value=await _call(spec, bound))
    data, bound = spec.record(bound)
    arguments = data.decode()
    step = frame.open_step(spec.name, key)
    try:
        if step.ended is not None:
            return await _replay(spec, step, step.ended, arguments)
        return await _read(spec, step, bound, arguments)
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


async def _read(spec: EffectSpec, step: Step, bound: Bound, arguments: str) -> Outcome:
    try:
        with step.inside():
            value = await _call(spec, bound)
        body, copy = spec.codec.dump(value)
    except Exception as error:
        reason = describe(error)
        _record(step, Kind.NOT_DONE, Head(name=spec.name, reason=reason, detail=arguments), None)
        return Outcome("not_done", reason=reason)
    _record(step, Kind.READ, Head(detail=arguments), body)
    return Outcome("done", value=copy)


async def _call(spec: EffectSpec, bound: Bound) -> Any:
    token = told_to_model.set(None)  # what the read's own code calls is told to that code, not to a model
    try:
        async with asyncio.timeout(spec.timeout_s):
            return await spec.call(bound)
    finally:
        told_to_model.reset(token)


def _record(step: Step, kind: Kind, head: Head, body: bytes | None) -> None:
    record = step.draft(kind, head=head, body=body)
    step.append(lambda tx: step.write(tx, record), "read", len(body or b""))
    step.end(record)
