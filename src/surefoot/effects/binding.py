"""Which store an effect's claim goes to: the run's, else the one app that is open in this process.

With none there is no ledger to claim in, and the effect refuses to act: acting unguarded is the one thing it must not do.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Protocol

from surefoot.effects.live.guard import Guard
from surefoot.problem import SurefootError

bound_guard: ContextVar[Guard | None] = ContextVar("surefoot_guard", default=None)
"""That of the run whose code is calling."""

_open: list[Guard] = []
_inherited: list[Guard] = []
"""Those that were open before this process was forked off: they refuse to write here, and give way to its own."""


class App(Protocol):
    """What can be opened, and is then noted with `add_open`."""

    async def open(self) -> None:
        """Open it."""


class _Opener:
    """Opens an app once, however many effects, loops and threads ask for it at the same time."""

    def __init__(self, make: Callable[[], App]) -> None:
        self._make = make
        self._app = make()
        self._lock = threading.Lock()
        self._opened: Future[None] | None = None

    def anew(self) -> _Opener:
        """Return one that has opened nothing yet, for a process that was forked off."""
        return _Opener(self._make)

    async def __call__(self) -> None:
        with self._lock:
            is_first = self._opened is None
            opened = self._opened = self._opened or Future()
        if not is_first:
            await asyncio.wrap_future(opened)
            return
        try:
            await self._app.open()
        except BaseException as error:
            self._opened = None
            opened.set_exception(error)
            raise
        opened.set_result(None)


_opener: list[_Opener] = []


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


def set_opener(make: Callable[[], App]) -> None:
    """Say what to open when the first effect asks for a store; it is made at once, so that a mistake in it is told here."""
    _opener[:] = [_Opener(make)]


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
