"""An effect that a person must approve: asked durably, bound to its arguments, used once, never decided by time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from tests.contract.conftest import held_up, kinds, until
from tests.contract.test_escalation import HOUR_MS, MovedClock
from tests.contract.test_retention import is_sound

import surefoot as sf
from surefoot.approvals import AlreadyDecided, ApprovalNotFound, NobodyWaits, tables
from surefoot.people import trail
from surefoot.runs import Run

BIG = sf.Approve(when=lambda amount, **_: amount > 100, deadline="2h")


class Bank:
    """Effects that are counted, and a run that asks for one."""

    def __init__(self, approve: sf.Approve = BIG, **options: Any) -> None:
        self.paid: list[tuple[str, int]] = []

        @sf.effect(name="bank pay", key="pay:{order}", approve=approve, **options)
        async def pay(order: str, amount: int) -> str:
            self.paid.append((order, amount))
            return f"paid {order}"

        @sf.durable(name="bank run")
        async def paying(order: str, amount: int) -> str:
            return await pay(order, amount)

        self.pay, self.paying = pay, paying


async def waiting(run: Run) -> None:
    """Return when a run waits for an approval, evicted."""
    async with asyncio.timeout(10):
        while (await run.status()).waiting_for != "approval":
            await asyncio.sleep(0.01)


async def one(app: sf.Surefoot) -> int:
    """Return the one approval that is asked for."""
    (found,) = await app.approvals()
    return found.id


def states(app: sf.Surefoot) -> list[str]:
    """Return the states of all approvals, oldest first."""
    rows = app.store.read_now(lambda connection: tables.of_state(connection, None, 100))
    return [row.state.name.lower() for row in reversed(rows)]


async def test_a_run_waits_evicted_acts_once_approved_and_says_who(app: sf.Surefoot) -> None:
    """Catches an act before its approval, a run that stays in memory for it, and one that nobody wakes."""
    bank = Bank()
    run = await app.start(bank.paying, "A", 500, id="r")
    await waiting(run)
    await until(lambda: not app.worker.live)
    (asked,) = await app.approvals()
    assert (asked.name, asked.key, asked.arguments) == ("bank pay", "pay:A", {"order": "A", "amount": 500})
    assert (bank.paid, kinds(app, "r")) == ([], ["started", "asked"])
    await app.approve(asked.id, by="anna", reason="the customer called")
    assert await run.result(timeout_s=10) == "paid A"
    assert bank.paid == [("A", 500)]
    assert kinds(app, "r") == ["started", "asked", "claimed", "done", "ended"]
    assert states(app) == ["used"]
    entries = app.store.read_now(trail.entries)
    assert [(one.act, one.who, one.target, one.reason) for one in entries] == [
        ("approve", "anna", "approval 1", "the customer called")
    ]
    assert entries[0].call.hex() == asked.call
    assert await app.approvals() == []


async def test_what_needs_no_approval_asks_nobody(app: sf.Surefoot) -> None:
    """Catches a question for every call, and a first outcome that is held back until somebody approves it again."""
    bank = Bank()
    assert await (await app.start(bank.paying, "A", 100, id="small")).result(timeout_s=10) == "paid A"
    run = await app.start(bank.paying, "B", 101, id="big")
    await waiting(run)
    await app.approve(await one(app), by="anna", reason="fine")
    await run.result(timeout_s=10)
    assert await (await app.start(bank.paying, "B", 101, id="again")).result(timeout_s=10) == "paid B"
    assert bank.paid == [("A", 100), ("B", 101)]
    with pytest.raises(sf.RunFailed, match="KeyConflict"):  # decided by the ledger: nobody is bothered
        await (await app.start(bank.paying, "B", 999, id="other")).result(timeout_s=10)
    assert states(app) == ["used"]


async def test_denied_is_told_as_denied_with_the_reason(app: sf.Surefoot) -> None:
    """Catches a denial that is told as a failure, asked again of people by the same run, or kept for other runs."""
    bank, told = Bank(), []

    @sf.durable
    async def insisting() -> str:
        for _ in range(2):
            outcome = await bank.pay.outcome("A", 500)
            told.append((outcome.told, outcome.reason))
        return "gave up"

    run = await app.start(insisting, id="r")
    await waiting(run)
    await app.deny(await one(app), by="bob", reason="too much")
    assert await run.result(timeout_s=10) == "gave up"
    assert told == [("denied", "approval 1 was denied by bob: too much")] * 2
    assert (bank.paid, states(app)) == ([], ["denied"])
    other = await app.start(bank.paying, "A", 500, id="other")
    await waiting(other)
    await app.approve(await one(app), by="anna", reason="it is right after all")
    await other.result(timeout_s=10)
    assert states(app) == ["denied", "used"]
    again = await app.run("r")
    assert await again.result() == "gave up"


async def test_each_call_of_a_run_has_an_approval_of_its_own(app: sf.Surefoot) -> None:
    """Catches an approval that lets the next call through, too."""
    bank = Bank()

    @sf.durable
    async def twice() -> list[str]:
        said: list[str] = []
        for amount in (500, 501):
            said.append((await bank.pay.outcome(f"O-{amount}", amount)).told)
        return said

    run = await app.start(twice, id="r")
    await waiting(run)
    first = await one(app)
    await app.approve(first, by="anna", reason="fine")
    async with asyncio.timeout(10):
        while [one.id for one in await app.approvals()] == [] or first in [one.id for one in await app.approvals()]:
            await asyncio.sleep(0.01)
    assert bank.paid == [("O-500", 500)]
    (second,) = await app.approvals()
    assert second.arguments == {"order": "O-501", "amount": 501}
    assert second.call != app.store.read_now(lambda connection: tables.get(connection, first)).call.hex()  # type: ignore[union-attr]  # it is there
    await app.approve(second.id, by="anna", reason="fine")
    assert await run.result(timeout_s=10) == ["done", "done"]
    assert bank.paid == [("O-500", 500), ("O-501", 501)]


async def test_an_approval_of_one_amount_is_none_of_another(url: str) -> None:
    """Catches an approval that is bound to the key alone: the same order, another amount."""
    bank = Bank()
    async with sf.Surefoot(url) as app:
        await waiting(await app.start(bank.paying, "A", 500, id="r"))
    async with sf.Surefoot(url, is_worker=False) as app:
        await app.approve(1, by="anna", reason="500 is fine")
        with pytest.raises(sf.ApprovalNeeded, match="approval 2"):
            await bank.pay("A", 900)
        assert (bank.paid, states(app)) == ([], ["approved", "pending"])
        assert await bank.pay("A", 500) == "paid A"
        assert states(app) == ["used", "pending"]


async def test_a_key_that_is_free_again_is_approved_again(app: sf.Surefoot) -> None:
    """Catches an approval that outlives what it was given for: after a refusal the next try is another act."""
    refused: list[bool] = [True]

    @sf.effect(key="once:{x}", approve=sf.Approve())
    async def refusing(x: str) -> str:
        if refused.pop():
            raise sf.NotDone("no money today")
        return "done"

    @sf.durable
    async def trying(x: str) -> str:
        return await refusing(x)

    run = await app.start(trying, "A", id="first")
    await waiting(run)
    await app.approve(await one(app), by="anna", reason="fine")
    with pytest.raises(sf.RunFailed, match="no money"):
        await run.result(timeout_s=10)
    refused.append(False)
    again = await app.start(trying, "A", id="second")
    await waiting(again)
    await app.approve(await one(app), by="anna", reason="tomorrow, then")
    assert await again.result(timeout_s=10) == "done"
    assert states(app) == ["used", "used"]


async def test_each_late_answer_has_one_clear_answer(app: sf.Surefoot, url: str) -> None:
    """Catches a decision that is taken twice, by two people at once, or for somebody who has left."""
    bank = Bank()
    run = await app.start(bank.paying, "A", 500, id="r")
    await waiting(run)
    number = await one(app)
    async with sf.Surefoot(url, is_worker=False) as other:
        both = await asyncio.gather(
            app.approve(number, by="anna", reason="fine"), other.deny(number, by="bob", reason="never"),
            return_exceptions=True,
        )  # fmt: skip
    # Who comes second is told what stands; a denial that comes second but before the use takes the approval back.
    errors = [one for one in both if isinstance(one, BaseException)]
    assert all(isinstance(one, AlreadyDecided) for one in errors)
    assert states(app) in (["used"], ["denied"], ["approved"])
    if states(app) == ["denied"]:
        with pytest.raises(sf.RunFailed, match="denied by bob"):
            await run.result(timeout_s=10)
    else:
        assert await run.result(timeout_s=10) == "paid A"
    with pytest.raises(AlreadyDecided, match=r"was (approved, and is used|denied): (anna|bob)"):
        await app.approve(number, by="carl", reason="me too")
    with pytest.raises(ApprovalNotFound):
        await app.approve(99, by="carl", reason="me too")
    cancelled = await app.start(bank.paying, "B", 500, id="c")
    await waiting(cancelled)
    second = await one(app)
    await cancelled.cancel("changed my mind", by="anna")
    with pytest.raises(sf.RunCancelled):
        await cancelled.result(timeout_s=10)
    assert await app.approvals() == []
    with pytest.raises(NobodyWaits, match="was cancelled"):
        await app.approve(second, by="anna", reason="fine")
    assert ("B", 500) not in bank.paid


async def test_two_runs_wait_for_one_answer(app: sf.Surefoot) -> None:
    """Catches two people asked the same, and a second run that acts again on one approval."""
    bank = Bank()
    runs = [await app.start(bank.paying, "A", 500, id=f"r-{number}") for number in (1, 2)]
    for run in runs:
        await waiting(run)
    (asked,) = await app.approvals()
    assert len(asked.runs) == 2
    await runs[0].cancel("not mine any more")
    with pytest.raises(sf.RunCancelled):
        await runs[0].result(timeout_s=10)
    await app.approve(asked.id, by="anna", reason="fine")  # the other still waits
    assert await runs[1].result(timeout_s=10) == "paid A"
    assert bank.paid == [("A", 500)]


async def test_a_lapsed_approval_is_asked_for_anew(url: str) -> None:
    """Catches an old yes that acts after its time."""
    clock, bank = MovedClock(), Bank(sf.Approve(valid_for="1h"))
    async with sf.Surefoot(url, clock=clock) as app:
        run = await app.start(bank.paying, "A", 5, id="r")
        await waiting(run)
        number = await one(app)
    async with sf.Surefoot(url, clock=clock, is_worker=False) as app:
        await app.approve(number, by="anna", reason="fine")
    clock.moved_ms = 2 * HOUR_MS
    async with sf.Surefoot(url, clock=clock) as app:
        run = await app.run("r")
        await waiting(run)
        assert (states(app), bank.paid) == (["lapsed", "pending"], [])
        with pytest.raises(AlreadyDecided, match="asked for anew"):
            await app.approve(number, by="anna", reason="fine")
        await app.approve(await one(app), by="anna", reason="still fine")
        assert await run.result(timeout_s=10) == "paid A"


async def test_what_is_asked_for_anew_by_a_run_in_memory_has_a_record_of_its_own(url: str) -> None:
    """Catches a claim under the number of the question: two records of one number, which no backup takes."""
    clock, bank = MovedClock(), Bank(sf.Approve(valid_for="1h"))
    goes_on = asyncio.Event()

    @sf.step
    async def busy() -> None:
        await goes_on.wait()

    @sf.durable
    async def in_memory() -> str:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(busy())
            return await bank.pay("A", 5)

    async with sf.Surefoot(url, clock=clock) as app:
        run = await app.start(in_memory, id="r")
        await until(lambda: states(app) == ["pending"])
    async with sf.Surefoot(url, clock=clock, is_worker=False) as app:
        await app.approve(await one(app), by="anna", reason="fine")
    clock.moved_ms = 2 * HOUR_MS
    async with sf.Surefoot(url, clock=clock) as app:
        await until(lambda: states(app) == ["lapsed", "pending"])
        await app.approve(await one(app), by="anna", reason="still fine")
        await until(lambda: bank.paid == [("A", 5)])
        goes_on.set()
        run = await app.run("r")
        assert await run.result(timeout_s=10) == "paid A"
        is_sound(app)


@pytest.mark.one_worker("another takes what was handed back")
@pytest.mark.parametrize("times", [1, 2])
async def test_a_claim_that_is_left_returns_its_approval(url: str, times: int) -> None:
    """Catches a person who must say yes again though nothing was sent, an approval that is used twice, one that can't be
    taken back any more, and a journal with two answers to one number."""
    bank = Bank()

    @sf.durable
    async def handed_back() -> str:
        may_write = threading.Event()
        if is_approved and len(lives) < times:
            app.store.append(lambda _: may_write.wait(10), label="test", on_error=None)
        if is_approved:
            lives.append(app)
        try:
            return await bank.pay("A", 500)
        finally:
            may_write.set()

    lives, is_approved = list[sf.Surefoot](), False
    async with sf.Surefoot(url) as app:
        run = await app.start(handed_back, id="r")
        await waiting(run)
        is_approved = True
        await app.approve(await one(app), by="anna", reason="fine")
        await until(lambda: len(lives) == 1)
    for _ in range(1, times):
        async with sf.Surefoot(url) as app:
            await until(lambda: app in lives)
    async with sf.Surefoot(url) as app:
        assert await (await app.run("r")).result(timeout_s=10) == "paid A"
        assert (states(app), bank.paid) == (["used"], [("A", 500)])
        assert kinds(app, "r") == ["started", "asked", *["claimed"] * (times + 1), "done", "ended"]
        notes = app.store.read_now(lambda connection: tables.notes(connection, 1))
        assert [note.kind for note in notes] == ["approved", *["used", "returned"] * times, "used"]
        is_sound(app)


async def test_an_approval_that_was_returned_can_be_denied(app: sf.Surefoot) -> None:
    """Catches an approval that a caller has left with, and nobody can take back; and one that serves other arguments."""
    bank = Bank()
    with pytest.raises(sf.ApprovalNeeded):
        await bank.pay("A", 500)
    await app.approve(1, by="anna", reason="fine")
    await held_up(app, bank.pay("A", 500))
    assert (states(app), bank.paid) == (["approved"], [])
    with pytest.raises(sf.ApprovalNeeded):
        await bank.pay("A", 501)
    await app.deny(1, by="bob", reason="no after all")
    with pytest.raises(sf.Denied, match="no after all"):
        await bank.pay("A", 500)
    assert (states(app), bank.paid) == (["denied", "pending"], [])
    is_sound(app)


async def test_a_denial_stands_for_its_time(url: str) -> None:
    """Catches a denial that bars a call outside runs for ever, or one that is asked again at once."""
    clock, bank = MovedClock(), Bank(sf.Approve(valid_for="1h"))
    async with sf.Surefoot(url, clock=clock) as app:
        with pytest.raises(sf.ApprovalNeeded):
            await bank.pay("A", 5)
        await app.deny(1, by="bob", reason="no")
        for moved_ms, problem in ((0, sf.Denied), (HOUR_MS // 2, sf.Denied), (2 * HOUR_MS, sf.ApprovalNeeded)):
            clock.moved_ms = moved_ms
            with pytest.raises(problem):
                await bank.pay("A", 5)
        assert states(app) == ["denied", "pending"]


async def test_an_approval_can_be_taken_back_until_it_is_used(url: str) -> None:
    """Catches a yes that can't be corrected before it has done harm."""
    bank = Bank()
    async with sf.Surefoot(url) as app:
        run = await app.start(bank.paying, "A", 500, id="r")
        await waiting(run)
    async with sf.Surefoot(url, is_worker=False) as app:
        number = await one(app)
        await app.approve(number, by="anna", reason="fine")
        await app.deny(number, by="anna", reason="the wrong customer")
        with pytest.raises(AlreadyDecided, match="was denied: anna"):
            await app.approve(number, by="bob", reason="no, the right one")
    async with sf.Surefoot(url) as app:
        with pytest.raises(sf.RunFailed, match="the wrong customer"):
            await (await app.run("r")).result(timeout_s=10)
    assert bank.paid == []


