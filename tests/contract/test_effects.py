"""Effects keep their promises, with no run around them and inside runs: one test, one promise."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.contract.conftest import held_up, kinds, until
from tests.contract.test_retention import is_sound
from tests.contract.test_runs import wait_state
from tests.contract.test_runs_lost_leases import JumpingClock

import surefoot as sf
from surefoot.effects import Pass, registry
from surefoot.effects.gates import Request, Wait
from surefoot.effects.live import resolve as resolving
from surefoot.effects.live.case import Case
from surefoot.effects.live.sweep import sweep
from surefoot.effects.rows import desk, ledger
from surefoot.effects.spec import Bound, EffectSpec
from surefoot.effects.states import OPEN, TABLE, Event, State, next_state
from surefoot.journal import Kind, Record, Undecodable, insert_record
from surefoot.leases import LeaseLost, Sessions
from surefoot.leases.tables import token_of
from surefoot.runs.rows.desk import wake
from surefoot.store import Tx

Acts = list[Any]


async def resolve(app: sf.Surefoot, effect: int, *, is_done: bool, value: Any = None) -> desk.EffectView:
    """Resolve as a person."""
    return await desk.resolve_by_person(
        app.store, Sessions(app.store), effect, is_done=is_done, who="ann", reason="saw it", value=value, wake=wake
    )


def unknowns(app: sf.Surefoot) -> list[desk.EffectView]:
    """Return the effects in doubt."""
    return app.store.read_now(lambda connection: desk.list_effects(connection, state=State.UNKNOWN))


async def test_without_a_store_nothing_is_done() -> None:
    """Catches an unguarded act."""
    acts: Acts = []

    @sf.effect
    async def act() -> None:
        acts.append(1)

    with pytest.raises(sf.NoStore, match="nothing was done"):
        await act()
    assert acts == []


async def test_a_key_acts_once_and_gives_the_first_outcome(app: sf.Surefoot) -> None:
    """Catches a second act for the same key, and a second answer shown instead of the first."""
    acts: Acts = []

    @sf.effect(key="refund:{order}", free_text=("why",))
    async def refund(order: str, amount: Decimal, why: str) -> dict[str, str]:
        acts.append(order)
        return {"receipt": f"r{len(acts)}"}

    assert await refund("A", Decimal("12.50"), "broken") == {"receipt": "r1"}
    assert await refund("A", Decimal("12.5"), "in other words") == {"receipt": "r1"}
    assert (await refund.outcome("A", Decimal("12.5"), "again")).told == "repeated"
    with pytest.raises(sf.KeyConflict, match=r"amount='13' \(recorded '12.50'\)"):
        await refund("A", Decimal("13"), "more")
    assert await refund("B", Decimal("13"), "other order") == {"receipt": "r2"}
    assert acts == ["A", "B"]


async def test_a_value_by_hand_must_be_one_the_effect_could_have_returned(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a value that is recorded for ever and that no caller can read, and claims of earlier versions, which don't
    note their type, that nobody can resolve."""

    @sf.effect(key="bill:{x}")
    async def bill(x: int) -> tuple[int, str]:
        raise TimeoutError

    assert (await bill.outcome(1)).told == "unknown"
    (doubt,) = unknowns(app)
    assert doubt.returns == "tuple[int, str]"
    with pytest.raises(desk.UnfitValue, match="nothing bill could have returned"):
        await resolve(app, doubt.id, is_done=True, value="seven")
    monkeypatch.delitem(registry._known, "bill")
    with pytest.raises(desk.UnfitValue, match=r"bill returns tuple\[int, str\]"):
        await resolve(app, doubt.id, is_done=True, value=[7, "r"])
    assert [one.state for one in unknowns(app)] == ["unknown"]

    def forget_types(tx: Tx) -> None:
        for record, body in tx.execute("SELECT id, body FROM journal WHERE body IS NOT NULL").fetchall():
            kept = {name: value for name, value in msgspec.json.decode(body).items() if name != "returns"}
            tx.execute("UPDATE journal SET body = ? WHERE id = ?", (msgspec.json.encode(kept), record))

    await app.store.commit(forget_types, label="old")
    await resolve(app, doubt.id, is_done=True, value=[7, "r"])
    assert await bill(1) == (7, "r")


async def test_a_compensation_by_hand_is_checked_by_its_own_type(app: sf.Surefoot) -> None:
    """Catches a compensation that is no effect of its own, so that its doubt can never be resolved as done."""

    async def give_back(x: int) -> tuple[int, str]:
        raise TimeoutError

    @sf.effect(key="take:{x}", compensate=give_back)
    async def take(x: int) -> int:
        return x

    @sf.durable
    async def taking(x: int) -> int:
        return await take(x)

    run = await app.start(taking, 1, id="t-1")
    await run.result()
    undo = await run.undo("a mistake")
    await wait_state(undo, "waiting", "doubt")
    (doubt,) = unknowns(app)
    with pytest.raises(desk.UnfitValue):
        await resolve(app, doubt.id, is_done=True)
    await resolve(app, doubt.id, is_done=True, value=[1, "r"])
    assert await undo.result(timeout_s=10) == ["take:1"]


def test_a_name_that_compensations_have_is_refused() -> None:
    """Catches an effect that is taken for the compensation of another."""

    async def give_back(x: int) -> None: ...

    for names in (("taken", "undo taken"), ("undo had", "had")):
        with pytest.raises(sf.BadEffect, match="what undoes"):  # noqa: PT012  the second one, in either order
            for name in names:
                options: Any = {} if name.startswith("undo") else {"compensate": give_back}

                @sf.effect(name=name, **options)
                async def either(x: int) -> None: ...


