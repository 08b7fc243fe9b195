"""Agents whose tools ask other agents, in every way that is supported, with effects at a service in another process.

The service and the models' providers are one world, `Office`, which outlives every process. It looks into the store at each
model request: an answer that is on record must not be asked for again, and no process may ask for one twice.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.exceptions import UnexpectedModelBehavior, UsageLimitExceeded
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RunUsage, UsageLimits
from tests.support.agents import Part, Script, call, said, text

import surefoot as sf
from surefoot.adapters.pydantic_ai import Durable
from surefoot.runs.live.strand import _parent
from surefoot.runs.steps import live_run
from surefoot.store import checksums
from surefoot.testing.wire import Doubted

Answer = list[Part] | Callable[[list[ModelMessage]], list[Part]]
Delegate = Callable[[RunContext[None], str], Awaitable[str]]

LANDS_WITHIN = "500ms"
"""Within this a request to `ship` lands or never will; the sweep lets those of a killed process land well before."""


# -- the world ---------------------------------------------------------------------------------------------------------


class Office:
    """What is ordered, what is shipped, and what the models were asked.

    Attributes:
        acts: What was done, in order; one line for each time it was done.
        asked: The processes that asked for a decision, by run and step.
        wrongs: What was asked that must not be.
    """

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.asked: dict[str, list[int]] = {}
        self.wrongs: list[str] = []
        self._answers: dict[str, str] = {}

    async def order(self, what: str, key: str) -> str:
        """Order something, once for a key."""
        await asyncio.sleep(0)
        if key not in self._answers:
            self.acts.append(f"order {what}")
            self._answers[key] = f"ordered {what}"
        return self._answers[key]

    async def ship(self, what: str) -> str:
        """Ship something, each time it is asked."""
        await asyncio.sleep(0)
        self.acts.append(f"ship {what}")
        return f"shipped {what}"

    def has_shipped(self, what: str) -> bool:
        """Say whether something was shipped."""
        return f"ship {what}" in self.acts

    async def think(self, url: str, run: str, step: str, process: int) -> None:
        """Answer a model request."""
        name = f"{run}: {step}"
        if process in self.asked.setdefault(name, []):
            self.wrongs.append(f"one process asked twice for {name}")
        is_late = not Path(f"/proc/{process}").exists()  # sent by a process that is gone, when nothing was on record
        if not is_late and _is_on_record(url, run, step):
            self.wrongs.append(f"asked for what is on record: {name}")
        self.asked[name].append(process)


def _is_on_record(url: str, run: str, step: str) -> bool:
    connection = checksums.connect(Path(url.removeprefix("sqlite:///")), apsw.SQLITE_OPEN_READONLY)
    try:
        found = "SELECT 1 FROM journal JOIN runs ON journal.run = runs.id WHERE run_id = ? AND step = ?"
        return connection.execute(found, (run, step)).fetchone() is not None
    finally:
        connection.close()


def books(office: Office) -> list[str]:
    """What counts of the office."""
    return sorted(office.acts)


def see_to_it(office: Office, doubt: Doubted) -> bool:
    """A person who looks whether something was shipped, and ships it by hand where it wasn't."""
    act = f"ship {doubt.key.partition(':')[2]}"
    if act not in office.acts:
        office.acts.append(act)
    return True


@dataclass
class Expected:
    """What each schedule must come to.

    Attributes:
        acts: What is done, each once.
        decisions: What the models are asked for: as the first schedule has it, which is one without a kill.
        asked_again: How many requests were made again, in all schedules, because their process died before the record.
    """

    acts: tuple[str, ...]
    decisions: frozenset[str] = frozenset()
    asked_again: int = 0

    def __call__(self, office: Office) -> None:
        """Raise unless the office is as it should be."""
        done, due = Counter(office.acts), Counter(self.acts)
        assert done <= due, f"doubled: {list((done - due).elements())}"
        assert due <= done, f"lost: {list((due - done).elements())}"
        assert not office.wrongs, "; ".join(office.wrongs)
        decisions = frozenset(office.asked)
        self.decisions = self.decisions or decisions
        assert decisions == self.decisions, f"other decisions: {sorted(decisions ^ self.decisions)}"
        self.asked_again += sum(len(processes) - 1 for processes in office.asked.values())