async def test_two_people_and_never_the_requester(app: sf.Surefoot) -> None:
    """Catches one person who counts for two, and one who approves what is done for them."""
    paid: list[str] = []

    @sf.effect(key="wire:{order}", approve=sf.Approve(count=2, requester="clerk"))
    async def wire(order: str, clerk: str) -> str:
        paid.append(order)
        return "wired"

    @sf.durable
    async def wiring() -> str:
        return await wire("A", "carl")

    run = await app.start(wiring, id="r")
    await waiting(run)
    number = await one(app)
    with pytest.raises(sf.NotAllowed, match="may not approve it"):
        await app.approve(number, by="carl", reason="I need it")
    half = await app.approve(number, by="anna", reason="fine")
    assert (half.state, half.approved_by, paid) == ("pending", ["anna"], [])
    with pytest.raises(AlreadyDecided, match="2 different people"):
        await app.approve(number, by="anna", reason="really")
    await app.approve(number, by="bob", reason="fine too")
    assert await run.result(timeout_s=10) == "wired"
    assert paid == ["A"]


async def test_roles_say_who_may(url: str) -> None:
    """Catches somebody without the role who decides, also where nothing but the store says so."""
    bank = Bank(sf.Approve(by="finance"))
    rules = sf.People({"anna": ["finance"], "bob": [], "olga": ["operator"]}, may={"cancel": "operator"})
    async with sf.Surefoot(url, people=rules) as app:
        run = await app.start(bank.paying, "A", 1, id="r")
        await waiting(run)
    async with sf.Surefoot(url) as app:
        number = await one(app)
        for stranger, why in (("bob", "needs finance"), ("mallory", "not among the people"), ("api", "needs finance")):
            with pytest.raises(sf.NotAllowed, match=why):
                await app.approve(number, by=stranger, reason="let me")
            with pytest.raises(sf.NotAllowed):
                await app.deny(number, by=stranger, reason="let me")
        with pytest.raises(sf.NotAllowed, match="needs operator"):
            await (await app.run("r")).cancel("no", by="anna")
        await app.approve(number, by="anna", reason="fine")
        assert await (await app.run("r")).result(timeout_s=10) == "paid A"
        entries = app.store.read_now(trail.entries)
        assert [(one.act, one.who) for one in entries][1:] == [("approve", "anna")]
        assert entries[0].act == "people"


