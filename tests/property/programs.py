"""What is run in a schedule: runs that are made of data.

A run's input is a list of operations, so that any program can be drawn, kept in the journal and made smaller. An operation
is a word and what goes with it; some hold others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from tests.property.effects import EFFECTS, OUTSIDE, thing
from tests.property.outside import Outside, enter, outside

import surefoot as sf
from surefoot.coordination.events.groups import served
from surefoot.effects.binding import bound_guard
from surefoot.effects.keys import BadEffect
from surefoot.effects.live.guard import Guard
from surefoot.journal import current_frame

Operation: TypeAlias = list[Any]

GROUP, TOPIC = "readers", "scheduled-news"

LEASE_TIMEOUT_S = 5.0
"""How long a run waits for a desk around a block."""


@sf.step(name="scheduled decision")
async def decide() -> str:
    """A decision of the model: never the same twice, so that only the record of it can be the reason of an effect."""
    outside().decisions += 1
    return f"decision {outside().decisions}"


@sf.read(name="scheduled look")
async def look() -> int:
    outside().decisions += 1
    return outside().decisions


async def _act(operation: Operation, because: str) -> list[Any]:
    what, *arguments = operation
    declared = EFFECTS[what]
    named = dict(zip(declared.parameters, arguments, strict=True))
    if declared.before is not None:
        await declared.before(named)
    words = {"because": because} if declared.says_why else {}
    try:
        outcome = await declared.effect.outcome(**named, **words)
    except BadEffect as error:
        return ["bad", str(error)]
    return [outcome.told, what, thing(arguments), outcome.value]


# -- outside runs ------------------------------------------------------------------------------------------------------


class StillUnknown(Exception):
    """A caller outside runs was told that the outcome is unknown: it asks again."""


async def call_outside(guard: Guard, operation: Operation, tries: int = 0) -> list[Any]:
    """Call an effect outside runs, with one app's store; return what was told.

    Args:
        guard: Where.
        operation: What to call, perhaps while holding a desk, or in a hurry.
        tries: How often it was called before: who is in a hurry has more patience each time.

    Raises:
        StillUnknown: Nobody knows yet.
        TimeoutError: Patience has ended.
    """
    if operation[0] == "hurried":
        async with asyncio.timeout(operation[1] * 4**tries):
            return await call_outside(guard, operation[2])
    bound_guard.set(guard)
    try:
        told = await _act_at(*operation[1:]) if operation[0] == "held" else await _act(operation, OUTSIDE)
    except sf.SurefootError:
        await asyncio.sleep(0.5)  # whoever asks again at once is told the same
        raise
    if told[0] == "unknown":
        await asyncio.sleep(0.5)
        raise StillUnknown
    return told


async def _act_at(desk: str, operation: Operation) -> list[Any]:
    async with sf.lease(f"desk/{desk}"):
        return await _act(operation, OUTSIDE)


# -- operations --------------------------------------------------------------------------------------------------------


async def perform(operation: Operation, because: str) -> Any:
    """Take one operation; return what was learned by it."""
    what, *rest = operation
    if what in EFFECTS:
        return await _act(operation, because)
    return await _OTHERS[what](because, *rest)


async def _both(because: str, place: str, *operations: Operation) -> list[Any]:
    async def side(number: int, operation: Operation) -> Any:
        async with sf.branch(f"side {number}", place):
            return await perform(operation, because)

    return list(await asyncio.gather(*(side(number, operation) for number, operation in enumerate(operations))))


async def _hurried(because: str, patience_s: float, operation: Operation) -> Any:
    try:
        async with asyncio.timeout(patience_s), sf.branch("hurried"):
            return await perform(operation, because)
    except TimeoutError:
        return ["gave up", operation]


async def _twice(because: str, operation: Operation) -> list[Any]:
    """Ask for the same in the same words: without a key these are two."""
    return [await perform(operation, because), await perform(operation, because)]


async def _sleep(_because: str, duration_s: float) -> str:
    await sf.sleep(duration_s)
    return "slept"


async def _signal(_because: str) -> Any:
    return ["signal", await sf.wait_signal("go", int)]


async def _look(_because: str) -> Any:
    return await look()


async def _child(_because: str, operations: list[Operation]) -> Any:
    try:
        return await sf.child(program, operations)
    except sf.StepFailed as error:
        return ["child", error.error_type]


class _Failed(Exception):
    """What makes a saga fail."""


async def _saga(because: str, place: str, end: str, *operations: Operation) -> list[Any]:
    """Do all, one after another, then end well or "fail"; or "break": fail with those still going on beside each other."""
    told: list[Any] = []

    async def side(number: int, operation: Operation) -> None:
        async with sf.branch(f"side {number}", place):
            for _ in range(2):
                told.append(await perform(operation, await decide()))

    try:
        async with sf.saga("saga", place):
            if end == "break":
                for number, operation in enumerate(operations):
                    asyncio.create_task(side(number, operation))  # noqa: RUF006  the saga ends them
                await sf.sleep(0.02)
                raise _Failed
            for operation in operations:
                told.append(await perform(operation, because))
            if end == "fail":
                raise _Failed
    except _Failed:
        return ["undone", place]
    return told


async def _held(because: str, desk: str, operation: Operation) -> list[Any]:
    try:
        async with sf.lease(f"desk/{desk}", timeout=LEASE_TIMEOUT_S):
            return ["held", await perform(operation, because)]
    except sf.ResourceBusy:
        return ["busy", desk]


async def _share(_because: str, board: str, place: str) -> list[str]:
    """Add to what others write to, decided on what was seen."""
    document = sf.document(f"board/{board}", list)
    seen = await document.read()
    await decide()
    try:
        await document.write([*(seen.value or []), place], seen)
    except sf.Stale:
        return ["stale", board, place]
    return ["wrote", board, place]


NEWS: sf.Topic[list[Operation]] = sf.Topic(TOPIC, list)


async def _tell(_because: str, key: str | None, operations: list[Operation]) -> list[str]:
    """Publish an event: whoever acts on it takes these operations."""
    return ["published", await NEWS.publish(operations, key=key)]


_OTHERS: dict[str, Callable[..., Any]] = {
    "both": _both,
    "hurried": _hurried,
    "twice": _twice,
    "sleep": _sleep,
    "signal": _signal,
    "look": _look,
    "child": _child,
    "saga": _saga,
    "held": _held,
    "share": _share,
    "tell": _tell,
}


@sf.durable(name="scheduled program")
async def program(operations: list[Operation]) -> list[Any]:
    """Take each operation because of a decision of its own."""
    frame = current_frame.get()
    is_recoded = frame is not None and frame.run_id in outside().recoded
    in_order = operations[::-1] if is_recoded else operations
    return [await perform(operation, await decide()) for operation in in_order]


async def _react(operations: list[Operation]) -> list[Any]:
    return [await perform(operation, await decide()) for operation in operations]


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Serve the group that acts on events; other tests' processes don't."""
    if not _reader:
        sf.on(NEWS, group=GROUP, since="beginning")(_react)
        _reader.update(served())
    served()[TOPIC, GROUP] = _reader[TOPIC, GROUP]
    try:
        yield
    finally:
        del served()[TOPIC, GROUP]


_reader: dict[tuple[str, str], Any] = {}


def flat(operations: list[Any]) -> list[Operation]:
    """Return all operations, those inside others too, each as often as it is taken at most."""
    found = []
    for operation in operations:
        found.append(operation)
        times = 2 if operation[0] == "twice" or operation[:1] + operation[2:3] == ["saga", "break"] else 1
        for part in operation[1:]:
            if isinstance(part, list):
                found += times * flat([part] if part and isinstance(part[0], str) else part)
    return found


def root_of(run_id: str) -> str:
    """Return the id of the run of the plan that a run belongs to: its own, its parent's, or the publisher's."""
    return run_id.rpartition(f"{GROUP}/{TOPIC}/")[2].partition("/")[0]


__all__ = ["EFFECTS", "OUTSIDE", "Operation", "Outside", "call_outside", "enter", "flat", "perform", "program", "reading",
           "root_of"]  # fmt: skip
