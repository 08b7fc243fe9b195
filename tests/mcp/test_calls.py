"""What an MCP call carries, and what an answer, an error, or nothing at all says about it."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent, FunctionToolset, ModelRetry
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.toolsets import DynamicToolset
from tests.mcp.conftest import Call, Script, Till

import surefoot as sf
from surefoot.adapters.pydantic_ai import Durable

META = ("surefoot/idempotencyKey", "surefoot/fencingToken", "surefoot/attempt")


async def told(app: sf.Surefoot, agent: Agent[Any, str], **declared: Any) -> list[Any]:
    """Run the agent, and return what its model was told of each call."""
    run = await app.agent(agent, **declared).start("go", id="r")
    answer: list[Any] = json.loads(await run.result(timeout_s=60))
    return answer


async def waits_for_doubt(app: sf.Surefoot, agent: Agent[Any, str], **declared: Any) -> Any:
    """Run the agent until it waits for its one doubt, and return that."""
    run = await app.agent(agent, **declared).start("go", id="r")
    async with asyncio.timeout(60):
        while (await run.status()).waiting_for != "doubt":
            await asyncio.sleep(0.01)
    (doubt,) = await app.unknowns()
    return doubt


@pytest.mark.parametrize("over", ["http", "stdio"])
async def test_an_effect_carries_its_key_and_a_read_does_not(
    app: sf.Surefoot, till: Till, served: Till, over: str
) -> None:
    """Catches a call without the key, one whose `process_tool_call` is skipped, or its metadata lost."""
    seen: list[str] = []

    async def process(_context: Any, call_tool: Any, name: str, arguments: dict[str, Any]) -> Any:
        seen.append(name)
        return await call_tool(name, arguments, metadata={"mine/tenant": "t-1"})

    script = Script(("pay", {"order": "key", "cents": 5}), ("payments", {"order": "key"}), ("meta", {}))
    opened = served.toolset(process_tool_call=process) if over == "http" else till.own(process_tool_call=process)
    async with opened as toolset:
        answers = await told(app, script.agent(toolset), reads=["payments", "meta"])
    (entry,) = (served if over == "http" else till).entries(order="key")
    assert [entry["meta"].get(name) for name in META] == [entry["key"], 1 << 40 | 1, 1]
    assert entry["key"].startswith("sf-")
    assert entry["meta"]["mine/tenant"] == "t-1"
    assert seen == ["pay", "payments", "meta"]
    assert answers[:2] == ["paid key", 1]
    assert answers[2]["mine/tenant"] == "t-1"
    assert not [name for name in answers[2] if name.startswith("surefoot/")]


async def test_parallel_calls_carry_keys_of_their_own(app: sf.Surefoot, served: Till) -> None:
    """Catches a key that is one for all calls of a decision, and calls whose answers are mixed up."""
    script = Script([("pay", {"order": f"par-{number}", "cents": number}) for number in range(8)])
    async with served.toolset() as toolset:
        answers = await told(app, script.agent(toolset))
    assert answers == [f"paid par-{number}" for number in range(8)]
    entries = [entry for entry in served.entries(what="pay") if entry["order"].startswith("par-")]
    assert len({entry["key"] for entry in entries}) == len(entries) == 8


async def test_a_probe_sends_its_expiry(app: sf.Surefoot, served: Till) -> None:
    """Catches a fence that the service is not told of."""

    async def ask(order: str) -> sf.NotLanded:
        return sf.NotLanded()

    script = Script(("pay", {"order": "expiry", "cents": 5}))
    async with served.toolset() as toolset:
        probe = sf.effect(in_doubt=sf.Probe(ask, longest_life="1h"))
        await told(app, script.agent(toolset), effects={"pay": probe})
    (entry,) = served.entries(order="expiry")
    assert entry["meta"]["surefoot/expiresAtMs"] > app.store.clock.wall_ms()


@pytest.mark.parametrize("behavior", ["retry", "error", "failed"])
async def test_a_servers_own_error_is_not_done(app: sf.Surefoot, served: Till, behavior: Any) -> None:
    """Catches a refusal that parks the run, fails it, or is put as a prompt to try again."""
    script = Script(("refuse", {"order": "A"}), ("nosuch", {}), ("pay", {"order": "no-cents"}))
    async with served.toolset(tool_error_behavior=behavior) as toolset:
        listed = toolset.list_tools

        async def lists_one_more() -> Any:
            tools = await listed()
            return [*tools, tools[0].model_copy(update={"name": "nosuch"})]

        toolset.list_tools = lists_one_more  # type: ignore[method-assign]  # the server has lost a tool since
        answers = await told(app, script.agent(toolset))
    assert [answer["outcome"] for answer in answers] == ["not_done"] * 3
    assert ["Error executing tool refuse" in answers[0]["reason"], "nosuch" in answers[1]["reason"]] == [True, True]
    assert "cents" in answers[2]["reason"]


async def test_an_error_that_is_declared_to_say_nothing_is_unknown(app: sf.Surefoot, served: Till) -> None:
    """Catches a server that acts before it fails, and a declaration of that which is not heard."""
    script = Script(("refuse", {"order": "A"}))
    async with served.toolset() as toolset:
        doubt = await waits_for_doubt(app, script.agent(toolset), effects={"refuse": sf.effect(refused_on=())})
    assert (doubt.name, doubt.arguments) == ("refuse", {"order": "A"})


SAMPLE = {("http", "hang", "retry"), ("stdio", "die", "retry"), ("stdio", "die", "error")}


@pytest.mark.parametrize(
    ("over", "tool", "behavior"),
    [
        pytest.param(*how, marks=[] if how in SAMPLE else [pytest.mark.slow])
        for how in itertools.product(("http", "stdio"), ("die", "hang"), ("retry", "error", "failed"))
    ],
)
async def test_a_lost_reply_is_unknown(
    app: sf.Surefoot, till: Till, served: Till, over: str, tool: str, behavior: Any
) -> None:
    """Catches a server's death, or its silence, that the model is told as a failure to try again."""
    read_timeout = 1.0 if tool == "hang" else 60.0
    order = f"{over} {tool} {behavior}"
    script = Script((tool, {"order": order}))
    options: dict[str, Any] = {"tool_error_behavior": behavior, "read_timeout": read_timeout}
    http = served if tool == "hang" else till
    if over == "http" and tool == "die":
        till.start()
    async with http.toolset(**options) if over == "http" else till.own(**options) as toolset:
        agent, effects = script.agent(toolset), {tool: sf.effect(when_unknown="tell_model")}
        doubt = await waits_for_doubt(app, agent, effects=effects)
        await app.resolve(doubt.id, is_done=True, by="ann", reason="in the books", is_fence_passed=True)
        run = await app.run("r")
        (answer,) = json.loads(await run.result(timeout_s=60))
    assert answer["outcome"] == "unknown"
    assert len((http if over == "http" else till).entries(order=order)) == 1


