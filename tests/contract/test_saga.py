"""Sagas: what was done inside is undone in reverse when the block fails, and nothing else is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from tests.contract.conftest import Calls, kinds, ledger_states, until
from tests.contract.test_runs import wait_state

import surefoot as sf
from surefoot.effects import Gate, Pass, Refuse, Request
from surefoot.effects.live.case import Acting
from surefoot.effects.rows import ledger
from surefoot.effects.rows.desk import evidence, list_effects
from surefoot.effects.states import State
from surefoot.journal import Kind, Record, insert_record
from surefoot.runs.compensate import Found, find
from surefoot.runs.live.run import LiveRun
from surefoot.runs.rows.desk import show
from surefoot.runs.saga import Saga
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


async def left(work: Any, is_begun: Callable[[], bool]) -> None:
    """Begin something, leave it in the middle, and fail."""
    task = asyncio.ensure_future(work)
    await until(is_begun)
    task.cancel()
    await asyncio.wait([task])
    raise TimeoutError("it took too long")


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


def probed_by(ask: Callable[[str], Awaitable[Any]]) -> Any:
    """Return an effect that never answers, and of which its service can be asked."""

    @sf.effect(key="probed:{what}", compensate=unbook, in_doubt=sf.Probe(ask, "50ms"))
    async def probed(what: str) -> str:
        log.append(f"+{what}")
        await asyncio.sleep(60)
        return "never"

    return probed


async def test_a_doubt_that_its_class_can_end_is_ended_at_once(app: sf.Surefoot) -> None:
    """Catches a saga that waits for the sweep, or sends again what nobody wants any more."""
    asked: Calls = []

    async def ask(what: str) -> Any:
        asked.append(what)
        return sf.NotLanded("nothing there")

    probed = probed_by(ask)

    @sf.durable
    async def hasty() -> None:
        async with sf.saga("s"):
            await book("train")
            await left(probed("flight"), lambda: "+flight" in log)

    run = await app.start(hasty, id="h")
    with pytest.raises(sf.RunFailed, match="TimeoutError"):
        await run.result(timeout_s=10)
    assert (log, asked) == (["+train", "+flight", "-train:ref-train"], ["flight"])
    assert ledger_states(app) == ["compensated", "not_done", "done"]


async def test_a_probe_that_finds_nothing_of_what_was_done_is_a_contradiction(app: sf.Surefoot) -> None:
    """Catches silence where a service says that nothing landed, and another worker, which has sent it too, that it did."""

    def be_settled(tx: Tx) -> None:
        row = ledger.get(tx.connection, 1)
        assert row is not None
        theirs = ledger.take_over(tx, row, app.guard.duty.session.id + 1_000, app.store.clock.boot_ms())
        assert theirs is not None
        record = insert_record(tx, Record(None, 0, Kind.DONE, "", body=b'"theirs"'))
        ledger.settle(tx, row.id, theirs.token, State.DONE, record)

    async def ask(what: str) -> Any:
        await app.store.commit(be_settled, label="test")
        return sf.NotLanded("nothing there")

    probed = probed_by(ask)

    @sf.durable
    async def hasty() -> None:
        async with sf.saga("s"):
            await left(probed("flight"), lambda: "+flight" in log)

    run = await app.start(hasty, id="h")
    with pytest.raises(sf.RunFailed, match="TimeoutError"):
        await run.result(timeout_s=10)
    assert log == ["+flight", "-flight:theirs"]
    (noted,) = app.store.read_now(evidence)
    assert (noted.kind, noted.is_open) == ("late answer", True)


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
        await book.keyed("other")("too late")

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
            await book.keyed("other")("too late")
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


async def test_a_cancellation_of_a_parked_saga_is_met_again_by_a_replay(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a time limit that runs out while somebody is to look at a compensation, and is recorded nowhere: the replay
    goes another way than the run did."""
    is_parked, is_there = asyncio.Event(), asyncio.Event()

    def tells(wait: Any) -> Any:
        async def coming(*args: Any, **options: Any) -> None:
            is_parked.set()
            await wait(*args, **options)

        return coming

    monkeypatch.setattr(Saga, "_park", tells(Saga._park))
    monkeypatch.setattr(LiveRun, "meet_again", tells(LiveRun.meet_again))

    @sf.effect(in_doubt=sf.Resend(key_ttl="24h"))
    async def take_back(what: str) -> None:
        if not is_there.is_set():
            raise sf.NotDone("nobody is there")

    @sf.effect(key="parked:{what}", compensate=take_back)
    async def lend(what: str) -> str:
        return what

    async def inside() -> None:
        async with sf.saga("s"):
            await lend("book")
            raise ValueError("no")

    @sf.durable
    async def left_parked() -> str:
        is_parked.clear()
        task, coming = asyncio.ensure_future(inside()), asyncio.ensure_future(is_parked.wait())
        await asyncio.wait([task, coming], return_when="FIRST_COMPLETED")
        task.cancel()
        await asyncio.wait([task])
        await book("train" if task.cancelled() else "flight")
        return str(await sf.wait_signal("go"))

    async with sf.Surefoot(url) as app:
        run = await app.start(left_parked, id="p")
        await until(lambda: "interrupted" in kinds(app, "p"))
        is_there.set()
        await run.wake()
        await wait_state(run, "waiting", "signal")
    async with sf.Surefoot(url) as app:
        run = await app.run("p")
        await run.signal("go", "gone")
        assert await run.result(timeout_s=10) == "gone"
    assert log == ["+train"]


