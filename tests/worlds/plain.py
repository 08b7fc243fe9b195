"""Loops that a careful person might write by hand: the controls of the table.

The first two are what most agents do, and must fail where theory says so, or the harness is broken. The others are the
known answers, each as its bare rule in a few lines; they show what a service's terms are worth, and that a look-up
without a fence is not an answer. All keep their journal in one file of JSON lines, appended before going on: a SIGKILL
takes nothing from the page cache, so there is no fsync (losing power is another test's subject).

============================  ==================  ====================================================================
rule                          service             in doubt
============================  ==================  ====================================================================
record after                  nothing             acts again
record before                 nothing             believes it has acted
key                           keys                acts again under the same key
business key                  keys                the same, and another decision about the same thing is the same act
probe                         probe               asks; not found: acts again
probe behind a fence          probe, expiry       waits until the request has expired at the service, then asks
stop and ask                  nothing             parks the call, for a person
============================  ==================  ====================================================================
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from tests.worlds.cases import Report, Work
from tests.worlds.client import InFlight, Refused
from tests.worlds.dojo import Call, Json
from tests.worlds.kills import Point
from tests.worlds.service import Offer, Terms


class Rule(Enum):
    """What a loop writes before it acts, and does in doubt."""

    RECORD_AFTER = auto()
    RECORD_BEFORE = auto()
    KEY = auto()
    PROBE = auto()
    FENCED_PROBE = auto()
    STOP_AND_ASK = auto()


class Journal:
    """One file of JSON lines; a line that a kill cut short was not written."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "journal"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._entries = [json.loads(line) for line in lines if line.endswith("}")]

    def find(self, kind: str, label: str) -> dict[str, Json] | None:
        """The newest entry of a kind about a call."""
        return next((e for e in reversed(self._entries) if (e["kind"], e["label"]) == (kind, label)), None)

    def append(self, kind: str, label: str, **content: Json) -> None:
        """Write an entry; once this returns it survives the process."""
        entry = {"kind": kind, "label": label} | content
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self._entries.append(entry)


@dataclass(frozen=True)
class PlainLoop:
    """One rule as an engine."""

    name: str
    terms: Terms
    rule: Rule
    life_s: float = 0.2
    """How long a request of `FENCED_PROBE` is good for; shorter and longer than a straggler must both do."""
    by_business: bool = False
    """Whether the journal knows a call by what it is about, or by its id."""

    def identity(self, call: Call) -> str:
        """The name under which the journal and the service know a call."""
        return call.business_key if self.by_business else call.label

    def run(self, work: Work) -> Report:
        """Carry out the calls that the journal does not know the outcome of."""
        return asyncio.run(_Loop(self, work).run())

    def resolve(self, work: Work, landed: Mapping[str, bool]) -> Report:
        """Write what the person found, then go on."""
        loop = _Loop(self, work)
        for label, done in landed.items():
            loop.journal.append("outcome" if done else "void", label)
        return asyncio.run(loop.run())


class _Loop:
    def __init__(self, engine: PlainLoop, work: Work) -> None:
        self.engine = engine
        self.work = work
        self.client = work.client()
        self.journal = Journal(work.store_dir)
        self.told: dict[str, str] = {}

    async def run(self) -> Report:
        for call in self.work.calls:
            if not call.effectful:
                await self.client.call(call.tool, call.args, label=call.label)
            elif self.journal.find("outcome", self.engine.identity(call)) is not None:
                self.told[call.label] = "repeated"
            elif self._is_parked(call):
                return Report(finished=False, parked=(call.label,), told=self.told | {call.label: "unknown"})
            else:
                self.told[call.label] = await self._carry_out(call)
                self.work.trap.reached(Point.AFTER_RECORD, call.label)
        return Report(finished=True, told=self.told)

    def _is_parked(self, call: Call) -> bool:
        if self.engine.rule is not Rule.STOP_AND_ASK:
            return False
        return self.journal.find("claim", call.label) is not None and self.journal.find("void", call.label) is None

    async def _carry_out(self, call: Call) -> str:
        """Act, with the record where the rule wants it; returns what to tell the model."""
        rule, name = self.engine.rule, self.engine.identity(call)
        self.work.trap.reached(Point.BEFORE_CLAIM, call.label)
        if rule is Rule.RECORD_BEFORE:
            self.journal.append("outcome", name)
            return await self._act(call, call.args)
        claim = self.journal.find("claim", name)
        if claim is not None and rule in (Rule.PROBE, Rule.FENCED_PROBE):
            await asyncio.sleep(max(0.0, claim["expires_at"] - time.time()))
            if await self.client.look_up(name, label=call.label) is not None:
                self.journal.append("outcome", name)
                return "done"
        expires_at = time.time() + self.engine.life_s if rule is Rule.FENCED_PROBE else 0.0
        args = claim["args"] if claim is not None else call.args
        if rule is not Rule.RECORD_AFTER:
            self.journal.append("claim", name, args=args, expires_at=expires_at)
        told = await self._act(call, args, expires_at or None)
        self.journal.append("outcome", name)
        return told

    async def _act(self, call: Call, args: Mapping[str, Json], expires_at: float | None = None) -> str:
        name = self.engine.identity(call)
        while True:
            try:
                await self.client.call(
                    call.tool, args, key=name, reference=name, expires_at=expires_at, label=call.label
                )
            except Refused:
                return "refused"
            except InFlight:
                await asyncio.sleep(0.02)
            else:
                return "done"


RECORD_AFTER = PlainLoop("record after", Terms(Offer.NOTHING), Rule.RECORD_AFTER)
RECORD_BEFORE = PlainLoop("record before", Terms(Offer.NOTHING), Rule.RECORD_BEFORE)
KEY = PlainLoop("key", Terms(Offer.KEYS), Rule.KEY)
BUSINESS_KEY = PlainLoop("business key", Terms(Offer.KEYS), Rule.KEY, by_business=True)
PROBE = PlainLoop("probe", Terms(Offer.PROBE), Rule.PROBE)
FENCED_PROBE = PlainLoop("probe behind a fence", Terms(Offer.PROBE), Rule.FENCED_PROBE)
STOP_AND_ASK = PlainLoop("stop and ask", Terms(Offer.NOTHING), Rule.STOP_AND_ASK)

ALL = (RECORD_AFTER, RECORD_BEFORE, KEY, BUSINESS_KEY, PROBE, FENCED_PROBE, STOP_AND_ASK)
