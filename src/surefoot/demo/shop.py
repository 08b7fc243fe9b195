"""The shop: a small service that refunds, writes, sends and overwrites, honest and nasty by a seeded script.

    python -m surefoot.demo.shop --db shop.db --seed 7 --port 0 --script nasty

prints one JSON line with its port when it is ready, and stops on SIGTERM or when the pipe on its stdin is closed. It
listens on 127.0.0.1 only: its back office (`/books`, `/calls`, `/_control/...`) has no lock on its door.

What each endpoint offers a client in doubt is in `shop_rules`; what goes wrong is in `faults`; the kill points are in
`killing`.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import stat
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import apsw
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from surefoot.demo.faults import FaultKind, Script
from surefoot.demo.killing import KillDesk, KillOrder, Moment
from surefoot.demo.orders import StockOrder, read_orders
from surefoot.demo.shop_desk import ENDPOINTS, Desk, Endpoint
from surefoot.demo.shop_store import ShopStore
from surefoot.demo.tickets import ORDERS

HOST = "127.0.0.1"


class BackOffice:
    """What the shop's own people see: never late, never wrong, and out of the workers' sight."""

    def __init__(self, desk: Desk, store: ShopStore, script: Script, kills: KillDesk) -> None:
        self._desk = desk
        self._store = store
        self._script = script
        self._kills = kills

    def routes(self) -> list[Route]:
        """The back office's endpoints."""
        return [
            Route("/healthz", self.health),
            Route("/books", self.books),
            Route("/calls", self.calls),
            Route("/_control/kills", self.kills, methods=["GET", "POST"]),
            Route("/_control/workers", self.workers, methods=["POST"]),
            Route("/_control/faults", self.faults, methods=["POST"]),
        ]

    async def health(self, request: Request) -> JSONResponse:
        """GET /healthz."""
        return _said({"ok": True, "pid": os.getpid()})

    async def books(self, request: Request) -> JSONResponse:
        """GET /books: everything that happened; with `?quiet=1`, once no request is in flight any more."""
        await self._quiet_if_asked(request)
        return _said({"rows": self._store.books(), "in_flight": self._desk.in_flight})

    async def calls(self, request: Request) -> JSONResponse:
        """GET /calls: the call log; `?quiet=1` as above."""
        await self._quiet_if_asked(request)
        return _said({"calls": self._store.calls()})

    async def _quiet_if_asked(self, request: Request) -> None:
        if request.query_params.get("quiet"):
            await self._desk.quiet()

    async def workers(self, request: Request) -> JSONResponse:
        """POST /_control/workers {"pid": 123}: this process may be killed."""
        try:
            self._kills.register(int((await request.json())["pid"]))
        except (KeyError, TypeError, ValueError, ProcessLookupError) as error:
            return _said({"code": "bad_request", "message": f"pid: {error!r}"}, 422)
        return _said({"ok": True})

    async def kills(self, request: Request) -> JSONResponse:
        """POST /_control/kills {"kills": [{"nth": 4, "moment": "on_arrival"}]}; GET: what is open and what is done."""
        if request.method == "POST":
            try:
                rows = (await request.json())["kills"]
                self._kills.order([KillOrder(int(row["nth"]), Moment(row["moment"])) for row in rows])
            except (KeyError, TypeError, ValueError) as error:
                return _said({"code": "bad_request", "message": f"kills: {error!r}"}, 422)
        open_orders = [asdict(order) for order in self._kills.open_orders]
        return _said({"open": open_orders, "fired": [asdict(killed) for killed in self._kills.fired]})

    async def faults(self, request: Request) -> JSONResponse:
        """POST /_control/faults {"endpoint": "POST /refunds", "faults": ["late"]}: the next requests' faults."""
        try:
            row = await request.json()
            endpoint, kinds = row["endpoint"], [FaultKind(kind) for kind in row["faults"]]
            if endpoint not in {known.name for known in ENDPOINTS}:
                raise ValueError(f"no endpoint {endpoint!r}")
        except (KeyError, TypeError, ValueError) as error:
            return _said({"code": "bad_request", "message": f"faults: {error!r}"}, 422)
        self._script.order(endpoint, kinds)
        return _said({"ok": True})


def _said(body: object, status: int = 200) -> JSONResponse:
    return JSONResponse(body, status, {"connection": "close"})


async def _no_such_page(request: Request, error: Exception) -> JSONResponse:
    # In words that a client can tell from an accident: nothing was done.
    status = error.status_code if isinstance(error, HTTPException) else 500
    where = f"{request.method} {request.url.path}"
    return _said({"code": "no_such_page", "message": f"{where} is nothing here", "acted": False}, status)


