"""One schedule: two workers on one store, a world, a person, and what happens to them in an order drawn from a seed.

First everything may go wrong (`Schedule.trouble`), then everything is healed and must come to an end (`Schedule.heal`):
safety is checked throughout, liveness after healing. The same plan gives the same schedule, step by step.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
from tests.property.effects import RECEIPTS, services
from tests.property.laws import CLAIMED, OPEN, LawBroken, Watch, require
from tests.property.people import Person
from tests.property.plans import SHARED, Fault, Plan
from tests.property.programs import Operation, Outside, call_outside, enter, program, reading, root_of
from tests.support.process import Process
from tests.support.services import Fate, Network, Sent
from tests.support.simulated import Host, HostClock, Loop, Thread, simulated_threads

import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.runs.life import ENDED
from surefoot.store import checksums, open_store

STEPS_MAX = 60_000
"""Steps after which a schedule counts as one that never ends."""

MOMENT_STEPS_MAX = 300
"""Steps that a fault waits for its moment; then it is done without."""

HEALED_MAX_S = 3_600.0
"""Simulated seconds after healing within which everything must have ended."""


IDLE_MAX_S = 5.0
"""Simulated seconds for which a claim may be on its way to whoever acts on it, after healing."""

PASSING = ("without a new record", "no worker here", "is not undone")
"""Reasons for which a run is blocked until somebody has looked, with the same code."""


@dataclass
class Asked:
    """Something a client wants, asked again of another worker until one has answered."""

    what: Callable[[sf.Surefoot], Coroutine[Any, Any, Any]]
    name: str
    task: asyncio.Task[Any] | None = None
    process: Process | None = None
    is_answered: bool = False


@dataclass
class Report:
    """What a schedule came to."""

    steps: int = 0
    sends: int = 0
    landings: int = 0
    faults: int = 0
    takeovers: int = 0
    simulated_s: float = 0.0
    results: dict[str, Any] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)


class Schedule:
    """Runs one plan. See `run`."""

    def __init__(self, plan: Plan, folder: Path, *, is_told: bool = False) -> None:
        self.plan = plan
        self.draw = random.Random(plan.seed * 7_919 + 1)
        self.path = folder / "agents.db"
        self.host = Host()
        self.report = Report()
        self.is_told = is_told
        self.network = Network(self.host, self.draw, plan.is_bad, plan.connecting, self._on_act, self._on_send,
                               self._on_ask)  # fmt: skip
        self.outside = Outside(self.network, services(plan.checks))
        self.outside.register.execute(RECEIPTS.ddl)
        self.watch = Watch(self.path)
        self.starts = 0
        self.processes: list[Process] = []
        self.all_processes: list[Process] = []
        self.clients: list[Asked] = []
        self.programs: dict[str, tuple[Operation, ...]] = {}
        self.told: dict[str, list[Any]] = {}
        self.calls: Counter[str] = Counter()
        self.is_healed = False
        self._faults = list(plan.faults)
        self._gap = self._faults[0].gap if self._faults else 0
        self._waking: list[tuple[float, Process]] = []
        self._person = Person(self)
        self._change = random.Random(f"others {plan.seed}")
        self._broken: LawBroken | None = None
        self._moments: dict[str, Process] = {}
        self._idle: dict[tuple[int, int], float] = {}

    # -- beginning and end -----------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Run it to its end.

        Raises:
            LawBroken: A law was broken.
        """
        enter(self.outside)
        try:
            self.processes = [self._new_process(), self._new_process()]
            for number, operations in enumerate(self.plan.programs):
                self._start_run(f"r{number}", operations)
            for number, operation in enumerate(self.plan.callers):
                self.ask(f"call {number}", partial(self._call, f"caller {number}", operation))
            self.trouble()
            self.heal()
            self._check()
        finally:
            for process in self.all_processes:
                process.kill()
            for process in self.all_processes:
                process.loop.bury()
            self.watch.close()
        self.report.takeovers = sum(run.epoch > 1 for run in self.watch.runs.values())
        self.report.sends, self.report.simulated_s = self.network.sends, self.host.now_s - 1_000.0
        self.report.landings = sum(len(keys) for one in self.outside.services.values() for keys in one.landed.values())
        return self.report

    def _new_process(self) -> Process:
        self.starts += 1
        process = Process(self.host, f"sqlite:///{self.path}", f"w{self.starts}")
        self.all_processes.append(process)
        return process

    def _start_run(self, run_id: str, operations: tuple[Operation, ...]) -> None:
        self.programs[run_id] = operations
        self.ask(f"start {run_id}", lambda app: app.start(program, list(operations), id=run_id))

    async def _call(self, caller: str, operation: Operation, app: sf.Surefoot) -> None:
        self.calls[caller] += 1
        told = await call_outside(app.guard, operation, self.calls[caller] - 1)
        self.told.setdefault(caller, []).append(told)

    def ask(self, name: str, what: Callable[[sf.Surefoot], Coroutine[Any, Any, Any]]) -> Asked:
        """Let a client ask for something, of one worker after another until one answers."""
        asked = Asked(what, name)
        self.clients.append(asked)
        return asked

    def _on_act(self) -> None:
        process = self._moments["act"] = self._running()
        self._note(partial(self.watch.on_act, process.app.guard.duty.session.id, HostClock(self.host).boot_ms()))

    def _running(self) -> Process:
        loop = asyncio.get_running_loop()
        (process,) = [one for one in self.all_processes if one.loop is loop]
        return process

    def _on_send(self, sent: Sent) -> None:
        self._moments["send"] = self._running()
        if self._faults and self._faults[0].after == "send" and self._gap <= 1 and self.draw.random() < 0.5:
            self.network.next_fate = Fate.LATEST
        self._note(partial(self.watch.on_send, sent, sent.text))

    def _on_ask(self, service: str, item: str) -> None:
        if self.plan.checks == "neither":  # elsewhere the service refuses what a holder sends that was stopped for long
            on_way = self.network.on_way.get((service, item), 0)
            self._note(lambda: require(not on_way, "a probe is asked behind the fence", item=item, on_way=on_way))

    def _note(self, check: Callable[[], None]) -> None:
        """Check in the middle of an effect: the engine would take a broken law for an error of the effect."""
        try:
            check()
        except LawBroken as error:
            self._broken = self._broken or error

    # -- steps -----------------------------------------------------------------------------------------------------

    def trouble(self) -> None:
        """Let the faults of the plan happen, each some steps after the one before."""
        quiet = 0
        while (self._faults or quiet < 40) and self.report.steps < STEPS_MAX:
            if self._faults:
                self._go_on_to_fault()
            else:
                quiet += 1
            if self.plan.is_watched and self.draw.random() < 0.02:
                self._person.look_in()
                self._change_world()
            self._step()
            if not self._faults and self._is_over():
                return

    def _go_on_to_fault(self) -> None:
        fault = self._faults[0]
        self._gap -= 1
        process = self._moments.get(fault.after) if self._gap <= 0 and fault.after else self.processes[fault.who]
        if self._gap <= 0 and (process is not None or self._gap < -MOMENT_STEPS_MAX):
            self._do(self._faults.pop(0), process or self.processes[fault.who])
            self._gap = self._faults[0].gap if self._faults else 0
        self._moments.clear()

    def heal(self) -> None:
        """Continue and restart everything, and wait for the end of all that was begun."""
        self.is_healed = True
        self.network.is_bad = 0.0
        for process in self.processes:
            process.is_stopped, process.fault, process.slow_until_s = False, None, 0.0
        until_s = self.host.now_s + HEALED_MAX_S
        looked_s = self.host.now_s
        while not self._is_over():
            self._step()
            if self.host.now_s - looked_s >= 1.0:
                looked_s = self.host.now_s
                self._help()
            is_late = self.host.now_s > until_s or self.report.steps > STEPS_MAX
            if is_late:
                require(False, "everything comes to an end", runs=list(self.watch.runs.values()),
                        effects=[row for row in self.watch.effects.values() if row.state in OPEN],
                        clients=[one.name for one in self.clients if not one.is_answered],
                        steps=self.report.steps, simulated_s=self.host.now_s)  # fmt: skip

    def _is_over(self) -> bool:
        runs = self.watch.runs.values()
        return (
            all(one.is_answered for one in self.clients)
            and all(run.state in ENDED for run in runs)
            and not any(row.state in OPEN for row in self.watch.effects.values())
            and self.network.next_s() is None
            and not self._waking
            and not any(one.threads() for one in self.processes)
            and not self.watch.news()
        )

    def _step(self) -> None:
        self.report.steps += 1
        self._look_after_processes()
        choices = [*self._choices()]
        if not choices:
            self._wait()
            return
        name, step = self.draw.choice(choices)
        if self.is_told:
            self.report.order.append(f"{self.host.now_s:.3f} {name}")
        step()
        broken = self._broken or self.outside.broken
        if broken is not None:
            raise broken

    def _choices(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for process in self.processes:
            if process.can_run():
                yield f"{process.name} runs", partial(self._run_loop, process)
                yield f"{process.name} runs", partial(self._run_loop, process)  # a loop is quicker than a disk
            for thread in process.threads():
                yield f"{process.name} {thread.name}", partial(self._run_thread, process, thread)
        if self.network.is_busy():
            yield "network", self.network.run_one
        if self._has_question():
            yield "client", self._ask_one

    def _run_loop(self, process: Process) -> None:
        process.run_one()
        if not process.is_open:  # one that closes waits for its writer, which writes what is left
            self.watch.look_at(process.sessions, HostClock(self.host).boot_ms())

    def _run_thread(self, process: Process, thread: Thread) -> None:
        thread.run_on()
        self.watch.look_at(process.sessions, HostClock(self.host).boot_ms())

    def _wait(self) -> None:
        """Nothing can be done now: let time pass until something can."""
        times = [when for process in self.processes for when in process.wakes_s()]
        times += [when for when, _ in self._waking]
        next_s = self.network.next_s()
        times += [] if next_s is None else [next_s]
        later = [when for when in times if when > self.host.now_s]
        self.host.now_s = min(later, default=self.host.now_s + 0.1)
        for when, process in list(self._waking):
            if when <= self.host.now_s:
                self._waking.remove((when, process))
                process.is_stopped = False

    def _look_after_processes(self) -> None:
        """What a supervisor does: start anew what has ended, and what can't go on."""
        for place, process in enumerate(self.processes):
            if process.has_failed and self.draw.random() < 0.05:
                process.kill()
            if process.is_closed:
                process.is_alive = False
            if not process.is_alive and (self.is_healed or self.draw.random() < 0.05):
                self.processes[place] = self._new_process()

    # -- clients and the person --------------------------------------------------------------------------------------

    def _has_question(self) -> bool:
        return any(self._can_ask(one) for one in self.clients if not one.is_answered) and bool(self._open_processes())

    def _open_processes(self) -> list[Process]:
        return [one for one in self.processes if one.is_open and not one.is_stopped and not one.has_failed]

    def _can_ask(self, asked: Asked) -> bool:
        if asked.task is None:
            return True
        if asked.task.done():
            if asked.process is not None and asked.process.is_alive and asked.task.exception() is None:
                asked.is_answered = True
                return False
            return True
        return asked.process is None or not asked.process.is_alive

    def _ask_one(self) -> None:
        wanting = [one for one in self.clients if not one.is_answered and self._can_ask(one)]
        if not wanting:
            return
        asked, process = self.draw.choice(wanting), self.draw.choice(self._open_processes())
        asked.process, asked.task = process, process.spawn(asked.what(process.app))

    def _help(self) -> None:
        """After healing: wake what was blocked for no lasting reason, and let people do what they are waited for."""
        for run in list(self.watch.runs.values()):
            if run.waiting_for == "blocked":
                is_passing = any(words in run.reason for words in PASSING)
                require(is_passing, "unchanged code never diverges", run=run)
                self.ask_run(run.run_id, "wake", lambda handle: handle.wake())
        self._person.do_all()
        self._check_claims()

    def _check_claims(self) -> None:
        """Check that what a living worker has claimed, and nobody acts on any more, does not stay claimed."""
        idle = {
            (row.id, row.token): row
            for process in self._open_processes()
            for row in self.watch.effects.values()
            if row.state == CLAIMED and row.holder in process.sessions
            and not {row.id} & (process.app.guard.acting.keys() | process.app.guard.resolving.keys())
        }  # fmt: skip
        self._idle = {claim: self._idle.get(claim, self.host.now_s) for claim in idle}
        for claim, since_s in self._idle.items():
            is_on_its_way = self.host.now_s - since_s < IDLE_MAX_S
            require(is_on_its_way, "a claim that nobody acts on is unknown", effect=idle[claim], since_s=since_s)

    def ask_run(self, run_id: str, name: str, what: Callable[[sf.Run], Coroutine[Any, Any, Any]]) -> None:
        """Ask something of a run."""

        async def ask(app: sf.Surefoot) -> None:
            await what(await app.run(run_id))

        self.ask(f"{name} {run_id}", ask)

    def _change_world(self) -> None:
        """Others change what was looked at, and their minds."""
        self.outside.shelves[self._change.choice(SHARED)] += 1
        self.outside.is_strict = self._change.random() < 0.5

    # -- faults ------------------------------------------------------------------------------------------------------

    def _do(self, fault: Fault, process: Process) -> None:
        self.report.faults += 1
        if self.is_told:
            self.report.order.append(f"{self.host.now_s:.3f} {fault.kind} {process.name} {fault.amount}")
        if fault.kind == "person":
            self._person.do_all()
        elif fault.kind == "change":
            self._change_world()
        elif fault.kind == "jump":
            self.host.wall_jump_ms += round(fault.amount * 1_000)
        elif fault.kind == "cancel":
            run_id = f"r{self.draw.randrange(len(self.plan.programs))}"
            if any(run.run_id == run_id for run in self.watch.runs.values()):
                self.ask_run(run_id, "cancel", lambda handle: handle.cancel("not needed"))
        elif fault.kind == "reboot":
            if all(one.is_open for one in self.processes):
                for one in self.processes:
                    one.kill()
                self._waking.clear()
                self.host.reboot()
        elif process.is_open:
            self._do_to(process, fault)

    def _do_to(self, process: Process, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                process.kill()
                self._waking = [(when, one) for when, one in self._waking if one is not process]
            case "stop":
                if not process.is_stopped:
                    process.is_stopped = True
                    self._waking.append((self.host.now_s + fault.amount, process))
            case "close":
                process.close()
            case "full" | "full late" | "lost":
                process.fault = fault.kind
            case "slow":
                process.slow_until_s = self.host.now_s + fault.amount

    # -- at the end ----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        results = {run.run_id: self._result(run.id) for run in self.watch.runs.values() if run.state == 4}
        failed = [run for run in self.watch.runs.values() if run.state == 5]
        require(not failed, "no run fails that catches what effects come to", failed=failed)
        roots = {run_id: self.programs.get(root_of(run_id), ()) for run_id in results}
        callers = {f"caller {number}": (operation,) for number, operation in enumerate(self.plan.callers)}
        told = {**results, **self.told}
        self.watch.check_end(self.outside, told, {**self.programs, **roots, **callers}, self._person.yes)
        self.report.results = results
        self._check_replay(results)

    def _result(self, run: int) -> Any:
        sql = "SELECT j.body FROM runs r JOIN journal j ON j.id = r.ended WHERE r.id = ?"
        (body,) = next(self.watch.connection.execute(sql, (run,)))
        return json.loads(str(body, "utf-8") if isinstance(body, bytes) else body)

    def _check_replay(self, results: dict[str, Any]) -> None:
        """Let every completed run be executed again from its journal, with a world that counts what is sent."""
        others = {run_id for run_id in results if self._is_recoded(run_id)}
        self.outside.recoded = frozenset(others)
        connection, before = self.watch.connection, (self.network.sends, self.outside.decisions)
        for process in self.processes:
            process.kill()
        with connection:
            connection.execute("DELETE FROM inbox WHERE name = '$cancel'")  # it came too late then
            # Set aside, not deleted: a store whose newest records are gone is refused.
            connection.execute("UPDATE journal SET run = -run WHERE id IN (SELECT ended FROM runs WHERE state = 4)")
            connection.execute(
                "UPDATE runs SET state = 1, ended = NULL, holder = NULL, epoch = epoch + 1 WHERE state = 4"
            )
        process = self._new_process()
        self.processes = [process]
        for _ in range(STEPS_MAX):
            if self._replay_step(process) and all(
                run.state in ENDED or (run.waiting_for == "blocked" and run.run_id in others)
                for run in self.watch.all_runs()
            ):
                break
        rows = self.watch.all_runs()
        stuck = [run for run in rows if run.state < 4 and run.run_id not in others]
        require(not stuck, "a journal replays to its end", stuck=stuck)
        gone_on = [run for run in rows if run.run_id in others and run.waiting_for != "blocked"]
        require(not gone_on, "other code does not go on", gone_on=gone_on)
        replayed = {run.run_id: self._result(run.id) for run in rows if run.state == 4}
        same = {run_id: result for run_id, result in results.items() if run_id not in others}
        require(replayed == same, "a replay gives the same result", first=same, again=replayed)
        require(before == (self.network.sends, self.outside.decisions), "a replay asks nobody",
                before=before, now=(self.network.sends, self.outside.decisions))  # fmt: skip

    def _is_recoded(self, run_id: str) -> bool:
        """Whether a run is replayed by code that asks for other steps."""
        operations = self.programs.get(run_id, ((None,),))
        return self.plan.is_recoded and operations[0][0] != operations[-1][0]

    def _replay_step(self, process: Process) -> bool:
        """Do one thing, the quickest first; return whether something may have been written."""
        threads = process.threads()
        if threads:
            threads[0].run_on()
        elif process.can_run():
            process.run_one()
        else:
            self._wait()
        return bool(threads)


def prepare(folder: Path) -> Path:
    """Make a store of the newest format once; schedules begin with a copy of it."""
    path = folder / "template.db"
    with simulated_threads(), Loop(Host()).running():
        store = open_store(f"sqlite:///{path}", MIGRATIONS, clock=HostClock(Host()))
        store.close()
    connection = checksums.connect(path)
    connection.execute("CREATE TABLE bookings (item TEXT NOT NULL)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


_templates: list[Path] = []
_folder: list[tempfile.TemporaryDirectory[str]] = []


def run(plan: Plan, *, is_told: bool = False) -> Report:
    """Run one plan in a directory of its own.

    Raises:
        LawBroken: A law was broken; the message says which and by what.
    """
    if not _templates:
        _folder.append(tempfile.TemporaryDirectory(prefix="surefoot-schedules-"))
        _templates.append(prepare(Path(_folder[0].name)))
    folder = Path(tempfile.mkdtemp(dir=_folder[0].name))
    is_collecting = gc.isenabled()
    gc.disable()  # what a killed process left must not be finalized while the schedule goes on
    try:
        shutil.copy(_templates[0], folder / "agents.db")
        with simulated_threads(), _unsynced(), _in_small_steps(), reading():
            return Schedule(plan, folder, is_told=is_told).run()
    finally:
        if is_collecting:
            gc.enable()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _in_small_steps() -> Iterator[None]:
    """Let a group be brought two events in one transaction at most, and one of usual size; and look seldom at signals."""
    with (
        mock.patch("surefoot.runs.hearing.POLL_S", 0.5),
        mock.patch("surefoot.coordination.events.dispatch.EVENTS_AT_ONCE", 2),
        mock.patch("surefoot.coordination.events.dispatch.BYTES_AT_ONCE", 1),
    ):
        yield


@contextlib.contextmanager
def _unsynced() -> Iterator[None]:
    """Leave out the syncs: no power fails here."""
    from surefoot.store import sqlite

    connect = sqlite._connect

    def unsynced(*args: Any, **options: Any) -> apsw.Connection:
        connection = connect(*args, **options)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    with mock.patch("surefoot.store.sqlite._connect", unsynced):
        yield


__all__ = ["LawBroken", "Report", "Schedule", "run"]