# -- what the agents are made of ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Desk:
    """What the agents of one process share: the effects, and models that ask the office."""

    url: str
    office: Any
    order: Callable[..., Any]
    ship: Callable[..., Any]

    def model(self, *answers: Answer) -> FunctionModel:
        """Return a model that gives these answers in turn."""
        script = Script(*answers)

        async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            await self.office.think(self.url, live_run("a model").run_id, _parent.get(), os.getpid())
            return await script(messages, info)

        return FunctionModel(answer)

    def agent(self, name: str, *answers: Answer, tools: tuple[Any, ...] = (), **options: Any) -> Agent[None, Any]:
        """Return an agent for use inside a durable function."""
        return Agent(
            self.model(*answers), name=name, tools=[self.order, self.ship, *tools], capabilities=[Durable()], **options
        )

    def researcher(self, *tools: Any, name: str = "researcher", **options: Any) -> Agent[None, Any]:
        """Return a sub-agent that orders and ships what it is asked about."""
        return self.agent(name, _order_it, _ship_it, _report, tools=tools, **options)


def _topic(messages: list[ModelMessage]) -> str:
    return said(messages[0]).rpartition(" ")[2]


def _order_it(messages: list[ModelMessage]) -> list[Part]:
    return [call("order", "call-o", what=_topic(messages))]


def _ship_it(messages: list[ModelMessage]) -> list[Part]:
    return [call("ship", "call-s", what=_topic(messages))]


def _report(messages: list[ModelMessage]) -> list[Part]:
    return text(f"{said(messages[2])} and {said(messages[-1])}")


def _told(messages: list[ModelMessage]) -> list[Part]:
    return text(said(messages[-1]))


def desk_of(url: str, office: Any, *, has_person: bool = False) -> Desk:
    """Return the desk of this process; `has_person`: only a person can say whether something was shipped."""

    @sf.effect(key="order:{what}", in_doubt=sf.Resend(key_ttl="1h"))
    async def order(what: str) -> str:
        answer: str = await office.order(what, sf.current_effect().idempotency_key)
        return answer

    def find(what: str) -> sf.Landed | sf.NotLanded:
        return sf.Landed(f"shipped {what}") if office.has_shipped(what) else sf.NotLanded()

    @sf.effect(key="ship:{what}", in_doubt=sf.AskPerson() if has_person else sf.Probe(find, longest_life=LANDS_WITHIN))
    async def ship(what: str) -> str:
        answer: str = await office.ship(what)
        return answer

    return Desk(url, office, order, ship)


def asking(agent: Agent[None, Any], **options: Any) -> Delegate:
    """Return a tool that runs a sub-agent inside its parent's run, and passes the usage on."""

    @sf.step
    async def delegate(ctx: RunContext[None], topic: str) -> str:
        return str((await agent.run(f"about {topic}", usage=ctx.usage, **options)).output)

    return delegate


def working(url: str, chief: Agent[None, Any], limits: UsageLimits | None = None) -> sf.Surefoot:
    """Return an app with a durable function that runs an agent, and says what came of it and what it used."""

    @sf.durable(name="work")
    async def work() -> list[Any]:
        usage = RunUsage()
        try:
            output = (await chief.run("go", usage=usage, usage_limits=limits)).output
        except Exception as error:
            output = f"{type(error).__name__}: {error}"
        return [output, usage.requests, usage.tool_calls, usage.input_tokens, usage.output_tokens]

    return sf.Surefoot(url)


# -- the agents --------------------------------------------------------------------------------------------------------

_agents: list[Any] = []


def inside(url: str, office: Any) -> sf.Surefoot:
    """An agent with a run of its own, which acts, asks a sub-agent, and acts again."""
    desk = desk_of(url, office)
    turns: list[Answer] = [[call("order", "call-1", what="lamp")], [call("delegate", "call-2", topic="desk")],
                           [call("ship", "call-3", what="lamp")], _told]  # fmt: skip
    tools = [desk.order, desk.ship, asking(desk.researcher())]
    app = sf.Surefoot(url)
    _agents[:] = [app.agent(Agent(desk.model(*turns), name="chief", tools=tools))]
    return app


