"""The steps a durable function can take besides effects and reads: decisions, timers, signals, children, chance, time."""

from __future__ import annotations

import functools
import secrets
import typing
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar, overload
from uuid import UUID

import msgspec

from surefoot.effects.cancellation import own_cancellation
from surefoot.effects.classify import describe
from surefoot.effects.doubt import duration_ms
from surefoot.journal import Kind, Record, Undecodable, ValueCodec, codec_of, current_frame
from surefoot.journal.records import NO_HEAD, Head
from surefoot.journal.texts import without_surrogates
from surefoot.problem import SurefootError
from surefoot.runs.durable import kind_of_run
from surefoot.runs.errors import Blocked, NotInRun, StepFailed, name_of
from surefoot.runs.life import WaitFor
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import _beside, _parent
from surefoot.runs.live.taken import LiveStep
from surefoot.runs.live.unread import Looked
from surefoot.runs.signals import Signal

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

STEP = "__surefoot_step__"
"""The attribute by which a function with `@step` is known."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode


def live_run(*what: str) -> LiveRun:
    """Return the run whose code is calling.

    Args:
        what: What is called, in words.

    Raises:
        NotInRun: There is none, or another engine executes it.
    """
    frame = current_frame.get()
    if frame is not None and frame.is_one_step:
        raise NotInRun(
            f"{' '.join(what)} was called in an agent on Temporal, whose tools have effects, reads and steps, and no waits",
            hint="call it in a function with @sf.durable, which the same app executes on the same store",
        )
    if not isinstance(frame, LiveRun):
        raise NotInRun(
            f"{' '.join(what)} was called outside a run",
            hint="call it in a function with @sf.durable, started by an app",
        )
    return frame


class StepFunction(Protocol[P, R_co]):
    """A function whose result is recorded."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Take the step: execute it, or return what is recorded of it."""

    def keyed(self, key: str) -> Callable[P, Coroutine[Any, Any, R_co]]:
        """Return it as a step of this key, to tell calls of parallel tasks apart."""


@overload
def step(function: Callable[P, Awaitable[R]], /) -> StepFunction[P, R]: ...
@overload
def step(*, name: str | None = None) -> Callable[[Callable[P, Awaitable[R]]], StepFunction[P, R]]: ...


def step(function: Callable[P, Awaitable[R]] | None = None, /, *, name: str | None = None) -> Any:
    """Declare an async function whose result is recorded: a decision, a computation, anything without effect outside.

    In a run it is executed until its result is recorded, and never again; after a crash before that it is executed
    again. Outside a run it is an ordinary function. An exception out of it is recorded too, and raised as `StepFailed`.

    Args:
        function: The function.
        name: What the journal calls it; None: the function's name.
    """
    if function is None:
        return functools.partial(_decorate, name=name)
    return _decorate(function, name=name)


def _decorate(function: Callable[..., Awaitable[Any]], *, name: str | None) -> Any:
    title = name or function.__name__
    codec = codec_of(_return_type(function), title)

    def caller(key: str | None) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            frame = current_frame.get()
            if frame is None or frame.is_one_step:
                return await function(*args, **kwargs)
            return await take_step(title, key, codec, _with_beside(functools.partial(function, *args, **kwargs)))

        return call

    wrapper = functools.wraps(function)(caller(None))
    setattr(wrapper, STEP, title)
    wrapper.keyed = caller  # type: ignore[attr-defined]  # documented extra of the decorated function
    return wrapper


