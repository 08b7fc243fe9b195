"""Results that are made elsewhere, and answers from outside: the run waits durably, asks once, and takes the first."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest
from pydantic_ai import Agent, CallDeferred, DeferredToolRequests, ExternalToolset, durable_exec
from pydantic_ai.tools import ToolDefinition
from tests.support.agents import Script, call, text

import surefoot as sf
from surefoot.adapters.pydantic_ai import Durable, fail_external_event, resolve_external_event

with contextlib.suppress(ImportError):
    import pydantic_ai.mcp  # noqa: F401  the framework imports it for the first toolset that is not of functions: seconds

SCHEMA = {"type": "object", "properties": {"what": {"type": "string"}}}
needs_events = pytest.mark.skipif(
    not hasattr(durable_exec, "external_event_scope"), reason="this version of Pydantic AI has no external events"
)


async def until(run: sf.Run, what: str) -> None:
    """Wait until a run waits for something."""
    async with asyncio.timeout(20):
        while (status := await run.status()).waiting_for != what:
            assert status.state in ("pending", "running", "waiting"), status
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("form", ["external", "deferred"])
async def test_a_run_waits_for_results_made_elsewhere(url: str, form: str) -> None:
    """Catches a run that ends with its questions, loses an answer that comes between two processes, or asks twice."""
    deferrals = 0

    def paint(what: str) -> str:
        nonlocal deferrals
        deferrals += 1
        raise CallDeferred(metadata={"job": what})

    definition = ToolDefinition(name="paint", parameters_json_schema=SCHEMA)
    given: dict[str, Any] = {"toolsets": [ExternalToolset([definition])]} if form == "external" else {"tools": [paint]}
    script = Script([call("paint", "c1", what="a"), call("paint", "c2", what="b")], text("painted"))
    agent = Agent(script.model, name="clerk", **given)
    async with sf.Surefoot(url) as app:
        run = await app.agent(agent).start("go", id="a")
        await until(run, "signal")
        asked = await run.asked_calls()
        assert [(one.id, one.tool, one.arguments) for one in asked] == [
            ("c1", "paint", {"what": "a"}),
            ("c2", "paint", {"what": "b"}),
        ]
        assert [one.metadata for one in asked] == ([None, None] if form == "external" else [{"job": "a"}, {"job": "b"}])
        assert await run.answer_call("c1", {"file": "a.png"})
        assert not await run.answer_call("c1", {"file": "other.png"}), "the second answer is told that it is late"
    async with sf.Surefoot(url, is_worker=False) as desk:
        run = await desk.agent(agent).run("a")
        assert await run.answer_call("c2", retry="no paint left")
    async with sf.Surefoot(url) as app:
        run = await app.agent(agent).run("a")
        assert await run.result(timeout_s=20) == "painted"
        assert await run.asked_calls() == []
    assert script.asked == 2
    assert "a.png" in script.told[1]
    assert "other.png" not in script.told[1]
    assert "no paint left" in script.told[1]
    assert deferrals == (0 if form == "external" else 2)


async def test_code_that_sees_to_deferred_calls_itself_gets_them(app: sf.Surefoot) -> None:
    """Catches a wait for a signal that nobody sends, where the user's own code wants the requests."""
    definition = ToolDefinition(name="paint", parameters_json_schema=SCHEMA)
    agent: Agent[None, Any] = Agent(
        Script([call("paint", what="a")]).model,
        name="clerk",
        output_type=[str, DeferredToolRequests],
        toolsets=[ExternalToolset([definition])],
        capabilities=[Durable()],
    )

    @sf.durable(name="work")
    async def work() -> list[str]:
        return [one.tool_name for one in (await agent.run("go")).output.calls]

    assert await (await app.start(work, id="a")).result(timeout_s=20) == ["paint"]


def _asking(asked: list[str], answer: Any, timeout: timedelta | None = None) -> Any:
    from pydantic_ai import external_events
    from pydantic_ai.capabilities import AbstractCapability

    class Asking(AbstractCapability[Any]):
        """Asks a question before the agent begins."""

        async def wrap_run(self, ctx: Any, *, handler: Any) -> Any:
            def ask(token: str) -> Any:
                asked.append(token)
                return answer

            try:
                said = await external_events.wait_for_external_event("question", ask=ask, timeout=timeout)
            except external_events.ExternalEventError as error:
                said = f"no answer: {error}"
            result = await handler()
            result.output = f"{result.output}, {said}"
            return result

    return Asking()


@needs_events
async def test_an_external_event_is_asked_for_once_and_waited_for(url: str) -> None:
    """Catches a wait that lives in one process, a second question on replay, or a second answer that counts."""
    asked: list[str] = []
    agent = Agent(Script(text("done")).model, name="clerk", capabilities=[_asking(asked, None)])
    async with sf.Surefoot(url) as app:
        run = await app.agent(agent).start("go", id="a/b c")
        await until(run, "signal")
    async with sf.Surefoot(url, is_worker=False) as desk:
        assert await resolve_external_event(desk, asked[0], {"yes": [1]})
        assert not await fail_external_event(desk, asked[0], "too late")
        with pytest.raises(sf.SurefootError, match="no resume token"):
            await resolve_external_event(desk, "made up", 1)
    async with sf.Surefoot(url) as app:
        run = await app.agent(agent).run("a/b c")
        assert await run.result(timeout_s=20) == "done, {'yes': [1]}"
    assert len(asked) == 1


@needs_events
@pytest.mark.parametrize("ending", ["answered at once", "failed", "timed out"])
async def test_the_other_ends_of_an_external_event(app: sf.Surefoot, ending: str) -> None:
    """Catches an answer at once that is waited for all the same, and a failure that reaches the code as an answer."""
    asked: list[str] = []
    at_once = "now" if ending == "answered at once" else None
    timeout = timedelta(milliseconds=20) if ending == "timed out" else None
    agent = Agent(Script(text("done")).model, name="clerk", capabilities=[_asking(asked, at_once, timeout)])
    run = await app.agent(agent).start("go", id="a")
    if ending == "failed":
        await until(run, "signal")
        assert await fail_external_event(app, asked[0], "nobody is in")
    said = {"answered at once": "done, now", "failed": "done, no answer: nobody is in",
            "timed out": "done, no answer: No resolution arrived within 0:00:00.020000."}  # fmt: skip
    assert await run.result(timeout_s=20) == said[ending]