async def test_a_server_that_is_not_there_was_sent_nothing(app: sf.Surefoot, till: Till) -> None:
    """Catches an outage before the call that becomes a doubt."""
    script = Script(("pay", {"order": "A", "cents": 5}))
    script.meanwhile[0] = till.kill
    till.start()
    async with till.toolset() as toolset:
        (answer,) = await told(app, script.agent(toolset))
    assert answer["outcome"] == "not_done"
    assert "nothing was sent" in answer["reason"]
    assert await app.unknowns() == []


@pytest.mark.slow
async def test_a_session_that_has_died_is_opened_again(app: sf.Surefoot, till: Till) -> None:
    """Catches a session that is used for ever after its server's death: by a read, by an effect, by discovery."""
    look: Call = ("payments", {"order": "A"})
    pay: Call = ("pay", {"order": "A", "cents": 5})
    script = Script(look, pay, look, pay, look)
    script.meanwhile = {1: till.kill_own, 2: till.kill_own, 4: till.kill_own}
    async with till.own() as toolset:
        answers = await told(app, script.agent(toolset), reads=["payments"])
    assert answers == [0, "paid A", 1, "paid A", 2]
    assert script.meanwhile == {}


@pytest.mark.slow
@pytest.mark.parametrize("over", ["http", "stdio"])
async def test_a_server_that_dies_at_the_end_spoils_nothing(app: sf.Surefoot, till: Till, over: str) -> None:
    """Catches a run whose work is done, and that fails because a session could not be ended in order."""
    script = Script(("pay", {"order": "A", "cents": 5}))
    script.meanwhile[1] = till.kill if over == "http" else till.kill_own
    async with till.start().toolset() if over == "http" else till.own() as toolset:
        assert await told(app, script.agent(toolset)) == ["paid A"]


