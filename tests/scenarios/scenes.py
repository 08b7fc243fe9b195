"""The scenarios: each a small story with agents, told once and played on every engine.

A scene gets a stage, adds its agents, opens it, and returns what is to be compared beside the books. What it asserts itself
says what the story is about.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel
from pydantic_ai import ModelRetry, RunContext, Tool
from pydantic_ai.messages import ModelMessage
from pydantic_ai.usage import UsageLimits
from tests.scenarios.stage import Call, Stage

import surefoot as sf

Scene = Callable[[Stage], Awaitable[Any]]

SCENES: dict[str, Scene] = {}
SAMPLE: list[str] = []
"""Those that are played in the fast lane."""


def scene(*, is_sampled: bool = False) -> Callable[[Scene], Scene]:
    """Add a scene."""

    def add(function: Scene) -> Scene:
        title = function.__name__
        SCENES[title] = function
        if is_sampled:
            SAMPLE.append(title)
        return function

    return add


def keys(told: str) -> dict[str, Any]:
    """Return what a scripted model was told, by call."""
    found: dict[str, Any] = json.loads(told)
    return found


class Order(BaseModel):
    """What is paid."""

    id: str
    amount: int


class Receipt(BaseModel):
    """What comes of it."""

    order: Order
    text: str


class Bank:
    """A dependency that has no JSON form."""

    def __init__(self, branch: str) -> None:
        self.branch = branch


class Pay:
    """A payment, declared in as many ways as the scenes need."""

    def __init__(self, stage: Stage, **options: Any) -> None:
        @sf.effect(name="pay", key="pay:{order}", **{"in_doubt": sf.Resend(key_ttl="24h"), **options})
        async def pay(order: str, amount: int) -> str:
            """Pay an order."""
            stage.world.append((order, amount))
            return f"paid {order}"

        self.tool = pay


@scene(is_sampled=True)
async def declared_and_undeclared_in_parallel(stage: Stage) -> Any:
    """A declared effect, an undeclared tool, a synchronous one, a read and a step, in one answer of the model."""

    async def note(text: str) -> str:
        stage.world.append(("note", text))
        return f"noted {text}"

    def stamp(text: str) -> str:
        stage.world.append(("stamp", text))
        return f"stamped {text}"

    @sf.read
    async def look(order: str) -> str:
        return f"{order} is open"

    @sf.step
    async def reckon(amount: int) -> int:
        return amount * 2

    calls: list[Call] = [
        ("pay", {"order": "A", "amount": 3}, "c1"),
        ("note", {"text": "x"}, "c2"),
        ("stamp", {"text": "y"}, "c3"),
        ("look", {"order": "A"}, "c4"),
        ("reckon", {"amount": 4}, "c5"),
    ]
    clerk = stage.agent([calls], [Pay(stage).tool, note, stamp, look, reckon])
    await stage.open()
    told = keys(await stage.result(clerk, "r1"))
    assert told == {"c1": "paid A", "c2": "noted x", "c3": "stamped y", "c4": "A is open", "c5": 8}
    return told


@scene(is_sampled=True)
async def repeated_and_conflict(stage: Stage) -> Any:
    """A second run asks for the same payment, a third one for the same with another amount."""
    pay = Pay(stage).tool
    clerk = stage.agent([[("pay", {"order": "A", "amount": 3}, "c1")]], [pay])
    other = stage.agent([[("pay", {"order": "A", "amount": 4}, "c1")]], [pay], name="other")
    await stage.open()
    told = [keys(await stage.result(clerk, id)) for id in ("r1", "r2")]
    told.append(keys(await stage.result(other, "r3")))
    assert told[0] == {"c1": "paid A"}
    assert told[1]["c1"]["outcome"] == "repeated"
    assert told[2]["c1"]["outcome"] == "conflict"
    assert stage.world == [("A", 3)]
    return told


@scene()
async def refused_and_done_at_last(stage: Stage) -> Any:
    """The service refuses; asked again, the key acts in its next generation."""

    @sf.effect(name="pay", key="pay:{order}")
    async def pay(order: str) -> str:
        stage.world.append(order)
        if len(stage.world) == 1:
            raise sf.NotDone("no funds")
        return f"paid {order}"

    clerk = stage.agent([[("pay", {"order": "A"}, "c1")], [("pay", {"order": "A"}, "c2")]], [pay])
    await stage.open()
    told = keys(await stage.result(clerk, "r1"))
    assert told["c1"]["outcome"] == "not_done"
    assert told["c2"] == "paid A"
    return told


@scene()
async def tools_that_ask_the_model_to_try_again(stage: Stage) -> Any:
    """`ModelRetry` out of an undeclared tool, and out of a declared one."""

    async def note(text: str) -> str:
        if text == "bad":
            raise ModelRetry("write it better")
        stage.world.append(text)
        return "noted"

    @sf.effect(name="pay", key="pay:{order}:{text}")
    async def pay(order: str, text: str) -> str:
        if text == "bad":
            raise ModelRetry("say what for")
        stage.world.append(order)
        return "paid"

    script = [
        [("note", {"text": "bad"}, "c1"), ("pay", {"order": "A", "text": "bad"}, "c2")],
        [("note", {"text": "good"}, "c3"), ("pay", {"order": "A", "text": "good"}, "c4")],
    ]
    clerk = stage.agent(script, [note, pay])
    await stage.open()
    told = keys(await stage.result(clerk, "r1"))
    assert told["c3"] == "noted"
    assert told["c4"] == "paid"
    assert sorted(stage.world) == ["A", "good"]
    return sorted(told)


@scene(is_sampled=True)
async def a_lost_answer_is_asked_for(stage: Stage) -> Any:
    """The payment lands, its answer is lost; the probe finds it behind its fence."""

    async def ask(order: str) -> sf.Landed | sf.NotLanded:
        return sf.Landed(f"found {order}") if ("A", 3) in stage.world else sf.NotLanded()

    @sf.effect(name="pay", key="pay:{order}", in_doubt=sf.Probe(ask, longest_life="200ms"))
    async def pay(order: str, amount: int) -> str:
        stage.world.append((order, amount))
        raise ConnectionResetError("gone")

    clerk = stage.agent([[("pay", {"order": "A", "amount": 3}, "c1")]], [pay])
    await stage.open()
    told = keys(await stage.result(clerk, "r1"))
    assert told == {"c1": "found A"}
    return told


@scene()
async def a_lost_answer_is_sent_for_again(stage: Stage) -> Any:
    """The service dedupes on the key: the second send has the first one's answer."""
    sent: list[str] = []

    @sf.effect(name="pay", key="pay:{order}", in_doubt=sf.Resend(key_ttl="24h"))
    async def pay(order: str) -> str:
        key = sf.current_effect().idempotency_key
        if key not in sent:
            sent.append(key)
            stage.world.append(order)
            raise TimeoutError("no answer")
        return f"paid {order}"

    clerk = stage.agent([[("pay", {"order": "A"}, "c1")]], [pay])
    await stage.open()
    told = keys(await stage.result(clerk, "r1"))
    assert told == {"c1": "paid A"}
    assert stage.world == ["A"]
    return told


