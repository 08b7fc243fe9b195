"""What the figures were measured on, and how quiet it was: facts about the machine, and two probes.

The probes are taken before, during and after a session. A disk or a processor that became slower meanwhile makes the
absolute figures worthless, and only the ratios between systems measured in turn are left.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import apsw

from bench.figures import percentile

PROBE_WRITES = 200
PROBE_ADDITIONS = 2_000_000
_BLOCK = b"p" * 1024
_PREALLOCATED_BYTES = 1 << 20


def facts() -> dict[str, Any]:
    """Return what stays the same during a session."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": _system(),
        "python": platform.python_version(),
        "sqlite": {"apsw": apsw.sqlite_lib_version(), "sqlite3": sqlite3.sqlite_version},
    }


def probe(directory: Path) -> dict[str, float]:
    """Return what one small durable write and plain Python cost right now.

    Args:
        directory: Where the stores are: the probe writes to the same disk.
    """
    additions_began = perf_counter()
    total = 0
    for number in range(PROBE_ADDITIONS):
        total += number
    additions_s = perf_counter() - additions_began
    writes = _synced_writes(directory)
    return {
        "fdatasync_p50_ms": percentile(writes, 50) * 1e3,
        "fdatasync_p99_ms": percentile(writes, 99) * 1e3,
        "million_additions_per_s": PROBE_ADDITIONS / additions_s / 1e6,
        "load_1min": os.getloadavg()[0],
    }


def _synced_writes(directory: Path) -> list[float]:
    """Time `pwrite` of 1 KB and `fdatasync`, in seconds each, to a file whose length no longer changes."""
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        descriptor = file.fileno()
        os.pwrite(descriptor, b"\0" * _PREALLOCATED_BYTES, 0)
        os.fsync(descriptor)
        for write in range(PROBE_WRITES):
            began = perf_counter()
            os.pwrite(descriptor, _BLOCK, write * len(_BLOCK))
            os.fdatasync(descriptor)
            times.append(perf_counter() - began)
    return times


def _system() -> str:
    major, minor = platform.release().split(".")[:2]
    return f"{platform.system()} {major}.{minor}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
