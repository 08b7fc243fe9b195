"""The world outside of a killed process: the user's fake lives in the test, and the process calls it from afar.

    Host     in the test: carries out the calls, counts for itself what they changed, lands what comes late
    World    in the process: looks like the fake; a call crosses two boundaries: before it is sent, once it acted

What holds: what the world did, it did, whether its caller lives or not; nothing of it is lost with a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import traceback
import typing
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from surefoot.journal.values import Unserializable, ValueCodec, codec_of
from surefoot.problem import SurefootError
from surefoot.testing.tap import Line, Trap, inside_now, is_calling
from surefoot.testing.wire import Answer, Called

_PLAIN = (str, int, float, bool, type(None), list, dict)
_encode = msgspec.json.Encoder().encode

HINT = "annotate the method's parameters and its answer: they go to another process and back as data"


class WorldRaised(Exception):
    """The world raised an error whose class can't be built again from its arguments."""


class _Method:
    """How the arguments and the answer of one method become data."""

    def __init__(self, path: str, method: Callable[..., Any]) -> None:
        self.path = path
        self.is_async = inspect.iscoroutinefunction(method)
        try:
            parameters = inspect.signature(method).parameters.values()
            hints = typing.get_type_hints(method, include_extras=True)
        except (TypeError, ValueError, NameError):  # of C, or annotated with names only type checkers know
            parameters, hints = {}.values(), {}
        self._by_name = {one.name: codec_of(hints.get(one.name, object), f"{path}({one.name})") for one in parameters}
        self._in_order = [
            self._by_name[one.name]
            for one in parameters
            if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL)
        ]
        self._rest = codec_of(object, f"{path}(...)")
        self.answer = codec_of(hints.get("return", object), f"the answer of {path}")

    def _codec(self, name: int | str) -> ValueCodec:
        if isinstance(name, str):
            return self._by_name.get(name, self._rest)
        return self._in_order[min(name, len(self._in_order) - 1)] if self._in_order else self._rest

    def dump(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[msgspec.Raw], dict[str, msgspec.Raw]]:
        """Return arguments as data."""
        return (
            [msgspec.Raw(self._codec(place).dump(value)[0]) for place, value in enumerate(args)],
            {name: msgspec.Raw(self._codec(name).dump(value)[0]) for name, value in kwargs.items()},
        )

    def load(self, called: Called) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a call."""
        return (
            [self._codec(place).load(bytes(value)) for place, value in enumerate(called.args)],
            {name: self._codec(name).load(bytes(value)) for name, value in called.kwargs.items()},
        )


def _walk(world: Any, path: str) -> Any:
    for name in path.split("."):
        world = getattr(world, name)
    return world


# -- in the process that is killed -------------------------------------------------------------------------------------


class World:
    """Stands for the world in a process that may be killed; attributes and methods are those of the fake."""

    def __init__(self, image: Any, line: Line, trap: Trap, path: str = "") -> None:
        self._image, self._line, self._trap, self._path = image, line, trap, path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found, path = getattr(self._image, name), f"{self._path}.{name}".lstrip(".")
        if isinstance(found, _PLAIN):
            return self._line.ask(Called(self._line.number(), path, is_look=True), _value_of)
        if callable(found):
            method = _Method(path, found)
            return _asynchronous(self, method) if method.is_async else _synchronous(self, method)
        return World(found, self._line, self._trap, path)

    def _crossing(self, method: _Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Called]:
        """Give the call to send, on the other side of one boundary, and return on the other side of the next."""
        where = inside_now()
        about = f"{where.partition(':')[2]}/{method.path}".lstrip("/")
        try:
            packed = method.dump(args, kwargs)
        except Unserializable as error:
            self._line.give_up(
                f"the world's {method.path} was called with what can't travel: {error.message}\n  {HINT}"
            )
        self._trap.cross("before-call", about)
        call = Called(self._line.number(), method.path, *packed, inside=where)
        late = Called(call.number, method.path, *packed, inside=where, is_late=True)
        self._trap.cross("on-its-way", about, last_words=late)
        yield call
        self._trap.cross("acted", about)


def _synchronous(world: World, method: _Method) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        for called in world._crossing(method, args, kwargs):
            answer = world._line.ask(called, _itself)
        return _outcome(method, answer)

    return call


def _asynchronous(world: World, method: _Method) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        token = is_calling.set(True)
        try:
            for called in world._crossing(method, args, kwargs):
                answer = await world._line.ask_async(called)
        finally:
            is_calling.reset(token)
        return _outcome(method, answer)

    return call


def _itself(answer: Answer) -> Answer:
    return answer


def _value_of(answer: Answer) -> Any:
    return msgspec.json.decode(answer.value)


def _outcome(method: _Method, answer: Answer) -> Any:
    if answer.kind == "value":
        return method.answer.load(bytes(answer.value))
    raise _rebuilt(answer)


def _rebuilt(answer: Answer) -> BaseException:
    """Return the world's error as the same class: this process is a fork, so it has the class too."""
    args = msgspec.json.decode(answer.error_args)
    for kind in _kinds_of(BaseException):
        if f"{kind.__module__}.{kind.__qualname__}" == answer.error_type:
            try:
                return kind(*args)
            except Exception:
                break
    return WorldRaised(answer.error_type, *args)


