"""Shadow replay: a run's code is walked along its journal up to the journal's end, and no further.

    recorded step     -> gives its value, checked as any replay checks it
    beyond the end    -> the step never returns, as one that was interrupted: nothing is done, nothing is written
    everything stands -> the code has asked for all that is recorded: same so far

What holds: no effect, read, step, timer or child is begun; nothing is written to the store, which is only looked at; a
connection or a process that the code itself opens, outside of steps, is refused and told. The clock of the code's own
time-outs is run ahead, so that nothing waits.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import FrameType
from typing import Any, TypeVar, cast

import msgspec

from surefoot.effects import Guard, bound_guard, told_to_model
from surefoot.journal import Kind, Record, Undecodable, current_frame
from surefoot.journal.tables import load_records
from surefoot.problem import SurefootError
from surefoot.runs.durable import kind_of_run
from surefoot.runs.errors import Divergence, Suspend, UnknownKind, name_of
from surefoot.runs.live.replay import History, arrange, parent_of
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import Strand, _parent, _place, _saga, _strand
from surefoot.runs.live.taken import LiveStep
from surefoot.runs.live.waiting import Waiting
from surefoot.runs.rows.tables import RunRow
from surefoot.store import SystemClock
from surefoot.store.connection import Connection, faults_of

T = TypeVar("T")

LIMIT_S = 10.0
"""How long one run's code may take to walk along its journal, if nothing else is said."""

BLOCKED_S = 1.0
"""How much later code is interrupted that doesn't come back to the event loop: what comes back tells more."""

TURNS = 50
"""Turns of the event loop without another step after which the code stands: it waits for something."""

STUCK_TURNS = 1_000
"""Turns after which code that stands beyond the journal's end, though steps are missing, asks for none of them any more."""

AHEAD_S = 10.0
"""How far the clock of the loop is run ahead at a time while recorded steps are missing: a time-out may have come first."""

REACHES_OUT = frozenset(
    {"socket.connect", "socket.sendto", "socket.sendmsg", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
     "os.spawn", "os.fork", "os.forkpty"}
)  # fmt: skip
"""What Python tells its audit hooks of that reaches outside the process."""


class Verdict(Enum):
    """What a shadow replay comes to."""

    SAME = "same"
    DRIFT = "drift"
    DIVERGENT = "divergent"
    UNKNOWN_KIND = "unknown_kind"
    UNREADABLE = "unreadable"
    ACTS_OUTSIDE = "acts_outside"
    UNFINISHED = "unfinished"


class Shadow(msgspec.Struct, frozen=True):
    """What became of one run's shadow.

    Attributes:
        run: The run as the store has it.
        verdict: The result.
        step: For a divergence or a drift, the step; else where the code stands.
        asked: What the code asked for there.
        recorded: What the journal holds there.
        words: The same for people.
    """

    run: RunRow
    verdict: Verdict
    step: str = ""
    asked: str = ""
    recorded: str = ""
    words: str = ""


def shadow(connection: Connection, row: RunRow, *, limit_s: float = LIMIT_S) -> Shadow:
    """Walk one run's code along its journal. Called outside any event loop, one at a time.

    Args:
        connection: A connection that can only read.
        row: The run.
        limit_s: Seconds it may take.
    """
    try:
        kind_of_run(row.kind)
    except UnknownKind as error:
        return Shadow(row, Verdict.UNKNOWN_KIND, words=error.message)
    try:
        records = load_records(connection, row.id)
        history = arrange(records)
    except faults_of(connection):
        raise
    except Exception as error:  # as a worker would say of it
        return Shadow(row, Verdict.UNREADABLE, words=f"its journal can't be read: {name_of(error)}: {error}")
    loop = _Ahead()
    try:
        with _limited(limit_s):
            return loop.run_until_complete(_walk(connection, row, history, loop, limit_s))
    except _TooLong:
        words = f"its code did something else than wait for {limit_s:.0f} s"
        return Shadow(row, Verdict.UNFINISHED, words=words)
    finally:
        _end(loop)


