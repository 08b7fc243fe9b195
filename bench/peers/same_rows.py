"""The other ceiling: no engine at all, only a loop that writes the very rows that Surefoot writes, into its tables.

`bare` keeps the same bytes, in one table without an index. This one has the journal and the ledger with their indexes, and
settles a claim by changing its row, as whoever wants to find an effect by its key must. What is left between it and
Surefoot is Surefoot's own code: deriving keys, comparing arguments, looking whether it may still act.

The rows of the run itself are left out: two of a run's 82.
"""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

import surefoot as sf
from bench import driver
from bench.observer import observer
from bench.peers.bare import Writer
from bench.workload import act, decide
from surefoot.journal import Kind
from surefoot.store import checksums

FILE = "surefoot.db"
AT_MS = 1_750_000_000_000

CLAIM, SETTLE = 1, 2
STATEMENTS = [
    "INSERT INTO journal (id, run, seq, kind, step, after, at_ms, head, body, blob)"
    f" VALUES (?, ?, ?, ?, ?, ?, {AT_MS}, NULL, ?, NULL)",
    "INSERT INTO ledger (id, digest, generation, state, token, holder, sender, run, fingerprint, claim, record,"
    " sent_boot_ms) VALUES (?, ?, 1, 2, 1, 1, 1, ?, ?, ?, ?, 1)",
    "UPDATE ledger SET state = 4, record = ? WHERE id = ? AND token = 1 AND state IN (2, 3)",
]

_encode = msgspec.json.encode


def call(arguments: dict[str, str]) -> dict[str, Any]:
    """Return what a claim's record holds: everything needed to send the same again."""
    return {
        "effect": "refund", "doubt": "resend", "key": f"refund:{arguments['order_id']}", "scope": "app",
        "arguments": arguments, "session": 1, "boot_ms": 1, "returns": "dict[str, typing.Any]",
    }  # fmt: skip


class SameRows:
    """The loop, as a `driver.System`."""

    async def open(self, directory: Path) -> None:
        async with sf.Surefoot(f"sqlite:///{directory / FILE}"):
            pass  # it makes the tables
        self._writer = Writer(checksums.connect(directory / FILE), STATEMENTS)
        self._writer.start()
        self._records, self._effects = count(1), count(1)

    async def durability(self) -> dict[str, str]:
        return self._writer.durability()

    async def run(self, run: int, cycles: int) -> None:
        writer, world = self._writer, observer.world
        observer.run_began(run)
        self._record(run, 1, Kind.STARTED, "", b"[]")
        for cycle in range(cycles):
            await observer.gate(cycle)
            seq = 2 + 3 * cycle
            decision = decide(run, cycle)
            self._record(run, seq, Kind.DECIDED, f"decide_step#{cycle + 1}", _encode(decision))
            arguments = decision["tool_call"]["arguments"]
            effect, digest = next(self._effects), f"{run:08d}{cycle:08d}".encode()
            claim = next(self._records)
            writer.append(effect, digest, run, digest, claim, claim, statement=CLAIM)
            body = _encode(call(arguments))
            await writer.append_and_wait(claim, run, seq + 1, Kind.CLAIMED, f"refund#{cycle + 1}", seq, body)
            done = self._record(run, seq + 2, Kind.DONE, f"refund#{cycle + 1}", _encode(act(decision, world)))
            writer.append(done, effect, statement=SETTLE)
            observer.cycle_ended(run)
        await writer.append_and_wait(next(self._records), run, 2 + 3 * cycles, Kind.ENDED, "", 0, b"null")
        observer.run_ended(run)

    def _record(self, run: int, seq: int, kind: Kind, step: str, body: bytes) -> int:
        record = next(self._records)
        self._writer.append(record, run, seq, kind, step, max(0, seq - 1), body)
        return record

    async def resume(self, runs: range, cycles: int) -> None:
        raise NotImplementedError("it has nothing to go on with: see `bare`")

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.close)


if __name__ == "__main__":
    driver.main(lambda options: SameRows())
