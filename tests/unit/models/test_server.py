"""The model in a process of its own: the wire, the queue, and the ways to stop."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError, UserError
from pydantic_ai.messages import BinaryContent, ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.test import TestModel
from pydantic_ai.settings import ModelSettings, ToolOrOutput
from starlette.applications import Starlette
from starlette.types import Message, Scope

from surefoot.models import resolve_model
from surefoot.models.clerk import api_error
from surefoot.models.errors import GrammarIgnored
from surefoot.models.local import LocalModel
from surefoot.models.remote import RemoteLocalModel
from surefoot.models.server import MAX_WAITING, make_app
from surefoot.models.wire import Ask, Settings, dump_response, load_response


class Desk:
    """Stands in for `LocalModel`: says what it was told to, or waits."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[ModelMessage], ModelSettings | None, ModelRequestParameters]] = []
        self.answer: ModelResponse | BaseException = ModelResponse([TextPart("hello")])
        self.gate: asyncio.Event | None = None
        self.was_cancelled = asyncio.Event()
        self.waiting = 0

    @property
    def engine(self) -> "Desk":
        return self

    async def request(
        self, messages: list[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> ModelResponse:
        self.asked.append((messages, settings, parameters))
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def app(desk: Desk) -> Starlette:
    return make_app(cast(LocalModel, desk))


@pytest.fixture
def remote(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> RemoteLocalModel:
    """A remote model whose connection leads straight into the app."""
    real = httpx.AsyncClient

    def straight(**options: Any) -> httpx.AsyncClient:
        return real(transport=httpx.ASGITransport(app), timeout=options["timeout"])

    monkeypatch.setattr(httpx, "AsyncClient", straight)
    return RemoteLocalModel("http://model:1", settings=ModelSettings(seed=7))


async def test_a_request_arrives_as_it_was_sent(desk: Desk, remote: RemoteLocalModel) -> None:
    """Catches a tool, a setting or a message that is lost on the way."""
    desk.answer = ModelResponse([ToolCallPart("look", {"order_id": "A-1"}, tool_call_id="c1")], model_name="m")
    agent = Agent(remote, instructions="You are a clerk.", output_type=int)

    @agent.tool_plain
    def look(order_id: str) -> str:
        """Look up an order."""
        desk.answer = ModelResponse([ToolCallPart("final_result", {"response": 3}, tool_call_id="c2")])
        return f"{order_id} costs 3 é"

    settings = cast(ModelSettings, {"temperature": 0.5, "timeout": 9, "logit_bias": {"1": 1}})
    result = await agent.run("How much?", model_settings=settings)
    assert result.output == 3
    messages, arrived, parameters = desk.asked[-1]
    assert arrived == {"seed": 7, "temperature": 0.5, "timeout": 9.0}
    assert [tool.name for tool in parameters.function_tools] == ["look"]
    assert parameters.output_tools[0].parameters_json_schema["properties"]
    (told,) = messages[-1].parts
    assert getattr(told, "content", None) == "A-1 costs 3 é"


def test_all_settings_of_ours_travel() -> None:
    """Catches a setting that is followed in process and forgotten between processes."""
    given: dict[str, Any] = {
        "max_tokens": 5, "temperature": 0.0, "top_p": 0.5, "top_k": 3, "seed": 0, "stop_sequences": ["x"],
        "timeout": 2.5, "tool_choice": ToolOrOutput(function_tools=["look"]),
    }  # fmt: skip
    body = Ask(messages=[], settings=Settings.of(cast(ModelSettings, given)), parameters=ModelRequestParameters())
    assert Ask.model_validate_json(body.model_dump_json()).settings.to_model_settings() == given
    assert Settings.of({"timeout": httpx.Timeout(3)}).timeout is None
    response = ModelResponse([TextPart("é")], provider_details={"seed": 1})
    assert load_response(dump_response(response)) == response
    with pytest.raises(ValueError, match="expected a response"):
        load_response(b'[{"kind": "request", "parts": []}]')


@pytest.mark.parametrize(
    ("raised", "seen", "words"),
    [
        (api_error("ModelContextWindowExceededError", "offer fewer tools"), ModelAPIError, "offer fewer tools"),
        (api_error("ModelTimeoutError", "no answer within 1 s"), ModelAPIError, "no answer within 1 s"),
        (UserError("reads text only"), UserError, "reads text only"),
        (GrammarIgnored("not JSON", hint="report it"), ModelAPIError, "report it"),
    ],
)
async def test_errors_are_the_same_on_both_sides(
    desk: Desk, remote: RemoteLocalModel, raised: Exception, seen: type[Exception], words: str
) -> None:
    """Catches an error that turns into "HTTP 500" on its way."""
    desk.answer = raised
    with pytest.raises(seen, match=words) as caught:
        await remote.request([], None, ModelRequestParameters())
    if isinstance(raised, ModelAPIError):
        assert type(caught.value) is type(raised)


async def test_a_full_queue_refuses(desk: Desk, remote: RemoteLocalModel) -> None:
    """Catches a queue without a limit."""
    desk.waiting = MAX_WAITING
    with pytest.raises(ModelAPIError, match="64 requests are waiting"):
        await remote.request([], None, ModelRequestParameters())
    assert desk.asked == []


async def test_only_json_is_heard(app: Starlette, desk: Desk) -> None:
    """Catches a web page that makes the user's browser talk to the model: plain text needs nobody's leave."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://model") as client:
        plain = await client.post("/request", content="{}", headers={"content-type": "text/plain"})
        wrong = await client.post("/request", json={"messages": "none"})
        health = await client.get("/health")
    assert (plain.status_code, wrong.status_code) == (415, 422)
    assert health.json() == {"model": "smollm2-135m", "waiting": 0}
    assert desk.asked == []


async def test_who_hangs_up_is_forgotten(app: Starlette, desk: Desk) -> None:
    """Catches a model that works for killed workers while the living wait."""
    desk.gate = asyncio.Event()
    body = Ask(messages=[], settings=Settings(), parameters=ModelRequestParameters()).model_dump_json().encode()
    hung_up = asyncio.Event()
    heard: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if heard:
            return heard.pop()
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        return

    scope: Scope = {
        "type": "http", "method": "POST", "path": "/request", "query_string": b"", "http_version": "1.1",
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    visit = asyncio.create_task(app(scope, receive, send))
    while not desk.asked:
        await asyncio.sleep(0)
    hung_up.set()
    await asyncio.wait_for(desk.was_cancelled.wait(), 5)
    await visit


async def test_nobody_there_says_how_to_start_it() -> None:
    """Catches a bare connection error."""
    with pytest.raises(ModelAPIError, match=r"python -m surefoot\.models\.server"):
        await RemoteLocalModel("http://127.0.0.1:1").request([], None, ModelRequestParameters())


@contextmanager
def served(cache: Path, **options: Any) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A model process that is ready, and what it said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "surefoot.models.server"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SUREFOOT_CACHE": str(cache)},
        **options,
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline() or "{}")
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.mark.slow
async def test_many_workers_share_one_model_until_their_parent_lets_go(real_weights: Path) -> None:
    """Catches a server that mixes up its clients, is stopped by one that is killed, or outlives its parent."""
    with served(real_weights.parents[1], stdin=subprocess.PIPE) as (process, said):
        assert said == {"url": f"http://127.0.0.1:{said['port']}", "port": said["port"], "pid": process.pid,
                        "model": "smollm2-135m"}  # fmt: skip
        program = (
            "import asyncio; from surefoot.models import resolve_model\n"
            "from pydantic_ai.direct import model_request; from pydantic_ai.messages import ModelRequest\n"
            f"m = resolve_model('local+{said['url']}')\n"
            "print('asking', flush=True)\n"
            "asyncio.run(model_request(m, [ModelRequest.user_text_prompt('Tell a long story.')],"
            " model_settings={'max_tokens': 1500}))"
        )
        doomed = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == "asking\n"
        await _until_waiting(said["url"], 1)
        doomed.kill()
        doomed.communicate()
        await _until_waiting(said["url"], 0)
        model = resolve_model(f"local+{said['url']}")
        assert isinstance(model, Model)
        agents = [Agent(model, output_type=bool, instructions="Yes or no?") for _ in range(3)]
        results = await asyncio.gather(*(agent.run("Is it so?", model_settings={"seed": 1}) for agent in agents))
        assert {type(result.output) for result in results} == {bool}
        with pytest.raises(UserError, match="text only"):
            await agents[0].run(["Look", BinaryContent(b"x", media_type="image/png")])
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


async def _until_waiting(url: str, count: int) -> None:
    async with asyncio.timeout(20), httpx.AsyncClient(trust_env=False) as client:
        while (await client.get(f"{url}/health")).json()["waiting"] != count:
            await asyncio.sleep(0.02)


def test_a_signal_stops_it_and_devnull_does_not(real_weights: Path) -> None:
    """Catches a server that ends at once under a service manager, or does not end when told to."""
    with served(real_weights.parents[1], stdin=subprocess.DEVNULL) as (process, said):
        assert httpx.get(f"{said['url']}/health", trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_without_weights_it_says_so_and_ends(tmp_path: Path) -> None:
    """Catches a traceback, or a server that waits for weights."""
    with served(tmp_path, stdin=subprocess.DEVNULL) as (process, said):
        assert said == {}
        assert process.wait(30) == 1
        assert process.stderr is not None
        words = process.stderr.read()
        assert "surefoot model pull" in words
        assert "Traceback" not in words


def test_other_models_are_no_business_of_ours() -> None:
    """Catches a change to Pydantic AI's registry."""
    assert isinstance(Agent("test").model, TestModel)
