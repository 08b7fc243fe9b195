"""The local model as a process of its own: `python -m surefoot.models.server --port 0`.

Owns: the HTTP face of `LocalModel`, for workers that are killed while the model lives on. What always holds: it listens
on loopback only, and only to JSON (so that no web page can reach it); requests are served first come, first served; a
client that hangs up is forgotten at the next token; more than `MAX_WAITING` waiting requests are refused as overloaded.
When the weights are loaded it prints one JSON line on stdout, with `url`, `port`, `pid` and `model`. It stops on
SIGTERM or SIGINT, and when its stdin closes if that is a pipe: it never outlives a parent that holds the other end.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

try:
    import uvicorn
    from pydantic import ValidationError
    from pydantic_ai import exceptions
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from surefoot.models.clerk import MODEL_NAME
    from surefoot.models.errors import LocalModelError
    from surefoot.models.local import LocalModel
    from surefoot.models.wire import HEALTH_PATH, REQUEST_PATH, Ask, Failure, FailureKind, dump_response
except ImportError as error:
    from surefoot.models.errors import MissingExtra

    raise MissingExtra(error.name or "a package", "demo") from error

T = TypeVar("T")

HOST = "127.0.0.1"
MAX_WAITING = 64
STOP_TIMEOUT_S = 2  # for requests under way when the server stops; they are cut off then
_CLIENT_GONE = 499  # nobody reads it; the number that nginx writes into logs


def make_app(model: LocalModel) -> Starlette:
    """Return the ASGI application that serves a model."""

    async def answer(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _failed(415, "UserError", "send application/json")
        if model.engine.waiting >= MAX_WAITING:
            return _failed(503, "ModelOverloadedError", f"{MAX_WAITING} requests are waiting already")
        try:
            ask = Ask.model_validate_json(await request.body())
            work = model.request(ask.messages, ask.settings.to_model_settings(), ask.parameters)
            response = await _unless_gone(request, work)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        except ValidationError as error:
            return _failed(422, "UserError", f"not a request: {error.errors(include_url=False)[:3]}")
        except exceptions.UserError as error:
            return _failed(400, "UserError", str(error))
        except exceptions.ModelAPIError as error:
            return _failed(*_KINDS.get(type(error).__name__, (500, "ModelServerError")), error.message)
        except LocalModelError as error:
            return _failed(500, "ModelServerError", str(error))
        return Response(dump_response(response), media_type="application/json")

    async def health(_: Request) -> Response:
        return JSONResponse({"model": MODEL_NAME, "waiting": model.engine.waiting})

    return Starlette(
        routes=[Route(REQUEST_PATH, answer, methods=["POST"]), Route(HEALTH_PATH, health, methods=["GET"])]
    )


_KINDS: dict[str, tuple[int, FailureKind]] = {
    "ModelContextWindowExceededError": (413, "ModelContextWindowExceededError"),
    "ModelTimeoutError": (504, "ModelTimeoutError"),
}


def _failed(status: int, kind: FailureKind, message: str) -> Response:
    return Response(
        Failure(kind=kind, message=message).model_dump_json(), status_code=status, media_type="application/json"
    )


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Do work, and give it up when the client hangs up.

    Raises:
        ClientDisconnect: It did.
    """
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientDisconnect
        return doing.result()
    finally:
        for task in (doing, watching):
            task.cancel()
        await asyncio.gather(doing, watching, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Server(uvicorn.Server):
    """A server whose signals are ours, and who says when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


async def serve(model: LocalModel, port: int, ready: Callable[[int], None]) -> None:
    """Serve until a signal comes or stdin closes.

    Args:
        model: What to serve; it is loaded before the port opens for business.
        port: On loopback; 0 for any.
        ready: Told the port when requests are answered.
    """
    listener = socket.create_server((HOST, port))
    try:
        await model.engine.load()
        config = uvicorn.Config(
            make_app(model), log_level="warning", access_log=False, timeout_graceful_shutdown=STOP_TIMEOUT_S
        )
        number: int = listener.getsockname()[1]
        server = _Server(config, lambda: ready(number))

        def stop() -> None:
            server.should_exit = True

        async with _stopping(stop):
            await server.serve(sockets=[listener])
    finally:
        listener.close()


@contextlib.asynccontextmanager
async def _stopping(stop: Callable[[], None]) -> AsyncIterator[None]:
    """Call stop on SIGTERM, SIGINT, and at the end of a piped stdin."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    lifeline = _lifeline()
    if lifeline is not None:

        def heard() -> None:
            if not os.read(lifeline, 4096):
                loop.remove_reader(lifeline)
                stop()

        loop.add_reader(lifeline, heard)
    try:
        yield
    finally:
        if lifeline is not None:
            loop.remove_reader(lifeline)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _lifeline() -> int | None:
    """Stdin, if somebody holds its other end: a pipe or a socket, but no terminal, file or /dev/null."""
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m surefoot.models.server", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--port", type=int, default=0, help="on loopback; 0 (default) for any free one")
    parser.add_argument("--weights", type=Path, help="a GGUF file; default: the pulled one")
    parser.add_argument("--threads", type=int, help="threads for reading prompts; default: up to 4")
    options = parser.parse_args()

    def ready(port: int) -> None:
        line = {"url": f"http://{HOST}:{port}", "port": port, "pid": os.getpid(), "model": MODEL_NAME}
        print(json.dumps(line), flush=True)

    try:
        model = LocalModel(options.weights, threads=options.threads)
        asyncio.run(serve(model, options.port, ready))
    except LocalModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: can't listen on {HOST}:{options.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