def _kinds_of(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _kinds_of(one)


# -- in the test -------------------------------------------------------------------------------------------------------


class Host:
    """Keeps one world, and carries out what is asked of it.

    Attributes:
        world: The world itself.
        wrongs: What the world saw that must never be, in words.
    """

    def __init__(self, world: Any, books: Callable[[Any], Any] | None, straggles_s: float) -> None:
        self.world = world
        self.wrongs: list[str] = []
        self._books = books
        self._straggles_s = straggles_s
        self._late: set[asyncio.Task[Any]] = set()
        self._asked: dict[str, asyncio.Event] = {}
        self._under_way = 0
        self._begun = 0

    def books(self) -> Any:
        """Return what counts of the world as it is now."""
        return None if self._books is None else copy.deepcopy(self._books(self.world))

    async def answer(self, called: Called) -> Answer | None:
        """Carry out a call; None when nobody is left to be answered."""
        if called.is_late:
            self._late.add(asyncio.ensure_future(self._land(called)))
            return None
        try:
            found = _walk(self.world, called.path)
            if called.is_look:
                return Answer(called.number, msgspec.Raw(_encode(found)))
            method = _Method(called.path, found)
            args, kwargs = method.load(called)
            value = await self._act(called, found, args, kwargs)
            if (asked := self._asked.get(_subject(called))) is not None:
                asked.set()
            return Answer(called.number, msgspec.Raw(method.answer.dump(value)[0]))
        except Unserializable as error:
            raise SurefootError(
                f"the world's {called.path} answered what can't travel: {error.message}", hint=HINT
            ) from error
        except Exception as error:
            return _raised(called.number, error)

    async def _act(self, called: Called, method: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call the method; note where it changed what counts though its caller had no claim for it."""
        before, self._begun = self.books(), self._begun + 1
        mine, is_alone = self._begun, self._under_way == 0
        self._under_way += 1
        try:
            answer = method(*args, **kwargs)
            return await answer if inspect.isawaitable(answer) else answer
        finally:
            self._under_way -= 1
            is_unclaimed = called.inside.startswith(("read:", "step:"))
            if is_unclaimed and is_alone and mine == self._begun and self.books() != before:
                self._note_unclaimed(called)

    def _note_unclaimed(self, called: Called) -> None:
        kind, _, name = called.inside.partition(":")
        place = f"`{name}`, which is declared as a read" if kind == "read" else "no effect"
        step = f" (step `{name}`)" if kind == "step" and name else ""
        wrong = f"an act belongs to an effect: `{called.path}` changed the world inside of {place}{step}"
        if wrong not in self.wrongs:
            self.wrongs.append(wrong)

    async def _land(self, called: Called) -> None:
        """Carry out a late call: when its time is over, or at the worst moment before, right after a call about it."""
        asked = self._asked.setdefault(_subject(called), asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._straggles_s):
                await asked.wait()
        await self.answer(Called(called.number, called.path, called.args, called.kwargs, called.inside))

    async def quiet(self) -> None:
        """Return when nothing is on its way any more."""
        while self._late:
            late, self._late = self._late, set()
            await asyncio.gather(*late)


def _subject(called: Called) -> str:
    return called.inside.partition(":")[2]


def _raised(number: int, error: Exception) -> Answer:
    kind = type(error)
    try:
        args = _encode(error.args)
    except (TypeError, msgspec.MsgspecError):
        args = _encode([traceback.format_exception_only(error)[-1].strip()])
    return Answer(
        number, kind="error", error_type=f"{kind.__module__}.{kind.__qualname__}", error_args=msgspec.Raw(args)
    )
