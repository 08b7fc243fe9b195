"""The server's time, as a host knows it between two turns."""

from __future__ import annotations

from surefoot.store.clock import Clock

FADING = 0.001
"""By how much, per time, the nearest difference of the clocks is trusted less: a second in 1,000; clocks drift less."""


class ServerClock:
    """The server's time: the host's boot clock, moved by what is known of the server's.

    The server's clock was read between question and answer. Counted from the answer, what is learned is never ahead; so
    the largest difference is the nearest, and gives way slowly, faster than clocks drift. Counted from the question, it is
    never behind: what is above that was learned before one of the clocks was set.
    """

    def __init__(self, host: Clock, identity: str) -> None:
        self._host = host
        self._identity = identity
        self._ahead_ms: float = -(2**62)
        self._learned_ms = 0

    def ask(self) -> int:
        """Return when the server is asked, for `learn`."""
        return self._host.boot_ms()

    def learn(self, server_ms: int, asked_ms: int) -> None:
        """Note what the server's clock has just said."""
        here_ms = self._host.boot_ms()
        fading = (here_ms - self._learned_ms) * FADING
        self._ahead_ms = min(max(server_ms - here_ms, self._ahead_ms - fading), server_ms - asked_ms)
        self._learned_ms = here_ms

    def wall_ms(self) -> int:
        """See `Clock.wall_ms`."""
        return self.boot_ms()

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return self._host.monotonic_s()

    def boot_ms(self) -> int:
        """See `Clock.boot_ms`: the server's time, comparable between all hosts."""
        return int(self._host.boot_ms() + self._ahead_ms)

    def boot_id(self) -> str:
        """See `Clock.boot_id`: the server, whose time goes on over all boots."""
        return self._identity
