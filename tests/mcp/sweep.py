"""The sweep: a worker is killed at every point of an MCP call, another goes on, and the server's world is compared.

python -m tests.mcp SCENARIO...          one line of JSON per case; a warm parent forks the workers

Cases of one scenario share a folder, one after the other, so that a server over HTTP can stay.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.mcp.faults import Books, Fault
from tests.mcp.scenarios import ROOT, STRAGGLES_S, Call, Scenario
from tests.mcp.worker import Report, work
from tests.worlds.kills import Kill, Point, Trap

DEADLINE_S = 90.0
"""After this a worker counts as stuck. A server written in Python takes seconds to start on a busy machine."""

POINTS = ("before the claim", "claimed, not sent", "sent, lost on the way", "acted, not answered",
          "answered, not recorded", "recorded", "sent, lands 300 ms late")  # fmt: skip

_TRAPS = {
    "before the claim": Point.BEFORE_CLAIM,
    "claimed, not sent": Point.AFTER_CLAIM,
    "answered, not recorded": Point.AFTER_REPLY,
    "recorded": Point.AFTER_RECORD,
}
_FAULTS: dict[str, Any] = {
    "sent, lost on the way": ("lost", 0.0),
    "acted, not answered": ("acted", 0.0),
    "sent, lands 300 ms late": ("straggles", STRAGGLES_S),
}


@dataclass
class Result:
    """One case, counted."""

    scenario: str
    at: str
    call: str
    kills: int = 0
    is_exact: bool = False
    parked: list[str] = field(default_factory=list)
    doubled: int = 0
    error: str = ""
    took_s: float = 0.0


class Sweep:
    """All cases of one scenario, in one folder."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self.folder = folder
        self.world = folder / "world"
        self.books = Books(folder)

    def undisturbed(self) -> Any:
        """Return the state of a world in which nobody is killed. Done in the parent: codecs are built here, for all."""
        self._reset()
        before = self.scenario.state(self.world)
        self.books.arm(None)
        report = work(self.scenario, self.folder, Trap(), None)
        assert report["finished"], report
        after = self.scenario.state(self.world)
        assert after != before, "this looks at another world than the server's"
        return after

    def cases(self, points: Sequence[str], labels: Sequence[str] | None) -> Iterator[tuple[str, Call]]:
        """Yield the kills: each point of each call that is an effect."""
        for call in self.scenario.calls(self.world):
            if call.is_effect and (labels is None or call.label in labels):
                yield from ((point, call) for point in points)

    def run(self, expected: Any, at: str, call: Call) -> Result:
        """Kill a worker where `at` says, several times if it says "then", and compare what comes of it."""
        started_s = time.monotonic()
        result = Result(self.scenario.title, at, call.label)
        try:
            self._reset()
            kills = at.split(" then ")
            report: Report | None = None
            while report is None and result.kills <= len(kills):
                report = self._worker(kills[result.kills] if result.kills < len(kills) else None, call)
                result.kills += report is None
            assert report is not None, "a worker without a kill was killed"
            if not report["finished"]:
                result.parked = report["parked"]
                by_label = {one.label: one for one in self.scenario.calls(self.world)}
                self._let_stragglers_land(at, call)
                landed = {label: self.scenario.landed(self.world, by_label[label]) for label in result.parked}
                report = self._worker(None, call, landed)
                assert report is not None
            self._let_stragglers_land(at, call)
            found = self.scenario.state(self.world)
            result.is_exact = bool(report["finished"]) and found == expected
            result.doubled = self._doubled()
            if not result.is_exact:
                result.error = f"{report}; found {found!r}, not {expected!r}"
        except Exception:
            result.error = traceback.format_exc()
        result.took_s = round(time.monotonic() - started_s, 2)
        return result

    def _reset(self) -> None:
        for path in self.folder.iterdir():
            if path.name not in ("port", "pid", "server.log"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.scenario.prepare(self.world)

    def _let_stragglers_land(self, at: str, call: Call) -> None:
        """Wait until what was still on its way has been carried out: it may not be missed by who looks."""
        if "late" in at:
            while not any(self._is_of(entry, call) for entry in self.books.calls()):
                time.sleep(0.01)

    def _is_of(self, entry: Mapping[str, Any], call: Call) -> bool:
        return (entry["tool"], entry["arguments"]) == (call.tool, call.arguments)

    def _doubled(self) -> int:
        """Return how often a server carried an effect out again where that matters: it neither dedupes nor overwrites."""
        if self.scenario.manner == "keys":
            return 0
        overwritten = self.scenario.overwritten(self.world)
        done = Counter(
            call.label
            for entry in self.books.calls()
            for call in self.scenario.calls(self.world)
            if call.is_effect and call.tool not in overwritten and entry["done"] and self._is_of(entry, call)
        )
        return sum(times - 1 for times in done.values())

    def _worker(self, at: str | None, call: Call | None, landed: Mapping[str, bool] | None = None) -> Report | None:
        """Fork a worker with its kill armed; return what it says, or None if it was killed."""
        kill, fault = None, None
        if at in _FAULTS and call is not None:
            what, straggles_s = _FAULTS[at]
            fault = Fault(what, call.tool, call.arguments, straggles_s)
        elif at in _TRAPS and call is not None:
            kill = Kill(_TRAPS[at], call.label)
        elif at is not None:
            kill = Kill(Point.ANY, nth=int(at.rpartition(" ")[2]))
        self.books.arm(fault)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            _be_worker(self.scenario, self.folder, Trap(kill), landed, write_end)
        os.close(write_end)
        said = _read(read_end)
        if said is None:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if said is None:
            raise RuntimeError(f"stuck at {at}: {(self.folder / 'server.log').read_text()[-1000:]}")
        if os.WIFSIGNALED(status):
            return None
        report: Report = json.loads(said)
        if "error" in report:
            raise RuntimeError(report["error"])
        return report


def _be_worker(scenario: Scenario, folder: Path, trap: Trap, landed: Mapping[str, bool] | None, write_end: int) -> None:
    try:
        report = work(scenario, folder, trap, landed)
    except BaseException:
        report = {"error": traceback.format_exc()}
    os.write(write_end, json.dumps(report).encode())
    os._exit(0)


def _read(source: int) -> str | None:
    """Return all that is said until the end; None if that doesn't come in time."""
    until_s, said = time.monotonic() + DEADLINE_S, b""
    try:
        while (left_s := until_s - time.monotonic()) > 0:
            if select.select([source], [], [], left_s)[0]:
                part = os.read(source, 65_536)
                if not part:
                    return said.decode()
                said += part
        return None
    finally:
        os.close(source)


@contextmanager
def _served(scenario: Scenario, folder: Path) -> Iterator[None]:
    """Run the server of a scenario over HTTP; one over stdio is its workers' own."""
    if not scenario.is_http:
        yield
        return
    server = subprocess.Popen([*scenario.command(folder / "world"), "--http"], cwd=ROOT)
    try:
        while not (folder / "port").exists():
            assert server.poll() is None
            time.sleep(0.01)
        yield
    finally:
        server.kill()
        server.wait()


def sweep(
    scenario: Scenario, points: Sequence[str], labels: Sequence[str] | None = None, *, deepens: bool = False
) -> Iterator[Result]:
    """Yield the results of a scenario's cases.

    Args:
        scenario: The scenario.
        points: Where to kill; "A then B" kills the next worker too.
        labels: The calls to kill at; None: all effects.
        deepens: Whether, after each kill, the next worker is killed at its first crossing, then its second, and so on.
    """
    with tempfile.TemporaryDirectory(prefix="mcp-") as name:
        folder = Path(name)
        with _served(scenario, folder):
            one = Sweep(scenario, folder)
            expected = one.undisturbed()
            for at, call in one.cases(points, labels):
                if not deepens:
                    yield one.run(expected, at, call)
                    continue
                for nth in range(1, 1_000):
                    result = one.run(expected, f"{at} then crossing {nth}", call)
                    if result.kills < 2 and not result.error:
                        break
                    yield result


def measure(titles: Sequence[str], *options: str) -> list[Result]:
    """Sweep in a warm parent of its own, which is safe from within pytest, threads and all."""
    command = [sys.executable, "-W", "error", "-m", "tests.mcp", *titles, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return [Result(**json.loads(line)) for line in done.stdout.splitlines()]


def as_line(result: Result) -> str:
    """Return a result as JSON."""
    return json.dumps(asdict(result))
