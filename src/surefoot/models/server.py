"""The local model in a process of its own, for many workers: one set of weights, one request at a time, first come first
served. A client that dies is forgotten; the server ends on SIGTERM, or when its stdin closes with its parent.

    python -m surefoot.models.server --port 0      prints {"url": ..., "pid": ...} when it is ready

The wire: POST /request with Pydantic AI's own JSON of messages, settings and request parameters; back comes a model
response, or {"error": class, "message": text} with status 500.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from typing import Any, cast

from pydantic import TypeAdapter
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from surefoot.models.errors import MissingExtra
from surefoot.models.local import ClerkModel, LocalModel, api_error

REQUEST_TIMEOUT_S = 300.0
"""Longest wait for an answer, the queue included: twelve tickets wait for one model."""

_parameters = TypeAdapter(ModelRequestParameters)
_messages = ModelMessagesTypeAdapter
_response = TypeAdapter(ModelResponse)


class RemoteLocalModel(ClerkModel):
    """The local model as served by another process.

    Args:
        base_url: Where `python -m surefoot.models.server` answers.
        settings: Defaults for every request.
    """

    def __init__(self, base_url: str, *, settings: ModelSettings | None = None) -> None:
        super().__init__(settings=settings)
        self._url = base_url.rstrip("/")

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Answer; see `LocalModel.request`. Raises ModelAPIError when the server can't be reached or failed."""
        import httpx

        body = {
            "messages": _messages.dump_python(messages, mode="json"),
            "settings": dict(model_settings or {}),
            "parameters": _parameters.dump_python(model_request_parameters, mode="json"),
        }
        try:
            async with httpx.AsyncClient(timeout=REQUEST_TIMEOUT_S) as client:
                answer = await client.post(f"{self._url}/request", json=body)
        except httpx.HTTPError as error:
            raise api_error("ModelAPIError", f"the local model at {self._url} gave no answer: {error!r}") from error
        told: Any = answer.json()
        if answer.status_code != 200:
            raise api_error(str(told.get("error", "")), str(told.get("message", "")))
        return _response.validate_python(told)


def _application(model: LocalModel) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def answer(request: Request) -> JSONResponse:
        asked = await request.json()
        try:
            response = await model.request(
                _messages.validate_python(asked["messages"]),
                cast(ModelSettings, asked["settings"]),
                _parameters.validate_python(asked["parameters"]),
            )
        except Exception as error:  # told to the client, whose error it is
            return JSONResponse({"error": type(error).__name__, "message": str(error)}, status_code=500)
        return JSONResponse(_response.dump_python(response, mode="json"))

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"ok": True})

    return Starlette(routes=[Route("/request", answer, methods=["POST"]), Route("/healthz", health)])


async def serve(port: int) -> None:
    """Serve until told to stop."""
    try:
        import uvicorn
    except ImportError as missing:
        raise MissingExtra("uvicorn", "demo") from missing
    model = LocalModel()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(_application(model), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    loop = asyncio.get_running_loop()
    if not sys.stdin.isatty():
        with contextlib.suppress(PermissionError, OSError):  # stdin is a plain file: nothing to watch
            loop.add_reader(sys.stdin.fileno(), _stop_at_end, server)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    print(json.dumps({"url": url, "pid": os.getpid()}), flush=True)
    await server.serve(sockets=[listener])


def _stop_at_end(server: Any) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        server.should_exit = True


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="Serve the local model on loopback.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
