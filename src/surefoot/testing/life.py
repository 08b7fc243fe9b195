"""One life of a process under test: forked off the test, killed for real, and watched from outside until it is gone.

A fork has all that the test has defined, closures and patched models included, so nothing need be importable. It never
comes back into the test: whatever happens, it ends here. On systems without fork there are no crash points.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import inspect
import json
import os
import signal
import socket
import sys
import traceback
import types
import warnings
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgspec
from pydantic_core import to_jsonable_python

from surefoot.app import Surefoot
from surefoot.effects.registry import all_specs
from surefoot.effects.rows import desk
from surefoot.effects.rows.desk import EffectView
from surefoot.problem import SurefootError
from surefoot.runs import Run, RunCancelled, RunFailed
from surefoot.runs.durable import kind_of
from surefoot.testing.points import Point
from surefoot.testing.tap import Line, Trap, Watched, tap
from surefoot.testing.wire import Answer, Called, Crossed, Doubted, Ended, Inbox, send
from surefoot.testing.world import Host, World

HOW = "fork and SIGKILL"
"""What is used, for the report."""

GRACE_S = 2.0
"""How long a process that is over its time has to say where it stands, before it is killed."""

READ_BYTES = 1 << 16

ENDED = ("completed", "failed", "cancelled")
HELD = ("blocked", "doubt", "approval", "budget", "model", "signal")
"""What a run can wait for that time alone does not bring."""

Person = Callable[[Any, Doubted], bool | Awaitable[bool | None] | None]


@dataclass(frozen=True)
class Scenario:
    """What is executed again and again. See `crash_points` for the meaning of each."""

    app: Callable[..., Surefoot]
    start: Callable[[Surefoot], Awaitable[Run]]
    limit_s: float
    has_person: bool


@dataclass
class LifeSeen:
    """What was seen of one life.

    Attributes:
        crossed: The points it has crossed, in order.
        killed_at: Where it was killed; None if it came to its end.
        ended: How it came to its end; None if it was killed.
        has_asked: Whether a person has ended a doubt in it.
    """

    crossed: list[Point] = field(default_factory=list)
    killed_at: Point | None = None
    ended: Ended | None = None
    has_asked: bool = False


class Hangs(SurefootError):
    """A process neither died where it should nor came to an end within its time."""


class Strayed(SurefootError):
    """The user's own code did what leaves nothing to examine: it raised before the run began, or ended the process."""


# -- in the test -------------------------------------------------------------------------------------------------------


async def live(scenario: Scenario, url: str, host: Host, target: Point | None, person: Person | None) -> LifeSeen:
    """Let one process live until it ends or is killed; return what was seen of it.

    Raises:
        Hangs: It did neither in time.
        Strayed: It ended otherwise.
    """
    ours, theirs = socket.socketpair()
    pid = _fork(scenario, url, host.world, target, ours, theirs)
    theirs.close()
    watch = _Watch(ours, host, person)
    try:
        async with asyncio.timeout(2 * scenario.limit_s + GRACE_S):
            await watch.until_gone()
    except TimeoutError:
        last = watch.seen.crossed[-1].words if watch.seen.crossed else "nothing was crossed yet"
        raise Hangs(
            f"a process was still there after {2 * scenario.limit_s + GRACE_S:g} s, with its event loop blocked; "
            f"last seen: {last}",
            hint="a synchronous call that waits? give it a timeout, or a larger limit_s=",
        ) from None
    finally:
        watch.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # with what it has started itself
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)  # noqa: ASYNC222  it has just been killed
    seen = watch.seen
    if seen.ended is not None and seen.ended.problem:
        raise (Hangs if seen.ended.state == "hangs" else Strayed)(seen.ended.problem)
    if seen.ended is None and seen.killed_at is None:
        raise Strayed(
            f"the process ended by itself, before its run did ({_ending(status)})",
            hint="does the agent's code call sys.exit, or crash in native code?",
        )
    return seen


def _ending(status: int) -> str:
    return (
        f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.waitstatus_to_exitcode(status)}"
    )