async def test_names_are_proven_where_the_app_can(url: str) -> None:
    """Catches a decision under a name that nobody has proven, through whichever door."""
    asked: list[str] = []

    async def prove(name: str) -> str:
        asked.append(name)
        if name == "mallory":
            raise sf.NotAllowed("no badge")
        return "" if name == "nobody" else name

    bank = Bank()
    async with sf.Surefoot(url, people=sf.People({"anna": []}, authenticate=prove)) as app:
        run = await app.start(bank.paying, "A", 500, id="r")
        await waiting(run)
        for name in ("mallory", "nobody", "api"):
            with pytest.raises(sf.NotAllowed):
                await app.approve(1, by=name, reason="fine")
        with pytest.raises(sf.NotAllowed, match="no badge"):
            await app.undone(1, by="mallory", reason="by hand")
        with pytest.raises(sf.NotAllowed, match="this name was not"):
            await run.cancel("no", by="anna")
        async with sf.Surefoot(url, is_worker=False) as other:
            with pytest.raises(sf.NotAllowed, match="--module MODULE"):
                await other.approve(1, by="anna", reason="fine")
        await run.signal("hello", by=await app.identify("anna"))
        await app.approve(1, by="anna", reason="fine")
        assert await run.result(timeout_s=10) == "paid A"
        said = app.store.read_now(trail.entries)
        assert [(one.act, one.who) for one in said[1:]] == [("signal", "anna"), ("approve", "anna")]
        assert asked == ["mallory", "nobody", "api", "mallory", "anna", "anna"]


