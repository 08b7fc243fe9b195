"""One fault, armed in a file beside the world, sprung by whoever stands before the server: the relay, or its HTTP side.

A fault matches one call by tool and arguments. It kills the worker with SIGKILL, and then:

=========  ===========================================================
fault      the call
=========  ===========================================================
lost       goes nowhere
straggles  reaches the server that much later
acted      has been carried out before; its answer goes nowhere
=========  ===========================================================
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Fault:
    """What happens at one call."""

    what: Literal["lost", "straggles", "acted"]
    tool: str
    arguments: dict[str, Any]
    straggles_s: float = 0.0


class Books:
    """A folder: the armed fault, the worker to be killed, and a log of what the server carried out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fault, self._worker, self._log = folder / "fault.json", folder / "worker", folder / "calls.jsonl"

    def arm(self, fault: Fault | None) -> None:
        """Arm a fault, or none."""
        if fault is None:
            self._fault.unlink(missing_ok=True)
        else:
            self._fault.write_text(json.dumps(asdict(fault)))

    def be_worker(self) -> None:
        """Say that this process is the one to be killed."""
        self._worker.write_text(str(os.getpid()))

    def take(self, call: dict[str, Any]) -> Fault | None:
        """Return the armed fault if it is for this call, and disarm it."""
        if not self._fault.exists():
            return None
        fault = Fault(**json.loads(self._fault.read_text()))
        if (call.get("name"), call.get("arguments")) != (fault.tool, fault.arguments):
            return None
        self._fault.unlink()
        return fault

    def kill(self) -> None:
        """Kill the worker."""
        os.kill(int(self._worker.read_text()), signal.SIGKILL)

    def note(self, call: dict[str, Any], result: dict[str, Any] | None) -> None:
        """Note what the server answered to a call."""
        key = (call.get("_meta") or {}).get("surefoot/idempotencyKey")
        is_done = result is not None and not result.get("isError")
        entry = {"tool": call.get("name"), "arguments": call.get("arguments"), "key": key, "done": is_done}
        with self._log.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def calls(self) -> list[dict[str, Any]]:
        """Return what the server has answered."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []
