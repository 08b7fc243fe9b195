"""Starting a shop in a process of its own, and talking to its back office.

Always holds: the shop does not outlive who started it, for its stdin is a pipe that ends with them.
"""

import json
import select
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypedDict

import httpx

from surefoot.demo.faults import FaultKind
from surefoot.demo.killing import KillOrder

READY_WITHIN_S = 30.0  # a start takes half a second; a loaded machine gets its time
STOP_WITHIN_S = 10.0
_DARK_RETRIES = 5  # connection retries with httpx's backoff add up to several times the longest dark spell


class ShopDidNotStart(RuntimeError):
    """The shop's process ended, or said nothing, before it was ready; its own words are on stderr."""


@dataclass(frozen=True, slots=True)
class RunningShop:
    """A shop that is open, and its back office.

    Attributes:
        url: Where it is.
        pid: Its process.
        office: For the back office only; workers use `surefoot.demo.client`.
    """

    url: str
    pid: int
    office: httpx.Client

    def books(self) -> list[Mapping[str, object]]:
        """Everything that happened, once no request is in flight any more."""
        return _rows(self.office.get("/books", params={"quiet": 1}), "rows")

    def calls(self) -> list[Mapping[str, object]]:
        """The call log, once no request is in flight any more."""
        return _rows(self.office.get("/calls", params={"quiet": 1}), "calls")

    def register_worker(self, pid: int) -> None:
        """Allow that this process is killed."""
        self.office.post("/_control/workers", json={"pid": pid}).raise_for_status()

    def order_kills(self, orders: Iterable[KillOrder]) -> None:
        """Have workers killed at these points."""
        rows = [{"nth": order.nth, "moment": order.moment} for order in orders]
        self.office.post("/_control/kills", json={"kills": rows}).raise_for_status()

    def kills(self) -> list[Mapping[str, object]]:
        """The kills that were carried out."""
        return _rows(self.office.get("/_control/kills"), "fired")

    def order_faults(self, endpoint: str, faults: Sequence[FaultKind]) -> None:
        """Fix what happens to the next requests to an endpoint, e.g. `"POST /refunds"`."""
        self.office.post("/_control/faults", json={"endpoint": endpoint, "faults": list(faults)}).raise_for_status()


@contextmanager
def running_shop(
    db: Path,
    *,
    seed: int = 0,
    script: Literal["calm", "nasty"] = "calm",
    key_ttl_s: float | None = None,
    orders: Path | None = None,
) -> Iterator[RunningShop]:
    """Keep a shop open for the length of a with block.

    Args:
        db: Its own database file.
        seed: What its script's draws come from.
        script: Whether it is nasty.
        key_ttl_s: Life of its idempotency keys, in seconds; None for its own default, a day.
        orders: A file from `write_orders`; None for the built-in ones.

    Raises:
        ShopDidNotStart: If it is not ready within half a minute.
    """
    command = [sys.executable, "-m", "surefoot.demo.shop", "--db", str(db), "--seed", str(seed), "--script", script]
    command += ["--key-ttl", str(key_ttl_s)] if key_ttl_s is not None else []
    command += ["--orders", str(orders)] if orders is not None else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            ready = _first_line(process.stdout)
            # Plain HTTP on this host: no certificates to load.
            trusts_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            transport = httpx.HTTPTransport(verify=trusts_nobody, trust_env=False, retries=_DARK_RETRIES)
            with httpx.Client(base_url=ready["url"], transport=transport, trust_env=False, timeout=60.0) as office:
                yield RunningShop(ready["url"], ready["pid"], office)
        finally:
            process.terminate()
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()


class _Ready(TypedDict):
    port: int
    url: str
    pid: int


def _first_line(stdout: IO[bytes]) -> _Ready:
    line = stdout.readline() if select.select([stdout], [], [], READY_WITHIN_S)[0] else b""
    if not line:
        raise ShopDidNotStart(f"no word from the shop within {READY_WITHIN_S:.0f} s, or it ended")
    ready: _Ready = json.loads(line)
    return ready


def _rows(response: httpx.Response, name: str) -> list[Mapping[str, object]]:
    rows = response.raise_for_status().json()[name]
    assert isinstance(rows, list)
    return rows
