"""Sagas: what was done inside is undone in reverse when the block fails, and nothing else is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.contract.conftest import Calls, kinds, ledger_states, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.effects import Gate, Pass, Refuse, Request
from surefoot.effects.desk import evidence, list_effects
from surefoot.store import Tx

log: Calls = []
refusals: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    refusals.clear()


@sf.effect(in_doubt=sf.Resend(key_ttl="24h"), name="saga unbook")
async def unbook(what: str, outcome: str) -> None:
    if what in refusals:
        raise sf.NotDone("the service is closed")
    log.append(f"-{what}:{outcome}")


@sf.effect(key="saga:{what}", compensate=unbook, in_doubt=sf.Resend(key_ttl="24h"), name="saga book")
async def book(what: str) -> str:
    if what == "full":
        raise sf.NotDone("no room left")
    log.append(f"+{what}")
    return f"ref-{what}"


@sf.effect(key="saga:{what}", compensate=unbook, name="saga ask")
async def book_and_lose(what: str) -> str:
    log.append(f"+{what}")
    raise OSError("the answer was lost")


async def test_a_saga_that_fails_is_undone_in_reverse_and_its_error_goes_on(app: sf.Surefoot) -> None:
    """Catches compensation in the wrong order, of what was not done, of what lies outside, or of itself by an undo."""

    @sf.durable
    async def trip() -> None:
        await book("insurance")
        async with sf.saga("trip") as saga:
            await book("train")
            await book("flight")
            try:
                await book("full")
            finally:
                assert saga.undone == []

    run = await app.start(trip, id="t")
    with pytest.raises(sf.RunFailed, match="no room left"):
        await run.result(timeout_s=5)
    assert log == ["+insurance", "+train", "+flight", "-flight:ref-flight", "-train:ref-train"]
    assert ledger_states(app) == ["done", "compensated", "compensated", "not_done", "done", "done"]
    assert await (await run.undo("the rest")).result(timeout_s=5) == ["saga:insurance"]
    assert log[-1] == "-insurance:ref-insurance"


async def test_a_saga_that_succeeds_leaves_everything_done(app: sf.Surefoot) -> None:
    """Catches compensation without a failure."""

    @sf.durable
    async def fine() -> str:
        async with sf.saga():
            return str(await book("bus"))

    assert await (await app.start(fine, id="f")).result(timeout_s=5) == "ref-bus"
    assert (log, ledger_states(app)) == (["+bus"], ["done"])


async def test_sagas_nest(app: sf.Surefoot) -> None:
    """Catches an inner saga's work that is left, or undone twice, when the outer one fails after it."""

    @sf.durable
    async def nested() -> list[str]:
        async with sf.saga("outer") as outer:
            await book("a")
            try:
                async with sf.saga("inner"):
                    await book("b")
                    raise ValueError("inner")
            except ValueError:
                pass
            async with sf.saga("inner"):
                await book("c")
            raise KeyError(f"outer {outer.undone}")

    run = await app.start(nested, id="n")
    with pytest.raises(sf.RunFailed, match="outer"):
        await run.result(timeout_s=5)
    assert log == ["+a", "+b", "-b:ref-b", "+c", "-c:ref-c", "-a:ref-a"]


@pytest.mark.parametrize("is_done", [True, False])
async def test_an_unknown_is_found_out_before_anything_is_undone(
    app: sf.Surefoot, quick_eviction: None, is_done: bool
) -> None:
    """Catches a saga that compensates what may not have happened, or leaves it."""

    @sf.durable
    async def unsure() -> None:
        async with sf.saga("s"):
            await book("train")
            lost = asyncio.create_task(book_and_lose("flight"))
            await until(lambda: "+flight" in log)
            await book("full")
            await lost

    run = await app.start(unsure, id="u")
    status = await wait_state(run, "waiting", "doubt")
    assert "effect saga:flight" in status.reason
    assert log == ["+train", "+flight"]
    (effect,) = await app.unknowns()
    await app.resolve(effect.id, is_done=is_done, by="ann", reason="looked", value="seen", is_fence_passed=True)
    with pytest.raises(sf.RunFailed, match="no room left"):
        await run.result(timeout_s=10)
    # Settled last, by the person, so undone first.
    assert log[2:] == [*(["-flight:seen"] if is_done else []), "-train:ref-train"]


async def test_a_doubt_that_its_class_can_end_is_ended_at_once(app: sf.Surefoot) -> None:
    """Catches a saga that waits for the sweep, or sends again what nobody wants any more."""
    asked: Calls = []

    async def ask(what: str) -> Any:
        asked.append(what)
        return sf.NotLanded("nothing there")

    @sf.effect(key="probed:{what}", compensate=unbook, in_doubt=sf.Probe(ask, "50ms"))
    async def probed(what: str) -> str:
        log.append(f"+{what}")
        await asyncio.sleep(60)
        return "never"

    @sf.durable
    async def hasty() -> None:
        async with sf.saga("s"):
            await book("train")
            async with asyncio.timeout(0.1):
                await probed("flight")

    run = await app.start(hasty, id="h")
    with pytest.raises(sf.RunFailed, match="TimeoutError"):
        await run.result(timeout_s=10)
    assert (log, asked) == (["+train", "+flight", "-train:ref-train"], ["flight"])
    assert ledger_states(app) == ["compensated", "not_done", "done"]


async def test_a_compensation_that_is_not_done_parks_with_words_and_is_tried_again(
    url: str, quick_eviction: None
) -> None:
    """Catches a half-undone saga that ends, goes on, or is forgotten."""

    @sf.durable
    async def stuck() -> None:
        async with sf.saga("s"):
            await book("train")
            await book("flight")
            raise ValueError("no")

    refusals.append("train")
    async with sf.Surefoot(url) as app:
        run = await app.start(stuck, id="s")
        for _ in range(2):
            status = await wait_state(run, "waiting", "blocked")
            assert "saga:train is not undone" in status.reason
            assert "the service is closed" in status.reason
            await run.wake()
            await until(lambda: kinds(app, "s").count("not_done") >= 2)
        await wait_state(run, "waiting", "blocked")
        refusals.clear()
    async with sf.Surefoot(url) as app:
        run = await app.run("s")
        await run.wake()
        with pytest.raises(sf.RunFailed, match="ValueError: no"):
            await run.result(timeout_s=10)
    assert log == ["+train", "+flight", "-flight:ref-flight", "-train:ref-train"]


async def test_a_compensation_in_doubt_parks_and_the_persons_word_frees_the_key(
    app: sf.Surefoot, quick_eviction: None
) -> None:
    """Catches a key that stays taken because a person, not the code, said that it was undone."""

    @sf.effect(when_unknown="tell_model")
    async def give_back(what: str) -> None:
        raise OSError("lost")

    @sf.effect(key="lent:{what}", compensate=give_back)
    async def lend(what: str) -> str:
        log.append(what)
        return "lent"

    @sf.durable
    async def lending(count: int) -> None:
        async with sf.saga("s"):
            await lend("book")
            raise ValueError("no")

    run = await app.start(lending, 1, id="l")
    await wait_state(run, "waiting", "doubt")
    (effect,) = await app.unknowns()
    assert effect.name == "give_back"
    await app.resolve(effect.id, is_done=True, by="ann", reason="looked")
    with pytest.raises(sf.RunFailed, match="ValueError"):
        await run.result(timeout_s=10)
    assert [one.state for one in app.store.read_now(list_effects)] == ["done", "compensated"]
    assert await lend("book") == "lent"
    assert log == ["book", "book"]


async def test_an_effect_that_nothing_undoes_is_refused_before_it_is_done(app: sf.Surefoot) -> None:
    """Catches a saga that turns out to be no saga only when it fails."""

    @sf.effect
    async def mail() -> None:
        log.append("mail")

    @sf.effect(compensate=sf.nothing_to_undo)
    async def note() -> None:
        log.append("note")

    @sf.durable
    async def mailing() -> None:
        async with sf.saga():
            await book("train")
            await note()
            await mail()

    run = await app.start(mailing, id="m")
    with pytest.raises(sf.RunFailed, match="nothing undoes it"):
        await run.result(timeout_s=5)
    assert log == ["+train", "note", "-train:ref-train"]


async def test_nothing_new_begins_in_a_saga_that_is_being_undone(app: sf.Surefoot) -> None:
    """Catches an effect of another task that comes after the list of what is to be undone, and stays."""
    may_end = asyncio.Event()

    @sf.effect(compensate=unbook)
    async def slow(what: str) -> str:
        log.append(f"+{what}")
        await may_end.wait()
        return what

    async def other() -> None:
        await slow("slow")
        await book("too late")

    @sf.durable
    async def parallel() -> None:
        async with sf.saga("s"):
            task = asyncio.create_task(other())
            await until(lambda: "+slow" in log)
            asyncio.get_running_loop().call_later(0.2, may_end.set)
            await asyncio.gather(task, book("full"))

    run = await app.start(parallel, id="p")
    with pytest.raises(sf.RunFailed, match="no room left"):
        await run.result(timeout_s=10)
    assert log == ["+slow", "-slow:slow"]


async def test_nothing_new_begins_once_it_is_listed_what_is_undone(app: sf.Surefoot) -> None:
    """Catches an effect of a task that nobody could see in the saga, and that begins while it is being undone."""
    is_undoing, is_tried = asyncio.Event(), asyncio.Event()

    @sf.effect(in_doubt=sf.Resend(key_ttl="24h"))
    async def give_back(what: str) -> None:
        is_undoing.set()
        await is_tried.wait()
        log.append(f"-{what}")

    @sf.effect(key="borrowed:{what}", compensate=give_back)
    async def borrow(what: str) -> str:
        log.append(f"+{what}")
        return what

    async def other() -> None:
        await is_undoing.wait()
        try:
            await book("too late")
        finally:
            is_tried.set()

    @sf.durable
    async def aside() -> None:
        async with sf.saga("s"):
            task = asyncio.create_task(other())
            await borrow("book")
            await asyncio.gather(task, book("full"))

    run = await app.start(aside, id="a")
    with pytest.raises(sf.RunFailed, match="no room left"):
        await run.result(timeout_s=10)
    assert log == ["+book", "-book"]


async def test_a_cancellation_is_heard_of_after_the_undoing(app: sf.Surefoot) -> None:
    """Catches a saga that is left half undone because somebody cancelled its run, once or twice."""
    may_go_on = asyncio.Event()

    @sf.effect(in_doubt=sf.Resend(key_ttl="24h"))
    async def slowly_back(what: str) -> None:
        log.append(f"begin -{what}")
        await may_go_on.wait()
        log.append(f"-{what}")

    @sf.effect(key="slowly:{what}", compensate=slowly_back)
    async def lend(what: str) -> str:
        return what

    @sf.durable
    async def cancelled() -> None:
        async with sf.saga("s"):
            await book("train")
            await lend("book")
            await asyncio.sleep(60)

    run = await app.start(cancelled, id="c")
    await until(lambda: "done" in kinds(app, "c"))
    await run.cancel("first")
    await until(lambda: "begin -book" in log)
    await run.cancel("second")
    await until(lambda: log.count("begin -book") == 2)  # the first was left in doubt, and is sent again
    may_go_on.set()
    with pytest.raises(sf.RunCancelled, match="first"):
        await run.result(timeout_s=10)
    assert log[-2:] == ["-book", "-train:ref-train"]


