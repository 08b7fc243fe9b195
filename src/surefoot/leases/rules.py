"""Is the holder of a lease alive, expired or dead? Pure rules; no clock, no file, no store.

What holds: *dead* is a proof (the kernel dropped the holder's file lock, or the machine has rebooted), *expired* is only
permission to take over: a stopped process may wake up and act, so whoever expired must be refused at the write, and what
it may still send must be fenced. On one host times are boot times; wall clocks are never compared.

Source: Gray & Cheriton 1989 (leases); Kleppmann 2016 (fencing); Burrows 2006 (sessions of the Chubby lock service).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

TTL_MS = 10_000
"""Life of a session without renewal. Longer than a rough garbage collection or a slow disk; only *stopped* processes
wait for it, since death is seen at once."""

MARGIN_MS = 1_000
"""By how much a holder counts its own lease shorter than the others do; covers the scheduling of both sides."""


class Life(Enum):
    """What is known of a holder."""

    ALIVE = "alive"
    EXPIRED = "expired"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """A session as the store has it.

    Attributes:
        boot_id: The boot of the host it was opened in.
        renewed_boot_ms: Boot time of its last renewal; for the holder itself from before it was asked for.
        ttl_ms: Its life from there.
        is_closed: Whether its holder gave it back.
    """

    boot_id: str
    renewed_boot_ms: int
    ttl_ms: int
    is_closed: bool


def judge(facts: SessionFacts, *, boot_id: str, now_boot_ms: int, is_locked: bool) -> Life:
    """Return what is known of the holder.

    Args:
        facts: Its row.
        boot_id: The host's boot now.
        now_boot_ms: Boot time now.
        is_locked: Whether its lock file is held by a live process.
    """
    if facts.is_closed or facts.boot_id != boot_id or not is_locked:
        return Life.DEAD
    return Life.EXPIRED if now_boot_ms >= facts.renewed_boot_ms + facts.ttl_ms else Life.ALIVE


def may_act(facts: SessionFacts, *, now_boot_ms: int, margin_ms: int = MARGIN_MS) -> bool:
    """Return whether the holder itself may still rely on its session; stricter than what `judge` grants it."""
    return not facts.is_closed and now_boot_ms < facts.renewed_boot_ms + facts.ttl_ms - margin_ms