def _lossy(stage: Stage, **options: Any) -> Any:
    @sf.effect(name="pay", key="pay:{order}", **options)
    async def pay(order: str) -> str:
        stage.world.append(order)
        raise ConnectionResetError("gone")

    return pay


@scene(is_sampled=True)
async def a_person_ends_a_doubt(stage: Stage) -> Any:
    """Nobody knows; the run waits; a person says that it is done, and with what."""
    clerk = stage.agent([[("pay", {"order": "A"}, "c1")]], [_lossy(stage)])
    await stage.open()
    run = await stage.start(clerk, "r1")
    await stage.waiting(run, "doubt")
    (unknown,) = await stage.app.unknowns()
    await stage.app.resolve(unknown.id, is_done=True, by="anna", reason="in the books", value="paid by hand")
    told = keys(await stage.end(run))
    assert told == {"c1": "paid by hand"}
    assert stage.world == ["A"]
    return told


@scene()
async def a_person_says_not_done(stage: Stage) -> Any:
    """The same, but it was not done: the model is told so, in words."""
    clerk = stage.agent([[("pay", {"order": "A"}, "c1")]], [_lossy(stage)])
    await stage.open()
    run = await stage.start(clerk, "r1")
    await stage.waiting(run, "doubt")
    (unknown,) = await stage.app.unknowns()
    await stage.app.resolve(unknown.id, is_done=False, by="anna", reason="not there", is_fence_passed=True)
    told = keys(await stage.end(run))
    assert told["c1"]["outcome"] == "not_done"
    return told


