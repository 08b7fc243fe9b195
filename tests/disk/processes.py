"""Children of a warm parent: each case runs in a process of its own, and speaks with the world, which outlives it.

The parent has imported everything and has no threads; it forks a child for each worker and answers it until it ends. A
child that is killed, by us or by the kernel, leaves the world as it is: that is the point of having it elsewhere.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

Json = Any

DEADLINE_S = 60.0
"""How long a child may take before it counts as one that hangs: no case takes a tenth of it on an idle machine."""


class Line:
    """The child's end: questions that are answered, and facts that are only told, in one order for all its threads."""

    def __init__(self, end: socket.socket) -> None:
        self._stream = end.makefile("rwb")
        self._lock = threading.Lock()

    def tell(self, *fact: Json) -> None:
        """Say something."""
        with self._lock:
            self._write(fact)

    def ask(self, *question: Json) -> Json:
        """Ask something, and wait for the answer."""
        with self._lock:
            self._write(question)
            return json.loads(self._stream.readline())

    def _write(self, words: tuple[Json, ...]) -> None:
        self._stream.write(json.dumps(words).encode() + b"\n")
        self._stream.flush()


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        said: What its work returned; None if it did not come to that.
        error: The traceback of what it raised.
        signal: The name of the signal that ended it.
        hangs: Whether it had to be killed at the deadline; `error` then shows where its threads stood.
    """

    said: Json = None
    error: str = ""
    signal: str = ""
    hangs: bool = False


def in_child(
    work: Callable[[Line], Json],
    answer: Callable[[list[Json]], Json],
    *,
    deadline_s: float = DEADLINE_S,
    on_born: Callable[[int], None] | None = None,
) -> Ended:
    """Run `work` in a forked child; serve it until it ends.

    Args:
        work: What the child does with its line to us.
        answer: Called for each thing it says; what it returns is sent back, unless it is None.
        deadline_s: Seconds after which it is killed.
        on_born: Called with its process id once it runs.
    """
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _child(work, its, deadline_s)
    its.close()
    try:
        if on_born is not None:
            on_born(pid)
        heard = _serve(ours, answer, time.monotonic() + deadline_s + 5)
    finally:
        ours.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it has said its last word, or is late
        _, status = os.waitpid(pid, 0)
    ended: dict[str, Json] = heard.get("end", {})
    if ended:
        return Ended(**ended)
    name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
    return Ended(error=heard.get("stood", ""), signal=name, hangs=heard["late"])


def _serve(ours: socket.socket, answer: Callable[[list[Json]], Json], until_s: float) -> dict[str, Json]:
    heard: dict[str, Json] = {"late": False}
    rest = b""
    while "end" not in heard:
        if not select.select([ours], [], [], max(0.0, until_s - time.monotonic()))[0]:
            heard["late"] = True
            return heard
        try:
            part = ours.recv(1 << 16)
        except ConnectionResetError:
            return heard
        if not part:
            return heard
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            words = json.loads(line)
            if words[0] == "end":
                heard["end"] = words[1]
            elif (said := answer(words)) is not None:
                with contextlib.suppress(BrokenPipeError):
                    ours.sendall(json.dumps(said).encode() + b"\n")
    return heard


def _child(work: Callable[[Line], Json], its: socket.socket, deadline_s: float) -> NoReturn:
    gc.freeze()
    sys.unraisablehook = lambda _report: None  # a planned fault in a place that raises to nobody
    faulthandler.dump_traceback_later(deadline_s, exit=True)
    line = Line(its)
    try:
        end = {"said": work(line)}
    except BaseException:
        end = {"error": traceback.format_exc()}
    with contextlib.suppress(BrokenPipeError):
        line.tell("end", end)
    threading.Event().wait()  # the parent ends us with SIGKILL: nothing is tidied up behind its back
    raise AssertionError("killed before")