async def _walk(connection: Connection, row: RunRow, history: History, loop: _Ahead, limit_s: float) -> Shadow:
    run = _ShadowRun(_ShadowStore(connection), row, history)
    until_s = loop.real_s() + limit_s
    with _watched(run):
        run.task = task = loop.create_task(_call(run))
        idle, seen = 0, -1
        while not (task.done() and idle >= TURNS):
            await asyncio.sleep(0)
            idle, seen = (idle + 1, seen) if run.moves == seen else (0, run.moves)
            if idle < TURNS or task.done():
                continue
            if run.stopped is not None or (run.ahead and not _left(history)):
                break
            is_stuck = bool(run.ahead) and idle >= STUCK_TURNS
            if is_stuck or loop.real_s() >= until_s:
                return _stuck(run, limit_s)
            loop.ahead_s += AHEAD_S
            await asyncio.sleep(0.001)
        return _judge(run, task)


async def _call(run: _ShadowRun) -> str:
    """Run the code; return how it ended, in words."""
    current_frame.set(run)
    bound_guard.set(Guard(cast(Any, run.store), cast(Any, None), cast(Any, None), 0))
    _strand.set(Strand(asyncio.current_task(), 0, is_fork=False))
    _parent.set("")
    _saga.set("")
    _place.set(None)
    told_to_model.set(None)
    kind, started = kind_of_run(run.row.kind), run.history.started
    try:
        args, kwargs = kind.load_input(started.body if started is not None and started.body else b"{}")
    except Undecodable as error:
        raise run.stop(error) from error
    run.begin()
    try:
        kind.result.dump(await kind.function(*args, **kwargs))
    except asyncio.CancelledError:
        return "cancelled"
    except Exception as error:
        return f"failed: {name_of(error)}: {error}"
    return "completed"


def _judge(run: _ShadowRun, task: asyncio.Task[str]) -> Shadow:
    row, stopped = run.row, run.stopped
    if isinstance(stopped, _ReachedOut):
        return Shadow(row, Verdict.ACTS_OUTSIDE, words=str(stopped))
    if isinstance(stopped, Divergence):
        return Shadow(row, Verdict.DIVERGENT, stopped.step, stopped.asked, stopped.recorded, stopped.message)
    if isinstance(stopped, SurefootError):  # what is recorded no longer fits its type
        return Shadow(row, Verdict.DIVERGENT, run.last, words=stopped.message)
    left = _left(run.history)
    if left and task.done():
        error = Divergence(row.run_id, left[0], "the end", f"step {left[0]}, never asked for")
        return Shadow(row, Verdict.DIVERGENT, left[0], error.asked, error.recorded, error.message)
    stands = ", ".join(run.ahead) if run.ahead else ""
    end = f"it would end: {task.result()}" if task.done() and not task.cancelled() and not task.exception() else ""
    words = end or (f"same so far; next: {stands}" if stands else "same so far")
    if run.drifted:
        first = run.drifted[0]
        asked, recorded = first.head.request, str((first.head.detail or {}).get("recorded", ""))
        return Shadow(row, Verdict.DRIFT, first.step, asked, recorded, f"the model is asked in other words; {words}")
    return Shadow(row, Verdict.SAME, stands, words=words)


def _stuck(run: _ShadowRun, limit_s: float) -> Shadow:
    left = _left(run.history)
    if left and run.ahead:  # it goes on elsewhere
        asked, recorded = f"step {run.ahead[0]}", f"step {left[0]}, never asked for"
        words = Divergence(run.run_id, left[0], asked, recorded).message
        return Shadow(run.row, Verdict.DIVERGENT, left[0], asked, recorded, words)
    what = f"step {left[0]} was not asked for" if left else "its code waits for something that is no step"
    return Shadow(run.row, Verdict.UNFINISHED, run.last, words=f"{what} within {limit_s:.0f} s")


def _left(history: History) -> list[str]:
    """Return recorded steps the code has not asked for: as for any replay, and those of tool calls too, which stand under
    the decision that asked for them."""
    return [
        key
        for key, step in history.steps.items()
        if not step.is_asked and not step.is_interrupted and not _is_within(history, key)
    ]