async def test_a_deadline_escalates_and_decides_nothing(url: str) -> None:
    """Catches an approval that nobody is told of, twice told of, or given by time."""
    clock, bank = MovedClock(), Bank()
    told: list[sf.Escalation] = []
    async with sf.Surefoot(url, clock=clock, on_escalation=told.append) as app:
        run = await app.start(bank.paying, "A", 500, id="r")
        gone = await app.start(bank.paying, "B", 500, id="gone")
        for one_run in (run, gone):
            await waiting(one_run)
        await gone.cancel("enough")
        with pytest.raises(sf.RunCancelled):
            await gone.result(timeout_s=10)
        await app.worker.escalating.look()
        assert told == []
        clock.moved_ms = 3 * HOUR_MS
        for _ in range(3):
            await app.worker.escalating.look()
        assert [(one.approval, one.effect, one.key, one.run_id) for one in told] == [(1, 0, "pay:A", "r")]
        assert states(app) == ["pending", "withdrawn"]
        assert (await run.status()).waiting_for == "approval"
        with pytest.raises(NobodyWaits, match="withdrawn"):
            await app.approve(2, by="anna", reason="fine")
        await app.approve(1, by="anna", reason="at last")
        assert await run.result(timeout_s=10) == "paid A"


async def test_outside_runs_the_caller_is_told_or_waits(app: sf.Surefoot) -> None:
    """Catches a web handler that hangs, an approval that its caller can't use, and a wait that doesn't end."""
    bank = Bank()
    with pytest.raises(sf.ApprovalNeeded, match="surefoot approve 1") as told:
        await bank.pay("A", 500)
    with pytest.raises(sf.ApprovalNeeded):
        await bank.pay("A", 500)
    await app.approve(told.value.approval, by="anna", reason="fine")
    assert await bank.pay("A", 500) == "paid A"
    with pytest.raises(sf.ApprovalNeeded):
        await bank.pay("B", 500)
    await app.deny(await one(app), by="bob", reason="no")
    for _ in range(2):
        with pytest.raises(sf.Denied, match="denied by bob: no"):
            await bank.pay("B", 500)

    @sf.effect(approve=sf.Approve(outside="wait"))
    async def patient(x: int) -> int:
        return x

    @sf.effect(approve=sf.Approve())
    async def lost(x: int) -> int:
        return x

    waits = asyncio.create_task(patient(1))
    async with asyncio.timeout(10):
        while not await app.approvals():
            await asyncio.sleep(0.01)
    await app.approve(await one(app), by="anna", reason="fine")
    assert await waits == 1
    with pytest.raises(sf.BadEffect, match="has no key"):
        await lost(1)
    assert (await app.approvals(), bank.paid) == ([], [("A", 500)])


