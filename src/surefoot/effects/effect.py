"""`@effect` and `@read`: what a tool's author writes."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import copy_context
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, overload

from surefoot.effects.binding import bound_guard, open_guard
from surefoot.effects.doubt import InDoubt, Read
from surefoot.effects.gates import OwnGate
from surefoot.effects.live.perform import perform
from surefoot.effects.live.read import perform_read, see
from surefoot.effects.outcome import Outcome, told_to_model
from surefoot.effects.registry import register
from surefoot.effects.spec import SPEC, Bound, EffectSpec
from surefoot.effects.versions import Seen, VersionOf
from surefoot.journal import current_frame
from surefoot.problem import SurefootError

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class EffectFunction(Protocol[P, R_co]):
    """A function made an effect or a read: called as before, and with two more ways to call it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Perform it; return its value, or raise what it came to instead."""

    async def outcome(self, *args: P.args, **kwargs: P.kwargs) -> Outcome:
        """Perform it; return what it came to."""

    def keyed(self, key: str) -> Callable[P, R_co]:
        """Return it as a step of this key, to tell calls of parallel tasks apart."""


class Declaration:
    """What `sf.effect(...)` or `sf.read(...)` says of a function: stands above one, or beside the name of a tool that
    somebody else wrote."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def __call__(self, function: Callable[P, R]) -> EffectFunction[P, R]:
        """Declare a function."""
        declared: EffectFunction[P, R] = _decorate(function, EffectSpec(function, **self.options))
        return declared


@overload
def effect(function: Callable[P, R], /) -> EffectFunction[P, R]: ...
@overload
def effect(
    *,
    key: str | None = None,
    match: tuple[str, ...] | None = None,
    free_text: tuple[str, ...] = (),
    in_doubt: InDoubt | None = None,
    once_for: str = "app",
    occurrence: str | None = None,
    refused_on: tuple[type[BaseException], ...] = (),
    one_request: bool = False,
    timeout_s: float | None = None,
    when_unknown: str = "park",
    compensate: Callable[..., Any] | None = None,
    approve: OwnGate | None = None,
    redact: tuple[str, ...] = (),
    resource: str | tuple[str, ...] = (),
    resource_timeout_s: float = 30.0,
    unchanged: str | tuple[str, ...] = (),
    name: str | None = None,
) -> Declaration: ...