def _is_within(history: History, key: str) -> bool:
    while key := parent_of(key):
        outer = history.steps.get(key)
        is_of_model = outer is not None and outer.ended is not None and bool(outer.ended.head.request)
        if outer is not None and outer.stands_for_inner and not is_of_model:
            return True
    return False


class _ShadowStore:
    """Reads, and never answers a write."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.clock = SystemClock()

    def append(self, unit: object, **_how: object) -> None:
        """Drop it."""

    async def commit(self, unit: object, **_how: object) -> Any:
        """Wait for ever."""
        await asyncio.get_running_loop().create_future()

    async def read(self, query: Callable[[Connection], T]) -> T:
        """See `Store.read`."""
        return query(self._connection)

    def read_now(self, query: Callable[[Connection], T]) -> T:
        """See `Store.read_now`."""
        return query(self._connection)


class _ShadowWorker:
    """What a run asks of its worker while its code is walked."""

    is_stopping = False

    def note_wait(self, target: object, change: int) -> None:
        """Nobody is told."""


class _ShadowRun(LiveRun):
    """A run whose steps beyond the journal's end never return.

    Attributes:
        ahead: Where the code stands: the steps it has asked for beyond the end.
        drifted: The drifts that would be noted.
        moves: Counts what the code has asked for.
        last: The last step it asked for.
    """

    def __init__(self, store: _ShadowStore, row: RunRow, history: History) -> None:
        super().__init__(cast(Any, store), _ShadowWorker(), row, history, [])
        self.ahead: list[str] = []
        self.drifted: list[Record] = []
        self.moves = 0
        self.last = ""

    def open_step(self, name: str, key: str | None) -> LiveStep:
        """See `Frame.open_step`."""
        self.moves += 1
        step = super().open_step(name, key)
        self.last = step.key
        if step.ended is None:
            self.ahead.append(step.key)
            self.open_steps.pop(step.key, None)
            step.ended = Record(self.run, 0, Kind.INTERRUPTED, step.key)
        return step

    def record(self, record: Record, label: str) -> None:
        """Keep drifts; the rest is what an execution would note."""
        if record.kind is Kind.DRIFT:
            self.drifted.append(record)

    async def wait_for(self, waiting: Waiting, *, grace_s: float) -> Any:
        """Wait for ever, without leaving memory."""
        self.moves += 1
        self.ahead.append(waiting.step)
        await self.loop.create_future()


# -- limits -----------------------------------------------------------------------------------------------------------


class _ReachedOut(SurefootError):
    """The code reaches outside the process without a step."""


class _TooLong(KeyboardInterrupt):
    """The limit has passed, and the code doesn't even come back to the event loop, which lets only interrupts through."""


class _Ahead(asyncio.SelectorEventLoop):
    """A loop whose clock can be run ahead, so that the code's own time-outs come at once."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s

    def real_s(self) -> float:
        """Return the clock's time as it is."""
        return super().time()


@contextmanager
def _limited(limit_s: float) -> Iterator[None]:
    """Interrupt code that blocks the event loop, where that is possible: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit_s + BLOCKED_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_watching: list[_ShadowRun] = []
_hooked: list[bool] = []


@contextmanager
def _watched(run: _ShadowRun) -> Iterator[None]:
    """Refuse connections and processes while a run's code is walked; after that, let nothing of it go on."""
    if not _hooked:  # there is no way to take a hook back, so it is set once
        sys.addaudithook(_refuse)
        _hooked.append(True)
    _watching.append(run)
    try:
        yield
    finally:
        _watching.remove(run)
        run.stop(Suspend("the walk is over"))


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:  # pragma: no cover  (Python traces no audit hooks)
    if _watching and event in REACHES_OUT:
        what = ", ".join(repr(one) for one in arguments[1:] or arguments)[:200]
        raise Suspend(_watching[-1].stop(_ReachedOut(f"the code reaches outside its steps: {event} {what}")))


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Unwind what the code left, for a moment, and close the loop."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.set_exception_handler(lambda _loop, _context: None)  # what is thrown away is nobody's error
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


__all__ = ["LIMIT_S", "Shadow", "Verdict", "shadow"]