async def test_a_deadline_that_passes_while_a_saga_is_undone_is_no_end_of_it(app: sf.Surefoot) -> None:
    """Catches compensations that are skipped because they come after the run's deadline."""

    @sf.durable
    async def late() -> None:
        async with sf.saga("s"):
            await book("train")
            await book("flight")
            await sf.sleep(60)

    run = await app.start(late, id="d", deadline_s=1.0)
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


async def test_a_saga_is_entered_once(app: sf.Surefoot) -> None:
    """Catches two blocks whose steps lie under one path, so that the first is undone with the second."""

    @sf.durable
    async def twice() -> None:
        saga = sf.saga("s")
        async with saga:
            await book("train")
        async with saga:
            await book("flight")

    with pytest.raises(sf.RunFailed, match="saga s is entered twice"):
        await (await app.start(twice, id="t")).result(timeout_s=5)
    assert log == ["+train"]


class Stop(BaseException):
    """An error that `except Exception` doesn't catch, as test frameworks have."""


async def test_an_error_that_is_no_exception_undoes_too(app: sf.Surefoot) -> None:
    """Catches a run that is written as failed with half a saga done."""

    @sf.durable
    async def stopped() -> None:
        async with sf.saga("s"):
            await book("train")
            raise Stop("enough")

    with pytest.raises(sf.RunFailed, match="Stop: enough"):
        await (await app.start(stopped, id="s")).result(timeout_s=5)
    assert log == ["+train", "-train:ref-train"]


async def test_a_generator_that_is_closed_inside_a_saga_has_not_failed(app: sf.Surefoot) -> None:
    """Catches a saga that is undone because somebody has seen enough, or in a process that is going down."""

    async def bookings() -> AsyncGenerator[str, None]:
        async with sf.saga("s"):
            yield await book("train")
            yield await book("flight")

    @sf.durable
    async def first() -> str:
        async with aclosing(bookings()) as references:
            async for reference in references:
                return reference
        return "none"

    assert await (await app.start(first, id="f")).result(timeout_s=5) == "ref-train"
    assert log == ["+train"]


@pytest.mark.parametrize("change", ["goes on inside", "leaves in peace"])
async def test_code_that_no_longer_fails_where_its_saga_did_is_blocked(
    app: sf.Surefoot, quick_eviction: None, change: str
) -> None:
    """Catches new code that walks on over a saga which is half undone."""
    has_changed = False

    @sf.durable(name=f"saga that {change}")
    async def code() -> None:
        async with sf.saga("s"):
            await book("train")
            if not has_changed:
                raise ValueError("no")
            if change == "goes on inside":
                await book("flight")

    refusals.append("train")
    run = await app.start(code, id="r")
    await wait_state(run, "waiting", "blocked")
    has_changed = True
    refusals.clear()
    await run.wake()
    await until(lambda: kinds(app, "r")[-1] != "not_done" or "journal holds" in reason_of(app, "r"))
    assert "the journal holds" in (await wait_state(run, "waiting", "blocked")).reason
    has_changed = False
    await run.wake()
    with pytest.raises(sf.RunFailed, match="ValueError: no"):
        await run.result(timeout_s=5)
    assert log == ["+train", "-train:ref-train"]