@pytest.mark.parametrize(
    ("when", "why"),
    [(lambda amount: 1, "returned a int"), (lambda amount: amount["x"], "raised TypeError")],
)
async def test_a_condition_that_can_not_tell_lets_nothing_through(
    app: sf.Surefoot, when: Callable[..., bool], why: str
) -> None:
    """Catches an act because the question whether it needs approval was answered badly."""
    bank = Bank(sf.Approve(when=when))
    with pytest.raises(sf.RunFailed, match=why):
        await (await app.start(bank.paying, "A", 500, id="r")).result(timeout_s=10)
    assert bank.paid == []


async def test_a_condition_that_changes_its_mind_does_not_answer_what_was_asked(url: str) -> None:
    """Catches an act without its approval because `when`, which is not pure, says otherwise at the replay."""
    strict = [True]
    bank = Bank(sf.Approve(when=lambda amount: strict[0]))
    async with sf.Surefoot(url) as app:
        run = await app.start(bank.paying, "A", 500, id="r")
        await waiting(run)
        strict[0] = False
        await run.wake()
        await waiting(run)
        assert bank.paid == []
        await app.approve(await one(app), by="anna", reason="fine")
        assert await run.result(timeout_s=10) == "paid A"


async def test_code_that_asks_something_else_after_the_question_diverges(url: str) -> None:
    """Catches a run that goes another way while a person thinks about what it had asked."""
    amount = [500]
    bank = Bank()

    @sf.durable(name="changing")
    async def changing() -> str:
        return await bank.pay("A", amount[0])

    async with sf.Surefoot(url) as app:
        run = await app.start(changing, id="r")
        await waiting(run)
        amount[0] = 900
        await app.approve(await one(app), by="anna", reason="500 is fine")
        async with asyncio.timeout(10):
            while (await run.status()).waiting_for != "blocked":
                await asyncio.sleep(0.01)
        assert bank.paid == []
        amount[0] = 500
        await run.wake()
        assert await run.result(timeout_s=10) == "paid A"
        assert bank.paid == [("A", 500)]


