"""The model's thread, with a runtime of our own: order, cancellation, cache slots, errors."""

import asyncio
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from surefoot.models import LoadFailed, MissingExtra
from surefoot.models.completion import ContextExceeded
from surefoot.models.engine import _LANES, SLOTS, Engine, Session, shared_engine
from surefoot.models.errors import GrammarIgnored

Piece = dict[str, Any]


def piece(text: str, reason: str | None = None, **more: Any) -> Piece:
    return {"choices": [{"text": text, "logprobs": None, "finish_reason": reason}], **more}


END = piece(
    "", "stop", usage={"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
)


class Runtime:
    """Stands in for xllamacpp: answers each request with the pieces it was given."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.pieces: list[Piece] = [piece("hel"), piece("lo"), END]
        self.before_piece: Callable[[int], None] = lambda _: None
        self.sent = 0
        self.threads: set[str] = set()
        self.fails_to_load = False
        self.spin_count: str | None = None

    def module(self) -> types.ModuleType:
        module = types.ModuleType("xllamacpp")
        runtime = self

        class Server:
            def __init__(self, _: Any) -> None:
                if runtime.fails_to_load:
                    raise RuntimeError("bad file")

            def handle_completions(self, request: dict[str, Any], take: Callable[[Piece], bool]) -> None:
                runtime.requests.append(request)
                runtime.threads.add(threading.current_thread().name)
                for number, each in enumerate(runtime.pieces):
                    runtime.before_piece(number)
                    runtime.sent += 1
                    if take(each):
                        return

        flash = types.SimpleNamespace(LLAMA_FLASH_ATTN_TYPE_DISABLED=0)
        settings = types.SimpleNamespace(
            model=types.SimpleNamespace(), cpuparams=types.SimpleNamespace(), cpuparams_batch=types.SimpleNamespace()
        )
        vars(module).update(Server=Server, CommonParams=lambda: settings, llama_flash_attn_type=flash)
        return module


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    made = Runtime()
    monkeypatch.setitem(sys.modules, "xllamacpp", made.module())
    return made


@pytest.fixture
def engine(runtime: Runtime) -> Iterator[Engine]:
    made = Engine(Path("weights.gguf"))
    yield made
    made.close()


def say(prompt: str = "p", **more: Any) -> Callable[[Session], str]:
    return lambda session: session.complete(prompt, max_tokens=5, **more).text


async def test_pieces_become_a_completion(engine: Engine, runtime: Runtime) -> None:
    """Catches tokens that are lost or counted wrong."""
    done = await engine.run(lambda session: session.complete("p", max_tokens=5, stop=('"',)))
    assert (done.text, done.prompt_tokens, done.cached_tokens, done.tokens, done.is_cut) == ("hello", 9, 4, 2, False)
    assert runtime.requests[0]["stop"] == ['"']
    runtime.pieces = [piece("x"), piece("", "length")]
    assert (await engine.run(lambda session: session.complete("p", max_tokens=1))).is_cut


async def test_a_session_counts_what_is_used(engine: Engine) -> None:
    """Catches usage that forgets the choice, or bills questions the model asked itself."""

    def work(session: Session) -> tuple[int, int]:
        session.complete("p", max_tokens=5)
        session.complete("q", max_tokens=5, lane="forms")
        session.logprob("r", "hello")
        return session.prompt_tokens, session.tokens

    assert await engine.run(work) == (9, 4)


async def test_log_probabilities_are_those_of_the_text(engine: Engine, runtime: Runtime) -> None:
    """Catches the end-of-text token's probability counted as the text's."""

    def token(text: str, logprob: float) -> Piece:
        one = {"token": text, "logprob": logprob, "top_logprobs": [{"token": text, "logprob": logprob}]}
        return {"choices": [{"text": text, "logprobs": {"content": [one]}, "finish_reason": None}]}

    runtime.pieces = [token("a", -1.0), token("b", -0.5), token("", -9.0), END]
    assert await engine.run(lambda session: session.logprob("p", "ab")) == -1.5
    done = await engine.run(lambda session: session.complete("p", max_tokens=1, top=2))
    assert done.first == (("a", -1.0),)


async def test_work_runs_in_order_on_one_thread(engine: Engine, runtime: Runtime) -> None:
    """Catches two generations at once, and a later request that overtakes."""
    await asyncio.gather(*(engine.run(say(f"p{n}")) for n in range(5)))
    assert [request["prompt"] for request in runtime.requests] == [f"p{n}" for n in range(5)]
    assert len(runtime.threads) == 1
    assert threading.current_thread().name not in runtime.threads


async def test_a_cancelled_generation_stops_and_the_next_goes_on(engine: Engine, runtime: Runtime) -> None:
    """Catches a thread that works on for somebody who has gone."""
    begun, may_go_on = threading.Event(), threading.Event()

    def wait_at_second(number: int) -> None:
        if number == 1 and not begun.is_set():
            begun.set()
            may_go_on.wait(5)

    runtime.pieces = [piece(str(n)) for n in range(50)] + [END]
    runtime.before_piece = wait_at_second
    task = asyncio.create_task(engine.run(say()))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_go_on.set()
    runtime.pieces = [piece("next"), END]
    assert await engine.run(say()) == "next"
    assert runtime.sent == 4  # two of the first, two of the next
    assert engine.waiting == 0


async def test_cancelled_while_waiting_it_never_begins(engine: Engine, runtime: Runtime) -> None:
    """Catches a queue full of the dead that is served before the living."""
    may_go_on = threading.Event()
    first = asyncio.create_task(engine.run(lambda _: may_go_on.wait(5)))
    dead = [asyncio.create_task(engine.run(say("dead"))) for _ in range(3)]
    last = asyncio.create_task(engine.run(say("alive")))
    await asyncio.sleep(0)
    assert engine.waiting == 5
    for task in dead:
        task.cancel()
    await asyncio.gather(*dead, return_exceptions=True)
    may_go_on.set()
    assert await last == "hello"
    assert await first
    assert [request["prompt"] for request in runtime.requests] == ["alive"]


async def test_errors_of_the_runtime_have_names(engine: Engine, runtime: Runtime) -> None:
    """Catches a prompt that is too long, or a grammar that was refused, answered with an empty text."""
    runtime.pieces = [{"error": {"message": "too long", "n_prompt_tokens": 5001}}]
    with pytest.raises(ContextExceeded, match="5001"):
        await engine.run(say())
    runtime.pieces = [{"error": {"message": "failed to parse grammar"}}]
    with pytest.raises(GrammarIgnored, match="failed to parse"):
        await engine.run(say())
    runtime.pieces = [piece("fine"), END]
    assert await engine.run(say()) == "fine"


async def test_a_prompt_goes_to_the_slot_it_continues(engine: Engine, runtime: Runtime) -> None:
    """Catches two conversations in turn that throw each other's prompt out of the cache."""
    ada, ben = "Ada " * 20, "Ben " * 20
    for prompt in (ada, ben, ada + "more", ben + "more", "Cy " * 20, ada + "more and more", "Dee " * 20):
        await engine.run(say(prompt))
    one, two, *rest = [request["id_slot"] for request in runtime.requests]
    assert one != two
    assert rest[:2] == [one, two]
    assert rest[2] not in (one, two)
    assert rest[3] == one
    assert rest[4] == two  # Ben's was the longest unused
    for lane in _LANES:
        await engine.run(say("x", lane=lane))
    assert len({request["id_slot"] for request in runtime.requests[-len(_LANES) :]}) == len(_LANES)


def test_lanes_share_no_slot() -> None:
    """Catches a lane whose prompts evict another's."""
    assert sorted(slot for slots in _LANES.values() for slot in slots) == list(range(SLOTS))


async def test_weights_that_do_not_load_say_so(runtime: Runtime) -> None:
    """Catches a RuntimeError from the depths."""
    runtime.fails_to_load = True
    engine = Engine(Path("bad.gguf"))
    with pytest.raises(LoadFailed, match=r"bad\.gguf"):
        await engine.load()
    engine.close()


async def test_without_the_runtime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an ImportError without a way out."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    engine = Engine(Path("weights.gguf"))
    with pytest.raises(MissingExtra, match=r'pip install "surefoot\[local\]"'):
        await engine.load()
    engine.close()


async def test_threads_are_patient_only_for_us(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an environment variable that stays, and one of the user's that is overruled."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    await engine.load()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    other = Engine(Path("other.gguf"))
    await other.load()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    other.close()


def test_one_engine_per_process_and_weights(tmp_path: Path) -> None:
    """Catches 300 MB per model object."""
    weights = tmp_path / "w.gguf"
    assert shared_engine(weights) is shared_engine(tmp_path / "." / "w.gguf")
    assert shared_engine(weights) is not shared_engine(weights, threads=1)