class Hook:
    """A user's `process_tool_call` that makes of errors what it likes."""

    def __init__(self, tries: int, *, raises: bool = False) -> None:
        self._tries = tries
        self._raises = raises
        self.errors: list[str] = []

    async def __call__(self, _context: Any, call_tool: Any, name: str, arguments: dict[str, Any]) -> Any:
        for _ in range(self._tries):
            try:
                value = await call_tool(name, arguments)
            except Exception as error:
                self.errors.append(type(error).__name__)
                continue
            if self._raises:
                raise ModelRetry("I don't like the answer")
            return value
        return "could not"


async def test_a_hook_that_swallows_a_lost_reply_does_not_make_it_an_answer(app: sf.Surefoot, till: Till) -> None:
    """Catches a user's retry policy that sends a second time, or turns what nobody knows into an outcome."""
    hook = Hook(tries=3)
    async with till.own(process_tool_call=hook) as toolset:
        doubt = await waits_for_doubt(app, Script(("die", {"order": "A"})).agent(toolset))
    assert doubt.name == "die"
    assert hook.errors == ["ModelRetry", "ReplyLost", "ReplyLost"]
    assert len(till.entries(what="die")) == 1


async def test_a_hook_that_refuses_a_good_answer_makes_nothing_undone(app: sf.Surefoot, served: Till) -> None:
    """Catches an effect that is told as not done after its server has said that it is."""
    async with served.toolset(process_tool_call=Hook(1, raises=True)) as toolset:
        answers = await told(app, Script(("pay", {"order": "liked", "cents": 5})).agent(toolset))
    assert answers == ["model_retry: I don't like the answer"]
    assert len(served.entries(order="liked")) == 1


async def test_a_hook_that_calls_twice_sends_two_keys(app: sf.Surefoot, served: Till) -> None:
    """Catches two different calls under one key, of which a server that dedupes would do the first only."""

    async def pay_in_halves(_context: Any, call_tool: Any, name: str, arguments: dict[str, Any]) -> Any:
        half = arguments["cents"] // 2
        return [await call_tool(name, {**arguments, "cents": cents}) for cents in (half, arguments["cents"] - half)]

    async with served.toolset(process_tool_call=pay_in_halves) as toolset:
        await told(app, Script(("pay", {"order": "halves", "cents": 5})).agent(toolset))
    first, second = served.entries(order="halves")
    assert (first["cents"], second["cents"], second["key"]) == (2, 3, f"{first['key']}/2")


async def test_a_key_that_is_declared_is_the_same_for_another_run(app: sf.Surefoot, served: Till) -> None:
    """Catches a declared tool whose key, match or first outcome is not an effect's own."""
    effects = {"pay": sf.effect(key="pay:{order}", match=("cents",))}
    calls: list[Call] = [
        ("pay", {"order": "once", "cents": 5}),
        ("pay", {"order": "once", "cents": 6}),
        ("pay", {"cents": 5}),
    ]
    async with served.toolset() as toolset:
        clerk = app.agent(Script(*calls).agent(toolset), effects=effects)
        told = [json.loads(await (await clerk.start("go", id=id)).result(timeout_s=60)) for id in ("r1", "r2")]
    assert told[0][0] == "paid once"
    assert (told[1][0]["outcome"], told[1][0]["first_outcome"]) == ("repeated", "paid once")
    assert [answers[1]["outcome"] for answers in told] == ["conflict", "conflict"]
    assert [answers[2]["outcome"] for answers in told] == ["not_done", "not_done"]
    assert "has no 'order'" in told[0][2]["reason"]
    assert len(served.entries(order="once")) == 1


