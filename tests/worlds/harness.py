"""The harness: runs an engine through a case in real processes, kills it, lets it recover, and counts the world.

One case is one task, one engine, and the kills of its successive workers. A warm parent has imported everything; for
each case it forks the world and a worker, waits for the worker's death, forks the next worker, and so on until one
reports. Then it compares the whole state of the world with the undisturbed run's, and the call log with what each call
may have done at most once. What the engine parked is resolved by a person who looks at the world, and compared again.

Only the harness' parent forks, and it has no threads: whatever threads an engine needs start in its worker.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import shutil
import signal
import socket
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import NoReturn

from tests.worlds import dojo, wire
from tests.worlds.cases import Case, Engine, Memory, Report, Result, Verdict, Work
from tests.worlds.dojo import Json
from tests.worlds.kills import Kill, Point, Trap
from tests.worlds.service import Control, Service, Terms, serve

MOST_CROSSINGS = 300
"""Where deepening gives up, loudly: an engine that polls crosses the trap without end."""


def run_case(engine: Engine, case: Case, deadline_s: float) -> list[Result]:
    """Run a case; more than one result only if it `deepens`. A worker that outlives the deadline is stuck."""
    if not case.deepens:
        return [_Experiment(engine, case, deadline_s).run()]
    results: list[Result] = []
    for nth in range(1, MOST_CROSSINGS + 1):
        deeper = replace(case, kills=(*case.kills, Kill(Point.ANY, nth=nth)), deepens=False)
        result = _Experiment(engine, deeper, deadline_s).run()
        if result.fired < len(deeper.kills):
            return results
        results.append(result)
    raise RuntimeError(f"{engine.name} on {case.task} still crosses its trap after {MOST_CROSSINGS} times")


def run_cases(engines: Sequence[Engine], cases: Sequence[Case], jobs: int, deadline_s: float) -> Iterator[Result]:
    """Run every case with every engine in `jobs` forked lanes; results come in the order they end."""
    for task in {case.task for case in cases}:
        dojo.World(task)  # loads its suite here, once, for all lanes
    gc.collect()
    gc.freeze()
    pairs = [(engine, case) for case in cases for engine in engines]
    lanes: dict[int, bytearray] = {}
    pids = []
    for lane in range(jobs):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            _child(write_end, _lane(pairs[lane::jobs], deadline_s))
        os.close(write_end)
        lanes[read_end] = bytearray()
        pids.append(pid)
    try:
        while lanes:
            for ready in select.select(list(lanes), [], [])[0]:
                part = os.read(ready, 65_536)
                if not part:
                    os.close(ready)
                    del lanes[ready]
                    continue
                lanes[ready] += part
                *lines, rest = lanes[ready].split(b"\n")
                lanes[ready] = rest
                for line in lines:
                    content = json.loads(line)
                    if "lane_error" in content:
                        raise RuntimeError(content["lane_error"])
                    yield Result(**content)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _lane(pairs: Sequence[tuple[Engine, Case]], deadline_s: float) -> Iterator[Result]:
    for engine, case in pairs:
        yield from run_case(engine, case, deadline_s)


@dataclass
class _Ending:
    """How a worker ended: killed as planned, with a report, or otherwise."""

    killed: bool = False
    report: Report | None = None
    error: str = ""


class _Experiment:
    """One case in its own directory: the world, the workers one after the other, and the count."""

    def __init__(self, engine: Engine, case: Case, deadline_s: float) -> None:
        self.engine = engine
        self.case = case
        self.deadline_s = deadline_s
        target = next((kill.label for kill in case.kills if kill.label), None)
        self.target = next((call for call in case.calls(0) if call.label == target), None)
        self.origins = {call.label: call.origin for generation in (0, 1) for call in case.calls(generation)}
        self.result = Result(
            engine=engine.name,
            task=case.task,
            memory=case.memory,
            at=" then ".join(str(kill) for kill in case.kills) or "undisturbed",
            nth=case.kills[-1].nth if case.kills else 0,
            tool=self.target.tool if self.target else "",
        )

    def run(self) -> Result:
        started = time.perf_counter()
        self.directory = Path(tempfile.mkdtemp(prefix="world-"))
        try:
            with _world(self.engine.terms, self.case.task, str(self.directory / "s")) as self.control:
                self._run()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
        self.result.took_ms = round((time.perf_counter() - started) * 1000, 1)
        return self.result

    def _run(self) -> None:
        store = self.directory / "store"
        store.mkdir()
        ending = _Ending(killed=True)
        for generation in count():
            kill = self.case.kills[generation] if generation < len(self.case.kills) else None
            ending = self._worker(generation, kill, self.engine.run)
            if not ending.killed:
                break
            self.result.fired += 1
        if (report := ending.report) is None:
            self.result.verdict = Verdict.STUCK if not ending.error else Verdict.ERROR
            self.result.error = ending.error
            return
        self.result.verdict = self._judge(report)
        if report.parked:
            parked = {self.origins[label] for label in report.parked}
            anywhere = any(kill.label is None for kill in self.case.kills)
            expected = parked if anywhere or self.target is None else {self.target.origin}
            self.result.named_rightly = len(parked) == 1 and parked == expected
            self._ask_person(report)

    def _worker(self, generation: int, kill: Kill | None, act: Callable[[Work], Report]) -> _Ending:
        """Fork a worker with its kill armed, and wait for its end."""
        fault = kill.fault if kill is not None else None
        self.control.arm(*([fault] if fault is not None else []))
        self.result.workers += 1
        work = Work(
            run_id=self.case.run_id(generation),
            calls=self.case.calls(generation),
            socket_path=str(self.directory / "s"),
            store_dir=self.directory / "store",
            generation=generation,
            trap=Trap(kill),
        )
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            self.control.channel.close()
            _child(write_end, (act(work) for _ in range(1)))
        os.close(write_end)
        said, in_time = _read_all(read_end, self.deadline_s)
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if not in_time:
            return _Ending()
        if os.WIFSIGNALED(status) and not said.endswith(b"\n"):  # killed before or while it spoke
            killed = os.WTERMSIG(status) == signal.SIGKILL and kill is not None
            return _Ending(killed=killed, error="" if killed else f"the worker died of signal {os.WTERMSIG(status)}")
        content = json.loads(said)
        if "lane_error" in content:
            return _Ending(error=content["lane_error"])
        return _Ending(report=Report(content["finished"], tuple(content["parked"]), content["told"]))

    def _judge(self, report: Report) -> Verdict:
        """Compare the world with the undisturbed one, and count what was carried out more than once."""
        found, log = self.control.collect()
        acts = [entry for entry in log if entry["what"] == "acted" and entry["tool"] in dojo.EFFECTFUL]
        if unlabelled := [entry["tool"] for entry in acts if entry["label"] not in self.origins]:
            raise ValueError(f"{self.engine.name} calls without the label of the decision: {unlabelled}")
        done = Counter(self.origins[entry["label"]] for entry in acts)
        landed = {self.origins[entry["label"]] for entry in acts if entry["refusal"] is None}
        self.result.duplicates = sum(times - 1 for times in done.values())
        self.result.misled = sum(
            told == "refused" and self.origins[label] in landed for label, told in report.told.items()
        )
        if report.parked or not report.finished:
            return Verdict.IN_DOUBT if report.parked else Verdict.STUCK
        expected = self._undisturbed(acts)
        if dojo.digest(expected) == found:
            return Verdict.OK
        self.result.difference = dojo.diff(expected, self.control.state())
        lost = any(call.effectful and call.origin not in done for call in self.case.calls(0))
        return Verdict.LOST if lost else Verdict.WRONG

    def _undisturbed(self, acts: Sequence[wire.Frame]) -> Json:
        """The state after each call acted once; where a model that forgot worded it anew, as it was first worded."""
        if self.case.memory is not Memory.FORGOT:
            return _undisturbed_state(self.case.task)
        worded: dict[str, Mapping[str, Json]] = {}
        for entry in acts:
            worded.setdefault(self.origins[entry["label"]], entry["args"])
        calls = dojo.load()[self.case.task].calls
        return dojo.replay(self.case.task, [replace(call, args=worded.get(call.label, call.args)) for call in calls])

    def _ask_person(self, report: Report) -> None:
        """A person looks into the world, says what landed, and the run goes on."""
        _, log = self.control.collect()
        acted = (entry for entry in log if entry["what"] == "acted" and entry["refusal"] is None)
        seen = {self.origins.get(entry["label"]) for entry in acted}
        landed = {label: self.origins[label] in seen for label in report.parked}
        generation = self.result.workers
        ending = self._worker(generation, None, lambda work: self.engine.resolve(work, landed))
        if ending.report is None:
            self.result.after_person = Verdict.ERROR if ending.error else Verdict.STUCK
            self.result.error = ending.error
            return
        self.result.after_person = self._judge(ending.report)


_undisturbed_states: dict[str, Json] = {}


def _undisturbed_state(task: str) -> Json:
    if task not in _undisturbed_states:
        _undisturbed_states[task] = dojo.replay(task, dojo.load()[task].calls)
    return _undisturbed_states[task]


@contextmanager
def _world(terms: Terms, task: str, socket_path: str) -> Iterator[Control]:
    """A fresh world in a process of its own, listening before anybody can call it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(socket_path)
    listener.listen(64)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _become_world(listener, theirs, terms, task)
    listener.close()
    theirs.close()
    try:
        yield Control(ours)
    finally:
        ours.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _become_world(listener: socket.socket, control: socket.socket, terms: Terms, task: str) -> NoReturn:
    try:
        asyncio.run(serve(listener, control, Service(dojo.World(task), terms)))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _child(write_end: int, items: Iterator[Report] | Iterator[Result]) -> NoReturn:
    """Be a forked child: write the items as lines of JSON as they come, then exit without any clean-up."""
    try:
        for item in items:
            _write_all(write_end, json.dumps(asdict(item)).encode() + b"\n")
    except BaseException:
        _write_all(write_end, json.dumps({"lane_error": traceback.format_exc()}).encode() + b"\n")
    os._exit(0)


def _write_all(target: int, content: bytes) -> None:
    while content:
        content = content[os.write(target, content) :]


def _read_all(source: int, deadline_s: float) -> tuple[bytes, bool]:
    """Everything until the end of a pipe, and whether the end came in time."""
    until = time.monotonic() + deadline_s
    parts = bytearray()
    try:
        while (left := until - time.monotonic()) > 0:
            if select.select([source], [], [], left)[0]:
                part = os.read(source, 65_536)
                if not part:
                    return bytes(parts), True
                parts += part
        return bytes(parts), False
    finally:
        os.close(source)