def reason_of(app: sf.Surefoot, run_id: str) -> str:
    """Return what a run says of itself."""
    return app.store.read_now(lambda connection: show(connection, run_id)).row.reason


async def test_a_deadline_that_passes_between_two_compensations_is_heard_of_after_both(app: sf.Surefoot) -> None:
    """Catches a saga that stops half-way because its run ran out of time while it was being undone."""

    @sf.effect(in_doubt=sf.Resend(key_ttl="24h"))
    async def late_back(what: str) -> None:
        (run,) = app.worker.live.values()
        run.deadline.expire()
        log.append(f"-{what}")

    @sf.effect(key="late:{what}", compensate=late_back)
    async def lend(what: str) -> str:
        return what

    @sf.durable
    async def in_time() -> None:
        async with sf.saga("s"):
            await book("train")
            await lend("book")
            raise ValueError("no")

    with pytest.raises(sf.RunFailed, match="ValueError: no"):
        await (await app.start(in_time, id="d", deadline_s=3_600.0)).result(timeout_s=5)
    assert log == ["+train", "-book", "-train:ref-train"]


async def test_a_saga_whose_process_goes_down_while_it_is_undone_is_undone_by_the_next(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an undoing that takes the end of its process for a cancellation, and holds that up."""
    monkeypatch.setattr("surefoot.runs.worker.GRACE_S", 0.01)
    is_answering = asyncio.Event()

    @sf.effect(in_doubt=sf.Resend(key_ttl="24h"))
    async def slow_back(what: str) -> None:
        log.append(f"begin -{what}")
        await is_answering.wait()
        log.append(f"-{what}")

    @sf.effect(key="slow:{what}", compensate=slow_back)
    async def lend(what: str) -> str:
        return what

    @sf.durable
    async def interrupted() -> None:
        async with sf.saga("s"):
            await book("train")
            await lend("book")
            raise ValueError("no")

    async with sf.Surefoot(url) as app:
        await app.start(interrupted, id="i")
        await until(lambda: "begin -book" in log)
    is_answering.set()
    async with sf.Surefoot(url) as app:
        with pytest.raises(sf.RunFailed, match="ValueError: no"):
            await (await app.run("i")).result(timeout_s=10)
    assert log == ["+train", "begin -book", "begin -book", "-book", "-train:ref-train"]


async def test_what_ended_while_a_saga_looked_is_not_waited_for(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an undoing that waits for the end of a child, or of a doubt, that came just after it was seen open."""

    @sf.durable(name="saga quick leg")
    async def leg(what: str) -> str:
        return str(await book(what))

    @sf.durable
    async def legs() -> None:
        async with sf.saga("s"):
            await sf.child(leg, "train")
            await book("flight")
            raise ValueError("no")

    looks: Calls = []

    def as_it_was_just_before(connection: Any, run: int, path: str) -> Found:
        found = find(connection, run, path)
        looks.append(found)
        if len(looks) > 1:
            return found
        (child,) = [piece["child"] for piece in found.done if "child" in piece]
        effects = [piece["id"] for piece in found.done if "id" in piece]
        return Found([], effects, [(show(connection, child).row.id, child)])

    monkeypatch.setattr(sys.modules[Saga.__module__], "find", as_it_was_just_before)
    with pytest.raises(sf.RunFailed, match="ValueError: no"):
        await (await app.start(legs, id="l")).result(timeout_s=5)
    assert len(looks) == 2
    assert log == ["+train", "+flight", "-flight:ref-flight", "-train:ref-train"]


async def test_a_doubt_that_is_sent_again_for_an_undoing_is_no_step_of_its_run(
    app: sf.Surefoot, quick_eviction: None
) -> None:
    """Catches a resend that is recorded as if the code had asked for it, which a replay then misses."""

    @sf.effect(key="resent:{what}", compensate=unbook, in_doubt=sf.Resend(key_ttl="24h"))
    async def resent(what: str) -> str:
        log.append(f"+{what}")
        if log.count(f"+{what}") == 1:
            await asyncio.Event().wait()
        return f"ref-{what}"

    @sf.durable
    async def hasty() -> None:
        async with sf.saga("s"):
            await book("train")
            await left(resent("flight"), lambda: "+flight" in log)

    refusals.append("train")
    run = await app.start(hasty, id="h")
    await wait_state(run, "waiting", "blocked")
    refusals.clear()
    await run.wake()
    with pytest.raises(sf.RunFailed, match="TimeoutError"):
        await run.result(timeout_s=10)
    assert log == ["+train", "+flight", "+flight", "-flight:ref-flight", "-train:ref-train"]


async def test_a_doubt_that_a_person_ends_while_other_tasks_go_on_lets_the_saga_be_undone(
    app: sf.Surefoot, quick_eviction: None
) -> None:
    """Catches a saga that waits on in memory because a task outside it keeps its run there."""
    may_answer = asyncio.Event()

    @sf.effect
    async def outside() -> str:
        log.append("outside")
        await may_answer.wait()
        return "ok"

    @sf.durable
    async def beside() -> None:
        task = asyncio.create_task(outside())
        await until(lambda: "outside" in log)
        async with sf.saga("s"):
            await book("train")
            await left(forever("flight"), lambda: "+flight" in log)
        await task

    @sf.effect(key="ever:{what}", compensate=unbook)
    async def forever(what: str) -> str:
        log.append(f"+{what}")
        await asyncio.Event().wait()
        return "never"

    run = await app.start(beside, id="b")
    await until(lambda: any(one.state == "unknown" for one in app.store.read_now(list_effects)))
    await until(lambda: any(app.worker.live[run.row].waits))
    assert (await run.status()).state == "running"
    (effect,) = await app.unknowns()
    await app.resolve(effect.id, is_done=True, by="ann", reason="saw it", value="seen", is_fence_passed=True)
    await until(lambda: app.worker.live[run.row].stopped is not None)
    may_answer.set()
    with pytest.raises(sf.RunFailed, match="TimeoutError"):
        await run.result(timeout_s=10)
    assert log == ["outside", "+train", "+flight", "-flight:seen", "-train:ref-train"]


async def test_a_doubt_that_another_caller_ends_is_no_step_of_the_saga(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch, quick_eviction: None
) -> None:
    """Catches a saga that asks the service beside another caller, or records what that one was told as its own step."""
    is_asked, is_waited_for, may_end, waits = asyncio.Event(), asyncio.Event(), asyncio.Event(), Acting.wait

    async def ask(what: str) -> sf.Landed:
        log.append(f"?{what}")
        is_asked.set()
        await is_waited_for.wait()
        return sf.Landed("seen")

    async def wait(acting: Acting) -> None:
        is_waited_for.set()
        await waits(acting)

    @sf.effect(key="asked:{what}", compensate=unbook, in_doubt=sf.Probe(ask, "1ms"))
    async def asked(what: str) -> str:
        log.append(f"+{what}")
        await asyncio.Event().wait()
        return "never"

    @sf.effect(key="slow:{what}", compensate=unbook, in_doubt=sf.Resend(key_ttl="24h"))
    async def slow(what: str) -> str:
        log.append(f"+{what}")
        await may_end.wait()
        return "slow"

    @sf.durable
    async def beside() -> None:
        async with sf.saga("s"):
            task = asyncio.create_task(slow("boat"))
            await left(asked("flight"), lambda: {"+boat", "+flight"} <= set(log))
            await task

    run = await app.start(beside, id="b")
    await until(lambda: any(one.state == "unknown" for one in app.store.read_now(list_effects)))
    outside = asyncio.create_task(asked.outcome("flight"))
    await is_asked.wait()
    monkeypatch.setattr(Acting, "wait", wait)
    may_end.set()
    with pytest.raises(sf.RunFailed, match="TimeoutError"):
        await run.result(timeout_s=10)
    assert (await outside).value == "seen"
    assert sorted(log[:2]) == ["+boat", "+flight"]
    assert log[2:] == ["?flight", "-flight:seen", "-boat:slow"]
    assert [step.step for step in app.store.read_now(lambda connection: show(connection, "b")).steps].count("") == 2
