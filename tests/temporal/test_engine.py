"""What a user meets when agents run on Temporal: refusals that name what is wrong, and ends that are said."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import TypeAdapter
from pydantic_ai import Agent, FunctionToolset
from pydantic_ai.durable_exec.temporal import TemporalDurability
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage, RunUsage
from temporalio import workflow as unsandboxed
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.workflow import Info
from tests.scenarios.stage import scripted
from tests.support.postgres import Postgres, schema
from tests.support.postgres import server as postgres_server
from tests.support.temporal import Temporal, server

import surefoot as sf
from surefoot.adapters.temporal import durability, workflow
from surefoot.adapters.temporal.payloads import STORED_ABOVE
from surefoot.store import StoreFailed, new_id, postgres_connection

PATIENCE_S = 120.0

Opening = Callable[..., Any]


@pytest.fixture
async def opening(postgres: Postgres, temporal: Temporal) -> AsyncIterator[Opening]:
    """Makes apps on one store, which have agents before they are opened."""
    with schema(postgres.url) as url:
        queue = f"queue-{new_id()}"

        @asynccontextmanager
        async def opened(*agents: Agent[Any, Any], **options: Any) -> AsyncIterator[tuple[Any, ...]]:
            engine = options.pop("engine", temporal.url(queue))
            app = sf.Surefoot(url, engine=engine, **options)
            made = [app.agent(agent) for agent in agents]
            async with app:
                yield (app, *made)

        yield opened


def clerk(*tools: Any, script: Any = (), **options: Any) -> Agent[Any, Any]:
    """Return an agent with these tools that makes these calls."""
    return Agent(scripted(script), name="clerk", tools=tools, **options)


async def lose(client: Client, workflow_id: str) -> None:
    """Let Temporal forget a workflow, as a cluster that has lost it does."""
    execution = WorkflowExecution(workflow_id=workflow_id)
    asked = DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=execution)
    await client.workflow_service.delete_workflow_execution(asked)
    with contextlib.suppress(RPCError):
        while await client.get_workflow_handle(workflow_id).describe():
            await asyncio.sleep(0.05)


def test_a_store_in_a_file_is_refused(tmp_path: Any) -> None:
    """Would catch workers of several machines that each have a ledger of their own."""
    with pytest.raises(sf.SurefootError, match="needs a store on PostgreSQL"):
        sf.Surefoot(f"sqlite:///{tmp_path}/agents.db", engine="temporal://localhost:7233")


async def test_a_server_that_is_not_there_is_named(postgres: Postgres) -> None:
    """Would catch an app that hangs, or an error that doesn't say where it looked."""
    with schema(postgres.url) as url:
        app = sf.Surefoot(url, engine="temporal://127.0.0.1:1/default")
        with pytest.raises(sf.SurefootError, match=r"can't be reached at 127\.0\.0\.1:1"):
            await app.open()
        with pytest.raises(sf.NotOpen):
            _ = app.store


async def test_a_namespace_that_is_not_there_is_named(opening: Opening, temporal: Temporal) -> None:
    """Would catch workers that poll a namespace that is none, for ever."""
    with pytest.raises(sf.SurefootError, match="no namespace 'nowhere'"):
        async with opening(engine=f"temporal://{temporal.host}/nowhere"):
            raise AssertionError("it opened")


async def test_an_agent_after_opening_is_refused(opening: Opening) -> None:
    """Would catch a worker that doesn't know the activities of an agent it is asked to run."""
    async with opening(clerk()) as (app, _):
        with pytest.raises(sf.SurefootError, match="after the app was opened"):
            app.agent(Agent("test", name="late"))


@pytest.mark.parametrize("told", [False, {"child_workflow": {}}])
def test_a_tool_in_workflow_code_is_refused(told: Any) -> None:
    """Would catch an effect that each replay does again."""
    toolset: FunctionToolset[Any] = FunctionToolset(id="money")

    @toolset.tool_plain(metadata={"temporal": told})
    async def pay(order: str) -> str:
        return order

    app = sf.Surefoot("postgresql://nowhere", engine="temporal://localhost:7233")
    with pytest.raises(sf.SurefootError, match="'pay' has metadata"):
        app.agent(Agent("test", name="clerk", toolsets=[toolset]))


