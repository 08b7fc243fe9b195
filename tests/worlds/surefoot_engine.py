"""Surefoot as engines of the table: each of its answers to doubt, and an agent of Pydantic AI on top of it.

================================  ==================  =================================================================
engine                            service             in doubt
================================  ==================  =================================================================
surefoot, keys                    keys                `sf.Resend`: the same key again
surefoot, probe                   probe, expiry       `sf.Probe`: waits for its fence, then asks
surefoot, nothing                 nothing             `sf.AskPerson`: parks the run, for a person
surefoot with Pydantic AI, keys   keys                `sf.Resend`, as the tools of an agent
..., business key                 the same            the same; `key=` says what the effect is about
================================  ==================  =================================================================

A task is a durable run. A `@sf.step` asks the model for one decision at a time; the decided call is carried out by the
tool's own `@sf.effect` or `@sf.read`, with the tool's own parameters. Workers are killed from around the app's store:
`Tap` wraps `commit` and `append`, so what is killed is the shipped code. Nothing closes the app: the harness ends its
workers without clean-up, which to the next worker is one more crash.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import tempfile
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from pydantic_ai import Agent, Tool
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_core import to_jsonable_python
from tests.worlds import dojo, tools
from tests.worlds.cases import Report, Work
from tests.worlds.client import Expired, NotSent, Refused
from tests.worlds.dojo import Call
from tests.worlds.kills import Point, Trap
from tests.worlds.service import Offer, Terms
from tests.worlds.tap import Tap

import surefoot as sf
from surefoot.adapters.pydantic_ai import DurableAgent
from surefoot.effects.doubt import AskPerson, InDoubt, Probe, Resend
from surefoot.effects.rows import desk
from surefoot.effects.states import State
from surefoot.journal import current_frame
from surefoot.runs import Run
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import ToolCall
from surefoot.runs.rows.desk import wake
from surefoot.store import Store, open_store

LONGEST_LIFE_MS = 400
"""How long a request to the probe service is good for: longer than a straggler is late, so that some land in time."""

REFUSALS = (Refused, Expired, NotSent)
"""What the service answers, or its client knows, when nothing was done."""

_REFUSED = f"refused by the service: {Refused.__name__}"
"""What the model reads when the tool itself says no; all else that is not done may be asked for again."""

_given: list[Work] = []
"""What this worker process was given; set by `_Session`."""

_label: ContextVar[str | None] = ContextVar("world_label", default=None)


def label_now() -> str | None:
    """Return the label of the call that is being carried out, for arming kills and counting only."""
    frame = current_frame.get()
    place = frame.place if isinstance(frame, LiveRun) else None
    return place.call_id if isinstance(place, ToolCall) else _label.get()


# -- tools -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manner:
    """How the effects of an engine are declared."""

    terms: Terms
    in_doubt: InDoubt
    by_business: bool = False
    """Whether an effect's key says what it is about; it is then the tool's first argument, `about`."""


async def _ask() -> sf.Landed | sf.NotLanded:
    """Ask the service what became of the current effect."""
    found = await _given[0].client().look_up(sf.current_effect().idempotency_key, label=label_now())
    if found is None:
        return sf.NotLanded()
    return sf.Landed(found.value) if found.refusal is None else sf.NotLanded(found.refusal)


def _tool(function: Any, manner: Manner) -> Any:
    """Declare one of AgentDojo's tools to Surefoot, with its own name and parameters."""
    name: str = function.name
    parameters = tools.parameters(function)
    is_read = name not in dojo.EFFECTFUL
    if manner.by_business and not is_read:
        parameters.insert(0, inspect.Parameter("about", inspect.Parameter.KEYWORD_ONLY, annotation=str))

    async def call(**arguments: Any) -> Any:
        arguments.pop("about", None)
        client, label, sent = _given[0].client(), label_now(), to_jsonable_python(arguments)
        if is_read:
            return await client.call(name, sent, label=label)
        current = sf.current_effect()
        key = current.idempotency_key
        expires_at = None if current.expires_at_ms is None else current.expires_at_ms / 1_000
        return await client.call(name, sent, key=key, reference=key, expires_at=expires_at, label=label)

    tools.pose(call, name, parameters)
    if is_read:
        return sf.read(call)
    return sf.effect(
        key="{about}" if manner.by_business else None,
        free_text=dojo.FREE_TEXT.get(name, ()),
        in_doubt=manner.in_doubt,
        refused_on=REFUSALS,
    )(call)