def _with_beside(work: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """Return a step's work that first records what it did beside its result: a crash after that takes the step again."""
    record = _beside.get()
    if record is None:
        return work

    async def both() -> Any:
        token = _beside.set(None)  # the steps inside are not the ones that is asked of
        try:
            value = await work()
        except (Blocked, Undecodable):  # it is taken again from where it stopped
            raise
        except Exception:
            await record()
            raise
        finally:
            _beside.reset(token)
        await record()
        return value

    return both


def is_step(function: object) -> bool:
    """Whether a function carries `@step`: it records its own result."""
    return hasattr(function, STEP)


def step_itself(function: object) -> str | None:
    """Return the name of the step that a call of a function is; None where there is code around it, or no step."""
    return None if is_step(getattr(function, "__wrapped__", None)) else getattr(function, STEP, None)


def _return_type(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(function).get("return", object)
    except (NameError, TypeError):  # a name only known to type checkers: treat as not annotated
        return object


async def take_step(
    name: str,
    key: str | None,
    codec: ValueCodec,
    work: Callable[[], Awaitable[Any]],
    *,
    request: str = "",
    head: Callable[[Any], Head] | None = None,
    is_told_step: bool = False,
) -> Any:
    """Take one recorded step: return what is recorded of it, or do `work` and record that.

    Args:
        name: The step's name.
        key: The caller's distinction, or None to count.
        codec: How its value is written.
        work: What to do if nothing is recorded.
        request: Digest of what is asked, for drift; empty for none.
        head: Builds the record's small facts from the value, or None for none.
        is_told_step: Return the value and the step, for callers that refer to its record.

    Raises:
        StepFailed: `work` raised, now or when it was first executed.
    """
    run = live_run("step", name)
    taken = run.open_step(name, key)
    if taken.ended is not None:
        try:
            if request:
                _note_drift(run, taken, request)
            value = await _replayed(run, taken, codec)
        finally:
            taken.close()
        return (value, taken) if is_told_step else value
    token = _parent.set(taken.key)
    try:
        value = await work()
        body, copy = codec.dump(value)
    except BaseException as error:
        try:
            _leave(run, taken, error)
        finally:
            taken.close()
    finally:
        _parent.reset(token)
    try:
        small = Head(request=request) if head is None and request else NO_HEAD if head is None else head(value)
        record = taken.draft(Kind.DECIDED, head=small, body=body)
        run.record(record, "decision")
        taken.end(record)
    finally:
        taken.close()  # also when the run was suspended meanwhile: it waits for what is open
    if not run.store.writer.has_room:
        await run.store.barrier()
    return (copy, taken) if is_told_step else copy


def _leave(run: LiveRun, taken: LiveStep, error: BaseException) -> NoReturn:
    """Record that a step ended in an error, and raise what its caller gets."""
    if isinstance(error, Blocked | Undecodable):  # inside: what the journal holds no longer fits
        raise run.stop(error) from None
    failed = error if isinstance(error, Exception) else own_cancellation(error)
    if failed is not None:
        run.check()
        taken.end(_append_error(taken, failed))
        raise _step_failed(taken.key, failed) from error
    taken.interrupt(describe(error))
    raise error


def _append_error(taken: LiveStep, error: Exception) -> Record:
    failed = _step_failed(taken.key, error)  # of a step inside: what that one's code raised, as its caller is told now
    record = taken.draft(Kind.RAISED, head=Head(name=taken.name), body=_encode([failed.error_type, failed.error]))
    taken.record(record, "decision")
    return record


async def _replayed(run: LiveRun, taken: LiveStep, codec: ValueCodec) -> Any:
    record = taken.ended
    assert record is not None, "called with an ended step"
    if record.kind is Kind.INTERRUPTED:
        await run.meet_again()
    if record.kind not in (Kind.DECIDED, Kind.RAISED):
        taken.raise_divergence(f"a decision {taken.name}", f"a {record.kind.name} of that name")
    assert record.body is not None, "outcomes of steps have a body"
    if record.kind is Kind.RAISED:
        kind, text = _decode(record.body)
        raise StepFailed(taken.key, kind, text)
    return load_recorded(run, codec, record.body)


def load_recorded(run: LiveRun, codec: ValueCodec, body: bytes) -> Any:
    """Return a recorded value; one that no longer fits its type blocks the run, whatever the code catches."""
    try:
        return codec.load(body)
    except Undecodable as error:
        raise run.stop(error) from None


def _note_drift(run: LiveRun, taken: LiveStep, request: str) -> None:
    """The same decision with other request content (a date in the prompt): recorded once; the recorded answer is used."""
    record = taken.ended
    if record is None or not record.head.request or record.head.request == request:
        return
    if taken.key not in run.history.drifts:
        run.history.drifts.add(taken.key)
        head = Head(request=request, detail={"recorded": record.head.request})
        run.record(run.about_run(Kind.DRIFT, step=taken.key, head=head), "drift")


def _step_failed(step_key: str, error: Exception) -> StepFailed:
    if isinstance(error, StepFailed):
        return StepFailed(step_key, error.error_type, error.error)
    return StepFailed(step_key, name_of(error), _text(error))


def _text(error: BaseException) -> str:
    return without_surrogates(str(error))


@asynccontextmanager
async def branch(name: str, key: str | None = None) -> typing.AsyncIterator[None]:
    """Count the steps inside apart: for tasks that run beside each other and take steps of the same names.

    Args:
        name: The branch's name.
        key: A distinction between branches of one name opened by different tasks.
    """
    run = live_run("branch", name)
    token = _parent.set(run.enter(name, key))
    try:
        yield
    finally:
        _parent.reset(token)


# -- timers -----------------------------------------------------------------------------------------------------------


async def sleep(duration: float | str, *, key: str | None = None) -> None:
    """Wait durably: a crash doesn't start the time anew, and a long wait holds no memory.

    Args:
        duration: Seconds, or "15m", "24h", "7d".
        key: The caller's distinction between timers in parallel tasks.
    """
    run = live_run("sleep")
    await _timer(run, key, run.store.clock.wall_ms() + duration_ms(duration))


async def sleep_until(moment: datetime, *, key: str | None = None) -> None:
    """Wait durably until a moment. A moment without time zone is refused."""
    if moment.tzinfo is None:
        raise SurefootError(f"{moment!r} has no time zone", hint="datetime(..., tzinfo=UTC)")
    await _timer(live_run("sleep_until"), key, int(moment.timestamp() * 1_000))


async def _timer(run: LiveRun, key: str | None, wake_at_ms: int) -> None:
    taken = run.open_step("sleep", key)
    if taken.ended is not None:
        await meet_again_if_interrupted(run, taken)
        return
    if taken.opened is None:
        opened = taken.draft(Kind.TIMER_SET, head=Head(wake_at_ms=wake_at_ms))
        taken.record(opened, "timer")
    else:
        wake_at_ms = taken.opened.head.wake_at_ms
    try:
        await _wait_until(run, taken.key, WaitFor.TIMER, wake_at_ms)
    except BaseException as error:
        taken.interrupt(describe(error))
        raise
    finally:
        taken.close()
    record = taken.draft(Kind.TIMER_FIRED)
    taken.record(record, "timer")
    taken.end(record)


async def meet_again_if_interrupted(run: LiveRun, taken: LiveStep) -> None:
    """Wait for ever in a step that was interrupted when it was first executed: the same will happen again."""
    try:
        if taken.ended is not None and taken.ended.kind is Kind.INTERRUPTED:
            await run.meet_again()
    finally:
        taken.close()


async def _wait_until(run: LiveRun, step_key: str, wait_for: WaitFor, wake_at_ms: int) -> None:
    """Wait until the wall clock says so: it may jump, so it is asked again after every wait."""
    while (left_ms := wake_at_ms - run.store.clock.wall_ms()) > 0:
        alarm = run.loop.call_later(min(left_ms / 1_000, 60.0), ring, run, step_key)
        try:
            await run.wait(step_key, wait_for, "timer", wake_at_ms)
        finally:
            alarm.cancel()


def ring(run: LiveRun, step_key: str) -> None:
    """Let a wait in memory look at the time."""
    for waiting in run.waits:
        if waiting.step == step_key and not waiting.future.done():
            waiting.future.set_result(None)


# -- signals ----------------------------------------------------------------------------------------------------------


async def wait_signal(
    name: str | Signal[Any], type: Any = object, *, timeout: float | str | None = None, key: str | None = None
) -> Any:
    """Wait for a signal and return its payload.

    A payload that doesn't fit stays unread and is listed; the run goes on waiting, and its reason says why it didn't.

    Args:
        name: The signal, or its name; `run.signal(name, payload)` sends it. Names that start with "$" are ours.
        type: The payload's type; without it, what the signal was declared with.
        timeout: After this, None is returned. None: wait for the run's deadline only.
        key: The caller's distinction between waits in parallel tasks.
    """
    run = live_run("wait_signal")
    signal = _signal_of(run, name, type)
    name = signal.name
    codec = codec_of(signal.type, f"signal {name}")
    taken = run.open_step(f"signal {name}", key)
    if taken.ended is not None:
        await meet_again_if_interrupted(run, taken)
        return None if taken.ended.body is None else load_recorded(run, codec, taken.ended.body)
    wake_at_ms = _timeout_at(run, taken, timeout)
    looked = run.unread.looked(signal)
    try:
        letter = run.unread.take(signal, looked)
        while letter is None and (wake_at_ms is None or run.store.clock.wall_ms() < wake_at_ms):
            alarm = None
            if wake_at_ms is not None:
                left_s = max(0.001, (wake_at_ms - run.store.clock.wall_ms()) / 1_000)
                alarm = run.loop.call_later(min(left_s, 60.0), ring, run, taken.key)
            try:
                await run.wait(taken.key, WaitFor.SIGNAL, _waits_words(signal, looked), wake_at_ms)
            finally:
                if alarm is not None:
                    alarm.cancel()
            letter = run.unread.take(signal, looked)
    except Undecodable as error:  # its key is not here: it stays unread, and the wait is no step that has failed
        raise run.stop(error) from None
    except BaseException as error:
        taken.interrupt(describe(error))
        raise
    finally:
        taken.close()
    head = Head(name=name, signal=letter.id) if letter else Head(name=name, reason="timed out")
    body = letter.payload if letter else None
    record = taken.draft(Kind.SIGNAL, head=head, body=body)
    taken.record(record, "signal")
    taken.end(record)
    return None if body is None else codec.load(body)


def _signal_of(run: LiveRun, name: str | Signal[Any], declared: Any) -> Signal[Any]:
    """Return the signal that is meant: the one given, the one the kind declares, or one made of name and type."""
    if isinstance(name, Signal):
        return name
    known = kind_of_run(run.row.kind).signals.get(name) if declared is object else None
    return known or Signal(name, declared)


def _waits_words(signal: Signal[Any], looked: Looked) -> str:
    if not looked.unfit:
        return f"signal {signal.name}"
    count, last = looked.unfit, f"the last (#{looked.last}): {looked.words}"
    return f"signal {signal.name}; {count} came that don't fit {signal.expected}, {last}"


def _timeout_at(run: LiveRun, taken: LiveStep, timeout: float | str | None) -> int | None:
    """Return when the wait gives up; set once, at the first execution."""
    if timeout is None:
        return None
    if taken.opened is not None:
        return taken.opened.head.wake_at_ms
    wake_at_ms = run.store.clock.wall_ms() + duration_ms(timeout)
    taken.record(taken.draft(Kind.TIMER_SET, head=Head(wake_at_ms=wake_at_ms)), "timer")
    return wake_at_ms


# -- chance and time --------------------------------------------------------------------------------------------------

_FLOAT, _TEXT = codec_of(float, "random"), codec_of(str, "now")


async def random() -> float:
    """Return a number in [0, 1), the same on every replay."""

    async def draw() -> float:
        return secrets.randbits(53) / (1 << 53)

    return float(await take_step("random", None, _FLOAT, draw))


async def uuid() -> UUID:
    """Return a random UUID (version 4), the same on every replay."""

    async def draw() -> str:
        bits = secrets.randbits(128)
        return str(UUID(int=bits, version=4))

    return UUID(await take_step("uuid", None, _TEXT, draw))


async def now() -> datetime:
    """Return the time in UTC, the same on every replay."""
    run = live_run("now")

    async def look() -> str:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=run.store.clock.wall_ms())
        return moment.isoformat()

    return datetime.fromisoformat(await take_step("now", None, _TEXT, look))


__all__ = ["branch", "describe", "live_run", "now", "random", "sleep", "sleep_until", "step", "take_step",
           "uuid", "wait_signal"]  # fmt: skip
