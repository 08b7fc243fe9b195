"""One activity as a place in a run: what it takes for granted, and what becomes of it where that is wrong."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from pydantic_ai import FunctionToolset, RunContext
from pydantic_ai.durable_exec import JSON_CODEC, CallToolResult, ToolsetCallToolParams
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RunUsage
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from tests.support.postgres import Postgres, schema

import surefoot as sf
from surefoot.adapters.pydantic_ai.declarations import Declarations
from surefoot.adapters.temporal.calls import _GOES_ON
from surefoot.adapters.temporal.here import FIELD
from surefoot.adapters.temporal.performing import Performer
from surefoot.journal import Kind, Record, insert_record
from surefoot.journal.records import NEXT
from surefoot.store.pipeline import Pipeline, Sent, numbered

STEP = "clerk/decision[1]"


@sf.durable(name="belongs")
async def belongs() -> None:
    """Give the calls a run to belong to."""
    await sf.wait_signal("never")


class Desk:
    """An app, a run in it, and tools that note what they do."""

    def __init__(self, app: sf.Surefoot, run: int) -> None:
        self.app = app
        self.run = run
        self.done: list[str] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()

        @sf.effect(name="pay", key="pay:{order}", in_doubt=sf.Resend(key_ttl="24h"))
        async def pay(order: str) -> str:
            self.done.append(order)
            await self.goes_on.wait()
            return f"paid {order}, {len(self.done)}"

        @sf.read(name="look")
        async def look(order: str) -> str:
            self.done.append(order)
            await self.goes_on.wait()
            return f"{order} seen, {len(self.done)}"

        @sf.effect(name="book", key="book:{order}", in_doubt=sf.Transactional())
        def book(order: str) -> str:
            self.done.append(order)
            return f"booked {order}, {len(self.done)}"

        self._toolset: FunctionToolset[None] = FunctionToolset([pay, look, book], id="tools")
        self._performer = Performer(lambda: app.guard, Declarations(), None)

    def _context(self, step: str, name: str, **told: Any) -> RunContext[None]:
        context: RunContext[None] = RunContext(deps=None, model=TestModel(), usage=RunUsage())
        vars(context)[FIELD] = {"run": self.run, "step": step, "tool": name, "is_gated": False, **told}
        return context

    async def call(self, name: str, order: str, *, attempt: int = 1, is_again: bool = False) -> Any:
        """Make one attempt at a call, and return what it gives to Temporal."""
        place = {"decision": STEP, "call_id": f"{name}-{order}", "twin": None, "previous": None, "times": 0}
        context = self._context(STEP, name, call=place, is_again=is_again)
        tool = (await self._toolset.get_tools(context))[name]
        params = ToolsetCallToolParams(name, tool_args={"order": order}, ctx=context, tool=tool)

        async def handler(params: Any) -> Any:
            value = await self._toolset.call_tool(params.name, params.tool_args, params.ctx, params.tool)
            return JSON_CODEC.load(CallToolResult, {"kind": "tool_return", "result": value})

        there = ActivityEnvironment()
        there.info = dataclasses.replace(there.info, attempt=attempt)
        return (await there.run(self._performer.call_tool, handler, "function", params)).result

    async def decide(self, answer: str) -> str:
        """Make one attempt at a decision; the model gives this answer."""

        async def handler(_params: Any) -> ModelResponse:
            self.done.append(answer)
            await self.goes_on.wait()
            return ModelResponse([TextPart(answer)])

        params = type("Params", (), {"run_context": self._context(STEP, "")})()
        response = await ActivityEnvironment().run(self._performer.decide, handler, "model", params)
        (part,) = response.parts
        return str(part.content)

    async def kinds(self) -> list[Kind]:
        """Return what is recorded of the run, in order; its numbers have no gap."""
        query = f"SELECT seq, kind FROM journal WHERE run = {self.run} ORDER BY seq"
        rows = await self.app.store.read(lambda connection: connection.execute(query).fetchall())
        assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
        return [Kind(kind) for _, kind in rows][1:]


@pytest.fixture
async def desk(postgres: Postgres) -> AsyncIterator[Desk]:
    """A desk whose run nobody executes."""
    with schema(postgres.url) as url:
        async with sf.Surefoot(url, is_worker=False) as app:
            run = await app.start(belongs, id="r")
            yield Desk(app, run.row)


async def test_what_is_recorded_is_found_by_an_attempt_that_takes_its_call_for_new(desk: Desk) -> None:
    """Catches a workflow that was reset, or begun anew, and acts, looks or decides once more; or gives another answer."""
    first = [await desk.call("pay", "A"), await desk.call("look", "B"), await desk.decide("yes")]
    told = [await desk.call("pay", "A"), await desk.call("look", "B"), await desk.decide("no")]
    assert told == first == ["paid A, 1", "B seen, 2", "yes"]
    assert desk.done == ["A", "B", "yes", "B"]  # a read is asked again, and its first answer is used
    assert await desk.kinds() == [Kind.CLAIMED, Kind.DONE, Kind.READ, Kind.DECIDED]


@pytest.mark.parametrize("told", [{}, {"attempt": 2}])
async def test_an_effect_in_one_commit_is_told_to_its_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    """Catches an act whose attempt takes its own claim for another's, and an outcome that its run doesn't hear of."""
    with monkeypatch.context() as patch:
        patch.setattr("surefoot.adapters.temporal.performing.look", None)  # it need not look again
        first = await desk.call("book", "C")
    assert first == await desk.call("book", "C", **told) == "booked C, 1"
    assert await desk.kinds() == [Kind.CLAIMED, Kind.DONE]


@pytest.mark.parametrize("told", [{"attempt": 2}, {"is_again": True}])
async def test_a_call_that_may_be_known_is_read_first(desk: Desk, told: Any) -> None:
    """Catches a second attempt, or a call made again after a wait, that asks what is recorded already."""
    assert await desk.call("look", "B") == await desk.call("look", "B", **told) == "B seen, 1"


async def tried(desk: Desk, name: str, order: str) -> Any:
    """Make a call as Temporal does: an attempt after another."""
    for attempt in range(1, 4):
        try:
            return await desk.call(name, order, attempt=attempt)
        except ApplicationError as error:
            if error.non_retryable:
                raise
    raise AssertionError("the last attempt found another one's record, too")


async def test_of_two_attempts_at_once_one_writes(desk: Desk) -> None:
    """Catches two that find nothing recorded, in one batch of the writer, and both act or both record."""
    desk.goes_on.clear()
    asked = [
        asyncio.create_task(one)
        for _ in range(2)
        for one in (tried(desk, "pay", "A"), tried(desk, "look", "B"), desk.decide("yes"))
    ]
    async with asyncio.timeout(30):
        while len(desk.done) < 5:
            await asyncio.sleep(0.01)
    desk.goes_on.set()
    answers = await asyncio.gather(*asked)
    assert answers[:3] == answers[3:]
    assert desk.done.count("A") == 1
    assert sorted(await desk.kinds()) == sorted([Kind.CLAIMED, Kind.DONE, Kind.READ, Kind.DECIDED])


async def test_a_run_that_has_ended_claims_nothing(desk: Desk) -> None:
    """Catches a straggler that acts for a run that is over."""
    end = f"UPDATE runs SET state = 6 WHERE id = {desk.run}"
    await desk.app.store.commit(lambda tx: tx.execute(end), label="test")
    with pytest.raises(ApplicationError, match="is held by another worker"):
        await desk.call("pay", "A")
    assert desk.done == []


async def test_records_that_are_written_together_are_numbered_one_after_another(desk: Desk) -> None:
    """Catches records of one batch that have the same number in their run."""
    store = desk.app.store
    record = Record(desk.run, NEXT, Kind.DECIDED, "step", 0)
    await asyncio.gather(*(store.commit(partial(insert_record, record=record), label="test") for _ in range(100)))
    assert await desk.kinds() == [Kind.DECIDED] * 100


@pytest.mark.parametrize(("name", "trips"), [("pay", 4), ("look", 2), ("decide", 3)])
async def test_the_server_is_waited_for_as_often_as_two_commits_need(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str, trips: int
) -> None:
    """Catches a round trip more: claim and outcome are two turns of two each; a decision is looked up before."""
    for number in range(3):  # from then on the writer knows what it asks for with each turn
        await desk.call("pay", f"warm-{number}")
    asked: list[int] = []
    send = Pipeline.send

    def counting(self: Pipeline, statements: Any) -> None:
        asked.append(len(statements))
        send(self, statements)

    monkeypatch.setattr(Pipeline, "send", counting)
    await (desk.decide("yes") if name == "decide" else desk.call(name, "A"))
    assert len(asked) == trips


async def test_a_step_is_looked_for_among_its_own_runs_records(desk: Desk) -> None:
    """Catches a check that goes through all records of the store, at each claim."""
    connection: Any = desk.app.store._reader
    query = f"EXPLAIN {numbered(_GOES_ON.forms[1])}"
    (result,) = connection.pipeline.ask([Sent(query, (desk.run, STEP, 0, 1 << 40))])
    plan = "\n".join(result.get_value(row, 0).decode() for row in range(result.ntuples))
    assert "journal_run" in plan
