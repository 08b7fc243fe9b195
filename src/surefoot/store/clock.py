"""Time and ids: the only module that asks the machine for them.

Three clocks, never mixed: `wall_ms` stamps records and sets timers (it may jump), `monotonic_s` measures waits inside
this process, `boot_ms` counts since the machine booted, sleep included, and is what leases on one host compare.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """What the rooms ask of time; tests bring one that they move by hand."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC by the host's clock; may jump either way."""

    def monotonic_s(self) -> float:
        """Seconds that never run backwards, comparable within this process only."""

    def boot_ms(self) -> int:
        """Milliseconds since boot, comparable between processes of one host and one boot."""

    def boot_id(self) -> str:
        """An id that changes with each boot of the host."""


_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The host's clocks."""

    def __init__(self) -> None:
        self._boot_id = _read_boot_id()

    def wall_ms(self) -> int:
        """See `Clock.wall_ms`."""
        return time.time_ns() // 1_000_000  # noqa: TID251  this is the place

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return time.monotonic()

    def boot_ms(self) -> int:
        """See `Clock.boot_ms`; where there is no CLOCK_BOOTTIME (macOS), the monotonic clock, which is system wide."""
        return time.clock_gettime_ns(_BOOT_CLOCK) // 1_000_000

    def boot_id(self) -> str:
        """See `Clock.boot_id`."""
        return self._boot_id


def _read_boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else "one-boot"


def new_id() -> str:
    """Return a random id of 16 hexadecimal digits (64 bits), for names that nobody chose."""
    return secrets.token_hex(8)