def _route(desk: Desk, endpoint: Endpoint) -> Route:
    class Counter:  # an instance is served as plain ASGI, which leaves sending, or not, to the desk
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await desk.deal_with(endpoint, scope, receive, send)

    return Route(endpoint.path, Counter(), methods=[endpoint.method], name=endpoint.name)


class ShopServer(uvicorn.Server):
    """Uvicorn, with the two things a nasty shop does to its connections.

    The port stays reserved by a bound socket that never listens, so that connecting to a dark shop is refused rather
    than answered by whoever got the port in the meantime.
    """

    def __init__(self, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                _not_built_yet,
                http="h11",
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                timeout_graceful_shutdown=2,  # longer than the longest a request is worked on
            )
        )
        _refuse_taken(port)
        self._reserved = _bound(port)
        self.port: int = self._reserved.getsockname()[1]
        self._dark_task: asyncio.Task[None] | None = None

    async def run_app(self, app: ASGIApp) -> None:
        """Serve until told to stop."""
        self.config.app = app
        try:
            await self.serve([_bound(self.port)])
        finally:
            self._reserved.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open for business and say so on stdout."""
        await super().startup(sockets)
        ready = {"port": self.port, "url": f"http://{HOST}:{self.port}", "pid": os.getpid()}
        print(json.dumps(ready), flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cut who is still connected, and finish what has been begun."""
        for connection in self._connections():
            connection.transport.abort()
        await super().shutdown(sockets)

    def cut(self, scope: Scope) -> None:
        """Drop the connection a request came in by, without a word."""
        for connection in self._connections():
            if connection.client == tuple(scope["client"]):
                connection.transport.abort()

    def _connections(self) -> list[H11Protocol]:
        return [connection for connection in self.server_state.connections if isinstance(connection, H11Protocol)]

    def go_dark(self, seconds: float) -> None:
        """Refuse new connections for a while, starting now."""
        if self._dark_task is not None and not self._dark_task.done():
            return
        for listener in self.servers:
            listener.close()
        self._dark_task = asyncio.create_task(self._reopen(seconds))

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not self.should_exit:
            await super().startup([_bound(self.port)])


async def _not_built_yet(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the app is set before the server starts")


def _refuse_taken(port: int) -> None:
    # Sockets that may share a port do: without this, a second shop on it would get half of the first one's calls.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((HOST, port))
    return sock


async def serve(store: ShopStore, *, seed: int, port: int, is_nasty: bool, key_ttl_s: float) -> None:
    """Serve a shop until SIGTERM, SIGINT, or the end of the pipe on stdin."""
    server = ShopServer(port)
    script = Script(seed, [endpoint.name for endpoint in ENDPOINTS if endpoint.is_effect], is_nasty=is_nasty)
    kills = KillDesk()
    desk = Desk(store, script, kills, server, seed=seed, key_ttl_s=key_ttl_s)
    office = BackOffice(desk, store, script, kills)
    _stop_at_end_of_stdin(server)
    routes = [*(_route(desk, endpoint) for endpoint in ENDPOINTS), *office.routes()]
    await server.run_app(Starlette(routes=routes, exception_handlers={HTTPException: _no_such_page}))


def _stop_at_end_of_stdin(server: uvicorn.Server) -> None:
    if not stat.S_ISFIFO(os.fstat(0).st_mode):  # started by hand or by a service manager: nobody holds the other end
        return

    def watch() -> None:
        while os.read(0, 4096):
            pass
        server.should_exit = True

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m surefoot.demo.shop", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--db", type=Path, required=True, help="the shop's own database file; made if missing")
    parser.add_argument("--seed", type=int, default=0, help="what the script's draws come from")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--script", choices=("calm", "nasty"), default="calm")
    parser.add_argument("--key-ttl", type=float, default=86_400.0, help="life of an idempotency key, in seconds")
    parser.add_argument("--orders", type=Path, help="JSON file of orders; without it, those of the built-in tickets")
    options = parser.parse_args(argv)
    # The server raises the signal that stopped it once more when it is done: stopping as asked is no failure.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.signal(signal.SIGINT, lambda number, frame: None)
    orders: tuple[StockOrder, ...] = read_orders(options.orders) if options.orders else ORDERS
    try:
        store = ShopStore(options.db, orders)
    except apsw.Error as error:
        parser.exit(1, f"the shop cannot use {options.db} as its database: {error}\n")
    try:
        asyncio.run(
            serve(
                store,
                seed=options.seed,
                port=options.port,
                is_nasty=options.script == "nasty",
                key_ttl_s=options.key_ttl,
            )
        )
    finally:
        store.close()


if __name__ == "__main__":
    main()