def _tools(suite: str, manner: Manner) -> dict[str, Any]:
    return {name: _tool(function, manner) for name, function in tools.functions(suite).items()}


# -- a worker ----------------------------------------------------------------------------------------------------------


class _Session:
    """A worker process: its app, open on the case's store, with the tap around it."""

    def __init__(self, work: Work, app: sf.Surefoot) -> None:
        _given[:] = [work]
        self.work = work
        self.app = app
        app.url = f"sqlite:///{work.store_dir}/surefoot.db"
        self.tap: Tap

    async def open(self) -> None:
        def opened(*args: Any, **kwargs: Any) -> Store:
            self.work.trap.reached(Point.ANY)
            store = open_store(*args, **kwargs)
            self.tap = Tap(store, self.work.trap, label_now)
            return store

        with mock.patch("surefoot.app.face.open_store", opened):
            await self.app.open()

    async def resolve(self, landed: Mapping[str, bool]) -> None:
        """Say as a person what happened."""
        for label, effect in self._unknown():
            await desk.resolve_by_person(
                self.app.store,
                self.app.worker.sessions,
                effect,
                is_done=landed[label],
                who="a person",
                reason="looked at the world",
                wake=wake,
            )
        self.app.worker.nudge()

    async def report(self, run: Run) -> Report:
        """Wait until the run ends or waits, and say how."""
        while True:
            self.tap.run_moved.clear()
            status = await run.status()
            if status.state not in ("pending", "running"):
                break
            try:
                async with asyncio.timeout(0.1):
                    await self.tap.run_moved.wait()
            except TimeoutError:
                if self.app.worker.failure is not None:
                    raise self.app.worker.failure from None
        if status.state == "waiting" and status.waiting_for == "doubt":
            parked = tuple(label for label, _ in self._unknown())
            return Report(finished=False, parked=parked, told=dict.fromkeys(parked, "unknown"))
        if status.state != "completed":
            raise RuntimeError(f"run {run.id} is {status.state} ({status.waiting_for}): {status.reason}")
        told = await run.result()
        return Report(finished=True, told=told if isinstance(told, dict) else json.loads(told))

    def _unknown(self) -> list[tuple[str, int]]:
        """Return the effects in doubt: the label of the call that each means, and its row."""
        views = self.app.store.read_now(lambda connection: desk.list_effects(connection, state=State.UNKNOWN))
        return [(self._label_of(view), view.id) for view in views]

    def _label_of(self, view: desk.EffectView) -> str:
        """Return which call an effect is, by tool and arguments but free text; no task makes two calls of the same."""
        for call in self.work.calls:
            free = dojo.FREE_TEXT.get(call.tool, ())
            if call.tool == view.name and all(
                view.arguments[name] == value for name, value in call.args.items() if name not in free
            ):
                return call.label
        raise LookupError(f"no call of this case is {view.name}({view.arguments})")


# -- engines -----------------------------------------------------------------------------------------------------------


@sf.step
async def decide(turn: int) -> Call | None:
    """Ask the model what to do next; None: nothing more."""
    return _given[0].calls[turn] if turn < len(_given[0].calls) else None


@dataclass(frozen=True)
class Surefoot:
    """Durable runs that replay a task's calls as the decisions of a model."""

    name: str
    manner: Manner
    _tools: Mapping[str, Mapping[str, Any]] = field(init=False, repr=False)
    _function: Any = field(init=False, repr=False)
    _app: sf.Surefoot = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tools", {suite: _tools(suite, self.manner) for suite in tools.suites()})
        carry_out = functools.partial(_carry_out, self)

        @sf.durable(name=self.name)
        async def task(suite: str) -> dict[str, str]:
            return await carry_out(suite)

        object.__setattr__(self, "_function", task)
        object.__setattr__(self, "_app", sf.Surefoot("sqlite:///the-case-says-where.db"))

    @property
    def terms(self) -> Terms:
        """What the service offers it."""
        return self.manner.terms

    def run(self, work: Work) -> Report:
        """Start the run, or go on with it."""
        return _end(self._run(_Session(work, self._app)))

    def resolve(self, work: Work, landed: Mapping[str, bool]) -> Report:
        """Say what happened, then go on with the run."""
        return _end(self._run(_Session(work, self._app), landed))

    async def _run(self, session: _Session, landed: Mapping[str, bool] | None = None) -> Report:
        await session.open()
        if landed is not None:
            await session.resolve(landed)
        return await session.report(await self._start(session))

    async def _start(self, session: _Session) -> Run:
        run_id = session.work.run_id
        return await session.app.start(self._function, run_id.partition("/")[0], id=run_id)

    async def _call(self, suite: str, call: Call) -> str:
        """Carry out one decision; returns what the model is told."""
        _label.set(call.label)
        tool, arguments = self._tools[suite][call.tool], tools.validated(suite, call)
        if not call.effectful:
            await tool(**arguments)
            return "done"
        about = {"about": call.business_key} if self.manner.by_business else {}
        outcome: sf.Outcome = await tool.outcome(**about, **arguments)
        if outcome.told == "not_done":
            return "refused" if outcome.reason.startswith(_REFUSED) else "not done"
        return outcome.told