async def test_several_at_once_are_decided_one_by_one(app: sf.Surefoot) -> None:
    """Catches parallel calls that share an answer, or one that holds up the other."""
    bank = Bank()

    @sf.durable
    async def both() -> list[str]:
        found = await asyncio.gather(*(bank.pay.keyed(order)(order, 500) for order in "ABC"), return_exceptions=True)
        return [one if isinstance(one, str) else type(one).__name__ for one in found]

    run = await app.start(both, id="r")
    await waiting(run)
    by_key = {one.key: one.id for one in await app.approvals()}
    await app.approve(by_key["pay:B"], by="anna", reason="fine")
    async with asyncio.timeout(10):
        while bank.paid != [("B", 500)]:
            await asyncio.sleep(0.01)
    await waiting(run)
    await app.deny(by_key["pay:A"], by="anna", reason="no")
    await app.approve(by_key["pay:C"], by="anna", reason="fine")
    assert await run.result(timeout_s=10) == ["Denied", "paid B", "paid C"]
    assert bank.paid == [("B", 500), ("C", 500)]


async def test_an_effect_in_one_commit_waits_too(app: sf.Surefoot) -> None:
    """Catches a Transactional effect that acts before its approval, or that uses it up when it is rolled back."""
    tries: list[int] = []

    @sf.effect(key="row:{x}", in_doubt=sf.Transactional(), approve=sf.Approve())
    def write_row(x: str) -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("rolled back")
        return "written"

    @sf.durable
    async def writing() -> list[str]:
        return [(await write_row.outcome("A")).told for _ in range(2)]

    run = await app.start(writing, id="r")
    await waiting(run)
    assert tries == []
    await app.approve(await one(app), by="anna", reason="fine")
    assert await run.result(timeout_s=10) == ["not_done", "done"]
    assert states(app) == ["used"]


