"""`@durable`: an async function that becomes a kind of run, and how its input becomes data."""

from __future__ import annotations

import hashlib
import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar, overload

import msgspec

from surefoot.journal import Record, Undecodable, codec_of
from surefoot.journal.values import Unserializable, Value, canonical_bytes
from surefoot.problem import SurefootError
from surefoot.runs.errors import UnknownKind
from surefoot.runs.life import RunState
from surefoot.runs.queueing import limit_of
from surefoot.runs.signals import Signal
from surefoot.store import Tx

P = ParamSpec("P")
R = TypeVar("R")

KIND = "__surefoot_kind__"

SIMULATED = "simulated "
"""What stands before the kind of a run that only simulates. It is part of the kind on disk, so that no process can execute
such a run for another: one that doesn't know of simulation knows no such kind."""

ELSEWHERE = "temporal "
"""What stands before the kind of a run that another engine executes. It is part of the kind on disk, so that no worker of
ours takes the run."""

UNDO = "surefoot undo"
"""The kind of the run that compensates what another has done."""

_encode = msgspec.json.Encoder().encode


class KindSpec:
    """A kind of run: its name, its function, and the codecs of its input and result.

    Args:
        name: Its name.
        function: Its function.
        signals: The signals it declares.
        later: Keyword-only parameters that came after the first runs were started: at their default they are not part
            of the input, so that the same input stays the same.
        concurrency: How many of its runs are executed at a time, by all workers together; None for any number.
        concurrency_per_key: How many runs of one key go on at a time; None: its runs have no keys.

    Attributes:
        fails_unfit: Whether a run whose input doesn't fit the function fails; else it is blocked, until that is mended.
        on_end: Called in the transaction that ends a run, with its first record, its row, and how it ends.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Awaitable[Any]],
        signals: Sequence[Signal[Any]] = (),
        *,
        later: frozenset[str] = frozenset(),
        concurrency: int | None = None,
        concurrency_per_key: int | None = None,
    ) -> None:
        if not inspect.iscoroutinefunction(function):
            raise SurefootError(
                f"{name} is not async, so it can't be durable", hint=f"write `async def {name}(...)`; await its steps"
            )
        self.name = name
        self.function = function
        self.concurrency = limit_of(f"{name}: concurrency", concurrency)
        self.concurrency_per_key = limit_of(f"{name}: concurrency_per_key", concurrency_per_key)
        self.signals = {signal.name: signal for signal in signals}
        self.signature = inspect.signature(function)
        self.fails_unfit = False
        self.on_end: Callable[[Tx, Record, int, RunState], object] | None = None
        self._later = {parameter: self.signature.parameters[parameter].default for parameter in later}
        try:
            hints = typing.get_type_hints(function)
        except (NameError, TypeError):  # a name only known to type checkers: treat as not annotated
            hints = {}
        self._hints = hints
        self._codecs = {
            parameter: codec_of(hints.get(parameter, object), f"{name}({parameter})")
            for parameter in self.signature.parameters
        }
        self.result = codec_of(hints.get("return", object), name)

    def dump_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Value, bytes]:
        """Return the input's bytes, and a digest by which equal inputs are known.

        Raises:
            TypeError: The arguments don't fit the function.
            Unserializable: One can't be kept, or is not of its parameter's type.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments.items()
        flat = {name: self._dump(name, value) for name, value in given if not self._is_left_out(name, value)}
        body = _encode(flat)
        return body, self.digest_of(body)

    def digest_of(self, body: Value) -> bytes:
        """Return the digest by which an input is known again."""
        canonical = canonical_bytes(msgspec.json.decode(body))
        return hashlib.blake2b(self.name.encode() + b"\0" + canonical, digest_size=16).digest()

    def refuse_shadowed(self, args: tuple[Any, ...], given: Mapping[str, bool]) -> None:
        """Refuse an option of `start` that is given where the function has a parameter of that name without a value.

        Args:
            args: What was given by position.
            given: The options, and whether each was given.

        Raises:
            SurefootError: There is one: who says `start(f, key="x")` may mean either.
        """
        by_position = list(self.signature.parameters)[: len(args)]
        for option, is_given in given.items():
            if is_given and option in self.signature.parameters and option not in by_position:
                raise SurefootError(
                    f"{self.name} has a parameter {option!r}, and start(..., {option}=) says when a run begins",
                    hint=f"give {self.name} its {option} by position, or rename the parameter",
                )

    def _is_left_out(self, name: str, value: Any) -> bool:
        return name in self._later and value is self._later[name]

    def _dump(self, name: str, value: Any) -> Any:
        kind = self.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return [self._dump_one(name, item) for item in value]
        if kind is inspect.Parameter.VAR_KEYWORD:
            return {key: self._dump_one(name, item) for key, item in value.items()}
        return self._dump_one(name, value)

    def _dump_one(self, name: str, value: Any) -> msgspec.Raw:
        data, copy = self._codecs[name].dump(value)
        if (words := self._unfit(name, copy)) is not None:
            raise Unserializable(f"{self.name}({name}): it takes {words}", hint="nothing was started; mend one of them")
        return msgspec.Raw(data)

    def _unfit(self, name: str, value: Any) -> str | None:
        """Return what a parameter of a JSON type takes and is given instead; None where it fits, or is its own None."""
        is_default = value is None and self.signature.parameters[name].default is None
        if is_default or self._codecs[name].fits(value):
            return None
        return f"{self._hints[name].__name__}, and is given {type(value).__name__}"

    def prepare(self) -> None:
        """Do now what the first input and the first result would wait for: a second, on a busy machine.

        What can't be prepared is refused when it is used, by name.
        """
        for codec in (*self._codecs.values(), self.result):
            with suppress(Unserializable):
                codec.prepare()

    def load_input(self, body: Value) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments to call the function with.

        Raises:
            Undecodable: The recorded input no longer fits the function.
        """
        flat = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        unknown = set(flat) - set(self.signature.parameters)
        if unknown:
            raise Undecodable(
                f"{self.name}: the recorded input has {', '.join(sorted(unknown))}, which it no longer takes",
                hint="bring the parameter back (with a default), then wake the run",
            )
        for name, parameter in self.signature.parameters.items():
            if name in flat:
                self._load(parameter, flat[name], args, kwargs)
        return args, kwargs

    def _load(self, parameter: inspect.Parameter, raw: msgspec.Raw, args: list[Any], kwargs: dict[str, Any]) -> None:
        name = parameter.name
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            args.extend(self._load_one(name, item) for item in msgspec.json.decode(raw, type=list[msgspec.Raw]))
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            items = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
            kwargs.update({key: self._load_one(name, item) for key, item in items.items()})
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            kwargs[name] = self._load_one(name, raw)
        else:
            args.append(self._load_one(name, raw))

    def _load_one(self, name: str, raw: msgspec.Raw) -> Any:
        value = self._codecs[name].load(bytes(raw))
        if (words := self._unfit(name, value)) is not None:
            raise Undecodable(
                f"{self.name}({name}): the recorded value no longer fits: it takes {words}",
                hint="bring back the code that wrote it, or make the type accept the old form; then wake the run",
            )
        return value


_registered: dict[str, KindSpec] = {}


@overload
def durable(function: Callable[P, Awaitable[R]], /) -> Callable[P, Awaitable[R]]: ...
@overload
def durable(
    *,
    name: str | None = None,
    signals: Sequence[Signal[Any]] = (),
    concurrency: int | None = None,
    concurrency_per_key: int | None = None,
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]: ...


def durable(
    function: Callable[P, Awaitable[R]] | None = None,
    /,
    *,
    name: str | None = None,
    signals: Sequence[Signal[Any]] = (),
    concurrency: int | None = None,
    concurrency_per_key: int | None = None,
) -> Any:
    """Make an async function a kind of run: `app.start(function, ..., id=...)` runs it durably.

    Args:
        function: The function. Its code must take the same steps when it is called with the same input: whatever
            touches the world, the clock or chance goes through effects, reads and steps.
        name: The kind's name, data on disk; None: the function's name.
        signals: What its runs wait for. With any, senders who know the kind are refused other names, and payloads that
            don't fit; without, nothing is checked before it is waited for.
        concurrency: How many of its runs are executed at a time, by all workers of the store together; a run that waits
            for something has left memory after 5 s, and lets another in. None for any number.
        concurrency_per_key: How many runs that were started with the same `key=` go on at a time, from their beginning to
            their end, waits included; the others are queued, in their order. None: its runs have no keys.
    """

    def decorate(wrapped: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        kind = KindSpec(
            name or wrapped.__name__,
            wrapped,
            signals,
            concurrency=concurrency,
            concurrency_per_key=concurrency_per_key,
        )
        register(kind)
        setattr(wrapped, KIND, kind)
        return wrapped

    return decorate if function is None else decorate(function)


def register(kind: KindSpec) -> None:
    """Note a kind under its name; a second function under one name replaces the first only when it is the same code: of one
    place in one module, which a notebook defines anew, or of one file that is the script and is imported, too."""
    for ours in (SIMULATED, ELSEWHERE):
        if kind.name.startswith(ours):
            raise SurefootError(
                f"{kind.name!r}: names that start with {ours!r} are Surefoot's own", hint="pick another"
            )
    known = _registered.get(kind.name)
    is_other = known is not None and _place_of(known) != _place_of(kind) and not _is_script_imported(known, kind)
    if known is not None and is_other and "<locals>" not in _place_of(known) + _place_of(kind):
        raise SurefootError(
            f"two durable functions are called {kind.name!r}: {_place_of(known)} and {_place_of(kind)}",
            hint='give one of them a name of its own: @sf.durable(name="...")',
        )
    _registered[kind.name] = kind


def _place_of(kind: KindSpec) -> str:
    return f"{kind.function.__module__}.{kind.function.__qualname__}"


def _is_script_imported(known: KindSpec, kind: KindSpec) -> bool:
    """Whether these are one function of a file that runs as `__main__` and is imported under its name in one process, as by
    `uvicorn.run("main:app")` at its end."""
    modules = {known.function.__module__, kind.function.__module__}
    files = [getattr(getattr(one.function, "__code__", None), "co_filename", None) for one in (known, kind)]
    is_one_place = (
        files[0] is not None and files[0] == files[1] and known.function.__qualname__ == kind.function.__qualname__
    )
    return is_one_place and not modules.isdisjoint({"__main__", "__mp_main__"})


def kind_of(function: Callable[..., Any] | str) -> KindSpec:
    """Return the kind of a durable function, or of a name.

    Raises:
        UnknownKind: It is no durable function.
    """
    if not isinstance(function, str):
        kind = getattr(function, KIND, None)
        if isinstance(kind, KindSpec):
            return kind
        raise UnknownKind(f"{function!r} is no durable function", hint="put @sf.durable above it")
    if function not in _registered:
        raise UnknownKind(
            f"no durable function is called {function!r}; known: {', '.join(sorted(_registered)) or 'none'}",
            hint="import the module that defines it",
        )
    return _registered[function]


def simulated(digest: bytes) -> bytes:
    """Return the digest of the input of a simulated run: nobody who starts the same for real is given that run."""
    return hashlib.blake2b(SIMULATED.encode() + digest, digest_size=16).digest()


def kind_of_run(name: str) -> KindSpec:
    """Return the kind whose code a run executes, for real or simulated, here or elsewhere, by the kind that its row
    names."""
    return kind_of(name.removeprefix(SIMULATED).removeprefix(ELSEWHERE))


def executable_kinds() -> dict[str, int | None]:
    """Return the kinds of the runs that this process can execute, each one for real, and simulated; and how many of their
    runs may be executed at a time."""
    return {prefix + name: kind.concurrency for name, kind in _registered.items() for prefix in ("", SIMULATED)}


def places_per_key() -> dict[str, int]:
    """Return how many runs of one key go on at a time, for the kinds that have keys."""
    return {name: most for name, kind in _registered.items() if (most := kind.concurrency_per_key) is not None}


def known_kinds() -> list[str]:
    """Return the names of all registered kinds."""
    return sorted(_registered)