class _Watch:
    """Reads what a process says, and answers it, until it is gone."""

    def __init__(self, channel: socket.socket, host: Host, person: Person | None) -> None:
        self.seen = LifeSeen()
        self._channel = channel
        self._host = host
        self._person = person
        self._inbox = Inbox()
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        channel.setblocking(False)
        self._loop.add_reader(channel, self._read)

    async def until_gone(self) -> None:
        """Return when the process has died, and all that it had sent has been carried out."""
        await self._gone
        while tasks := [*self._tasks]:
            await asyncio.gather(*tasks)
            self._tasks.difference_update(
                tasks
            )  # from Python 3.12 on, tasks that have ended let no callback run meanwhile

    def close(self) -> None:
        """Stop watching."""
        self._loop.remove_reader(self._channel)
        self._channel.close()
        for task in self._tasks:
            task.cancel()

    def _read(self) -> None:
        try:
            received = self._channel.recv(READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            received = b""
        if not received:
            self._be_gone()
        for message in self._inbox.add(received):
            self._take(message)

    def _be_gone(self) -> None:
        """Its end has come, or these were its last words: something it has forked may hold the socket open."""
        self._loop.remove_reader(self._channel)
        if not self._gone.done():
            self._gone.set_result(None)

    def _take(self, message: Crossed | Called | Doubted | Ended) -> None:
        match message:
            case Crossed():
                point = Point(message.side, message.about, message.nth)
                self.seen.crossed.append(point)
                if message.is_last:
                    self.seen.killed_at = point
                    self._be_gone()
            case Ended():
                self.seen.ended = message
                self._be_gone()
            case Called():
                self._begin(self._host.answer(message))
            case Doubted():
                self._begin(self._ask(message))

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(self._reply(work))
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._gone.done():
            self._gone.set_exception(error)

    async def _reply(self, work: Awaitable[Answer | None]) -> None:
        answer = await work
        if answer is None:
            return
        self._channel.setblocking(True)
        try:
            send(self._channel, answer)
        except OSError:  # it died meanwhile: the act stands, its answer is lost
            return
        finally:
            with contextlib.suppress(OSError):
                self._channel.setblocking(False)

    async def _ask(self, doubted: Doubted) -> Answer:
        assert self._person is not None, "nobody is asked without one"
        found = self._person(self._host.world, doubted)
        said = await found if inspect.isawaitable(found) else found
        self.seen.has_asked |= said is not None
        return Answer(doubted.number, msgspec.Raw(json.dumps(said).encode()))


# -- in the process ----------------------------------------------------------------------------------------------------


def _fork(
    scenario: Scenario, url: str, world: Any, target: Point | None, ours: socket.socket, theirs: socket.socket
) -> int:
    if not hasattr(os, "fork"):
        raise SurefootError("crash points need fork, which this system doesn't have", hint="use Linux or macOS")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else the fork would have it to flush too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks beside threads: the fork takes none of their locks
        pid = os.fork()
    if pid == 0:
        try:
            gc.freeze()  # what the test has made is not this process's to finalize
            ours.close()
            os.setsid()
            _be(scenario, url, world, target, theirs)
        finally:
            os._exit(3)
    return pid


def import_late(seen: LifeSeen) -> None:
    """Import what a life had to import of packages that the test has already: no further life need spend its time on it."""
    for name in seen.ended.imported if seen.ended is not None else ():
        if name.partition(".")[0] in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _be(scenario: Scenario, url: str, world: Any, target: Point | None, channel: socket.socket) -> NoReturn:
    known = set(sys.modules)
    line = Line(channel)
    trap = Trap(line, target)
    tap(trap)
    try:
        asyncio.run(_live(scenario, url, None if world is None else World(world, line, trap), line, known))
    except BaseException as error:
        own = "".join(traceback.format_exception(error)[-6:])
        line.give_up(f"{type(error).__name__}: {error}\n{own}")
    os._exit(0)


async def _live(scenario: Scenario, url: str, world: Any, line: Line, known: set[str]) -> None:
    app = scenario.app(url, world)
    if not isinstance(app, Surefoot):
        raise SurefootError(f"app returned {app!r}", hint="return the sf.Surefoot, built on the url it is given")
    with _time_limit(scenario, line):
        await app.open()
        run = await scenario.start(app)
        if not isinstance(run, Run):
            raise SurefootError(f"start returned {run!r}", hint="return the run: `return await app.start(...)`")
    with _time_limit(scenario, line):
        ended = await _follow(app, run, line, has_person=scenario.has_person)
    ended.imported = sorted(set(sys.modules) - known)
    line.tell(ended)
    os._exit(0)


@contextlib.contextmanager
def _time_limit(scenario: Scenario, line: Line) -> Iterator[None]:
    def say() -> None:
        places = "\n".join(f"  {one}" for one in sorted({_where(task) for task in asyncio.all_tasks()} - {""}))
        problem = f"a process goes on for more than {scenario.limit_s:g} s; its code waits at\n{places or '  nothing'}"
        line.tell(Ended(state="hangs", problem=problem))
        os._exit(0)

    timer = asyncio.get_running_loop().call_later(scenario.limit_s, say)
    try:
        yield
    finally:
        timer.cancel()


def _where(task: asyncio.Task[Any]) -> str:
    """Return the innermost line of the user's own code at which a task waits."""
    found = ""
    at: Any = task.get_coro()
    while isinstance(at, types.CoroutineType | types.GeneratorType):
        frame, inner = (
            (at.cr_frame, at.cr_await) if isinstance(at, types.CoroutineType) else (at.gi_frame, at.gi_yieldfrom)
        )
        if frame is None:
            break
        if frame.f_code is Watched.__await__.__code__:
            inner = frame.f_locals["self"].work
        elif frame.f_globals.get("__name__", "").partition(".")[0] not in ("surefoot", "asyncio"):
            found = f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
        at = inner
    return found


async def _follow(app: Surefoot, run: Run, line: Line, *, has_person: bool) -> Ended:
    """Return how the run ended, or what it waits for that time does not bring."""
    while True:
        if app.worker.failure is not None:
            raise app.worker.failure
        with app.worker.hearing.of(run.row) as told:
            status = await run.status()
            if status.state in ENDED:
                return Ended(status.state, "", status.reason, await _result(run), _declared(app, run))
            held = await _held(app)
            if held is not None and not (held[0] == "doubt" and has_person and await _settle(app, line)):
                return Ended("waiting", *held, "", _declared(app, run))
            if await app.worker.end_here(run.row) is None:
                await app.worker.hearing.wait(told)


async def _held(app: Surefoot) -> tuple[str, str] | None:
    """Return what the runs wait for and why, if nothing goes on without somebody's help."""
    open_ones = [row for row in await app.runs(limit=1_000) if row.state.name.lower() not in ENDED]
    if any(row.state.name != "WAITING" or row.waiting_for == "timer" for row in open_ones):
        return None
    held = [row for row in open_ones if row.waiting_for in HELD]
    first = min(held, key=lambda row: HELD.index(row.waiting_for or ""), default=None)
    return None if first is None else (first.waiting_for or "", first.reason)


async def _settle(app: Surefoot, line: Line) -> bool:
    """Let a person end the doubts; return whether they ended one."""
    is_settled = False
    for view in await app.unknowns():
        arguments = msgspec.Raw(msgspec.json.encode(to_jsonable_python(view.arguments)))
        doubted = Doubted(line.number(), view.id, view.name, view.key, arguments)
        said = msgspec.json.decode((await line.ask_async(doubted)).value)
        if said is not None:
            await app.resolve(view.id, is_done=said, by="a person", reason="looked at the world")
            is_settled = True
    return is_settled


async def _result(run: Run) -> str:
    try:
        value = await run.result()
    except (RunFailed, RunCancelled) as error:
        return error.message
    return json.dumps(to_jsonable_python(value, fallback=repr), sort_keys=True)


def _declared(app: Surefoot, run: Run) -> list[str]:
    """Return the effects that could have been asked for: of the run's own module, or seen in the ledger."""
    seen: list[EffectView] = app.store.read_now(lambda connection: desk.list_effects(connection, limit=1_000))
    names = {view.name for view in seen}
    specs = [spec for spec in all_specs() if not spec.is_read]
    modules = {kind_of(run.kind).function.__module__} | {one.function.__module__ for one in specs if one.name in names}
    beside = {
        one.name for one in specs if one.function.__module__ in modules and "<locals>" not in one.function.__qualname__
    }
    return sorted(names | beside)


__all__ = ["HOW", "Hangs", "LifeSeen", "Person", "Scenario", "Strayed", "import_late", "live"]
