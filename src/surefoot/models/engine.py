"""The runtime of the weights: one thread, one generation at a time, a few cached prompts.

Owns: the xllamacpp server object, the thread that alone touches it, and which prompt is kept in which cache slot.
What always holds: work runs first come, first served; work whose caller has gone is skipped, or stopped at the next
token (while reading a long prompt: at the next batch of `BATCH_TOKENS`), and never holds up the next; the event loop
is never blocked.

xllamacpp always opens an HTTP port on loopback for its server; a random API key that nobody learns closes it.
"""

import asyncio
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from surefoot.models.clerk import CONTEXT_TOKENS
from surefoot.models.completion import GREEDY, Collector, Completion, Sampling
from surefoot.models.errors import LoadFailed, MissingExtra
from surefoot.models.grammar import lark_literal

T = TypeVar("T")

BATCH_TOKENS = 256  # about a second of reading on two cores: how late a cancellation can be noticed
Lane = Literal["log", "forms", "aside"]
"""What a prompt is for; prompts of one lane begin alike, and share cache slots."""
_LANES: dict[Lane, tuple[int, ...]] = {"aside": (0,), "forms": (1,), "log": (2, 3, 4)}
SLOTS = 5  # cached prompts, 47 MB each
_CONTINUES = 0.8  # a prompt that begins with this much of a cached one goes on from it


class Cancelled(Exception):
    """The caller has gone; raised inside the thread only."""


class Session:
    """What a piece of work may do with the model; valid inside its `Engine.run` only.

    Attributes:
        prompt_tokens: Tokens of the longest prompt so far, cached ones included.
        tokens: Tokens generated so far, but for the lane "aside".
    """

    def __init__(self, server: Any, slots: list[str], order: list[int], gone: threading.Event) -> None:
        self._server = server
        self._slots = slots
        self._order = order
        self._gone = gone
        self.prompt_tokens = 0
        self.tokens = 0

    def complete(
        self,
        prompt: str,
        *,
        max_tokens: int,
        grammar: str | None = None,
        sampling: Sampling = GREEDY,
        stop: tuple[str, ...] = (),
        top: int = 0,
        lane: Lane = "log",
    ) -> Completion:
        """Continue a prompt.

        Args:
            prompt: The text to continue.
            max_tokens: At most this many tokens.
            grammar: What the continuation must look like; None for anything.
            sampling: How tokens are drawn.
            stop: Texts that end the continuation and are not part of it.
            top: How many of the likeliest first tokens to report.
            lane: What the prompt is for.

        Raises:
            Cancelled: The caller has gone.
            ContextExceeded: The prompt is too long.
            GrammarIgnored: The runtime refused the grammar.
        """
        slot = self._slot_for(prompt, lane)
        request: dict[str, object] = {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0.05,
            "seed": sampling.seed,
            "id_slot": slot,
            "cache_prompt": True,
            "stream": True,
            "return_progress": True,
        }
        if grammar is not None:
            request["grammar"] = grammar
        if stop:
            request["stop"] = list(stop)
        if top:
            request["n_probs"] = top
        done = Collector(self._gone)
        self._server.handle_completions(request, done)
        self._slots[slot] = prompt + "".join(done.texts)
        if self._gone.is_set():
            raise Cancelled
        completion = done.result()
        self.prompt_tokens = max(self.prompt_tokens, completion.prompt_tokens)
        if lane != "aside":
            self.tokens += completion.tokens
        return completion

    def logprob(self, prompt: str, text: str) -> float:
        """Return how likely this text is as the continuation of a prompt: a natural log-probability."""
        return self.complete(prompt, max_tokens=64, grammar=lark_literal(text), top=1, lane="aside").logprob

    def _slot_for(self, prompt: str, lane: Lane) -> int:
        """The slot whose text this prompt goes on from, or the lane's longest unused one."""
        slots = [slot for slot in self._order if slot in _LANES[lane]]
        best = max(slots, key=lambda slot: _shared(self._slots[slot], prompt))
        continues = _shared(self._slots[best], prompt) >= _CONTINUES * max(1, len(self._slots[best]))
        slot = best if continues else slots[0]
        self._order.remove(slot)
        self._order.append(slot)
        return slot


