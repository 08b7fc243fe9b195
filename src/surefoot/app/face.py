"""What a program has of Surefoot in its hand: one object that starts runs, shows what is there, and opens and closes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from surefoot import runs
from surefoot.app.decisions import Decisions
from surefoot.app.formats import MIGRATIONS
from surefoot.app.opened import Opened
from surefoot.approvals import ApprovalView, Approve, list_approvals
from surefoot.coordination.events import DeadLetter, GroupView
from surefoot.coordination.events.letters import is_open_letter, list_dead, list_groups
from surefoot.coordination.events.retention import sweep as sweep_events
from surefoot.effects import Gate, Guard, add_open, set_opener
from surefoot.effects.doubt import duration_ms
from surefoot.effects.rows import desk
from surefoot.effects.rows.desk import EffectView
from surefoot.effects.states import State
from surefoot.journal.encrypted import Encrypted
from surefoot.journal.texts import require_text
from surefoot.people import People
from surefoot.problem import SurefootError
from surefoot.runs import Escalation, KindSpec, Run, Worker
from surefoot.runs.life import RunState
from surefoot.runs.queueing import NORMAL, Queueing, deadline_of, limit_of, queueing, when
from surefoot.runs.rows.desk import is_open
from surefoot.runs.rows.retention import Retention, Swept
from surefoot.runs.rows.rotating import rotate
from surefoot.runs.rows.tables import RunRow, list_runs
from surefoot.runs.worker import ROOM
from surefoot.store import Clock, Store, is_on_postgres, open_store, require_url, shown
from surefoot.store.codec import Codec

if TYPE_CHECKING:
    from pydantic_ai import Agent
    from pydantic_ai.agent import EventStreamHandler

    from surefoot.adapters.pydantic_ai import DurableAgent
    from surefoot.adapters.pydantic_ai.declarations import Effects
    from surefoot.adapters.temporal import Engine

SERVE_LOOK_S = 0.5
"""How often a serving process looks whether its worker still works."""


class NotOpen(SurefootError):
    """The app was used before `async with app:` or after it."""


class Surefoot(Decisions):
    """One store, one session, one worker.

    Args:
        url: Where to keep everything: "sqlite:///agents.db". None: the SUREFOOT_URL environment variable. One that names
            no database is refused at once (`UnusablePath`); the store itself is looked at when it is opened.
        gates: What must agree before an effect acts, in this order.
        name: How this process is called in the ledger; None: host and process id.
        clock: None for the host's clocks.
        is_worker: Whether this process executes runs; False only starts, signals and reads them.
        on_escalation: Called by this process's worker with an `Escalation` for each doubt that only a person can end and
            that has been open for longer than its `AskPerson(deadline)`, and each approval that has been pending for
            longer than its `Approve(deadline)`; async, or sync (called in a thread); None: it is noted and logged as a
            warning of the logger "surefoot". At least once for each: it is called again when it raised, or took longer
            than 30 s, or its process died. What it raises is logged, and stops nothing.
        people: Who may decide what; kept in the store, so that the command line keeps to it too, and a change is part of
            the trail. None: what the store has; where nothing was ever said, anybody who can open it.
        keep_for: How long values of what has ended are kept, as "90d" or seconds; this process's worker looks every hour,
            and deletes what is older as `gc` does. None: for ever, or until `surefoot gc` is called.
        concurrency: How many runs this process has in memory at a time, those that wait for something for a moment
            included; about 60 KB each when small. More are left to other workers, or wait on disk.
        codec: How values lie on disk: `sf.Encrypted({"2026": key})`. None: what the SUREFOOT_KEYS environment variable
            says, else as they are.
        engine: What executes the runs of agents: None: this process and its like; "temporal://host:7233/namespace": the
            workers of that Temporal cluster, with `task_queue=` as a parameter. Needs a store on PostgreSQL, and
            `surefoot[temporal]`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        gates: Sequence[Gate] = (),
        name: str | None = None,
        clock: Clock | None = None,
        is_worker: bool = True,
        on_escalation: Callable[[Escalation], Awaitable[object] | object] | None = None,
        people: People | None = None,
        keep_for: str | float | None = None,
        concurrency: int = ROOM,
        codec: Codec | None = None,
        engine: str | None = None,
    ) -> None:
        super().__init__(people)
        found = url or os.environ.get("SUREFOOT_URL")
        if not found:
            raise SurefootError("no database URL", hint='sf.Surefoot("sqlite:///agents.db"), or set SUREFOOT_URL')
        require_url(found)
        self.url = found
        if any(isinstance(gate, Approve) for gate in gates):
            raise SurefootError(
                "sf.Approve is declared by the effect it is for", hint="@sf.effect(approve=sf.Approve(...))"
            )
        self._gates = tuple(gates)
        if name:
            require_text("name", name)
        self._name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._clock = clock
        self._is_worker = is_worker
        self._on_escalation = on_escalation
        self.codec = codec if codec is not None else Encrypted.from_environment()
        self._engine = None if engine is None else _engine(engine, found, lambda: self.worker, self.codec)
        self._keep_ms = None if keep_for is None else duration_ms(keep_for)
        self.concurrency = limit_of("concurrency", concurrency) or ROOM
        self._opened: Opened | None = None

    async def __aenter__(self) -> Surefoot:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the store and, unless `is_worker` is False, begin to execute runs."""
        if self._opened is not None:
            raise SurefootError(f"the app on {shown(self.url)} is open already", hint="open it once per process")
        store = await asyncio.to_thread(open_store, self.url, MIGRATIONS, clock=self._clock, codec=self.codec)
        opened = self._opened = Opened(store)
        try:
            await opened.wire(
                self._name,
                people=self._people,
                gates=self._gates,
                room=self.concurrency,
                on_escalation=self._on_escalation,
            )
            if self._is_worker:
                await opened.work(None if self._keep_ms is None else partial(self.gc, self._keep_ms / 1_000))
            if self._engine is not None:
                await self._engine.open(is_worker=self._is_worker)
            add_open(self.guard)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Hand runs back, write what is queued, and give the store back. Safe to call twice."""
        if self._engine is not None and self._opened is not None and self._opened.worker is not None:
            await self._engine.close()
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    @property
    def store(self) -> Store:
        """The open store."""
        if self._opened is None:
            raise self._not_open()
        return self._opened.store

    @property
    def worker(self) -> Worker:
        """The worker of this process."""
        if self._opened is None or self._opened.worker is None:
            raise self._not_open()
        return self._opened.worker

    @property
    def guard(self) -> Guard:
        """Where effects of this process are claimed."""
        return self.worker.guard

    def _not_open(self) -> NotOpen:
        return NotOpen(f"the app on {shown(self.url)} is not open", hint="use it inside `async with app:`")

    async def start(
        self,
        function: Callable[..., Any] | str,
        *args: Any,
        id: str,
        deadline_s: float | None = None,
        priority: int = NORMAL,
        delay: str | float | None = None,
        at: datetime | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Run:
        """Start a run of a durable function, or return the run of that id.

        Args:
            function: A function with `@sf.durable`, or its kind's name.
            args: Its arguments.
            id: The business id: the same id with the same input is the same run, however often it is started.
            deadline_s: Seconds from now after which the run's next step raises `DeadlinePassed`; None for none.
            priority: From 1 (first) to 5 (last): among the runs that wait for a worker, the lower number is always taken
                first, and of equals the older.
            delay: It begins no sooner than so many seconds from now, or "15m", "24h", "7d"; None: as soon as it can.
            at: The same, as a moment with a time zone.
            key: Runs of this function with the same key take turns, as `@sf.durable(concurrency_per_key=...)` says; None:
                it waits for no other run.
            kwargs: Its keyword arguments. One that is called as an argument here is given by its position.

        The last four say when a new run begins. They are no part of its input: a run that is there keeps its own.

        Returns:
            The run, once it is on disk.

        Raises:
            BadRunId: The id is no text, empty, or has half a character in it.
            RunConflict: The id belongs to a run with another input; both are shown.
            UnknownKind: The function is not durable.
            Unserializable: An argument can't be kept.
            SurefootError: A priority, a key, a time or a deadline that is none.
        """
        kind = runs.kind_of(function)
        kind.refuse_shadowed(args, {"priority": priority != NORMAL, "delay": delay is not None, "at": at is not None,
                                    "key": key is not None})  # fmt: skip
        body, digest = kind.dump_input(args, kwargs)
        how = self.queueing(kind, priority=priority, delay=delay, at=at, key=key)
        if self._engine is not None and self._engine.executes(kind):
            return await self._engine.start(kind, body, digest, id, deadline_s, how)
        deadline_ms = deadline_of(self.store.clock.wall_ms(), deadline_s)
        return await runs.start_run(
            self.store, self.worker, kind, body, digest, run_id=id, deadline_ms=deadline_ms, how=how
        )

    def queueing(
        self,
        kind: KindSpec,
        *,
        priority: int = NORMAL,
        delay: str | float | None = None,
        at: datetime | None = None,
        key: str | None = None,
    ) -> Queueing:
        """Return when a run of a kind may begin; see `start`."""
        at_ms = when(self.store.clock.wall_ms(), None if delay is None else duration_ms(delay), at)
        return queueing(kind.name, priority=priority, at_ms=at_ms, key=key, places=kind.concurrency_per_key)

    async def run(self, id: str) -> Run:
        """Return the handle of an existing run.

        Raises:
            RunNotFound: There is none.
        """
        return await runs.find(self.store, self.worker, id)

    async def runs(self, *, state: str | None = None, kind: str | None = None, limit: int = 100) -> list[RunRow]:
        """Return runs, newest first.

        Args:
            state: Only those of this state; None for all.
            kind: Only those of this kind; None for all.
            limit: How many at most.

        Raises:
            SurefootError: There is no such state, or no kind could be called so.
        """
        states = {one.name.lower(): one for one in RunState}
        wanted = None if state is None else states.get(str(state).lower())
        if state is not None and wanted is None:
            raise SurefootError(f"state={state!r}: no run is that", hint=f"use one of: {', '.join(states)}")
        if kind is not None:
            require_text("kind", kind)
        return await self.store.read(lambda connection: list_runs(connection, state=wanted, kind=kind, limit=limit))

    async def unknowns(self) -> list[EffectView]:
        """Return the effects whose outcome nobody knows, newest first."""
        return await self.store.read(partial(desk.list_effects, state=State.UNKNOWN))

    async def approvals(self, *, limit: int = 100) -> list[ApprovalView]:
        """Return the approvals that somebody waits for, the most urgent first."""
        sessions = self.worker.sessions
        return await self.store.read(lambda connection: list_approvals(connection, sessions, is_open, limit=limit))

    async def groups(self) -> list[GroupView]:
        """Return the groups of all topics: how far each is, what it is at, and how many dead letters it has."""
        return await self.store.read(list_groups)

    async def dead_letters(self, *, group: str | None = None, limit: int = 100) -> list[DeadLetter]:
        """Return the events that groups could not act on, oldest first; those of one group, or of all."""
        return await self.store.read(partial(list_dead, group=group, limit=limit))

    async def gc(
        self,
        older_than: str | float,
        *,
        is_dry_run: bool = False,
        tell: Callable[[Swept], object] | None = None,
    ) -> Swept:
        """Delete the values of what ended long ago; keys, outcomes and digests stay. See `surefoot.runs.rows.retention`.

        Args:
            older_than: As "90d" or seconds, counted from the end of a run, or of an effect outside runs.
            is_dry_run: Only count.
            tell: Called with what was swept so far, now and then; None for nobody.

        Returns:
            What was deleted, or would be.
        """
        before_ms = self.store.clock.wall_ms() - duration_ms(older_than)
        emptied = await sweep_events(self.store, before_ms, is_dry=is_dry_run)
        swept = await Retention(self.store, before_ms, is_dry=is_dry_run, tell=tell, is_needed=is_open_letter).sweep()
        return replace(swept, events=emptied)

    async def rotate_keys(self, *, tell: Callable[[int], object] | None = None) -> int:
        """Write all values anew that are not under the codec's current key; see `surefoot.runs.rows.rotating`.

        Args:
            tell: Called with how many rows were written so far, now and then; None for nobody.

        Returns:
            How many rows were written.
        """
        return await rotate(self.store, self.codec, tell)

    def agent(
        self,
        agent: Agent[Any, Any],
        *,
        name: str | None = None,
        reads: Iterable[str] = (),
        effects: Effects | None = None,
        was: Iterable[str] = (),
        tools_were: Mapping[str, str] | None = None,
        deps: Callable[..., Any] | None = None,
        event_stream_handler: EventStreamHandler[Any] | None = None,
        concurrency: int | None = None,
        concurrency_per_key: int | None = None,
    ) -> DurableAgent:
        """Make a Pydantic AI agent durable.

        Args:
            agent: The agent; it is not changed.
            name: Its durable name; None: `agent.name`. A name is data on disk. The last agent of a name in a process
                executes its runs, as where a notebook's cell is run again; one that is still started then warns once.
            reads: Names of tools that change nothing outside, for those not declared with `@sf.read`.
            effects: Tools by the name the model sees, each with `sf.effect(...)`, for those whose author declared nothing:
                MCP tools above all. What is in neither is an effect whose doubts a person ends.
            was: Its earlier durable names, so that their open runs go on.
            tools_were: Earlier names of its tools, each with today's: `{"refund": "refund_order"}`.
            deps: Makes the dependencies (connections, clients) in each process that executes a run; async or not, called
                with what the run was started with as `deps`, if it takes a parameter. None: that is the dependencies.
            event_stream_handler: Sees the agent's events live, as in Pydantic AI, in the process that executes the run;
                what was shown of an attempt that is repeated is shown again, and a replay shows nothing.
            concurrency: As for `@sf.durable`.
            concurrency_per_key: As for `@sf.durable`.

        Returns:
            What starts its runs: `await support.start(prompt, id=...)`.
        """
        from surefoot.adapters.pydantic_ai import durable_agent

        return durable_agent(
            self,
            agent,
            made=None if self._engine is None else self._engine.agent,
            name=name,
            reads=reads,
            effects=effects,
            was=was,
            tools_were=tools_were,
            deps=deps,
            event_stream_handler=event_stream_handler,
            concurrency=concurrency,
            concurrency_per_key=concurrency_per_key,
        )

    async def serve(self) -> None:
        """Execute runs until cancelled: the body of a worker process.

        Raises:
            StoreError: The store failed; nothing more is recorded by this process.
        """
        with contextlib.suppress(asyncio.CancelledError):
            while self.worker.failure is None:  # noqa: ASYNC110  several places set it
                await asyncio.sleep(SERVE_LOOK_S)
            raise self.worker.failure


def _engine(address: str, url: str, worker: Callable[[], Worker], codec: Codec | None) -> Engine:
    if not is_on_postgres(url):
        raise SurefootError(
            f"engine={address!r} needs a store on PostgreSQL, and {url!r} is a file of one machine: activities run on any",
            hint='sf.Surefoot("postgresql://...", engine="temporal://host:7233/namespace")',
        )
    from surefoot.adapters import temporal

    return temporal.Engine(temporal.parse(address), worker, codec)


def configure(url: str | None = None, *, gates: Sequence[Gate] = ()) -> None:
    """Say where effects are claimed that are called outside runs; opened when the first one is.

    Args:
        url: As for `Surefoot`.
        gates: As for `Surefoot`.
    """
    set_opener(lambda: Surefoot(url, gates=gates, is_worker=False))
