"""Live events: what an agent does right now, for whoever watches in the process that executes it.

What holds: live events are provisional and no record. A model's words are shown before they are recorded, each tagged with
the attempt it belongs to; when the attempt is repeated (its process died, say), `again` says to forget what was shown of
that step. A replay shows nothing. Watching changes no outcome: who is too slow misses events, and is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import msgspec
from pydantic_ai.models import Model
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.wrapper import WrapperModel

from surefoot.problem import SurefootError
from surefoot.runs import Run
from surefoot.runs.life import RunState
from surefoot.runs.live.run import LiveRun
from surefoot.runs.worker import Worker

WAITING_MAX = 10_000
"""Events that wait for a slow watcher; above that the oldest are dropped, and it is told with `missed`."""


class LiveEvent(msgspec.Struct, frozen=True):
    """Something an agent does right now.

    Attributes:
        kind: "event"; "again": forget what was shown of this step, it is being repeated; "missed": events were dropped
            because this watcher was too slow.
        step: The step it belongs to: a decision, of this agent or of a sub-agent.
        attempt: Which execution of the run this is; it grows with each takeover and each waking.
        seq: Its number within the step and attempt, from 1; 0 for what is no event.
        event: Pydantic AI's event, or None.
    """

    kind: Literal["event", "again", "missed"]
    step: str
    attempt: int
    seq: int = 0
    event: Any = None


class Elsewhere(SurefootError):
    """The run is executed by another process, and its live events are seen there only."""


class Channel:
    """The watchers of one run in this process, and what they have been shown."""

    def __init__(self) -> None:
        self.watchers: list[asyncio.Queue[LiveEvent]] = []
        self._shown: dict[str, tuple[int, int]] = {}

    def begin(self, step: str, attempt: int) -> None:
        """Note that a step begins; whatever was shown of an earlier attempt, here or in another process, is void."""
        if attempt > 1 or step in self._shown:
            self._tell(LiveEvent("again", step, attempt))
        self._shown[step] = (attempt, 0)

    def publish(self, step: str, attempt: int, event: Any) -> None:
        """Show an event."""
        seen, seq = self._shown.get(step, (attempt, 0))
        seq = seq + 1 if seen == attempt else 1
        self._shown[step] = (attempt, seq)
        self._tell(LiveEvent("event", step, attempt, seq, event))

    def _tell(self, event: LiveEvent) -> None:
        for queue in self.watchers:
            if queue.full():
                queue.get_nowait()
                queue.get_nowait()
                queue.put_nowait(LiveEvent("missed", event.step, event.attempt))
            queue.put_nowait(event)


_channels: dict[tuple[int, str], Channel] = {}
"""By worker and run. A channel lives as long as somebody watches."""


def channel_of(run: LiveRun) -> Channel | None:
    """Return the channel of a run that somebody watches, or None."""
    return _channels.get((id(run.worker), run.run_id)) if _channels else None


@contextmanager
def watching(worker: Worker, run_id: str) -> Iterator[asyncio.Queue[LiveEvent]]:
    """Watch a run, which may not have begun yet."""
    key, queue = (id(worker), run_id), asyncio.Queue[LiveEvent](WAITING_MAX)
    channel = _channels.setdefault(key, Channel())
    channel.watchers.append(queue)
    try:
        yield queue
    finally:
        channel.watchers.remove(queue)
        if not channel.watchers:
            _channels.pop(key, None)


async def events(worker: Worker, run: Run, queue: asyncio.Queue[LiveEvent]) -> AsyncIterator[LiveEvent]:
    """Yield a run's live events until it has ended.

    Raises:
        Elsewhere: Another process executes it.
    """
    end = asyncio.ensure_future(run.result())
    try:
        while not end.done() or not queue.empty():
            if queue.empty():
                await _check_here(worker, run)
                found = asyncio.ensure_future(queue.get())
                await asyncio.wait({found, end}, return_when=asyncio.FIRST_COMPLETED, timeout=LOOK_S)
                if not found.done():
                    found.cancel()
                    continue
                yield found.result()
            else:
                yield queue.get_nowait()
    finally:
        end.cancel()
        with suppress(asyncio.CancelledError, Exception):  # how the run ended is told by its result
            await end


LOOK_S = 1.0
"""How often a watcher that sees nothing looks whether another process has the run now."""


async def _check_here(worker: Worker, run: Run) -> None:
    row = await run.look()
    is_elsewhere = row.state is RunState.RUNNING and row.holder != worker.session.id and not worker.is_live(row.id)
    if is_elsewhere or not worker.is_executing:
        raise Elsewhere(
            f"run {run.id} is not executed by this process, and its live events are seen only where it is",
            hint=f"watch it in the worker's process, or see what is recorded: surefoot show {run.id}",
        )


def can_stream(model: object) -> bool:
    """Whether a model can be asked for a stream: asking one that can't, because somebody watches, would fail the run."""
    while isinstance(model, WrapperModel):
        model = model.wrapped
    if isinstance(model, FunctionModel):
        return model.stream_function is not None
    return not isinstance(model, Model) or type(model).request_stream is not Model.request_stream