class Engine:
    """Weights, loaded at first use, with the thread that runs them.

    Args:
        weights: A GGUF file.
        threads: Threads for reading prompts; None: up to 4, as many as there are cores. Generating uses one: two
            that wait for each other are slower as soon as something else runs on one of their cores.
    """

    def __init__(self, weights: Path, threads: int | None = None) -> None:
        self.weights = weights
        self._threads = threads or min(4, os.cpu_count() or 1)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="surefoot-model")
        self._server: Any = None
        self._slots = [""] * SLOTS
        self._order = list(range(SLOTS))  # longest unused first
        self.memory: dict[tuple[str, ...], tuple[float, ...]] = {}  # what work remembers between calls
        self.waiting = 0

    async def run(self, work: Callable[[Session], T]) -> T:
        """Do work on the model's thread, after all work asked for earlier.

        Cancelling the call skips the work, or stops it at the next token.

        Raises:
            LoadFailed: The runtime refused the weights.
            MissingExtra: xllamacpp is not installed.
        """
        gone = threading.Event()
        self.waiting += 1
        try:
            return await asyncio.wrap_future(self._worker.submit(self._work, work, gone))
        finally:
            gone.set()
            self.waiting -= 1

    async def load(self) -> None:
        """Load the weights now rather than at the first request."""
        await self.run(lambda _: None)

    def close(self) -> None:
        """Give thread and memory back; work that has not begun is dropped."""
        self._worker.submit(self._unload)
        self._worker.shutdown(wait=True, cancel_futures=False)

    def _unload(self) -> None:
        self._server = None

    def _work(self, work: Callable[[Session], T], gone: threading.Event) -> T:
        if gone.is_set():
            raise Cancelled
        if self._server is None:
            self._server = _load(self.weights, self._threads)
        return work(Session(self._server, self._slots, self._order, gone))


_engines: dict[tuple[Path, int | None], Engine] = {}
_engines_lock = threading.Lock()


def shared_engine(weights: Path, threads: int | None = None) -> Engine:
    """Return the process's one engine for these weights."""
    with _engines_lock:
        return _engines.setdefault((weights.resolve(), threads), Engine(weights.resolve(), threads))


def _load(weights: Path, threads: int) -> Any:
    with _patient_threads():
        try:
            import xllamacpp
        except ImportError as error:
            raise MissingExtra("xllamacpp") from error
    settings = xllamacpp.CommonParams()
    settings.model.path = str(weights)
    settings.n_parallel = SLOTS
    settings.n_ctx = CONTEXT_TOKENS * SLOTS
    settings.n_batch = settings.n_ubatch = BATCH_TOKENS
    settings.cpuparams.n_threads = 1
    settings.cpuparams_batch.n_threads = threads
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # 15 % slower here
    settings.cache_ram_mib = 0  # the slots are the cache
    settings.warmup = settings.fit_params = settings.ui = settings.endpoint_slots = False
    settings.verbosity = 0
    settings.api_keys = [secrets.token_urlsafe(32)]
    try:
        return xllamacpp.Server(settings)
    except RuntimeError as error:
        raise LoadFailed(f"xllamacpp could not load {weights}: {error}", hint="surefoot model pull") from error


@contextmanager
def _patient_threads() -> Iterator[None]:
    """Let OpenMP threads spin for microseconds only while they wait for each other, then sleep.

    Their default is to spin for ever, which costs twice the processor time and, as soon as other processes are busy,
    twice the wall time. The variable is read once, when the library is loaded; nobody else shall see it.
    """
    before = os.environ.get("GOMP_SPINCOUNT")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        yield
    finally:
        if before is None:
            del os.environ["GOMP_SPINCOUNT"]


def _shared(one: str, other: str) -> int:
    """The length of the common beginning."""
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)