def test_a_toolset_without_an_id_is_refused() -> None:
    """Would catch an agent that fails in its first run only."""
    toolset: FunctionToolset[Any] = FunctionToolset([len])
    app = sf.Surefoot("postgresql://nowhere", engine="temporal://localhost:7233")
    with pytest.raises(sf.SurefootError, match="can't run on Temporal"):
        app.agent(Agent("test", name="clerk", toolsets=[toolset]))


def test_an_agent_with_an_engine_of_its_own_is_refused() -> None:
    """Would catch an agent that fails in its first run only."""
    app = sf.Surefoot("postgresql://nowhere", engine="temporal://localhost:7233")
    agent = Agent("test", name="clerk", capabilities=[TemporalDurability()])
    with pytest.raises(sf.SurefootError, match="TemporalDurability of its own"):
        app.agent(agent)


async def test_what_a_workflow_needs_is_made_before_it(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch code that is taken for a deadlock on a busy machine, for ever: what takes long, and only once, begins
    anew with each attempt at a workflow task."""
    in_workflow: list[Any] = []
    make = TypeAdapter.__init__

    def counting(self: TypeAdapter[Any], *args: Any, **options: Any) -> None:
        if unsandboxed.in_workflow() and args != (RunUsage,):  # small, and Pydantic AI's own
            in_workflow.append(args)
        make(self, *args, **options)

    monkeypatch.setattr(TypeAdapter, "__init__", counting)
    async with opening(clerk()) as (_, made):
        run = await made.start("go", id=f"r-{new_id()}")
        assert await run.result(timeout_s=PATIENCE_S) == "{}"
    assert in_workflow == []


async def test_an_effect_in_workflow_code_is_refused(opening: Opening) -> None:
    """Would catch an output function whose effect acts at each replay, unclaimed."""
    done: list[str] = []

    @sf.effect(key="pay:{order}")
    async def pay(order: str) -> str:
        done.append(order)
        return order

    async def finish(order: str) -> str:
        """Pay at the end."""
        return await pay(order)

    def answer(_messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart(info.output_tools[0].name, {"order": "A"}, "c1")])

    agent: Agent[None, str] = Agent(FunctionModel(answer), name="clerk", output_type=finish)
    async with opening(agent) as (_, made):
        run = await made.start("go", id=f"r-{new_id()}")
        with pytest.raises(sf.RunFailed, match="pay was called in workflow code"):
            await run.result(timeout_s=PATIENCE_S)
    assert done == []


async def test_a_process_whose_store_has_failed_takes_nothing_more(
    temporal: Temporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a process that takes work from Temporal and fails it for want of its store, while others could do it."""
    queue = f"queue-{new_id()}"
    with postgres_server() as own:
        failed = sf.Surefoot(own.url, engine=temporal.url(queue))
        failed.agent(clerk())
        async with failed:
            monkeypatch.setattr(postgres_connection, "PATIENCE_S", 0.2)
            await asyncio.to_thread(own.kill)
            with pytest.raises(StoreFailed):
                await failed.store.commit(lambda tx: None, label="test")
            await asyncio.to_thread(own.start)
            assert failed._engine is not None
            worker = failed._engine._temporal
            assert worker is not None
            async with asyncio.timeout(PATIENCE_S):
                while worker.is_running:
                    await asyncio.sleep(0.05)


async def test_an_id_of_anothers_workflow_is_said(opening: Opening, temporal: Temporal) -> None:
    """Would catch a run that waits for ever for a workflow that is not its own."""
    client, id = await Client.connect(temporal.host), f"r-{new_id()}"
    theirs = await client.start_workflow("theirs", id=id, task_queue="theirs")
    async with opening(clerk()) as (_, made):
        run = await made.start("go", id=id)
        with pytest.raises(sf.RunFailed, match="belongs to a workflow theirs of others"):
            await run.result(timeout_s=PATIENCE_S)
    await theirs.terminate()


async def test_a_workflow_that_is_terminated_ends_the_run(opening: Opening, temporal: Temporal) -> None:
    """Would catch a run that is open for ever because somebody has ended its workflow by hand."""
    waits = asyncio.Event()

    async def wait() -> str:
        await waits.wait()
        return "waited"

    async with opening(clerk(wait, script=[[("wait", {}, "c1")]])) as (app, made):
        run = await made.start("go", id=f"r-{new_id()}")
        async with asyncio.timeout(PATIENCE_S):
            while not app.guard.acting:
                await asyncio.sleep(0.02)
        await (await Client.connect(temporal.host)).get_workflow_handle(run.id).terminate("by hand")
        waits.set()
        with pytest.raises(sf.RunCancelled, match="terminated in Temporal"):
            await run.result(timeout_s=PATIENCE_S)


async def test_every_open_run_is_compared_with_its_workflow_in_turn(
    opening: Opening, temporal: Temporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch runs that are never compared, since there are always as many older ones that are open."""
    monkeypatch.setattr("surefoot.runs.rows.tables.ELSEWHERE_AT_ONCE", 1)
    monkeypatch.setattr("surefoot.adapters.temporal.bridge.COMPARE_S", 0.1)
    begun: list[str] = []

    @sf.read
    async def wait() -> str:
        begun.append("one")
        await asyncio.sleep(60)
        return "waited"

    async with opening(clerk(wait, script=[[("wait", {}, "c1")]])) as (app, made):
        runs = [await made.start("go", id=f"r-{new_id()}") for _ in range(3)]
        async with asyncio.timeout(PATIENCE_S):
            while len(begun) < 3:
                await asyncio.sleep(0.02)
        client = await Client.connect(temporal.host)
        await client.get_workflow_handle(runs[-1].id).terminate("by hand")
        async with asyncio.timeout(PATIENCE_S):
            while (await (await app.run(runs[-1].id)).look()).ended is None:
                await asyncio.sleep(0.05)
        for run in runs[:-1]:
            await client.get_workflow_handle(run.id).terminate("the test is over")


async def test_letters_are_looked_through_once(opening: Opening) -> None:
    """Would catch a bridge that reads all letters that were ever sent, five times a second."""

    @sf.durable(name=f"hears-{new_id()}")
    async def hears() -> str:
        return str(await sf.wait_signal("last"))

    async with opening(clerk()) as (app, _):
        run = await app.start(hears, id=f"r-{new_id()}")
        await run.signal("first", 1)
        await run.signal("last", 2)
        await run.result(timeout_s=PATIENCE_S)
        newest = await app.store.read(lambda one: one.execute("SELECT max(id) FROM inbox").fetchall()[0][0])
        async with asyncio.timeout(PATIENCE_S):
            while app._engine.bridge._last_letter < newest:
                await asyncio.sleep(0.05)


async def test_code_that_fails_in_the_workflow_is_said(
    opening: Opening, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Would catch a workflow task that Temporal tries again for ever while the caller just waits."""
    async with opening(clerk()) as (_, made):
        monkeypatch.setattr("surefoot.adapters.temporal.agents.LOOK_S", 0.2)
        kept = dict(workflow.agents)
        workflow.agents.clear()
        with caplog.at_level(logging.ERROR, logger="temporalio"):
            run = await made.start("go", id=f"r-{new_id()}")
            with pytest.raises(TimeoutError, match=r"no agent of this worker is 'agent clerk'"):
                await run.result(timeout_s=4.0)
        status = await run.status()
        assert status.waiting_for == "blocked"
        workflow.agents.update(kept)
        assert await run.result(timeout_s=PATIENCE_S) == "{}"


async def test_large_values_lie_in_our_store(opening: Opening, temporal: Temporal) -> None:
    """Would catch a result that Temporal refuses, and tries again for ever."""
    size = 1_500_000

    async def fetch() -> str:
        return "x" * size

    @sf.read
    async def look() -> str:
        return "y" * size

    agent = clerk(fetch, look, script=[[("fetch", {}, "c1"), ("look", {}, "c2")]])
    async with opening(agent) as (app, made):
        run = await made.start("go", id=f"r-{new_id()}")
        assert len(await run.result(timeout_s=PATIENCE_S)) > 2 * size
        history = await (await Client.connect(temporal.host)).get_workflow_handle(run.id).fetch_history()
        largest = max(len(event.SerializeToString()) for event in history.events)
        assert largest < 2 * STORED_ABOVE
        rows = await app.store.read(lambda one: one.execute("SELECT count(*) FROM payloads").fetchall())
        assert rows[0][0] >= 2
        await app.gc(0.001)
        rows = await app.store.read(lambda one: one.execute("SELECT count(*) FROM payloads").fetchall())
        assert rows[0][0] == 0


async def test_a_value_above_the_limit_ends_the_run(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a value that is resent for ever instead of being refused by name."""
    monkeypatch.setattr("surefoot.adapters.temporal.payloads.STORED_MAX", 1_000_000)

    @sf.step
    async def look() -> str:
        return "y" * 1_200_000

    async with opening(clerk(look, script=[[("look", {}, "c1")]])) as (_, made):
        run = await made.start("go", id=f"r-{new_id()}")
        with pytest.raises(sf.RunFailed, match=r"a value of 1,200,.* bytes; the limit is 1,000,000"):
            await run.result(timeout_s=PATIENCE_S)


async def test_values_in_the_history_are_under_your_keys(opening: Opening, temporal: Temporal) -> None:
    """Would catch a store whose values are encrypted, and a history that has them all in the clear."""
    keys = sf.Encrypted({"2026": b"k" * 32})

    async def fetch(text: str) -> str:
        return f"secret {text}"

    async with opening(clerk(fetch, script=[[("fetch", {"text": "apple"}, "c1")]]), codec=keys) as (_, made):
        run = await made.start("secret pear", id=f"r-{new_id()}")
        assert "secret apple" in await run.result(timeout_s=PATIENCE_S)
        history = await (await Client.connect(temporal.host)).get_workflow_handle(run.id).fetch_history()
        written = b"".join(event.SerializeToString() for event in history.events)
        assert b"secret" not in written
        assert b"apple" not in written


async def test_a_step_that_fails_is_tried_again_and_then_ends_the_run(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch an activity that is tried again for ever, or not at all."""
    retries = dataclasses.replace(durability.RETRIES, maximum_attempts=3)
    monkeypatch.setattr(durability, "RETRIES", retries)
    asked: list[int] = []

    @sf.step
    async def look() -> str:
        asked.append(1)
        raise OSError("away")

    async with opening(clerk(look, script=[[("look", {}, "c1")]])) as (_, made):
        run = await made.start("go", id=f"r-{new_id()}")
        with pytest.raises(sf.RunFailed, match="OSError: away"):
            await run.result(timeout_s=PATIENCE_S)
    assert len(asked) == 3


async def test_agents_of_the_embedded_engine_go_on_after_the_move(opening: Opening) -> None:
    """Would catch an id that is started a second time on Temporal, and a run that nobody ends any more."""
    id = f"r-{new_id()}"
    done: list[str] = []

    @sf.effect(key="pay:{order}")
    async def pay(order: str) -> str:
        done.append(order)
        return f"paid {order}"

    agent = clerk(pay, script=[[("pay", {"order": "A"}, "c1")]])
    async with opening(agent, engine=None, is_worker=False) as (_, made):
        await made.start("go", id=id)
    async with opening(agent) as (_, made):
        run = await made.start("go", id=id)
        assert run.kind == "agent clerk"
        assert "paid A" in await run.result(timeout_s=PATIENCE_S)
        other = await made.start("go", id=f"{id}-2")
        assert other.kind == "temporal agent clerk"
        assert "repeated" in await other.result(timeout_s=PATIENCE_S)
    assert done == ["A"]


async def test_a_cancellation_reaches_the_tool(opening: Opening) -> None:
    """Would catch a run that is said to be cancelled while its tool goes on unseen."""
    begun = asyncio.Event()

    @sf.read
    async def wait() -> str:
        begun.set()
        await asyncio.sleep(60)
        return "waited"

    async with opening(clerk(wait, script=[[("wait", {}, "c1")]])) as (_, made):
        run = await made.start("go", id=f"r-{new_id()}")
        async with asyncio.timeout(PATIENCE_S):
            await begun.wait()
        await run.cancel("not needed", by="anna")
        with pytest.raises(sf.RunCancelled, match="anna: not needed"):
            await run.result(timeout_s=PATIENCE_S)


async def test_a_cancellation_reaches_a_workflow_that_temporal_had_lost(
    opening: Opening, temporal: Temporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a run that goes on, though cancelled, because another workflow than today's was told."""
    monkeypatch.setattr("surefoot.adapters.temporal.bridge.TELL_AGAIN_S", 0.5)
    begun = asyncio.Event()

    @sf.read
    async def wait() -> str:
        begun.set()
        await asyncio.sleep(600)
        return "waited"

    async with opening(clerk(wait, script=[[("wait", {}, "c1")]])) as (_, made):
        run = await made.start("go", id=f"r-{new_id()}")
        async with asyncio.timeout(PATIENCE_S):
            await begun.wait()
            await lose(await Client.connect(temporal.host), run.id)
            await run.cancel("not needed", by="anna")
            while (await run.look()).ended is None:
                await asyncio.sleep(0.05)
        with pytest.raises(sf.RunCancelled, match="anna: not needed"):
            await run.result(timeout_s=PATIENCE_S)


async def test_answers_that_can_not_be_recorded_as_they_are(opening: Opening) -> None:
    """Would catch a run that fails over half a character, or two calls that share a place for want of ids."""
    sent: list[str] = []

    def send(to: str) -> str:
        sent.append(to)
        return f"to {to}"

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse([TextPart("done\ud83d")], usage=RequestUsage(output_tokens=1))
        calls = [
            ToolCallPart("send", {"to": to}, call_id) for to, call_id in (("ann", ""), ("bob", "send"), ("carl", ""))
        ]
        return ModelResponse(calls)

    async with opening(Agent(FunctionModel(answer), name="clerk", tools=[send])) as (_, agent):
        run = await agent.start("go", id="odd")
        assert await run.result(timeout_s=PATIENCE_S) == "done\\ud83d"
    assert sorted(sent) == ["ann", "bob", "carl"]


async def test_structured_output(opening: Opening) -> None:
    """Would catch a result that is not what the agent's type says."""

    def answer(_messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if not info.output_tools:
            return ModelResponse([TextPart("no")])
        return ModelResponse([ToolCallPart(info.output_tools[0].name, {"response": [1, 2]}, "c1")])

    agent: Agent[None, list[int]] = Agent(FunctionModel(answer), name="clerk", output_type=list[int])
    async with opening(agent) as (_, made):
        run = await made.start("go", id=f"r-{new_id()}")
        assert await run.result(timeout_s=PATIENCE_S) == [1, 2]


async def test_a_long_run_is_continued_as_a_new_workflow(
    opening: Opening, temporal: Temporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a continued run whose steps take the names of earlier ones, or that forgets messages, usage or calls."""
    suggested = iter([False, False, True, False, True])
    monkeypatch.setattr(Info, "is_continue_as_new_suggested", lambda _: next(suggested, False))
    done: list[str] = []

    async def note(text: str) -> str:
        done.append(text)
        return f"noted {text}"

    script = [[("note", {"text": text}, f"c{text}")] for text in "12345"]
    async with opening(clerk(note, script=script)) as (app, made):
        run = await made.start("go", id=f"r-{new_id()}")
        assert await run.result(timeout_s=PATIENCE_S) == json.dumps({f"c{text}": f"noted {text}" for text in "12345"})
        assert done == list("12345")
        assert (await run.usage()).requests == 6
        assert len(await run.messages()) == 12
        rows = await app.store.read(lambda one: one.execute("SELECT step FROM journal WHERE kind = 5").fetchall())
        assert len({row[0] for row in rows}) == 5
        first = await (await Client.connect(temporal.host)).get_workflow_handle(run.id).describe()
        assert first.raw_info.first_run_id != first.run_id


@pytest.mark.slow
async def test_a_cluster_that_has_lost_everything(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a run that is open for ever, or done twice, because Temporal knows nothing of it any more."""
    monkeypatch.setattr("surefoot.adapters.temporal.agents.LOOK_S", 0.5)
    done: list[str] = []
    is_there = asyncio.Event()

    async def note(text: str) -> str:
        done.append(text)
        return "noted"

    @sf.read
    async def wait() -> str:
        await is_there.wait()
        return "waited"

    asked = 0

    def counting(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        nonlocal asked
        asked += 1
        found: ModelResponse = scripted_answer(messages, info)
        return found

    model = scripted([[("note", {"text": "x"}, "c1")], [("wait", {}, "c2")]])
    assert model.function is not None
    scripted_answer: Any = model.function
    agent: Agent[None, str] = Agent(FunctionModel(counting, model_name="scripted"), name="clerk", tools=[note, wait])
    with server() as own:
        async with opening(agent, engine=own.url("lost")) as (_, made):
            run = await made.start("go", id=f"r-{new_id()}")
            async with asyncio.timeout(PATIENCE_S):
                while asked < 2:
                    await asyncio.sleep(0.05)
            own.lose()
            is_there.set()
            assert await run.result(timeout_s=300) == json.dumps({"c1": "noted", "c2": "waited"})
    assert done == ["x"]
    assert asked == 3


@pytest.mark.parametrize("what", ["sleep", "wait_signal", "saga", "child"])
async def test_what_only_the_embedded_engine_has_is_refused_in_a_tool(opening: Opening, what: str) -> None:
    """Would catch a wait that holds an activity, a saga that undoes nothing, or an error that says "outside a run"."""

    @sf.durable(name=f"child of {what}")
    async def child() -> None:
        raise AssertionError("it was started")

    @sf.step
    async def wait() -> str:
        match what:
            case "sleep":
                await sf.sleep(1)
            case "wait_signal":
                await sf.wait_signal("go")
            case "child":
                await sf.child(child, key="1")
            case "saga":
                async with sf.saga("s"):
                    pass
        return "no"

    async with opening(clerk(wait, script=[[("wait", {}, "c1")]])) as (_, made):
        run = await made.start("go", id=f"r-{new_id()}")
        with pytest.raises(sf.RunFailed, match="was called in an agent on Temporal"):
            await run.result(timeout_s=PATIENCE_S)


async def test_what_an_agent_on_temporal_does_not_carry_is_refused(opening: Opening) -> None:
    """Would catch a signal that nobody ever takes, a deadline that nobody keeps, a start that waits for no lane."""
    async with opening(clerk()) as (app, made):
        run = await made.start("go", id=f"r-{new_id()}")
        for handle in (run, await app.run(run.id)):
            with pytest.raises(sf.SignalRefused, match="waits for no signals"):
                await handle.signal("go")
        for options in ({"deadline_s": 60}, {"priority": 1}, {"delay": 1}):
            with pytest.raises(sf.SurefootError, match="Temporal"):
                await made.start("go", id=f"r-{new_id()}", **options)
        with pytest.raises(sf.SurefootError, match="can't be watched"):
            async for _ in made.stream("go", id=f"r-{new_id()}"):
                pass
        assert await run.result(timeout_s=PATIENCE_S) == "{}"
        with pytest.raises(sf.SurefootError, match="reset the workflow"):
            await run.fork(1, id=f"r-{new_id()}")


async def test_durable_functions_stay_with_the_embedded_engine(opening: Opening) -> None:
    """Would catch a function, or an undo, that nobody executes once the app has another engine."""
    done: list[str] = []

    @sf.effect(name="unpay")
    async def unpay(order: str, outcome: str) -> None:
        done.append(f"un{order}")

    @sf.effect(key="pay:{order}", compensate=unpay)
    async def pay(order: str) -> str:
        done.append(order)
        return "paid"

    async with opening(clerk(pay, script=[[("pay", {"order": "A"}, "c1")]])) as (_, made):
        run = await made.start("go", id=f"r-{new_id()}")
        assert "paid" in await run.result(timeout_s=PATIENCE_S)
        undoing = await run.undo("by mistake")
        await undoing.result(timeout_s=PATIENCE_S)
    assert done == ["A", "unA"]