def side_by_side(url: str, office: Any) -> sf.Surefoot:
    """Two sub-agents in one response of the model."""
    desk = desk_of(url, office)
    both: list[Part] = [call("delegate", "call-1", topic="north"), call("delegate", "call-2", topic="south")]
    return working(url, desk.agent("chief", both, _told, tools=(asking(desk.researcher()),)))


def with_a_person(url: str, office: Any) -> sf.Surefoot:
    """Two sub-agents in one response of the model, whose doubts a person ends."""
    desk = desk_of(url, office, has_person=True)
    both: list[Part] = [call("delegate", "call-1", topic="north"), call("delegate", "call-2", topic="south")]
    return working(url, desk.agent("chief", both, _told, tools=(asking(desk.researcher()),)))


def nested(url: str, office: Any) -> sf.Surefoot:
    """A sub-agent of a sub-agent; each acts."""
    desk = desk_of(url, office)
    delegate = asking(desk.researcher(name="clerk"))
    ask_clerk: list[Part] = [call("delegate", "call-c", topic="ink")]
    middle = desk.agent("researcher", _order_it, ask_clerk, _ship_it, _told, tools=(delegate,))
    turns: list[Answer] = [[call("delegate", "call-1", topic="desk")], _order_lamp, _told]
    return working(url, desk.agent("chief", *turns, tools=(asking(middle),)))


def _order_lamp(_messages: list[ModelMessage]) -> list[Part]:
    return [call("order", "call-l", what="lamp")]


def children(url: str, office: Any) -> sf.Surefoot:
    """Two sub-agents in one response of the model, each as a child run of its own, whose usage is added."""
    desk = desk_of(url, office)
    researcher = desk.researcher()

    @sf.durable(name="research")
    async def research(topic: str) -> tuple[str, int, int]:
        result = await researcher.run(f"about {topic}")
        return result.output, result.usage.requests, result.usage.input_tokens

    @sf.step
    async def delegate(ctx: RunContext[None], topic: str) -> str:
        found, requests, tokens = await sf.child(research, topic)
        ctx.usage.incr(RunUsage(requests=requests, input_tokens=tokens))
        return str(found)

    both: list[Part] = [call("delegate", "call-1", topic="north"), call("delegate", "call-2", topic="south")]
    return working(url, desk.agent("chief", both, _order_lamp, _told, tools=(delegate,)))


def started(url: str, office: Any) -> sf.Surefoot:
    """A sub-agent with a run of its own, started by a business id inside a step, and waited for there."""
    desk = desk_of(url, office)

    @sf.step
    async def delegate(ctx: RunContext[None], topic: str) -> str:
        run = await researcher.start(f"about {topic}", id=f"research-{topic}")
        ctx.usage.incr(await run.usage())
        return str(await run.result())

    turns: list[Answer] = [[call("delegate", "call-1", topic="desk")], _order_lamp, _told]
    app = working(url, desk.agent("chief", *turns, tools=(delegate,)))
    own = Agent(desk.model(_order_it, _ship_it, _report), name="researcher", tools=[desk.order, desk.ship])
    researcher = app.agent(own)
    return app


def asked_again(url: str, office: Any) -> sf.Surefoot:
    """A sub-agent's first report is not good enough: its tool says `ModelRetry`, and the model asks for another."""
    desk = desk_of(url, office)
    researcher = desk.researcher()

    @sf.step
    async def delegate(ctx: RunContext[None], topic: str) -> str:
        report = (await researcher.run(f"about {topic}", usage=ctx.usage)).output
        if topic == "furniture":
            raise ModelRetry(f"too vague: {report}")
        return str(report)

    turns: list[Answer] = [[call("delegate", "call-1", topic="furniture")],
                           lambda messages: [call("delegate", "call-2", topic="desk"), *_order_lamp(messages)],
                           _told]  # fmt: skip
    return working(url, desk.agent("chief", *turns, tools=(delegate,)))


