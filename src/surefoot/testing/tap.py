"""Inside a process that is to be killed: wrappers around its store, its effects and its world, and the trap they spring.

The engine knows nothing of this: what is wrapped are the writer's two ways in and the effects' own functions, in a process
that is thrown away. Before the trap kills, all that was queued for the disk is on it, as it is 5 ms later anyway: so each
point stands for one state of the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, NoReturn, TypeVar

from surefoot.effects.spec import EffectSpec
from surefoot.journal import current_frame
from surefoot.runs.live.run import LiveRun
from surefoot.store import StoreError, Tx
from surefoot.store.writer import Writer
from surefoot.testing.points import Point
from surefoot.testing.wire import Answer, Called, Crossed, Ended, receive, send

T = TypeVar("T")

LABELS_LEFT_OUT = frozenset({"renew", "room", "barrier", "escalate", "session", "note"})
"""Writes that come by the clock, or that hold nothing of a run."""

WAITS_PER_CALL = 2
"""How many of the waits inside one effect are points: enough for "sent" and "half way through the answer"."""

is_calling: ContextVar[bool] = ContextVar("surefoot_testing_calling", default=False)
"""Whether the task waits for the world's answer: those waits have points of their own."""

_acting: ContextVar[str] = ContextVar("surefoot_testing_acting", default="")


class Line:
    """The process's end of the socket to the test."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._asked: dict[int, Callable[[Answer], object]] = {}
        threading.Thread(target=self._read, name="surefoot-testing-line", daemon=True).start()

    def give_up(self, problem: str) -> NoReturn:
        """End this life: the test can't mean what it asks of us."""
        self.tell(Ended(state="", problem=problem))
        os._exit(0)

    def number(self) -> int:
        """Return a number for a question."""
        return next(self._numbers)

    def tell(self, message: Any) -> None:
        """Say something; it is with the test when this returns, whatever becomes of this process."""
        with self._sending:
            send(self._channel, message)

    def ask(self, question: Any, reading: Callable[[Answer], T]) -> T:
        """Ask, and block until the answer is there."""
        answers: list[Answer] = []
        has_come = threading.Event()

        def come(answer: Answer) -> None:
            answers.append(answer)
            has_come.set()

        self._asked[question.number] = come
        self.tell(question)
        has_come.wait()
        return reading(answers[0])

    async def ask_async(self, question: Any) -> Answer:
        """Ask, and wait for the answer."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._asked[question.number] = lambda answer: loop.call_soon_threadsafe(_come, future, answer)
        self.tell(question)
        return await future

    def _read(self) -> None:
        while (answer := receive(self._channel)) is not None:
            self._asked.pop(answer.number)(answer)
        os._exit(1)  # the test is gone, and with it whoever could end this process


def _come(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


class Trap:
    """Tells the test of each crossing, and kills the process at the one it is set to."""

    def __init__(self, line: Line, target: Point | None) -> None:
        self._line = line
        self._target = target
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self.writer: Writer | None = None

    def cross(self, side: str, about: str, *, last_words: Called | None = None) -> None:
        """Note a crossing; does not return if the trap is set to it.

        Args:
            side: Which boundary.
            about: What it is about.
            last_words: A call that leaves right before the process dies; then this is a point only for the trap.
        """
        with self._lock:
            self._counts[side, about] += 1
            point = Point(side, about, self._counts[side, about])
        if point == self._target:
            self._spring(point, last_words)
        elif last_words is None:
            self._line.tell(Crossed(side, about, point.nth))

    def _spring(self, point: Point, last_words: Called | None) -> NoReturn:
        if self.writer is not None and not self.writer.is_own_thread:
            with contextlib.suppress(StoreError):
                self.writer.commit_blocking(_nothing, label="barrier")
        if last_words is not None:
            self._line.tell(last_words)
        self._line.tell(Crossed(point.side, point.about, point.nth, is_last=True))
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a process outlives its SIGKILL")


def _nothing(_tx: Tx) -> None:
    return None


def step_now() -> str:
    """Return the name of the step that the current task takes, or nothing."""
    run = current_frame.get()
    if not isinstance(run, LiveRun):
        return ""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # in a thread
        return ""
    names = [step.name for step in run.open_steps.values() if step.task is task]
    return names[-1] if names else ""


def inside_now() -> str:
    """Return what the caller is inside of: "effect:NAME", "read:NAME", "step:NAME", or nothing outside of runs."""
    acting = _acting.get()
    if acting:
        return acting
    return f"step:{step_now()}" if isinstance(current_frame.get(), LiveRun) else ""


def tap(trap: Trap) -> None:
    """Wrap the store and the effects of this process, for good."""
    _tap_writer(trap)
    setattr(EffectSpec, "function", property(partial(_tapped, trap), _keep))  # noqa: B010  a class attribute, for good


def _tap_writer(trap: Trap) -> None:
    commit, append = Writer.commit, Writer.append

    @wraps(commit)
    async def tapped_commit(self: Writer, unit: Any, *, label: str, **options: Any) -> Any:
        trap.writer = self
        if label in LABELS_LEFT_OUT:
            return await commit(self, unit, label=label, **options)
        about = step_now()
        trap.cross(f"before-{label}", about)
        result = await commit(self, unit, label=label, **options)
        trap.cross(f"after-{label}", about)
        return result

    @wraps(append)
    def tapped_append(self: Writer, unit: Any, *, label: str, **options: Any) -> None:
        trap.writer = self
        about = step_now()
        trap.cross(f"before-{label}", about)
        append(self, unit, label=label, **options)
        trap.cross(f"after-{label}", about)

    setattr(Writer, "commit", tapped_commit)  # noqa: B010  as above
    setattr(Writer, "append", tapped_append)  # noqa: B010  as above


def _keep(spec: EffectSpec, function: Callable[..., Any]) -> None:
    vars(spec)["function"] = function
    vars(spec).pop("_tapped", None)


def _tapped(trap: Trap, spec: EffectSpec) -> Callable[..., Any]:
    """Return an effect's function with a trap around it."""
    own = vars(spec)
    if "_tapped" not in own:
        function, kind = own["function"], "read" if own.get("is_read") else "effect"
        make = _tapped_async if asyncio.iscoroutinefunction(function) else _tapped_sync
        own["_tapped"] = make(trap, spec.name, f"{kind}:{spec.name}", function)
    found: Callable[..., Any] = own["_tapped"]
    return found