@pytest.mark.slow
async def test_tools_of_two_servers_are_known_by_what_the_model_calls_them(app: sf.Surefoot, till: Till) -> None:
    """Catches a declaration for one server's tool that holds for another's of the same name."""
    script = Script(("a_pay", {"order": "A", "cents": 1}), ("b_pay", {"order": "A", "cents": 1}))
    till.start()
    async with till.toolset() as one, till.own() as two:
        two.id = "other"
        agent = script.agent(one.prefixed("a"), two.prefixed("b"))
        await told(app, agent, effects={"a_pay": sf.effect(key="pay:{order}")})
    keys = [entry["key"] for entry in till.entries(what="pay")]
    assert len(set(keys)) == len(keys) == 2


async def test_a_toolset_made_in_the_run_carries_too(app: sf.Surefoot, served: Till) -> None:
    """Catches an MCP server behind a factory whose calls go out bare."""
    async with served.toolset() as toolset:
        made = DynamicToolset[Any](lambda _context: toolset, id="made")
        await told(app, Script(("pay", {"order": "made", "cents": 5})).agent(made))
    (entry,) = served.entries(order="made")
    assert entry["key"].startswith("sf-")


async def test_outside_a_run_nothing_is_added(served: Till) -> None:
    """Catches a durable agent's toolset that is another one for plain agents."""
    script = Script(("meta", {}))
    async with served.toolset() as toolset:
        agent = script.agent(toolset, capabilities=[Durable()])
        (meta,) = json.loads((await agent.run("go")).output)
    assert not [name for name in meta if name.startswith("surefoot/")]


async def test_a_hint_alone_makes_nothing_a_read(app: sf.Surefoot, served: Till) -> None:
    """Catches a server that decides by its hints what is recorded and what is done again."""
    async with served.toolset() as toolset:
        await told(app, Script(("payments", {"order": "hint"})).agent(toolset))
    rows = app.store.read_now(lambda connection: connection.execute("SELECT count(*) FROM ledger").fetchone())
    assert rows == (1,)


async def test_a_toolset_of_others_can_be_declared(app: sf.Surefoot) -> None:
    """Catches declarations that work for MCP servers only."""
    acts: list[str] = []
    others = FunctionToolset[Any](id="theirs")

    @others.tool_plain
    async def book(room: str, note: str) -> str:
        acts.append(note)
        return f"booked {room}"

    effects = {"book": sf.effect(key="book:{room}", free_text=("note",))}
    clerk = app.agent(
        Script(("book", {"room": "7", "note": "a"}), ("book", {"room": "7", "note": "b"})).agent(others),
        effects=effects,
    )
    answers = json.loads(await (await clerk.start("go", id="r")).result(timeout_s=60))
    assert answers[0] == "booked 7"
    assert (answers[1]["outcome"], answers[1]["first_outcome"]) == ("repeated", "booked 7")
    assert acts == ["a"]


async def test_a_tool_whose_time_is_up_is_unknown(app: sf.Surefoot) -> None:
    """Catches an undeclared tool that acts, is told as timed out, and is asked for again."""
    acts: list[str] = []
    others = FunctionToolset[Any](id="theirs", timeout=0.05)

    @others.tool_plain
    async def book(room: str) -> str:
        acts.append(room)
        await asyncio.Event().wait()
        return "never"

    doubt = await waits_for_doubt(app, Script(("book", {"room": "7"})).agent(others))
    assert (doubt.name, acts) == ("book", ["7"])


async def test_a_toolset_without_an_id_is_refused_at_once(app: sf.Surefoot) -> None:
    """Catches an agent whose first run fails for want of an id."""
    nameless = MCPToolset[Any](StdioTransport("true", []))
    with pytest.raises(sf.SurefootError, match="has no id") as refused:
        app.agent(Script().agent(nameless))
    assert "id=" in refused.value.hint
