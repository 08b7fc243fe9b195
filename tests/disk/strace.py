"""The same sweep at the system calls themselves: a real worker under `strace`, which lets chosen calls fail.

It reaches what no VFS does: the shared memory of the log's index, the locks by which processes queue, the lock file of a
session, and the kernel's own words (ENOSPC from a sync, ENOLCK, EMFILE). `strace` counts for each thread by itself, so a
fault "once" strikes once in each thread that comes so far. Where there is no `strace`, or tracing is not allowed, the
tests say so and are skipped; the VFS covers SQLite's own calls everywhere.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.disk import calls
from tests.disk.processes import Json, Line

FILES = {
    "database": "agents.db",
    "log": "agents.db-wal",
    "log index": "agents.db-shm",
    "journal": "agents.db-journal",
    "door": "agents.db-door",
    "desk": "agents.db-desk",
    "sessions": "agents.db-workers",
    "directory": ".",
}

HOW = {
    "pwrite64": ("EIO", "ENOSPC"),
    "fdatasync": ("EIO", "ENOSPC"),
    "fsync": ("EIO",),
    "ftruncate": ("EIO", "ENOSPC"),
    "openat": ("EIO", "ENOSPC", "EMFILE"),
    "mkdir": ("EIO", "ENOSPC"),
    "pread64": ("EIO",),
    "fcntl": ("EIO", "ENOLCK"),
    "flock": ("EIO", "ENOLCK"),
    "mmap": ("ENOMEM",),
    "unlink": ("EIO",),
    "fstat": ("EIO",),
    "stat": ("EIO",),
    "lstat": ("EIO",),
    "newfstatat": ("EIO",),
}
"""Each system call on the store's files that can fail, and how. A failing `close` is not among them: it is too late for it
to matter, since what counts was synced before."""

ATTACHED_S = 30.0


@dataclass(frozen=True)
class Fault:
    """Which system call on which file fails, and how.

    Attributes:
        call: For example "pwrite64 log".
        nth: See `vfs.Fault`.
        how: The error.
        is_lasting: See there.
    """

    call: str
    nth: int
    how: str
    is_lasting: bool = False


def usable() -> str:
    """Return why `strace` can't be used here; empty if it can."""
    if shutil.which("strace") is None:
        return "there is no strace on this machine"
    command = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=getcwd:error=EIO", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"tracing is not allowed here: {done.stderr.strip()}"


class Tracer:
    """`strace`, attached to a worker before it begins."""

    def __init__(self, home: Path, *options: str, only: str = "") -> None:
        self._said = home / "strace"
        files = [FILES[only]] if only else list(FILES.values())
        paths = [word for name in files for word in ("-P", str(home / name) if name != "." else str(home))]
        self._command = ["strace", "-f", "-qq", "-y", "-o", str(self._said), *paths, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def attach(self, pid: int) -> None:
        """Begin to trace a process."""
        self._process = subprocess.Popen([*self._command, "-p", str(pid)], stderr=subprocess.DEVNULL)

    def lines(self) -> list[str]:
        """Return what was seen, once the process has ended."""
        assert self._process is not None, "it was attached"
        self._process.wait(timeout=ATTACHED_S)
        return self._said.read_text(errors="replace").splitlines() if self._said.exists() else []


def traced(line: Line, place: Path) -> Json:
    """Be a worker, once somebody traces it."""
    until_s = time.monotonic() + ATTACHED_S
    while "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
        assert time.monotonic() < until_s, "nobody traces it"
        time.sleep(0.002)
    return calls.worker(line, place)


def count_calls() -> dict[str, int]:
    """Return how many calls of each kind a thread makes at most when nothing fails."""
    home = Path(tempfile.mkdtemp(prefix="surefoot-strace-"))
    try:
        tracer = Tracer(home, "-e", f"trace={','.join(HOW)}")
        verdict = calls.examine("nothing", traced, on_born=tracer.attach, home=home)
        assert not verdict.wrong, verdict
        return _most(tracer.lines(), home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _most(lines: list[str], home: Path) -> dict[str, int]:
    kinds = {str(home / name) if name != "." else str(home): kind for kind, name in FILES.items()}
    seen: Counter[tuple[str, str]] = Counter()
    for text in lines:
        found = re.match(rf"(\d+) +(\w+)\(.*?({re.escape(str(home))}[^>\",]*)", text)
        if found is not None and found[2] in HOW and found[3] in kinds:
            seen[f"{found[2]} {kinds[found[3]]}", found[1]] += 1
    most: dict[str, int] = {}
    for (call, _), count in seen.items():
        most[call] = max(count, most.get(call, 0))
    return most


def faults(counts: dict[str, int], stride: int = 1) -> Iterator[Fault]:
    """Return every fault of every call, or of every `stride`-th; the first of each kind always."""
    for call, count in sorted(counts.items()):
        for nth in range(1, count + 1, stride):
            for how in HOW[call.partition(" ")[0]]:
                yield Fault(call, nth, how)
                yield Fault(call, nth, how, is_lasting=True)


def run_fault(fault: Fault) -> calls.Verdict:
    """Examine one fault."""
    name, _, kind = fault.call.partition(" ")
    home = Path(tempfile.mkdtemp(prefix="surefoot-strace-"))
    when = f"{fault.nth}+" if fault.is_lasting else str(fault.nth)
    inject = f"inject={name}:error={fault.how}:when={when}"
    tracer = Tracer(home, "-e", f"trace={name}", "-e", inject, only=kind)
    what = f"{fault.how} at {fault.call} number {fault.nth}{', and ever after' if fault.is_lasting else ''}"
    try:
        verdict = calls.examine(what, traced, on_born=tracer.attach, home=home)
        return replace(verdict, is_struck=any("(INJECTED)" in text for text in tracer.lines()))
    finally:
        shutil.rmtree(home, ignore_errors=True)