def _tapped_async(trap: Trap, name: str, inside: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def act(*args: Any, **kwargs: Any) -> Any:
        token = _acting.set(inside)
        try:
            return await Watched(function(*args, **kwargs), lambda: trap.cross("waiting", name))
        finally:
            _acting.reset(token)
            trap.cross("replied", name)

    return act


def _tapped_sync(trap: Trap, name: str, inside: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def act(*args: Any, **kwargs: Any) -> Any:
        token = _acting.set(inside)
        try:
            return function(*args, **kwargs)
        finally:
            _acting.reset(token)
            trap.cross("replied", name)

    return act


class Watched:
    """Awaits something, and says so each time it waits, first and second."""

    def __init__(self, work: Awaitable[Any], on_wait: Callable[[], object]) -> None:
        self.work = work
        self._on_wait = on_wait
        self._left = WAITS_PER_CALL

    def __await__(self) -> Generator[Any, Any, Any]:
        work = self.work.__await__()
        step: Callable[[], Any] = partial(next, work)
        while True:
            try:
                waited = step()
            except StopIteration as end:
                return end.value
            if self._left and not is_calling.get():
                self._left -= 1
                self._on_wait()
            try:
                sent = yield waited
                step = partial(_go_on, work, sent)
            except BaseException as error:
                step = partial(_throw, work, error)


def _go_on(work: Any, sent: Any) -> Any:
    return work.send(sent) if hasattr(work, "send") else next(work)


def _throw(work: Any, error: BaseException) -> Any:
    if hasattr(work, "throw"):
        return work.throw(error)
    raise error