@scene()
async def a_model_is_told_that_nobody_knows(stage: Stage) -> Any:
    """With `tell_model` the model goes on; the run ends once a person has ended the doubt."""
    clerk = stage.agent([[("pay", {"order": "A"}, "c1")]], [_lossy(stage, when_unknown="tell_model")])
    await stage.open()
    run = await stage.start(clerk, "r1")
    await stage.waiting(run, "doubt")
    (unknown,) = await stage.app.unknowns()
    await stage.app.resolve(unknown.id, is_done=True, by="anna", reason="in the books")
    told = keys(await stage.end(run))
    assert told["c1"]["outcome"] == "unknown"
    return told


@scene()
async def two_doubts_of_one_answer(stage: Stage) -> Any:
    """Two calls of one answer are in doubt; each is ended by itself, in either order."""
    calls: list[Call] = [("pay", {"order": "A"}, "c1"), ("pay", {"order": "B"}, "c2")]
    clerk = stage.agent([calls], [_lossy(stage)])
    await stage.open()
    run = await stage.start(clerk, "r1")

    async def both() -> Any:
        found = await stage.app.unknowns()
        return found if len(found) == 2 else None

    first, second = await stage.until(both)
    await stage.app.resolve(first.id, is_done=True, by="anna", reason="there", value="one")
    await stage.waiting(run, "doubt")
    await stage.app.resolve(second.id, is_done=True, by="anna", reason="there", value="two")
    told = keys(await stage.end(run))
    assert sorted(told.values()) == ["one", "two"]
    return sorted(told.values())


@scene(is_sampled=True)
async def an_approval_is_given(stage: Stage) -> Any:
    """`sf.Approve`: the run waits for a person, then acts."""
    clerk = stage.agent([[("pay", {"order": "A", "amount": 3}, "c1")]], [Pay(stage, approve=sf.Approve()).tool])
    await stage.open()
    run = await stage.start(clerk, "r1")
    await stage.waiting(run, "approval")
    assert stage.world == []
    (asked,) = await stage.app.approvals()
    await stage.app.approve(asked.id, by="anna", reason="fine")
    told = keys(await stage.end(run))
    assert told == {"c1": "paid A"}
    return told


@scene()
async def an_approval_is_denied(stage: Stage) -> Any:
    """The same, but no: the model is told that it is denied, and why."""
    clerk = stage.agent([[("pay", {"order": "A", "amount": 3}, "c1")]], [Pay(stage, approve=sf.Approve()).tool])
    await stage.open()
    run = await stage.start(clerk, "r1")
    await stage.waiting(run, "approval")
    (asked,) = await stage.app.approvals()
    await stage.app.deny(asked.id, by="anna", reason="too much")
    told = keys(await stage.end(run))
    assert told["c1"]["outcome"] == "denied"
    assert stage.world == []
    return told


@scene()
async def the_framework_asks_for_approval(stage: Stage) -> Any:
    """Pydantic AI's own `requires_approval`, on an undeclared tool and on a declared one."""

    async def note(text: str) -> str:
        stage.world.append(text)
        return "noted"

    tools = [Tool(note, requires_approval=True), Tool(Pay(stage).tool, requires_approval=True)]
    calls: list[Call] = [("note", {"text": "x"}, "c1"), ("pay", {"order": "A", "amount": 3}, "c2")]
    clerk = stage.agent([calls], tools)
    await stage.open()
    run = await stage.start(clerk, "r1")

    async def both() -> Any:
        found = await stage.app.approvals()
        return found if len(found) == 2 else None

    for asked in await stage.until(both):
        await stage.app.approve(asked.id, by="anna", reason="fine")
    told = keys(await stage.end(run))
    assert told == {"c1": "noted", "c2": "paid A"}
    return told