def effect(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Guard a function that does something to the world outside: claimed before it acts, settled once.

    Args:
        function: The function; async, or sync (run in a thread).
        key: The business key as a template over parameters, "refund:{order_id}": who asks again under it gets the first
            outcome. None: the call is its own identity (run and step).
        match: The parameters that must agree for one key; disagreement is a conflict. None: all but `free_text`.
        free_text: Parameters that may differ between calls of one key, such as a reason in words.
        in_doubt: What may be done when nobody knows whether it happened; None: `AskPerson()`.
        once_for: Where the key is unique: "app", for ever (default), or "run".
        occurrence: The parameter that makes deliberate repetition a key of its own.
        refused_on: Exceptions by which the service says that it did nothing.
        one_request: The function makes one request, and its client retries nothing by itself: then a connection that was
            refused means that nothing was done. Otherwise it is unknown, like any error.
        timeout_s: Seconds after which the outcome is unknown; None for no limit of ours.
        when_unknown: "park" suspends the run until the doubt ends; "tell_model" goes on with an outcome of unknown.
        compensate: Undoes it, called with the arguments it has parameters for, and `outcome` with the recorded value;
            itself an effect.
        approve: Who must approve the call before it acts, and when: `sf.Approve(by="finance")`. None: nobody.
        redact: Parameters whose values the command line, logs and escalations don't show; "return" for its own value. They
            are stored as they are.
        resource: What the call holds while it acts, as templates over parameters, "order/{order_id}": a lease that nobody
            else has, from the claim until the outcome is known. Several are taken together or not at all. Its token goes
            out as `sf.current_effect().token`.
        resource_timeout_s: Seconds to wait for them at the longest; then the call is not done, and says who holds what. 0
            to wait for nobody.
        unchanged: Things, as templates over parameters, that must still be in the version that the run has read last, by
            `@sf.versioned("order/{order_id}")`: they are looked at again right before the first send. Otherwise nothing is
            sent, and the outcome is "stale", with the difference.
        name: What ledger and journal call it; None: the function's name. Names are data on disk: keep them when
            you rename the function.

    Returns:
        A function with the same signature, plus `.outcome(...)`, which returns an `Outcome` instead of raising, and
        `.keyed(k)`, which tells steps of one name in parallel tasks apart. Without a function, the declaration itself,
        for a tool that somebody else wrote: `app.agent(agent, effects={"create_issue": sf.effect(key="new:{title}")})`.

    Raises:
        BadEffect: The declaration means nothing (an unknown parameter, an async Transactional, ...).
    """
    if function is not None:
        return _decorate(function, EffectSpec(function))
    return Declaration(options)


@overload
def read(function: Callable[P, R], /) -> EffectFunction[P, R]: ...
@overload
def read(*, timeout_s: float | None = None, name: str | None = None) -> Declaration: ...


def read(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Declare a function that changes nothing outside. In a run its first answer is recorded and used on every replay.

    Args:
        function: The function; async, or sync (run in a thread).
        timeout_s: Seconds until TimeoutError; None for no limit of ours.
        name: What the journal calls it; None: the function's name.
    """
    if function is not None:
        return _decorate(function, EffectSpec(function, in_doubt=Read()))
    return Declaration({"in_doubt": Read(), **options})


def versioned(
    thing: str,
    /,
    *,
    version: VersionOf | None = None,
    consistency: Literal["strict", "available"] = "strict",
    timeout_s: float | None = None,
    name: str | None = None,
) -> Declaration:
    """Declare a read of something that others may change, so that effects can insist that it is `unchanged`.

    Args:
        thing: What it reads, as a template over its parameters: "order/{order_id}".
        version: Tells the version of a value: a function of it, or the name of its attribute or key ("etag"). None: a
            digest of the whole value, which any change changes.
        consistency: "strict": what can't be read is an error. "available": then it gives what this process has read of it
            last, if anything; the version is checked when an effect relies on it, and that look is always strict.
        timeout_s: Seconds until TimeoutError; None for no limit of ours.
        name: What the journal calls it; None: the function's name.

    Returns:
        A decorator, as `sf.read`. The function also gets `.seen(...)`, which returns a `Seen` with the version.

    Raises:
        BadEffect: The thing names no parameter.
    """
    return Declaration({"in_doubt": Read(), "thing": thing, "version": version, "consistency": consistency,
                        "timeout_s": timeout_s, "name": name})  # fmt: skip


def _decorate(function: Callable[..., Any], spec: EffectSpec) -> Any:
    register(spec)

    async def outcome(*args: Any, **kwargs: Any) -> Outcome:
        return await _perform(spec, None, args, kwargs, is_row_asked=True)

    def keyed(key: str) -> Callable[..., Any]:
        return _caller(spec, key)

    async def seen(*args: Any, **kwargs: Any) -> Seen[Any]:
        return await see(spec, spec.bind(args, kwargs))

    wrapper = functools.wraps(function)(_caller(spec, None))
    setattr(wrapper, SPEC, spec)
    wrapper.outcome = outcome  # type: ignore[attr-defined]  # documented extras of the decorated function
    wrapper.keyed = keyed  # type: ignore[attr-defined]
    if spec.tells_version:
        wrapper.seen = seen  # type: ignore[attr-defined]
    return wrapper


def _caller(spec: EffectSpec, key: str | None) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        telling = told_to_model.get()
        if telling is None:
            return (await _perform(spec, key, args, kwargs)).unwrap()
        return telling.tell(await telling.through(_adopted(_perform(spec, key, args, kwargs))))

    if spec.is_async:
        return call

    def call_sync(*args: Any, **kwargs: Any) -> Any:
        return _portal.run(spec.name, call(*args, **kwargs))

    return call_sync


def _perform(
    spec: EffectSpec, key: str | None, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_row_asked: bool = False
) -> Coroutine[Any, Any, Outcome]:
    bound = spec.bind(args, kwargs)
    if spec.is_read:
        return perform_read(spec, bound, key)
    guard = bound_guard.get()
    return (
        _perform_outside(spec, bound, key)
        if guard is None
        else perform(guard, spec, bound, key, is_row_asked=is_row_asked)
    )


async def _perform_outside(spec: EffectSpec, bound: Bound, key: str | None) -> Outcome:
    return await perform(await open_guard(spec.name), spec, bound, key)


class _Portal:
    """Runs the async engine for synchronous callers: on the run's own loop, else on one of ours in a thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def run(self, name: str, work: Coroutine[Any, Any, R]) -> R:
        frame = current_frame.get()
        loop = getattr(frame, "loop", None) or self._own()
        if loop is _running_loop():
            work.close()
            raise SurefootError(
                f"effect {name} is synchronous and was called on the event loop, which it would block",
                hint=f"make it `async def`, or call it as `await sf.in_thread({name}, ...)`",
            )
        context = copy_context()
        return asyncio.run_coroutine_threadsafe(_in_context(context, work), loop).result()

    def _own(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="surefoot-portal", daemon=True).start()
            return self._loop


async def _in_context(context: Any, work: Coroutine[Any, Any, R]) -> R:
    return await asyncio.get_running_loop().create_task(_adopted(work), context=context)


async def _adopted(work: Coroutine[Any, Any, R]) -> R:
    frame = current_frame.get()
    if frame is None:
        return await work
    with frame.adopted():
        return await work


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_portal = _Portal()
os.register_at_fork(after_in_child=_portal.__init__)  # type: ignore[misc]  # a fork has no thread that runs the loop


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a synchronous function, an effect or not, from async code without blocking the loop."""
    frame = current_frame.get()
    if frame is not None:
        frame.stand_alone()
    result: Awaitable[R] = asyncio.to_thread(function, *args, **kwargs)
    return await result
