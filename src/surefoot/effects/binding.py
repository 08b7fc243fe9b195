"""Which store an effect's claim goes to: the run's, else the one app that is open in this process.

With none there is no ledger to claim in, and the effect refuses to act: acting unguarded is the one thing it must not do.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Protocol

from surefoot.effects.guard import Guard
from surefoot.problem import SurefootError

bound_guard: ContextVar[Guard | None] = ContextVar("surefoot_guard", default=None)
"""That of the run whose code is calling."""

_open: list[Guard] = []
_inherited: list[Guard] = []
"""Those that were open before this process was forked off: they refuse to write here, and give way to its own."""


class Opener(Protocol):
    """Opens the configured app."""

    async def __call__(self) -> None:
        """Open it, once."""

    def anew(self) -> Opener:
        """Return one that has opened nothing yet, for a process that was forked off."""


_opener: list[Opener] = []


def _after_fork() -> None:
    _inherited.extend(_open)
    _opener[:] = [opener.anew() for opener in _opener]


os.register_at_fork(after_in_child=_after_fork)


class NoStore(SurefootError):
    """An effect was called with no store to claim it in. Nothing was done."""


def add_open(guard: Guard) -> None:
    """Note that an app is open."""
    while _inherited:
        remove_open(_inherited.pop())
    _open.append(guard)


def remove_open(guard: Guard) -> None:
    """Note that it was closed."""
    if guard in _open:
        _open.remove(guard)


def set_opener(opener: Opener) -> None:
    """Say how to open the configured store when the first effect asks for one."""
    _opener[:] = [opener]


async def open_guard(name: str, what: str = "effect") -> Guard:
    """Return the guard that claims for a call outside runs.

    Args:
        name: What is called.
        what: What that is, in a word.

    Raises:
        NoStore: None is open, or several are and the caller is inside none of them.
    """
    if _opener and all(guard in _inherited for guard in _open):
        await _opener[0]()
    if len(_open) == 1:
        return _open[0]
    if not _open:
        raise NoStore(
            f"{what} {name}: no store is configured, so nothing was done",
            hint='sf.configure("sqlite:///agents.db") at start-up, or `async with sf.Surefoot("sqlite:///agents.db"):`',
        )
    names = ", ".join(str(guard.store.path) for guard in _open)
    raise NoStore(
        f"{what} {name}: several apps are open (on {names}), so nothing was done",
        hint="call it inside a run, or keep one app open per process; sf.configure(...) is one, once an effect has used it",
    )