@scene()
async def identical_calls(stage: Stage) -> Any:
    """One call twice in one answer is one effect; again after its outcome was seen it is another."""

    async def note(text: str) -> str:
        stage.world.append(text)
        return f"note {len(stage.world)}"

    script = [[("note", {"text": "x"}, "c1"), ("note", {"text": "x"}, "c2")], [("note", {"text": "x"}, "c3")]]
    clerk = stage.agent(script, [note])
    await stage.open()
    told = keys(await stage.result(clerk, "r1"))
    assert stage.world == ["x", "x"]
    assert told["c3"] == "note 2"
    return sorted(str(one) for one in told.values())


@scene()
async def results_that_are_models(stage: Stage) -> Any:
    """Arguments and results that are models, and an effect inside of an undeclared tool."""

    pay = Pay(stage).tool

    async def settle(order: Order) -> Receipt:
        return Receipt(order=order, text=await pay(order.id, order.amount))

    clerk = stage.agent([[("settle", {"order": {"id": "A", "amount": 3}}, "c1")]], [settle])
    await stage.open()
    told = keys(await stage.result(clerk, "r1"))
    assert stage.world == [("A", 3)]
    return sorted(told)


@scene()
async def history_usage_and_the_same_id(stage: Stage) -> Any:
    """A second run goes on from the first one's messages; an id means one input; usage is counted."""
    clerk = stage.agent([[("pay", {"order": "A", "amount": 3}, "c1")]], [Pay(stage).tool])
    await stage.open()
    run = await stage.start(clerk, "r1")
    first = await stage.end(run)
    again = await stage.start(clerk, "r1")
    assert await stage.end(again) == first
    try:
        await stage.start(clerk, "r1", "something else")
    except sf.RunConflict as error:
        conflict = "something else" in str(error) and "go" in str(error)
    usage = await run.usage()
    messages: list[ModelMessage] = await run.messages()
    await stage.result(clerk, "r2", "and now?", message_history=messages)
    return [first, conflict, usage.requests, usage.tool_calls, len(messages), len(await again.messages())]


@scene()
async def limits_end_a_run(stage: Stage) -> Any:
    """A run that may ask once fails, by the framework's own error; what it has done stays done."""
    clerk = stage.agent([[("pay", {"order": "A", "amount": 3}, "c1")]], [Pay(stage).tool])
    await stage.open()
    told = await stage.result(clerk, "r1", usage_limits=UsageLimits(request_limit=1))
    assert "UsageLimitExceeded" in told
    assert stage.world == [("A", 3)]
    return told


@scene()
async def a_cancelled_run_ends_its_doubt_first(stage: Stage) -> Any:
    """A run in doubt that is cancelled ends when the doubt has ended, and not before."""
    clerk = stage.agent([[("pay", {"order": "A"}, "c1")]], [_lossy(stage)])
    await stage.open()
    run = await stage.start(clerk, "r1")
    await stage.waiting(run, "doubt")
    await run.cancel("not needed", by="anna")
    (unknown,) = await stage.app.unknowns()
    await stage.app.resolve(unknown.id, is_done=True, by="anna", reason="in the books")
    told = await stage.end(run)
    assert told.startswith("cancelled")
    return told


@scene()
async def dependencies_are_made_where_they_are_used(stage: Stage) -> Any:
    """Each process makes its own dependencies, from what the run was started with."""

    def make(branch: str) -> Bank:
        return Bank(branch)

    async def note(context: RunContext[Bank], text: str) -> str:
        stage.world.append((context.deps.branch, text))
        return "noted"

    clerk = stage.agent([[("note", {"text": "x"}, "c1")]], [note], deps=make, deps_type=Bank)
    await stage.open()
    told = keys(await stage.result(clerk, "r1", deps="north"))
    assert stage.world == [("north", "x")]
    return told