async def test_a_deadline_that_passes_while_a_saga_is_undone_is_no_end_of_it(app: sf.Surefoot) -> None:
    """Catches compensations that are skipped because they come after the run's deadline."""

    @sf.durable
    async def late() -> None:
        async with sf.saga("s"):
            await book("train")
            await book("flight")
            await sf.sleep(60)

    run = await app.start(late, id="d", deadline_s=0.2)
    with pytest.raises(sf.RunFailed, match="DeadlinePassed"):
        await run.result(timeout_s=10)
    assert log == ["+train", "+flight", "-flight:ref-flight", "-train:ref-train"]


async def test_children_of_a_saga_are_cancelled_and_undone(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches what a child has done, or goes on to do, for a saga that has failed."""

    @sf.durable(name="saga leg")
    async def leg(what: str, seconds: float) -> str:
        reference = await book(what)
        await sf.sleep(seconds)
        await book(f"{what} seat")
        return str(reference)

    @sf.durable(name="saga of legs")
    async def legs() -> None:
        async with sf.saga("s"):
            await sf.child(leg, "train", 0.01)
            task = asyncio.create_task(sf.child(leg, "flight", 60.0, key="2"))
            await sf.wait_signal("flown")
            await book("full")
            await task

    run = await app.start(legs, id="k")
    await until(lambda: "+flight" in log)
    await run.signal("flown")
    with pytest.raises(sf.RunFailed, match="no room left"):
        await run.result(timeout_s=10)
    assert log == [
        "+train", "+train seat", "+flight",
        "-flight:ref-flight", "-train seat:ref-train seat", "-train:ref-train",
    ]  # fmt: skip


async def test_a_denied_compensation_parks_too(url: str, quick_eviction: None) -> None:
    """Catches a gate that turns a compensation into silence."""

    class NoUndo(Gate):
        name = "no undo"

        def admit(self, tx: Tx, request: Request) -> Pass | Refuse:
            return Refuse("not on Sundays") if request.name == "saga unbook" else Pass()

        def release(self, tx: Tx, request: Request) -> None:
            pass

    @sf.durable
    async def gated() -> None:
        async with sf.saga("s"):
            await book("train")
            raise ValueError("no")

    async with sf.Surefoot(url, gates=[NoUndo()]) as app:
        run = await app.start(gated, id="g")
        assert "not on Sundays" in (await wait_state(run, "waiting", "blocked")).reason
    async with sf.Surefoot(url) as app:
        run = await app.run("g")
        await run.wake()
        with pytest.raises(sf.RunFailed):
            await run.result(timeout_s=10)
    assert log == ["+train", "-train:ref-train"]


async def test_a_person_can_say_that_they_have_undone_it(app: sf.Surefoot, quick_eviction: None) -> None:
    """Catches a saga that nobody can end because its compensation will never be done by the service."""

    @sf.durable
    async def stuck_for_good() -> None:
        async with sf.saga("s"):
            await book("train")
            await book("flight")
            raise ValueError("no")

    refusals.append("flight")
    run = await app.start(stuck_for_good, id="s")
    status = await wait_state(run, "waiting", "blocked")
    (effect,) = [one for one in app.store.read_now(list_effects) if one.key == "saga:flight"]
    assert f"surefoot resolve {effect.id} --undone" in status.reason
    with pytest.raises(sf.SurefootError, match="only what is done"):
        await app.undone(effect.id + 1, by="ann", reason="called them")
    view = await app.undone(effect.id, by="ann", reason="called them")
    assert view.state == "compensated"
    with pytest.raises(sf.SurefootError, match="only what is done"):
        await app.undone(effect.id, by="ann", reason="called them again")
    with pytest.raises(sf.RunFailed, match="ValueError: no"):
        await run.result(timeout_s=10)
    assert log == ["+train", "+flight", "-train:ref-train"]
    assert [one.kind for one in app.store.read_now(lambda connection: evidence(connection, effect.id))] == [
        "undone by hand"
    ]
    assert await book("flight") == "ref-flight"