def gives_up(url: str, office: Any) -> sf.Surefoot:
    """A sub-agent acts, and then never gives what it was asked for; its tool tells the model."""
    desk = desk_of(url, office)
    odd = desk.agent("researcher", _order_it, _ship_it, text("no number"), output_type=int, retries=1)

    @sf.step
    async def delegate(ctx: RunContext[None], topic: str) -> str:
        try:
            return str((await odd.run(f"about {topic}", usage=ctx.usage)).output)
        except UnexpectedModelBehavior as error:
            return f"gave up: {error.message}"

    turns: list[Answer] = [[call("delegate", "call-1", topic="desk")], _order_lamp, _told]
    return working(url, desk.agent("chief", *turns, tools=(delegate,)))


def fails(url: str, office: Any) -> sf.Surefoot:
    """A sub-agent acts, and then never gives what it was asked for; that ends its parent too."""
    desk = desk_of(url, office)
    odd = desk.agent("researcher", _order_it, text("no number"), output_type=int, retries=1)
    turns: list[Answer] = [_order_lamp, [call("delegate", "call-1", topic="desk")], text("never said")]
    return working(url, desk.agent("chief", *turns, tools=(asking(odd),)))


def limited(url: str, office: Any) -> sf.Surefoot:
    """The second sub-agent comes to the limit of requests that it shares with the first; its tool tells the model."""
    desk = desk_of(url, office)
    researcher, limits = desk.researcher(), UsageLimits(request_limit=6)

    @sf.step
    async def delegate(ctx: RunContext[None], topic: str) -> str:
        try:
            return str((await researcher.run(f"about {topic}", usage=ctx.usage, usage_limits=limits)).output)
        except UsageLimitExceeded as error:
            return f"no more: {error}"

    turns: list[Answer] = [[call("delegate", "call-1", topic="desk")], [call("delegate", "call-2", topic="ink")],
                           _order_lamp, _told]  # fmt: skip
    return working(url, desk.agent("chief", *turns, tools=(delegate,)))


def over_the_limit(url: str, office: Any) -> sf.Surefoot:
    """What a sub-agent has used ends its parent: a limit of requests for both."""
    desk = desk_of(url, office)
    turns: list[Answer] = [[call("delegate", "call-1", topic="desk")], _order_lamp, text("never said")]
    chief = desk.agent("chief", *turns, tools=(asking(desk.researcher()),))
    return working(url, chief, UsageLimits(request_limit=5))


def in_an_output_function(url: str, office: Any) -> sf.Surefoot:
    """The last answer goes through an output function that asks a sub-agent, and is not content with the first."""
    desk = desk_of(url, office)
    researcher = desk.researcher()

    async def file(ctx: RunContext[None], topic: str) -> str:
        report = (await researcher.run(f"about {topic}", usage=ctx.usage)).output
        if topic == "furniture":
            raise ModelRetry(f"too vague: {report}")
        return f"filed: {report}"

    turns: list[Answer] = [_order_lamp, [call("final_result", "call-1", topic="furniture")],
                           [call("final_result", "call-2", topic="desk")]]  # fmt: skip
    return working(url, desk.agent("chief", *turns, output_type=file))


# -- how they start, and what must come of it ----------------------------------------------------------------------------


async def start_agent(_app: sf.Surefoot) -> sf.Run:
    """Start the run of the agent."""
    run: sf.Run = await _agents[0].start("go", id="work")
    return run


async def start_work(app: sf.Surefoot) -> sf.Run:
    """Start the run of the durable function."""
    return await app.start("work", id="work")


def _acts(*whats: str) -> tuple[str, ...]:
    return tuple(f"{act} {what}" for what in whats for act in ("order", "ship"))


LAMP = ("order lamp",)

CASES: dict[Callable[[str, Any], sf.Surefoot], tuple[str, ...]] = {
    inside: _acts("lamp", "desk"),
    side_by_side: _acts("north", "south"),
    with_a_person: _acts("north", "south"),
    nested: (*_acts("desk", "ink"), *LAMP),
    children: (*_acts("north", "south"), *LAMP),
    started: (*_acts("desk"), *LAMP),
    in_an_output_function: (*LAMP, *_acts("furniture", "desk")),
    asked_again: (*_acts("furniture", "desk"), *LAMP),
    gives_up: (*_acts("desk"), *LAMP),
    fails: ("order desk", *LAMP),
    limited: (*_acts("desk"), "order ink", *LAMP),
    over_the_limit: (*_acts("desk"), *LAMP),
}
"""All of them, each with what it does."""