async def test_two_callers_of_one_key_one_acts_the_other_waits(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches two acts at once, callers who are not told that it has ended, and ones who ask the store all the while."""
    acts: Acts = []
    claims: Acts = []
    claim = app.guard.claim

    async def counted(case: Case) -> Any:
        claims.append(case)
        return await claim(case)

    monkeypatch.setattr(app.guard, "claim", counted)

    @sf.effect(key="k:{x}")
    async def slow(x: int) -> int:
        acts.append(x)
        await asyncio.sleep(0.05)
        return len(acts)

    async with asyncio.timeout(20):  # who is not told looks again after a minute
        assert await asyncio.gather(*(slow(1) for _ in range(5))) == [1] * 5
    assert acts == [1]
    assert len(claims) <= 1 + 4 * 2  # who waits asks once more, when it has ended


async def test_not_done_ends_a_generation_and_the_next_has_its_own_key(app: sf.Surefoot) -> None:
    """Catches a refusal that blocks the key for ever, and a service's stored refusal met again."""
    keys: Acts = []

    @sf.effect(key="k:{x}", refused_on=(PermissionError,))
    async def refused(x: int) -> str:
        keys.append(sf.current_effect().idempotency_key)
        if len(keys) == 1:
            raise PermissionError("limit reached")
        return "ok"

    with pytest.raises(sf.NotDone, match="limit reached"):
        await refused(1)
    assert await refused(1) == "ok"
    assert keys[1] == f"{keys[0]}-2"


async def test_any_other_exception_is_unknown_and_keeps_the_key(app: sf.Surefoot) -> None:
    """Catches a blind retry, and a failure told where nobody knows."""
    acts: Acts = []

    @sf.effect(key="k:{x}")
    async def breaks(x: int) -> str:
        acts.append(x)
        raise RuntimeError("connection reset")

    for _ in range(2):
        with pytest.raises(sf.OutcomeUnknown):
            await breaks(1)
    assert acts == [1]
    (doubt,) = unknowns(app)
    await resolve(app, doubt.id, is_done=True, value="seen")
    assert await breaks(1) == "seen"
    with pytest.raises(desk.CannotResolve, match="not in doubt"):
        await resolve(app, doubt.id, is_done=False)


@pytest.mark.parametrize(("error", "one_request", "told"), [
    (ConnectionRefusedError("no"), True, "not_done"), (ConnectionRefusedError("no"), False, "unknown"),
    (ConnectionResetError("cut"), True, "unknown"), (TimeoutError(), True, "unknown"),
    (sf.NotDone("closed"), False, "not_done"), (ValueError("?"), True, "unknown"),
])  # fmt: skip
async def test_what_an_exception_says_about_the_world(
    app: sf.Surefoot, error: Exception, one_request: bool, told: str
) -> None:
    """Catches exceptions read as "not done" that may come after the act."""

    @sf.effect(one_request=one_request)
    async def raises() -> None:
        raise error

    assert (await raises.outcome()).told == told


async def test_resend_uses_the_same_key_and_the_same_arguments(app: sf.Surefoot) -> None:
    """Catches a key per attempt."""
    sent: Acts = []

    @sf.effect(in_doubt=sf.Resend(key_ttl="1h"))
    async def send(x: int) -> str:
        effect = sf.current_effect()
        sent.append((effect.idempotency_key, x, effect.token))
        if len(sent) < 3:
            raise TimeoutError
        return "ok"

    assert await send(7) == "ok"
    assert len({(key, x) for key, x, _ in sent}) == 1
    assert [token for *_, token in sent] == sorted({token for *_, token in sent}), "tokens must grow"


async def test_an_expired_key_is_not_sent_again(app: sf.Surefoot) -> None:
    """Catches a resend after the service has forgotten the key."""
    sent: Acts = []

    @sf.effect(in_doubt=sf.Resend(key_ttl="20ms"))
    async def send() -> str:
        sent.append(1)
        await asyncio.sleep(0.03)
        raise TimeoutError

    assert (await send.outcome()).told == "unknown"
    assert sent == [1]


async def test_recorded_arguments_that_no_longer_fit_block_their_run_until_the_code_does(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a mistake of the deployed code that becomes, and stays, the outcome of the step."""
    sent: Acts = []

    @sf.effect(name="sends again", in_doubt=sf.Resend())
    async def send(x: int) -> str:
        sent.append(x)
        if len(sent) == 1:
            raise TimeoutError
        return "sent"

    @sf.durable(name="catches all")
    async def catches_all() -> str:
        try:
            return await send(7)
        except Exception as error:
            return f"caught {error}"

    def renamed(_spec: EffectSpec, _arguments: bytes) -> dict[str, Any]:
        raise Undecodable("x is gone", hint="bring it back")

    monkeypatch.setattr(EffectSpec, "rebuild", renamed)
    run = await app.start(catches_all, id="c")
    assert "x is gone" in (await wait_state(run, "waiting", "blocked")).reason
    monkeypatch.undo()
    await run.wake()
    assert await run.result(timeout_s=10) == "sent"
    assert sent == [7, 7]


async def test_a_run_goes_on_when_a_thread_that_outlived_its_time_has_failed(app: sf.Surefoot) -> None:
    """Catches a run that is parked until a thread ends, and is told by nobody that it has."""
    may_end, sent = threading.Event(), []

    @sf.effect(name="slow in a thread", timeout_s=0.05, in_doubt=sf.Resend())
    def send() -> str:
        sent.append(1)
        if len(sent) == 1:
            may_end.wait(10)
            raise TimeoutError("no answer")
        return "sent"

    @sf.durable(name="sends in a thread")
    async def sends() -> str:
        return await sf.in_thread(send)

    run = await app.start(sends, id="s")
    await wait_state(run, "waiting", "doubt")
    may_end.set()
    assert await run.result(timeout_s=10) == "sent"
    assert len(sent) == 2


async def test_the_late_answer_of_a_thread_is_the_outcome_of_its_step(app: sf.Surefoot) -> None:
    """Catches a second act after the first one's late answer, and an answer that is recorded twice, or for nobody."""
    may_end, sent = threading.Event(), []

    @sf.effect(name="late in a thread", timeout_s=0.01)
    def send() -> str:
        sent.append(1)
        may_end.wait(10)
        return "sent"

    @sf.durable(name="sends late in a thread")
    async def sends() -> str:
        return await sf.in_thread(send)

    run = await app.start(sends, id="s")
    await wait_state(run, "waiting", "doubt")
    may_end.set()
    assert await run.result(timeout_s=10) == "sent"
    assert len(sent) == 1
    assert kinds(app, "s") == ["started", "claimed", "done", "ended"]


async def test_a_thread_whose_caller_was_cancelled_keeps_its_claim_until_it_ends(app: sf.Surefoot) -> None:
    """Catches a doubt, or a second act, beside a thread that goes on, and an answer that nobody takes."""
    has_begun, may_end, sent = threading.Event(), threading.Event(), []

    @sf.effect(key="thread:{x}", in_doubt=sf.Resend())
    def send(x: int) -> str:
        sent.append(x)
        has_begun.set()
        may_end.wait(10)
        return "sent"

    calling = asyncio.create_task(send.outcome(1))
    await asyncio.to_thread(has_begun.wait, 10)
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    again = asyncio.create_task(send.outcome(1))
    await app.store.commit(lambda _: None, label="test")
    assert [one.state for one in app.store.read_now(desk.list_effects)] == ["claimed"]
    may_end.set()
    async with asyncio.timeout(10):
        outcome = await again
    assert (outcome.told, outcome.value, sent) == ("repeated", "sent", [1])
    assert app.guard.acting == {}


async def test_the_current_effect_is_that_whose_code_runs(app: sf.Surefoot) -> None:
    """Catches a key that is used after its effect, or inside another one."""
    seen: Acts = []

    @sf.effect(key="inner:{x}")
    async def inner(x: int) -> None:
        seen.append(sf.current_effect().key)
        if x > 1:
            raise sf.NotDone("closed")

    @sf.effect(key="outer:{x}")
    async def outer(x: int) -> str:
        told = [(await inner.outcome(y)).told for y in (1, 2)]
        seen.append(sf.current_effect().key)
        return ", ".join(told)

    async def ask(x: int) -> sf.Landed:
        seen.append(sf.current_effect().key)
        return sf.Landed(x)

    @sf.effect(key="asked:{x}", in_doubt=sf.Probe(ask, longest_life="1ms"))
    async def asked(x: int) -> int:
        raise TimeoutError

    assert await outer(7) == "done, not_done"
    assert await asked(7) == 7
    assert seen == ["inner:1", "inner:2", "outer:7", "asked:7"]
    with pytest.raises(sf.SurefootError, match="called outside an effect"):
        sf.current_effect()


@pytest.mark.parametrize("declared", ["renamed", "retyped", "breaks", "is cancelled"])
async def test_a_doubt_that_cannot_be_looked_into_leaves_the_others_their_sweep(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch, declared: str
) -> None:
    """Catches one doubt, older than its code, that keeps all the others from ever being ended."""
    monkeypatch.setattr("surefoot.effects.live.sweep.IDLE_MS", -1_000)

    async def ask(x: Any) -> sf.Landed:
        return sf.Landed(x)

    has_begun = asyncio.Event()

    async def act(x: str) -> str:
        has_begun.set()
        await asyncio.Event().wait()
        return x

    in_doubt = sf.Probe(ask, longest_life=0.001)
    for effect in [sf.effect(name=name, key="k:{x}", in_doubt=in_doubt)(act) for name in ("old", "good")]:
        task = asyncio.create_task(effect.outcome("one"))
        await has_begun.wait()
        has_begun.clear()
        task.cancel()
        await asyncio.wait([task])
    await app.store.barrier()

    async def renamed(y: str) -> str:
        return y

    async def retyped(x: Decimal) -> str:
        return str(x)

    class Breaks(EffectSpec):
        looks = 0

        def rebound(self, bound: Bound, arguments: bytes) -> Bound:
            self.looks += 1
            if self.looks > 1:
                raise RuntimeError("broken") if declared == "breaks" else asyncio.CancelledError
            return super().rebound(bound, arguments)

    new: dict[str, Any] = {"renamed": renamed, "retyped": retyped}
    spec = EffectSpec if declared in new else Breaks
    registry.register(spec(new.get(declared, act), name="old", in_doubt=in_doubt))
    said: list[str] = []
    await sweep(app.guard, complain=lambda message, _: said.append(message))
    states = {one.name: one.state for one in app.store.read_now(desk.list_effects)}
    assert states == {"old": "unknown", "good": "done"}
    assert bool(said) == (declared not in new)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_who_waits_in_another_loop_is_told_at_once(app: sf.Surefoot, is_answered: bool) -> None:
    """Catches an end told within one loop only: a caller in a thread's own loop would sit out its patience of a minute."""
    begun, go, asks = threading.Event(), threading.Event(), [0]

    async def ask(x: int) -> sf.Landed:
        asks[0] += 1
        await asyncio.sleep(0.3)
        return sf.Landed(x)

    @sf.effect(key="loops:{x}", in_doubt=sf.Probe(ask, longest_life=0.3))
    def act(x: int) -> int:
        begun.set()
        go.wait(5)
        if is_answered:
            return x
        raise ConnectionResetError

    @sf.durable
    async def acts() -> int:
        return await sf.in_thread(act, 1)

    run = await app.start(acts, id="a")
    await asyncio.to_thread(begun.wait)
    outside = asyncio.create_task(asyncio.to_thread(act, 1))  # outside the run, so in a loop beside the run's
    await asyncio.sleep(0.1)
    go.set()
    async with asyncio.timeout(5):
        assert [await run.result(), await outside] == [1, 1]
    assert asks == [0 if is_answered else 1]


async def test_a_claim_whose_caller_has_yet_to_hear_of_it_is_not_left_behind(app: sf.Surefoot) -> None:
    """Catches a second send beside the first, by a caller in another loop, while the first one's loop is busy."""
    sent: Acts = []

    @sf.effect(key="busy:{x}", in_doubt=sf.Resend())
    def send(x: int) -> int:
        sent.append(x)
        return x

    def is_claimed() -> bool:
        return bool(app.store.read_now(desk.list_effects))

    @sf.durable
    async def keeps_its_loop_busy() -> int:
        first = asyncio.create_task(sf.in_thread(send, 1))
        while not app.store.writer._queue and not is_claimed():
            await asyncio.sleep(0)
        while not is_claimed():
            pass
        other.start()
        other.join(0.3)
        return await first

    other = threading.Thread(target=send, args=(1,))  # outside the run, so in a loop beside the run's
    run = await app.start(keeps_its_loop_busy, id="k")
    assert await run.result(timeout_s=5) == 1
    await asyncio.to_thread(other.join)
    assert sent == [1]


@pytest.mark.parametrize("is_open", [True, False])
def test_an_app_opened_after_a_fork_performs_effects(url: str, is_open: bool) -> None:
    """Catches a fork that takes its parent's app for its own, or waits for a thread that only its parent has."""
    script = f"""
import asyncio, os, signal
import surefoot as sf

@sf.effect(key="forked:{{x}}")
def act(x):
    return x

async def acts(x):
    async with sf.Surefoot({url!r}):
        await sf.in_thread(act, x)

async def main():
    if {is_open}:
        await sf.Surefoot({url!r}, is_worker=False).open()
    else:
        await acts(1)

asyncio.run(main())
if os.fork() == 0:
    signal.alarm(10)
    asyncio.run(acts(2))
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_configured_store_is_opened_anew_after_a_fork(url: str) -> None:
    """Catches a process pool whose parent has used an effect: its children could claim in no store, and open none."""
    script = f"""
import asyncio, os, signal
import surefoot as sf

@sf.effect(key="forked:{{x}}")
async def act(x):
    return x

sf.configure({url!r})
asyncio.run(act(1))
if os.fork() == 0:
    signal.alarm(10)
    asyncio.run(act(2))
    asyncio.run(act(3))
    os._exit(0)
ended = os.waitstatus_to_exitcode(os.wait()[1])
asyncio.run(act(4))
os._exit(ended)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr


async def test_doubts_behind_those_of_persons_are_looked_into(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a sweep that sees the oldest doubts only, which nobody may end for weeks."""
    monkeypatch.setattr("surefoot.effects.live.sweep.IDLE_MS", 0)
    monkeypatch.setattr("surefoot.effects.live.sweep.BATCH", 3)
    monkeypatch.setattr("surefoot.effects.doubt.ASKS_MAX", 0)
    is_asked: list[bool] = []

    @sf.effect(name="asks a person", key="{x}")
    async def asks_person(x: int) -> None:
        raise TimeoutError

    def look() -> sf.Landed:
        is_asked.append(True)
        return sf.Landed()

    @sf.effect(name="probed behind", in_doubt=sf.Probe(look, longest_life="1ms"))
    async def probed() -> None:
        raise TimeoutError

    for x in range(7):
        assert (await asks_person.outcome(x)).told == "unknown"
    assert (await probed.outcome()).told == "unknown"
    monkeypatch.setattr("surefoot.effects.doubt.ASKS_MAX", 4)
    await asyncio.sleep(0.01)
    seen = [0]
    for _ in range(4):
        seen.append(await sweep(app.guard, seen[-1]))
    assert is_asked == [True]
    assert seen == [0, 3, 6, 0, 3]


@pytest.mark.sqlite_only("moves the clocks of the host, and PostgreSQL has its own")
async def test_a_send_counts_from_the_claim_and_not_from_before_a_gates_pause(url: str) -> None:
    """Catches a request that has expired before it is sent, and a key whose age no two clocks agree on."""
    clock, left_ms = JumpingClock(), []

    class Pauses:
        name = "pauses"

        def admit(self, tx: Tx, request: Request) -> Pass | Wait:
            if clock.ahead_ms:
                return Pass()
            clock.ahead_ms = 5_000
            return Wait("for a slot", retry_ms=1)

        def release(self, tx: Tx, request: Request) -> None: ...

    @sf.effect(in_doubt=sf.Probe(sf.Landed, longest_life=4))
    async def act() -> None:
        left_ms.append((sf.current_effect().expires_at_ms or 0) - clock.wall_ms())

    async with sf.Surefoot(url, clock=clock, gates=[Pauses()]):
        await act()
    assert 3_000 < left_ms[0] <= 4_000


async def test_a_probe_is_asked_behind_the_fence_and_then_decides(app: sf.Surefoot) -> None:
    """Catches a probe before stragglers have landed, a send without a probe, a probe's answer thrown away."""
    world: dict[str, str] = {}
    asked: Acts = []

    async def ask(x: int) -> sf.Landed | sf.NotLanded:
        asked.append(time.monotonic())
        key = sf.current_effect().idempotency_key
        return sf.Landed(world[key]) if key in world else sf.NotLanded()

    sent: Acts = []

    @sf.effect(in_doubt=sf.Probe(ask, longest_life="150ms"))
    async def mail(x: int) -> str:
        sent.append(time.monotonic())
        key = sf.current_effect().idempotency_key
        asyncio.get_running_loop().call_later(0.1, world.__setitem__, key, "m1")  # the straggler
        raise TimeoutError

    assert await mail(1) == "m1"
    assert len(sent) == 1
    assert asked[0] - sent[0] >= 0.15


async def test_a_probe_that_finds_nothing_leads_to_one_more_send(app: sf.Surefoot) -> None:
    """Catches giving up, or sending more than once per probe."""
    sent: Acts = []

    @sf.effect(in_doubt=sf.Probe(sf.NotLanded, longest_life="20ms"))
    async def mail() -> str:
        sent.append(1)
        if len(sent) == 1:
            raise TimeoutError
        return "ok"

    assert await mail() == "ok"
    assert sent == [1, 1]


class Post:
    """A service with a look-up, reached over a slow way: each call ends without an answer, and what the second one sent
    lands after that. It keeps the times that a fence must respect."""

    LIFE_S, CALL_S = 0.5, 0.4  # a call takes longer than the pause before the next question, which would hide the fence

    def __init__(self) -> None:
        self.begun = 0
        self.landed: list[str] = []
        self.ended_s: list[float] = []
        self.hurried: list[tuple[int, float]] = []
        self.loop = asyncio.get_running_loop()

    def end(self) -> None:
        """A call ends: its client gives up, or is given up."""
        self.ended_s.append(time.monotonic())
        if len(self.ended_s) == 2:
            self.loop.call_soon_threadsafe(self.loop.call_later, 0.8 * self.LIFE_S, self.landed.append, "m1")

    async def ask(self, x: int) -> sf.Landed | sf.NotLanded:
        """The look-up."""
        since_s = time.monotonic() - self.ended_s[-1]
        if self.begun > len(self.ended_s) or since_s < self.LIFE_S - 0.005:  # clocks are read in whole milliseconds
            self.hurried.append((len(self.ended_s), since_s))
        return sf.Landed(self.landed[0]) if self.landed else sf.NotLanded()


@pytest.mark.parametrize("way", ["it raises", "it is out of time", "its caller is cancelled", "it runs on in a thread"])
async def test_each_send_without_an_answer_has_a_fence_of_its_own(app: sf.Surefoot, way: str) -> None:
    """Catches a fence that counts from the beginning of an act or from an earlier send, whichever way an act ends."""
    post = Post()
    is_out_of_time, is_in_thread = way == "it is out of time", way == "it runs on in a thread"
    in_doubt = sf.Probe(post.ask, longest_life=post.LIFE_S)

    @sf.effect(name="mail", key="m:{x}", in_doubt=in_doubt, timeout_s=post.CALL_S if is_out_of_time else None)
    async def mail(x: int) -> str:
        post.begun += 1
        try:
            await asyncio.sleep(10 if is_out_of_time else post.CALL_S)
            raise TimeoutError
        finally:
            post.end()

    @sf.effect(name="mail in a thread", key="m:{x}", in_doubt=in_doubt, timeout_s=post.CALL_S / 4)
    def mail_in_thread(x: int) -> str:
        post.begun += 1
        time.sleep(2.5 * post.CALL_S)  # until long after any fence that counts from its beginning
        post.end()
        raise TimeoutError

    async def until_known() -> sf.Outcome:
        while (outcome := await (mail_in_thread if is_in_thread else mail).outcome(1)).told == "unknown":
            await asyncio.sleep(0.01)
        return outcome

    if way == "its caller is cancelled":
        first = asyncio.ensure_future(until_known())
        async with asyncio.timeout(10):
            while post.begun < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.9 * post.CALL_S)
        first.cancel()
        await asyncio.wait([first])
    async with asyncio.timeout(10):
        outcome = await until_known()
    assert (outcome.value, post.begun, post.landed, post.hurried) == ("m1", 2, ["m1"], [])


async def test_an_end_that_is_noted_late_moves_the_fence(app: sf.Surefoot) -> None:
    """Catches a fence that counts from when a sender was taken for gone, where it has gone on and told when it ended."""
    post = Post()

    @sf.effect(in_doubt=sf.Probe(post.ask, longest_life=post.LIFE_S))
    async def mail(x: int) -> str:
        post.begun += 1
        post.end()
        raise TimeoutError

    def note_end(tx: Tx) -> None:
        row = ledger.get(tx.connection, 1)
        assert row is not None
        ledger.doubt(tx, row, app.guard.duty.session.id, app.store.clock.boot_ms())

    asking = asyncio.ensure_future(mail.outcome(1))
    await asyncio.sleep(0.6 * post.LIFE_S)  # in the middle of its fence
    post.ended_s[0] = time.monotonic()
    await app.store.commit(note_end, label="test")
    assert (await asking).value == "m1"
    assert post.hurried == []


PROBE, KEYS = sf.Probe(sf.NotLanded, longest_life="1h"), sf.Resend()
REFUSED, NEVER_SENT = sf.NotDone("there is one already"), ConnectionRefusedError("no")


@pytest.mark.parametrize("is_in_run", [False, True], ids=["alone", "in a run"])
@pytest.mark.parametrize(("in_doubt", "is_sent_again", "recorded", "late", "is_contradiction"), [
    pytest.param(PROBE, True, "m1", NEVER_SENT, False, id="never sent, and sent by another"),
    pytest.param(PROBE, True, "m1", REFUSED, False, id="refused, as another has done it"),
    pytest.param(PROBE, False, "m1", NEVER_SENT, True, id="never sent, but found done"),
    pytest.param(KEYS, True, "m1", NEVER_SENT, False, id="never sent, and sent by another under the same key"),
    pytest.param(KEYS, True, "m1", REFUSED, True, id="one key, two stored answers"),
    pytest.param(PROBE, True, "m1", "m1", False, id="the same answer"),
    pytest.param(PROBE, True, "m1", "m2", True, id="done twice"),
    pytest.param(PROBE, True, None, "m1", True, id="done, but recorded as not done"),
])  # fmt: skip
async def test_a_late_answer_gives_way_and_is_a_contradiction_where_it_disagrees(
    app: sf.Surefoot, in_doubt: sf.Probe | sf.Resend, is_sent_again: bool, recorded: str | None,
    late: str | Exception, is_contradiction: bool, is_in_run: bool,
) -> None:  # fmt: skip
    """Catches a caller, or a run, that goes on with its own late answer, a contradiction kept silent, and an alarm about
    nothing: what is said of one request says nothing of another's."""
    other = app.guard.duty.session.id + 1_000
    acts: Acts = []

    def be_overtaken(tx: Tx) -> None:
        row = ledger.get(tx.connection, 1)
        assert row is not None
        theirs = ledger.take_over(tx, row, other, app.store.clock.boot_ms() if is_sent_again else None)
        assert theirs is not None
        kind, state = (Kind.NOT_DONE, State.NOT_DONE) if recorded is None else (Kind.DONE, State.DONE)
        body = None if recorded is None else msgspec.json.encode(recorded)
        ledger.settle(tx, row.id, theirs.token, state, insert_record(tx, Record(None, 0, kind, "", body=body)))

    @sf.effect(in_doubt=in_doubt, one_request=True)
    async def mail() -> str:
        acts.append(1)
        await app.store.commit(be_overtaken, label="test")  # as if this process had been stopped here
        if isinstance(late, Exception):
            raise late
        return late

    @sf.durable
    async def order() -> list[Any]:
        outcome = await mail.outcome()
        return [outcome.told, outcome.value]

    if is_in_run:
        run = await app.start(order, id="o")
        async with asyncio.timeout(10):
            while "late answer" not in [one.kind for one in app.store.read_now(partial(desk.evidence, effect=1))]:
                await asyncio.sleep(0.01)
        app.guard.duty.session.is_lost = True  # which is why it was overtaken
        told = await run.result()
    else:
        told = await order()
    assert told == (["not_done", None] if recorded is None else ["done", recorded])
    assert len(app.store.read_now(desk.evidence)) == is_contradiction
    assert acts == [1]


@pytest.mark.parametrize(("state", "body", "late", "is_contradiction"), [
    pytest.param(State.COMPENSATED, b'"m1"', "m2", False, id="done, and undone since"),
    pytest.param(State.COMPENSATED, b'"m1"', REFUSED, True, id="not done, though it was undone"),
    pytest.param(State.DONE, None, "m1", False, id="done, and nobody has said with what value"),
    pytest.param(State.DONE, b'"m1"', object(), False, id="done, with a value that can't be kept"),
    pytest.param(State.NOT_DONE, None, REFUSED, False, id="not done, and not done"),
    pytest.param(State.NOT_DONE, None, object(), True, id="not done, and done with a value that can't be kept"),
])  # fmt: skip
async def test_what_a_late_answer_agrees_with(
    app: sf.Surefoot, state: State, body: bytes | None, late: Any, is_contradiction: bool
) -> None:
    """Catches an alarm about two words for one thing, and silence about two things."""

    def be_settled(tx: Tx) -> None:
        row = ledger.get(tx.connection, 1)
        assert row is not None
        theirs = ledger.take_over(tx, row, app.guard.duty.session.id + 1_000, None)
        assert theirs is not None
        kind = Kind.NOT_DONE if state is State.NOT_DONE else Kind.DONE
        record = insert_record(tx, Record(None, 0, kind, "", body=body))
        ledger.settle(tx, row.id, theirs.token, State.NOT_DONE if state is State.NOT_DONE else State.DONE, record)
        if state is State.COMPENSATED:
            ledger.compensated(tx, row.id)

    @sf.effect
    async def mail() -> Any:
        await app.store.commit(be_settled, label="test")
        if isinstance(late, Exception):
            raise late
        return late

    await mail.outcome()
    (noted,) = [one for one in app.store.read_now(partial(desk.evidence, effect=1)) if one.kind == "late answer"]
    assert noted.is_open == is_contradiction
    found = "not_done" if late is REFUSED else "done"
    value = late if isinstance(late, str) else None
    assert (noted.body["found"], noted.body["token"], noted.body["value"]) == (
        found,
        1,
        msgspec.json.encode(value).decode(),
    )


@pytest.mark.parametrize("in_doubt", [sf.AskPerson(), sf.Resend(), sf.Probe(sf.Landed, longest_life="1h")])
async def test_what_an_effect_can_ask_of_itself(app: sf.Surefoot, in_doubt: Any) -> None:
    """Catches a token that doesn't grow, a key of another generation, and an expiry where the service checks none."""
    seen: Acts = []

    @sf.effect(name="asks", key="asks:{x}", in_doubt=in_doubt, refused_on=(PermissionError,))
    async def asks(x: int) -> None:
        seen.append(sf.current_effect())
        if len(seen) == 1:
            raise PermissionError

    @sf.durable
    async def asks_in_a_run() -> None:
        await asks(1)

    assert (await asks.outcome(1)).told == "not_done"
    await (await app.start(asks_in_a_run, id="r")).result(timeout_s=10)
    assert [(one.name, one.key, one.generation, one.attempt, one.run_id, one.transaction) for one in seen] == [
        ("asks", "asks:1", 1, 1, None, None), ("asks", "asks:1", 2, 1, "r", None)
    ]  # fmt: skip
    assert [one.token for one in seen] == [token_of(app.guard.incarnation, 1)] * 2
    assert seen[1].idempotency_key == f"{seen[0].idempotency_key}-2"
    assert [one.expires_at_ms is not None for one in seen] == [isinstance(in_doubt, sf.Probe)] * 2


async def test_a_call_that_is_left_before_the_act_is_not_done(app: sf.Surefoot) -> None:
    """Catches a doubt about what nobody has sent, which a person would have to end: a web server's client has gone away
    while the claim was being written."""
    acts: Acts = []

    @sf.effect(key="k:{x}", resource="thing")
    async def act(x: int) -> None:
        acts.append(x)

    await held_up(app, act(1))
    (left,) = app.store.read_now(desk.list_effects)
    assert (left.state, left.reason, unknowns(app)) == ("not_done", "its caller left before the act", [])
    assert ((await act.outcome(1)).told, acts) == ("done", [1])
    await held_up(app, act(2), lambda tx: tx.execute("UPDATE ledger SET token = token + 1 WHERE state = 2"))
    assert app.store.read_now(desk.list_effects)[0].state == "claimed", "another has taken it over"


async def test_a_step_that_is_left_before_its_act_is_not_done(app: sf.Surefoot) -> None:
    """Catches a doubt about what nobody has sent, in a run that goes on without it."""
    acts: Acts = []

    @sf.effect(key="k:{x}")
    async def act(x: int) -> None:
        acts.append(x)

    @sf.durable
    async def leaves() -> None:
        await held_up(app, act(1))

    await (await app.start(leaves, id="l")).result(timeout_s=10)
    (left,) = app.store.read_now(desk.list_effects)
    assert (left.state, left.reason, unknowns(app), acts) == ("not_done", "its caller left before the act", [], [])


@pytest.mark.one_worker("another takes what was handed back")
@pytest.mark.parametrize("approve", [None, sf.Approve(when=lambda x: x > 1)])
async def test_a_run_handed_back_while_its_claim_is_on_its_way_claims_it_anew(
    url: str, approve: sf.Approve | None
) -> None:
    """Catches a deploy that leaves a doubt about what nobody has sent, which a person would have to end; a run that is
    told of its own leaving; and one that asks for an approval which it doesn't need."""
    acts: Acts = []
    may_write, is_held_up = threading.Event(), asyncio.Event()

    @sf.effect(approve=approve)
    async def act(x: int) -> None:
        acts.append(x)

    @sf.durable
    async def handed_back() -> str:
        if not may_write.is_set():
            opened[0].store.append(lambda _: may_write.wait(10), label="test", on_error=None)
            is_held_up.set()
        try:
            return (await act.outcome(1)).told
        finally:
            may_write.set()

    opened: list[sf.Surefoot] = []
    async with sf.Surefoot(url) as app:
        opened.append(app)
        await app.start(handed_back, id="h")
        await is_held_up.wait()
    async with sf.Surefoot(url) as app:
        assert (await (await app.run("h")).result(timeout_s=10), acts) == ("done", [1])
        states = [(one.generation, one.state) for one in app.store.read_now(desk.list_effects)]
        assert (sorted(states), unknowns(app)) == ([(1, "not_done"), (2, "done")], [])


@pytest.mark.one_worker("another takes what was handed back")
async def test_a_claim_that_was_left_is_not_claimed_anew_after_the_deadline(url: str) -> None:
    """Catches an act that is begun after its run's deadline, because an earlier claim of it was left before the act."""
    acts: Acts = []
    may_write, is_held_up, clock = threading.Event(), asyncio.Event(), JumpingClock()

    @sf.effect(key="late:{x}")
    async def act(x: int) -> None:
        acts.append(x)

    @sf.durable
    async def late() -> str:
        if not may_write.is_set():
            opened[0].store.append(lambda _: may_write.wait(10), label="test", on_error=None)
            is_held_up.set()
        try:
            return (await act.outcome(1)).told
        except sf.DeadlinePassed:
            return f"too late, {(await act.outcome(2)).told}"
        finally:
            may_write.set()

    opened: list[sf.Surefoot] = []
    async with sf.Surefoot(url, clock=clock) as app:
        opened.append(app)
        await app.start(late, id="late", deadline_s=3_600)
        await is_held_up.wait()
    clock.ahead_ms = 7_200_000
    async with sf.Surefoot(url, clock=clock) as app:
        assert await (await app.run("late")).result(timeout_s=10) == "too late, done"
        assert acts == [2]
        assert kinds(app, "late") == ["started", "claimed", "expired", "claimed", "done", "ended"]
        is_sound(app)


async def test_who_looks_into_a_claim_that_turns_out_to_be_left_claims_it_anew(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a caller who is told that another one has left, in place of what he has asked for."""
    acts, cases, claim = list[int](), list[Case](), app.guard.claim

    async def ask(x: int) -> sf.NotLanded:
        return sf.NotLanded()

    @sf.effect(key="k:{x}", in_doubt=sf.Probe(ask, longest_life="1s"))
    async def act(x: int) -> int:
        acts.append(x)
        if len(acts) == 1:
            await asyncio.Event().wait()
        return x

    async def noted(case: Case) -> Any:
        cases.append(case)
        return await claim(case)

    monkeypatch.setattr(app.guard, "claim", noted)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(act(1), 0.1)
    await until(lambda: bool(unknowns(app)))
    second = asyncio.create_task(act.outcome(1))
    await until(lambda: bool(app.guard.resolving))
    app.guard.abandon(cases[0])  # as one does that has lost its session in between
    assert ((await second).told, acts) == ("done", [1, 1])
    assert sorted((one.generation, one.state) for one in app.store.read_now(desk.list_effects)) == [
        (1, "not_done"),
        (2, "done"),
    ]


async def test_who_waits_for_a_claim_that_is_left_does_not_claim_it_anew_after_the_deadline(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an act that is begun after its run's deadline, which has passed while the run looked into another's claim."""
    acts, cases, may_look = list[int](), list[Case](), asyncio.Event()

    async def pause(_guard: Any, _case: Case, _after_ms: int) -> None:
        await may_look.wait()

    @sf.effect(key="k:{x}", in_doubt=sf.Resend())
    async def act(x: int) -> int:
        acts.append(x)
        await asyncio.Event().wait()
        return x

    @sf.durable
    async def late() -> str:
        try:
            return (await act.outcome(1)).told
        except sf.DeadlinePassed:
            return "too late"

    async with sf.Surefoot(url) as app:
        claim = app.guard.claim

        async def noted(case: Case) -> Any:
            cases.append(case)
            return await claim(case)

        monkeypatch.setattr(app.guard, "claim", noted)
        monkeypatch.setattr(resolving, "_pause", pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(act(1), 0.1)
        await until(lambda: bool(unknowns(app)))
        run = await app.start(late, id="late", deadline_s=3_600)
        await until(lambda: bool(app.guard.resolving) and len(cases) > 1)
        app.worker.live[run.row].deadline.expire()
        app.guard.abandon(cases[0])
        await app.store.barrier()
        may_look.set()
        assert (await run.result(timeout_s=10), acts) == ("too late", [1])
        assert kinds(app, "late") == ["started", "expired", "ended"]


async def test_a_later_send_that_a_lost_session_forbids_leaves_the_first_in_doubt(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches "not done" about an effect whose first send may have landed, because the second was not sent."""
    acts: Acts = []

    @sf.effect(key="k:{x}", in_doubt=sf.Resend())
    async def act(x: int) -> None:
        acts.append(x)
        monkeypatch.setattr(app.guard.duty, "may_act_for", lambda _holder: False)
        raise ConnectionError("no answer")

    with pytest.raises(LeaseLost, match="nothing was sent"):
        await act(1)
    await app.store.barrier()
    (left,) = app.store.read_now(desk.list_effects)
    assert (left.state, acts) == ("unknown", [1])


async def test_a_doubt_whose_resolver_was_cancelled_is_left_to_others(app: sf.Surefoot) -> None:
    """Catches a claim taken over to ask, which nobody else may touch while its process lives, and nobody asks about."""
    is_asked = asyncio.Event()

    async def ask() -> sf.Landed:
        is_asked.set()
        await asyncio.sleep(10)
        return sf.Landed()

    @sf.effect(in_doubt=sf.Probe(ask, longest_life="10ms"))
    async def mail() -> None:
        raise TimeoutError

    asking = asyncio.ensure_future(mail())
    await asyncio.wait_for(is_asked.wait(), 10)
    asking.cancel()
    await asyncio.wait([asking])
    await app.store.commit(lambda _: None, label="test")
    assert [one.state for one in unknowns(app)] == ["unknown"]


async def test_not_done_is_refused_while_any_sender_lives(app: sf.Surefoot) -> None:
    """Catches a first sender that is forgotten once another has sent in its place: stopped, it can still send."""

    @sf.effect(key="k:{x}")
    async def breaks(x: int) -> None:
        raise TimeoutError

    def be_resent_by_the_dead(tx: Tx) -> None:
        row = ledger.get(tx.connection, 1)
        assert row is not None
        theirs = ledger.take_over(tx, row, app.guard.duty.session.id + 1_000, app.store.clock.boot_ms())
        assert theirs is not None
        ledger.doubt(tx, theirs, app.guard.duty.session.id, theirs.sent_boot_ms)

    assert (await breaks.outcome(1)).told == "unknown"
    await app.store.commit(be_resent_by_the_dead, label="test")
    with pytest.raises(desk.CannotResolve, match="still lives"):
        await resolve(app, 1, is_done=False)


async def test_overwrite_reads_back_when_its_precondition_fails(app: sf.Surefoot) -> None:
    """Catches our own first write being taken for another writer's."""
    world = {"address": "old", "etag": 1}
    tries: Acts = []

    @sf.effect(in_doubt=sf.Overwrite(read_back=lambda address: world["address"] == address))
    async def move(address: str, etag: int) -> str | None:
        tries.append(1)
        if etag != world["etag"]:
            raise sf.PreconditionFailed("412")
        world.update(address=address, etag=etag + 1)
        if len(tries) == 1:
            raise TimeoutError
        return "moved"

    assert (await move.outcome("new", 1)).told == "done"
    assert (await move.outcome("newer", 1)).told == "not_done"
    world["address"] = "somebody else's"
    assert len(tries) == 3


async def test_a_transactional_effect_commits_with_its_claim(app: sf.Surefoot) -> None:
    """Catches an act without its record, and a rollback that leaves a claim."""
    app.store.writer.commit_blocking(lambda tx: tx.execute("CREATE TABLE mine (x INTEGER)"), label="test")

    @sf.effect(key="book:{x}", in_doubt=sf.Transactional())
    def book(x: int) -> int:
        sf.current_effect().execute("INSERT INTO mine VALUES (?)", (x,))
        if x < 0:
            raise ValueError("negative")
        return x

    assert await sf.in_thread(book, 1) == 1
    assert await sf.in_thread(book, 1) == 1
    with pytest.raises(sf.NotDone, match="rolled back"):
        await sf.in_thread(book, -1)
    rows = app.store.read_now(lambda connection: connection.execute("SELECT x FROM mine").fetchall())
    assert rows == [(1,)]
    assert app.store.read_now(lambda connection: len(desk.list_effects(connection))) == 1


@pytest.mark.usefixtures("quick_eviction")
async def test_a_rolled_back_effect_is_not_tried_again_by_a_replay(app: sf.Surefoot) -> None:
    """Catches a refusal that its run was told, and that no record keeps."""
    acts: Acts = []

    @sf.effect(in_doubt=sf.Transactional())
    def refuses() -> None:
        acts.append(1)
        raise ValueError("negative")

    @sf.durable
    async def tries() -> list[str]:
        outcome = await refuses.outcome()
        await sf.wait_signal("go")
        return [outcome.told, outcome.reason]

    run = await app.start(tries, id="t")
    await wait_state(run, "waiting", "signal")
    await until(lambda: not app.worker.is_live(run.row))
    await run.signal("go")
    assert await run.result(timeout_s=10) == ["not_done", "rolled back: ValueError: negative"]
    assert acts == [1]


@pytest.mark.usefixtures("quick_eviction")
async def test_a_run_of_transactional_effects_is_sound(app: sf.Surefoot) -> None:
    """Catches a number that two records have, of an effect that was done before or is rolled back: a run that doctor takes
    for damaged, and no backup takes."""

    @sf.effect(key="book:{x}", in_doubt=sf.Transactional())
    def book(x: int) -> int:
        if x < 0:
            raise ValueError("negative")
        return x

    @sf.durable
    async def books() -> list[Any]:
        outcomes = [await book.outcome(x) for x in (1, 1, -1)]
        await sf.uuid()
        await sf.wait_signal("go")
        return [[one.told, one.value] for one in outcomes]

    run = await app.start(books, id="b")
    await wait_state(run, "waiting", "signal")
    is_sound(app)
    assert kinds(app, "b") == ["started", "claimed", "done", "repeated", "not_done", "decided"]
    await run.signal("go")
    assert await run.result(timeout_s=10) == [["done", 1], ["repeated", 1], ["not_done", None]]


@pytest.mark.parametrize("is_alone", [True, False])
async def test_a_run_that_waits_for_another_s_act_is_sound(app: sf.Surefoot, is_alone: bool) -> None:
    """Catches a run that doctor takes for damaged, and no backup takes, because a claim turned out to be another's."""
    may_end, has_asked = asyncio.Event(), asyncio.Event()

    @sf.effect(key="shared")
    async def act() -> str:
        await may_end.wait()
        return "acted"

    @sf.step
    async def beside() -> None:
        await has_asked.wait()

    @sf.durable
    async def asks(is_with_another: bool) -> str:
        async with asyncio.TaskGroup() as tasks:
            if is_with_another:
                tasks.create_task(beside())
            told = (await act.outcome()).told
        await sf.wait_signal("go")
        return told

    await app.start(asks, False, id="first")
    await until(lambda: bool(app.guard.acting))
    run = await app.start(asks, not is_alone, id="second")
    await until(lambda: any(one._waits for one in app.guard.acting.values()))
    has_asked.set()
    if not is_alone:
        await until(lambda: "decided" in kinds(app, "second"))
    may_end.set()
    await until(lambda: "repeated" in kinds(app, "second"))
    is_sound(app)
    await run.signal("go")
    assert await run.result(timeout_s=10) == "repeated"


async def test_a_doubt_that_ends_while_its_model_is_to_be_told_of_it_leaves_a_sound_run(
    app: sf.Surefoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a run that doctor takes for damaged because somebody has ended a doubt before its word of it was written."""
    facts = resolving._facts

    @sf.effect(when_unknown="tell_model")
    async def act() -> str:
        raise TimeoutError("no answer")

    @sf.durable
    async def asks() -> str:
        told = (await act.outcome()).told
        await sf.uuid()
        await sf.wait_signal("go")
        return told

    async def resolved(guard: Any, case: Case) -> Any:
        found = await facts(guard, case)
        await resolve(app, 1, is_done=True, value="acted")
        return found

    monkeypatch.setattr(resolving, "_facts", resolved)
    run = await app.start(asks, id="a")
    await until(lambda: "decided" in kinds(app, "a"))
    is_sound(app)
    await run.signal("go")
    assert await run.result(timeout_s=10) == "done"


async def test_a_transactional_effect_acts_once_though_others_fail_beside_it(app: sf.Surefoot) -> None:
    """Catches an act that is done again because it shared its transaction with one that was undone."""
    acts, is_writing, may_write = list[int](), threading.Event(), threading.Event()

    @sf.effect(in_doubt=sf.Transactional())
    def act() -> None:
        acts.append(1)

    def keep_busy(_tx: Tx) -> None:
        is_writing.set()
        may_write.wait(10)

    busy = asyncio.ensure_future(app.store.commit(keep_busy, label="test"))
    await asyncio.to_thread(is_writing.wait, 10)
    call = asyncio.ensure_future(act.outcome())
    await until(lambda: bool(app.store.writer._queue))
    app.store.append(lambda _: 1 // 0, label="test", on_error=None)
    may_write.set()
    await busy
    assert ((await call).told, acts) == ("done", [1])


async def test_a_sync_tool_that_times_out_still_runs_and_its_answer_counts(app: sf.Surefoot) -> None:
    """Catches a key freed, or a second act, while the thread of the first still runs."""
    acts: Acts = []

    @sf.effect(key="k:{x}", timeout_s=0.05, in_doubt=sf.Resend())
    def slow(x: int) -> str:
        acts.append(x)
        time.sleep(0.3)
        return "late"

    with pytest.raises(sf.OutcomeUnknown, match="thread"):
        await sf.in_thread(slow, 1)
    assert await sf.in_thread(slow, 1) == "late"
    assert acts == [1]


async def test_an_effect_whose_value_cannot_be_kept_is_still_done(app: sf.Surefoot) -> None:
    """Catches a done effect that is forgotten, and so repeated, because of what it returned."""
    acts: Acts = []

    @sf.effect(key="k:{x}")
    async def odd(x: int) -> Any:
        acts.append(x)
        return object()

    for _ in range(2):
        with pytest.raises(sf.Unserializable):
            await odd(1)
    assert acts == [1]
    assert app.store.read_now(desk.list_effects)[0].state == "done"


async def test_an_unknown_effect_parks_its_run_until_a_person_speaks(app: sf.Surefoot) -> None:
    """Catches a run that ends, or hangs without a word, over an unknown effect."""
    acts: Acts = []

    @sf.effect
    async def parcel() -> str:
        acts.append(1)
        raise TimeoutError

    @sf.durable
    async def sends() -> str:
        return str(await parcel())

    run = await app.start(sends, id="p")
    status = await wait_state(run, "waiting", "doubt")
    assert "parcel" in status.reason
    (doubt,) = unknowns(app)
    await resolve(app, doubt.id, is_done=True, value="by hand")
    assert await run.result(timeout_s=5) == "by hand"
    assert acts == [1]


async def test_no_run_completes_while_it_owns_an_unknown(app: sf.Surefoot) -> None:
    """Catches a completed run with an open effect that nobody looks at any more."""

    @sf.effect(when_unknown="tell_model")
    async def parcel() -> str:
        raise TimeoutError

    @sf.durable
    async def careless() -> str:
        try:
            await parcel()
        except sf.OutcomeUnknown:
            return "went on"
        return "done"

    run = await app.start(careless, id="c")
    await wait_state(run, "waiting", "doubt")
    (doubt,) = unknowns(app)
    await resolve(app, doubt.id, is_done=True, value="x")
    assert await run.result(timeout_s=5) == "went on"


async def test_a_second_run_under_the_same_key_gets_the_first_outcome(app: sf.Surefoot) -> None:
    """Catches a key that is only unique within a run."""
    acts: Acts = []

    @sf.effect(key="refund:{order}")
    async def refund_once(order: str) -> int:
        acts.append(order)
        return len(acts)

    @sf.durable
    async def refunds(ticket: int) -> int:
        return int(await refund_once("A"))

    results = [await (await app.start(refunds, i, id=f"t{i}")).result(timeout_s=5) for i in range(3)]
    assert results == [1, 1, 1]
    assert acts == ["A"]


async def test_what_a_run_was_told_it_is_told_again(url: str) -> None:
    """Catches a replay that goes another way because an outcome is told otherwise, or asked for anew."""
    calls: Acts = []

    @sf.effect(key="pay:{order}", refused_on=(PermissionError,))
    async def pay_once(order: str, cents: int) -> Any:
        calls.append(order)
        if order == "refused":
            raise PermissionError("closed account")
        return None if order == "nothing" else {"order": order}

    @sf.read
    async def look(order: str) -> Any:
        calls.append(f"look {order}")
        if order == "broken":
            raise ValueError("no such order")
        return None if order == "nothing" else order

    told, is_past, is_first = [], asyncio.Event(), True

    @sf.durable
    async def pays() -> None:
        orders = (("A", 1), ("A", 1), ("A", 2), ("refused", 1), ("nothing", 1), ("nothing", 1))
        outcomes = [await pay_once.outcome(*order) for order in orders]
        outcomes += [await look.outcome(order) for order in ("A", "broken", "nothing")]
        told.append([(one.told, one.value, one.reason, one.detail, one.effect) for one in outcomes])
        is_past.set()
        if is_first:
            await asyncio.Event().wait()

    async with sf.Surefoot(url) as app:
        await app.start(pays, id="p")
        await is_past.wait()
    is_first = False
    made = list(calls)
    async with sf.Surefoot(url) as app:
        await (await app.run("p")).result(timeout_s=10)
    assert told[0] == told[1]
    assert [one[:2] for one in told[0]] == [
        ("done", {"order": "A"}), ("repeated", {"order": "A"}), ("conflict", None), ("not_done", None), ("done", None),
        ("repeated", None), ("done", "A"), ("not_done", None), ("done", None),
    ]  # fmt: skip
    assert told[0][2][3] == {"recorded": {"order": "A", "cents": 1}, "asked": {"order": "A", "cents": 2}}
    assert calls == made == ["A", "refused", "nothing", "look A", "look broken", "look nothing"]


@pytest.mark.parametrize("wrong", [
    {"key": "k:{nope}"}, {"match": ("nope",)}, {"occurrence": "nope"}, {"when_unknown": "shrug"}, {"once_for": "ever"},
    {"timeout_s": 0}, {"key": "k:{x.y}"}, {"in_doubt": sf.Transactional()},
])  # fmt: skip
def test_a_declaration_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    """Catches typing errors that would silently guard nothing."""

    async def act(x: int) -> None: ...

    with pytest.raises(sf.BadEffect) as caught:
        sf.effect(**wrong)(act)
    assert caught.value.hint


async def test_an_empty_key_part_is_refused(app: sf.Surefoot) -> None:
    """Catches one key for all orders without a number."""

    @sf.effect(key="refund:{order}")
    async def refund_some(order: str | None) -> None: ...

    with pytest.raises(sf.BadEffect, match="is empty"):
        await refund_some(None)


def test_an_outcome_is_written_once_by_the_table() -> None:
    """Catches a way back from an outcome."""
    for state in State:
        for event in Event:
            after = next_state(state, event)
            if state not in OPEN and after is not None:
                assert (state, after) == (State.DONE, State.COMPENSATED)
    assert set(TABLE) == set(State)


async def test_undo_compensates_in_reverse_and_only_once(app: sf.Surefoot) -> None:
    """Catches compensation in the wrong order, twice, or of what never happened."""
    log: Acts = []

    @sf.effect(in_doubt=sf.Resend())
    async def unbook(what: str, outcome: str) -> None:
        log.append(f"-{what}:{outcome}")

    @sf.effect(key="book:{what}", compensate=unbook)
    async def book_it(what: str) -> str:
        log.append(f"+{what}")
        if what == "hotel":
            raise sf.NotDone("full")
        return f"ref-{what}"

    @sf.durable
    async def trip() -> None:
        for what in ("train", "flight", "hotel"):
            await book_it(what)

    run = await app.start(trip, id="t")
    with pytest.raises(sf.RunFailed, match="full"):
        await run.result(timeout_s=5)
    undone = await (await run.undo("hotel full")).result(timeout_s=5)
    assert undone == ["book:flight", "book:train"]
    await (await run.undo("again", id="t/undo2")).result(timeout_s=5)
    assert log == ["+train", "+flight", "+hotel", "-flight:ref-flight", "-train:ref-train"]
    assert await book_it("train") == "ref-train"  # compensated: the key acts again
    assert log[-1] == "+train"