async def _carry_out(engine: Surefoot, suite: str) -> dict[str, str]:
    told: dict[str, str] = {}
    turn = 0
    while (call := await decide(turn)) is not None:
        said = await engine._call(suite, call)
        if said == "not done":
            continue  # it came too late, or a person has found that it did not land: the model decides the same again
        if call.effectful:
            told[call.label] = said
        turn += 1
    return told


@dataclass(frozen=True)
class SurefootAgent(Surefoot):
    """The same with an agent of Pydantic AI, whose model answers with the task's calls one by one."""

    _agents: Mapping[str, DurableAgent] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        agents = {suite: self._app.agent(self._agent(suite)) for suite in tools.suites()}
        object.__setattr__(self, "_agents", agents)

    def warm(self) -> None:
        """Run every agent once without a call, in the harness' parent: Pydantic builds its codecs here, for all workers."""
        with tempfile.TemporaryDirectory() as folder:
            work = Work("", (), "", Path(folder), 0, Trap())
            asyncio.run(self._answer(_Session(work, self._app)))

    async def _answer(self, session: _Session) -> None:
        await session.open()
        for suite, agent in self._agents.items():
            await (await agent.start("Do nothing.", id=suite)).result()
        await self._app.close()

    def _agent(self, suite: str) -> Agent[None, str]:
        declared = [Tool(tool) for tool in self._tools[suite].values()]
        return Agent(FunctionModel(_respond), name=f"clerk {suite}", tools=declared)

    async def _start(self, session: _Session) -> Run:
        run_id = session.work.run_id
        return await self._agents[run_id.partition("/")[0]].start(f"Do {run_id}.", id=run_id)


def _respond(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    turn = sum(isinstance(message, ModelResponse) for message in messages)
    if turn < len(_given[0].calls):
        call = _given[0].calls[turn]
        return ModelResponse([ToolCallPart(call.tool, dict(call.args), tool_call_id=call.label)])
    parts = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    return ModelResponse([TextPart(json.dumps({part.tool_call_id: _said(part) for part in parts}))])


def _said(part: ToolReturnPart) -> str:
    """Return what the model was told in words."""
    told: Any = part.content
    said = str(told["outcome"]) if isinstance(told, dict) and told.keys() >= {"outcome", "meaning"} else "done"
    return "refused" if said == "not_done" else said


def _end(report: Any) -> Report:
    """Run to the report, and leave everything as it is: the process ends now."""
    ended: Report = asyncio.new_event_loop().run_until_complete(report)
    return ended


_KEYS = Manner(Terms(Offer.KEYS), Resend(key_ttl="24h"))
_PROBE = Manner(Terms(Offer.PROBE), Probe(_ask, longest_life=f"{LONGEST_LIFE_MS}ms"))
_NOTHING = Manner(Terms(Offer.NOTHING), AskPerson())


def _by_business(engine: Surefoot) -> Surefoot:
    manner = Manner(engine.manner.terms, engine.manner.in_doubt, by_business=True)
    return Surefoot(f"{engine.name}, business key", manner)


KEYS = Surefoot("surefoot, keys", _KEYS)
PROBE = Surefoot("surefoot, probe", _PROBE)
NOTHING = Surefoot("surefoot, nothing", _NOTHING)
PYDANTIC_AI = SurefootAgent("surefoot with Pydantic AI, keys", _KEYS)
PYDANTIC_AI.warm()

ALL = (KEYS, PROBE, NOTHING, PYDANTIC_AI)
BUSINESS = tuple(_by_business(engine) for engine in (KEYS, PROBE, NOTHING))
BUSINESS_KEYS, BUSINESS_PROBE, BUSINESS_NOTHING = BUSINESS
