"""Agents with scripted models, run twice: once for real, and once from the record after the first process was left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import surefoot as sf

Part = TextPart | ToolCallPart
TELLS = ("tool-return", "retry-prompt", "retry-feedback", "user-prompt")


class Script:
    """A model that gives its answers in turn, by how many it has given in this conversation; counts and keeps what it saw.

    Attributes:
        asked: How often it was asked: replays don't ask.
        told: The last message of each request, in words.
    """

    def __init__(self, *answers: list[Part] | Callable[[list[ModelMessage]], list[Part]]) -> None:
        self.answers = answers
        self.asked = 0
        self.told: list[str] = []
        self.tools: list[list[str]] = []

    async def __call__(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.asked += 1
        self.told.append(said(messages[-1]))
        self.tools.append([tool.name for tool in info.function_tools])
        given = sum(isinstance(message, ModelResponse) for message in messages)
        answer = self.answers[min(given, len(self.answers) - 1)]
        return ModelResponse(parts=list(answer(messages) if callable(answer) else answer))

    @property
    def model(self) -> FunctionModel:
        return FunctionModel(self)


def said(message: ModelMessage) -> str:
    return "; ".join(f"{part.part_kind}: {getattr(part, 'content', '')}" for part in message.parts)


def text(words: str) -> list[Part]:
    return [TextPart(words)]


def call(tool: str, call_id: str = "call-1", /, **arguments: Any) -> ToolCallPart:
    return ToolCallPart(tool, arguments, call_id)


async def twice(url: str, work: Callable[[], Awaitable[Any]]) -> tuple[Any, Any]:
    """Run work durably, leave the process when it is done but its end isn't recorded, run it again in another.

    Returns:
        What it gave the first time, and on replay. An error is given as its type and text.
    """
    values: list[Any] = []
    is_first = True

    @sf.durable(name="work")
    async def durable() -> None:
        try:
            values.append(await work())
        except Exception as error:
            values.append((type(error).__name__, str(error)))
        if is_first:
            await asyncio.Event().wait()

    async with asyncio.timeout(20):
        async with sf.Surefoot(url) as app:
            run = await app.start(durable, id="work")
            while not values:
                status = await run.status()
                assert status.waiting_for not in ("blocked", "doubt"), status.reason
                await asyncio.sleep(0.005)
        is_first = False
        async with sf.Surefoot(url) as app:
            await (await app.run("work")).result()
    return values[0], values[1]
