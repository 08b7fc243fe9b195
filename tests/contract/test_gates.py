"""Gates before an effect: asked in order, given back in reverse, and nothing acts before the last of them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.contract.conftest import Calls, kinds, ledger_states, until

import surefoot as sf
from surefoot.effects import Pass, Refuse
from surefoot.effects.gates import Admission, Request, Wait
from surefoot.store import Tx


class Turnstile:
    """A gate that gives its answers in turn, the last one for ever, and logs what it is asked and given back."""

    def __init__(self, name: str, log: Calls, *answers: Admission) -> None:
        self.name, self.log, self.answers = name, log, list(answers) or [Pass()]

    def admit(self, tx: Tx, request: Request) -> Admission:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.log.append((self.name, type(answer).__name__, request.name, request.arguments))
        return answer

    def release(self, tx: Tx, request: Request) -> None:
        self.log.append((self.name, "back", request.name, request.arguments))


@pytest.fixture
def log() -> Calls:
    return []


def declared(kind: str, log: Calls) -> Any:
    """Return an effect that logs its act: an async one, or one inside a commit."""

    @sf.effect(name="pay", key="pay:{x}")
    async def pay(x: int) -> int:
        log.append("act")
        return x

    @sf.effect(name="pay", key="pay:{x}", in_doubt=sf.Transactional())
    def pay_in_commit(x: int) -> int:
        log.append("act")
        return x

    return pay if kind == "async" else pay_in_commit


def of(name: str, *events: str) -> list[Any]:
    return [(name, event, "pay", {"x": 1}) for event in events]


@pytest.mark.parametrize("kind", ["async", "transactional"])
async def test_gates_are_asked_in_order_and_given_back_in_reverse(url: str, log: Calls, kind: str) -> None:
    """Catches what a gate took and never gets back, and two gates that are locked in different orders."""
    pay = declared(kind, log)
    async with sf.Surefoot(url, gates=[Turnstile("a", log), Turnstile("b", log)]):
        assert (await pay.outcome(1)).told == "done"
        around = [*of("a", "Pass"), *of("b", "Pass"), "act", *of("b", "back"), *of("a", "back")]
        assert log == around
        assert (await pay.outcome(1)).told == "repeated"
        assert log == around  # what is done asks nobody


@pytest.mark.parametrize("kind", ["async", "transactional"])
async def test_a_refusal_is_told_and_what_let_it_through_is_given_back(url: str, log: Calls, kind: str) -> None:
    """Catches an act that was refused, a refusal that leaves a claim, and places that are taken by who was refused."""
    pay, asked = declared(kind, log), []

    @sf.durable
    async def pays() -> None:
        outcome = await pay.outcome(1)
        asked.append((outcome.told, outcome.reason))
        if len(asked) == 1:
            await asyncio.Event().wait()

    gates = [Turnstile("a", log), Turnstile("b", log), Turnstile("c", log, Refuse("closed")), Turnstile("d", log)]
    async with sf.Surefoot(url, gates=gates) as app:
        await app.start(pays, id="p")
        await until(lambda: bool(asked))
        assert log == [*of("a", "Pass"), *of("b", "Pass"), *of("c", "Refuse"), *of("b", "back"), *of("a", "back")]
        assert ledger_states(app) == []
        log.clear()
    async with sf.Surefoot(url, gates=gates) as app:
        await (await app.run("p")).result(timeout_s=10)
    assert asked == [("denied", "closed")] * 2
    assert log == []  # a replay asks nobody


@pytest.mark.parametrize("kind", ["async", "transactional"])
@pytest.mark.parametrize("is_in_run", [False, True])
async def test_who_must_wait_asks_again_from_the_first_gate(url: str, log: Calls, kind: str, is_in_run: bool) -> None:
    """Catches an act on the strength of what another gate said before the wait, and one that never comes."""
    pay = declared(kind, log)

    @sf.durable
    async def pays() -> str:
        return str((await pay.outcome(1)).told)

    gates = [Turnstile("a", log), Turnstile("b", log, Wait("for a slot"), Pass())]
    async with sf.Surefoot(url, gates=gates) as app:
        told = await (await app.start(pays, id="p")).result(timeout_s=10) if is_in_run else await pays()
    assert told == "done"
    assert log == [*of("a", "Pass"), *of("b", "Wait"), *of("a", "back"),
                   *of("a", "Pass"), *of("b", "Pass"), "act", *of("b", "back"), *of("a", "back")]  # fmt: skip


async def test_a_caller_that_waits_for_a_decision_asks_the_gates_once_more(url: str, log: Calls) -> None:
    """Catches a caller that claims again and again while somebody decides, and one that waits on when it is decided."""
    pay, looks = declared("async", log), iter([False, False, True])
    wait = Wait("for a word", target=("approval", 1), is_over=lambda _connection: next(looks))
    async with sf.Surefoot(url, gates=[Turnstile("a", log, wait, Pass())]):
        assert (await pay.outcome(1)).told == "done"
    assert (log, list(looks)) == ([*of("a", "Wait", "Pass"), "act", *of("a", "back")], [])


async def test_behind_gates_too_a_refused_key_acts_once_more_and_then_no_more(url: str, log: Calls) -> None:
    """Catches a second life of a key that comes before its first, so that the key acts for ever."""
    keys = Calls()

    @sf.effect(key="pay:{x}")
    async def pay(x: int) -> int:
        keys.append(sf.current_effect().idempotency_key)
        if len(keys) == 1:
            raise sf.NotDone("closed")
        return x

    async with sf.Surefoot(url, gates=[Turnstile("a", log)]):
        assert [(await pay.outcome(1)).told for _ in range(4)] == ["not_done", "done", "repeated", "repeated"]
    assert keys == [keys[0], f"{keys[0]}-2"]


async def test_who_leaves_while_he_waits_has_claimed_nothing(url: str, log: Calls) -> None:
    """Catches a call that is claimed, or acts, after its caller has gone."""
    pay, gate = declared("async", log), Turnstile("a", log, Wait("for a slot", retry_ms=60_000))
    async with sf.Surefoot(url, gates=[gate]) as app:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pay.outcome(1), 0.1)
        assert ledger_states(app) == []
        gate.answers = [Pass()]
        assert (await pay.outcome(1)).told == "done"
    assert log.count("act") == 1


@pytest.mark.parametrize("kind", ["async", "transactional"])
async def test_a_run_whose_other_tasks_go_on_waits_for_its_approval_in_place(
    app: sf.Surefoot, log: Calls, kind: str
) -> None:
    """Catches an approval that nobody hears of because its run is still in memory, one that is used twice, and two records
    of a run under one number."""
    options: dict[str, Any] = {"name": "pay", "key": "pay:{x}", "approve": sf.Approve()}

    @sf.effect(**options)
    async def pay(x: int) -> int:
        log.append("act")
        return x

    @sf.effect(**options, in_doubt=sf.Transactional())
    def pay_in_commit(x: int) -> int:
        log.append("act")
        return x

    has_acted, begun = asyncio.Event(), 0

    @sf.step
    async def other() -> str:
        await has_acted.wait()
        return "other"

    @sf.durable
    async def does_both() -> list[Any]:
        nonlocal begun
        begun += 1
        return list(await asyncio.gather((pay if kind == "async" else pay_in_commit).outcome(1), other()))[1:]

    run = await app.start(does_both, id="b")
    async with asyncio.timeout(10):
        while not (asked := await app.approvals()):
            await asyncio.sleep(0.01)
    assert log == []
    await app.approve(asked[0].id, by="anna", reason="fine")
    await until(lambda: log == ["act"])
    has_acted.set()
    assert await run.result(timeout_s=10) == ["other"]
    assert (log, begun) == (["act"], 1)
    assert kinds(app, "b")[:3] == ["started", "asked", "claimed"]
    assert sorted(kinds(app, "b")[3:]) == ["decided", "done", "ended"]
    rows = app.store.read_now(
        lambda c: c.execute("SELECT seq FROM journal WHERE run IS NOT NULL ORDER BY id").fetchall()
    )
    assert rows == sorted(set(rows))


async def test_an_effect_in_one_commit_does_not_act_over_a_row_in_doubt(app: sf.Surefoot, log: Calls) -> None:
    """Catches an act whose earlier declaration left a doubt behind: it may have happened."""

    @sf.effect(name="pay", key="pay:{x}")
    async def before(x: int) -> int:
        raise TimeoutError

    assert (await before.outcome(1)).told == "unknown"
    pay = declared("transactional", log)
    outcome = await pay.outcome(1)
    assert (outcome.told, outcome.effect) == ("unknown", 1)
    assert outcome.reason == "its row is open, which one commit can't leave behind"
    assert (log, ledger_states(app)) == ([], ["unknown"])
    await app.resolve(1, is_done=False, by="ann", reason="no trace of it", is_fence_passed=True)
    assert (await pay.outcome(1)).told == "done"
    assert log == ["act"]


async def test_a_run_that_another_has_taken_claims_nothing_here(app: sf.Surefoot, log: Calls) -> None:
    """Catches an act, or a simulation, for a run which is another's by now."""
    goes_on: list[str] = []

    def taken(tx: Tx) -> None:
        tx.execute(
            "UPDATE runs SET epoch = epoch + 1, holder = ? WHERE state = 2", (app.guard.duty.session.id + 1_000,)
        )

    pay, is_taken = declared("async", log), [False]

    @sf.durable
    async def pays() -> str:
        if is_taken[0]:
            is_taken[0] = False
            await app.store.commit(taken, label="test")
        outcome = await pay.outcome(1)
        goes_on.append(outcome.told)
        return goes_on[-1]

    is_taken[0] = True
    run = await app.start(pays, id="p")
    assert await run.result(timeout_s=10) == "done"
    assert (log, goes_on) == (["act"], ["done"])
    is_taken[0] = True
    simulated = await run.fork("pay", id="simulated")
    assert await simulated.result(timeout_s=10) == "repeated"
    assert (log, goes_on) == (["act"], ["done", "repeated"])


async def test_a_synchronous_effect_does_not_block_the_loop_it_is_called_on(app: sf.Surefoot, log: Calls) -> None:
    """Catches a process that hangs for ever, waiting on its own loop."""

    @sf.effect(name="pays in a thread")
    def pay(x: int) -> int:
        log.append(threading.current_thread() is threading.main_thread())
        return x

    @sf.durable
    async def pays() -> str:
        try:
            pay(1)
        except sf.SurefootError as error:
            return error.message
        return "acted"

    words = "effect pays in a thread is synchronous and was called on the event loop, which it would block"
    assert await (await app.start(pays, id="p")).result(timeout_s=10) == words
    assert log == []
    await asyncio.to_thread(pay, 1)
    assert log == [False]