async def test_whether_an_effect_in_one_commit_needs_approval_is_asked_in_its_callers_task(app: sf.Surefoot) -> None:
    """Would catch users' code that holds up all writes, and knows nothing of its caller, while it says who must approve."""
    tenant: ContextVar[str] = ContextVar("tenant", default="of nobody")
    asked: list[str] = []

    def is_large(x: int) -> bool:
        asked.append(tenant.get())
        return x > 1_000

    @sf.effect(key="row:{x}", in_doubt=sf.Transactional(), approve=sf.Approve(when=is_large))
    def write_row(x: int) -> str:
        return "written"

    tenant.set("of the caller")
    assert (await write_row.outcome(1)).told == "done"
    assert asked == ["of the caller"]


async def test_a_caller_that_left_is_not_asked_for(url: str) -> None:
    """Catches an approval that is listed, and can be given, though its code went on without it."""
    clock, bank = MovedClock(), Bank()

    @sf.durable
    async def impatient() -> str:
        try:
            return await bank.pay("A", 500)
        except sf.DeadlinePassed:
            return str(await sf.wait_signal("go"))

    async with sf.Surefoot(url, clock=clock) as app:
        run = await app.start(impatient, id="r", deadline_s=3_600)
        await waiting(run)
        assert len(await app.approvals()) == 1
        clock.moved_ms = 2 * HOUR_MS
        async with asyncio.timeout(10):
            while "expired" not in kinds(app, "r"):
                await asyncio.sleep(0.01)
        assert await app.approvals() == []
        with pytest.raises(NobodyWaits, match="went on without it"):
            await app.approve(1, by="anna", reason="fine")
        await run.signal("go", "gone")
        assert await run.result(timeout_s=10) == "gone"
        assert bank.paid == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"approve": sf.Approve(when=lambda cost: True)}, "asks for 'cost'"),
        ({"approve": sf.Approve(requester="who")}, "asks for 'who'"),
        ({"approve": sf.Approve(count=0)}, "count=0"),
        ({"approve": sf.Approve(outside="never")}, "outside='never'"),  # type: ignore[arg-type]  # the mistake
        ({"redact": ("cvv",)}, "redact names 'cvv'"),
        ({"redact": ("order",), "key": "pay:{order}"}, "its key shows 'order'"),
    ],
)
def test_a_declaration_that_means_nothing_is_refused(options: dict[str, Any], why: str) -> None:
    """Catches a typing mistake that would let everything, or nothing, through."""
    with pytest.raises(sf.BadEffect, match=why):

        @sf.effect(**options)
        async def pay(order: str, amount: int) -> None: ...


def test_the_gate_of_one_effect_is_no_gate_of_the_app() -> None:
    """Catches two ways to declare one thing."""
    with pytest.raises(sf.SurefootError, match="declared by the effect"):
        sf.Surefoot("sqlite:///x.db", gates=[sf.Approve()])
