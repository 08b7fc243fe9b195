"""Encryption: nothing readable on disk, keys that change, keys that are missing, values that are moved."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.test_escalation import HOUR_MS, MovedClock
from tests.support.postgres import tables_of

import surefoot as sf
from surefoot.app import MIGRATIONS
from surefoot.cli import main
from surefoot.effects.live.sweep import sweep
from surefoot.effects.rows import desk, ledger
from surefoot.effects.states import State
from surefoot.journal import sealing
from surefoot.journal.encrypted import Encrypted
from surefoot.journal.payloads import keep_payload, load_payload
from surefoot.journal.records import Head
from surefoot.journal.tables import load_record
from surefoot.runs.rows.desk import show, unread
from surefoot.store import is_on_postgres, looking_at, open_store, parse_url
from surefoot.store.codec import SqliteConnection

OLD, NEW = b"o" * 32, b"n" * 32
SECRET = "4111-1111-1111-1111"


@sf.effect(key="pay:{order}", free_text=("card",))
async def pay(order: str, card: str) -> dict[str, str]:
    return {"paid with": card}


@sf.effect(key="doubt:{order}")
async def doubt(order: str, card: str) -> str:
    raise TimeoutError(f"no answer for {card}")


@sf.effect(key="refused:{order}")
async def refused(order: str, card: str) -> str:
    raise sf.NotDone(f"no money on {card}")


@sf.step
async def think(card: str) -> str:
    return card * 5_000


@sf.durable
async def secret_shop(order: str, card: str) -> dict[str, str]:
    await think(card)
    return await pay(order, card)


@sf.durable
async def secret_fails(card: str) -> None:
    raise ValueError(f"bad card {card}")


@sf.durable
async def secret_asks(order: str) -> Any:
    return await sf.wait_signal("card")


@sf.durable
async def secret_doubts(order: str, card: str) -> str:
    return await doubt(order, card)


def on_disk(url: str) -> bytes:
    if is_on_postgres(url):
        with looking_at(url, MIGRATIONS) as connection:
            rows = [connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables_of(connection)]
        values = [value for table in rows for row in table for value in row]
        return b"".join(value if isinstance(value, bytes) else str(value).encode() for value in values)
    path = parse_url(url)
    return b"".join(Path(f"{path}{end}").read_bytes() for end in ("", "-wal") if Path(f"{path}{end}").exists())


async def work(app: sf.Surefoot) -> None:
    """Leave the secret in every place where values lie."""
    await (await app.start(secret_shop, "A-1", SECRET, id="done")).result()
    with pytest.raises(sf.RunFailed, match=SECRET):
        await (await app.start(secret_fails, SECRET, id="failed")).result()
    unknown = await app.start(secret_doubts, "A-2", SECRET, id="unknown")
    asking = await app.start(secret_asks, "A-3", id="asks")
    for run, wanted in ((unknown, "doubt"), (asking, "signal")):
        async with asyncio.timeout(20):
            while (await run.status()).waiting_for != wanted:
                await asyncio.sleep(0.01)


def seen(app: sf.Surefoot) -> list[Any]:
    """Return what people are shown of it."""

    def query(connection: Any) -> list[Any]:
        return [
            *((v.key, v.arguments, v.value, v.reason) for v in desk.list_effects(connection)),
            *((e.kind, e.body) for e in desk.evidence(connection, 2)),
        ]

    return app.store.read_now(query)


@pytest.mark.usefixtures("quick_eviction")
async def test_nothing_readable_is_on_disk(url: str) -> None:
    """Catches a value, an argument, an error, a signal or a reason that is written as it is."""
    async with sf.Surefoot(url, codec=Encrypted({"k": OLD})) as app:
        await work(app)
        await (await app.run("asks")).signal("card", SECRET)
        assert await (await app.run("asks")).result(timeout_s=20) == SECRET
        assert SECRET in str(seen(app))
        reasons = [run.reason for run in await app.runs()]
        assert any(SECRET in reason for reason in reasons)
        assert SECRET.encode() not in on_disk(url)
    assert SECRET.encode() not in on_disk(url)
    async with sf.Surefoot(url, codec=Encrypted({"k": OLD})) as app:
        assert await (await app.run("done")).result() == {"paid with": SECRET}
        assert (await pay.outcome("A-1", "another")).value == {"paid with": SECRET}


@pytest.mark.usefixtures("quick_eviction")
async def test_a_missing_key_blocks_and_is_named(url: str) -> None:
    """Catches a run that fails, or forgets itself, because a key was not given: with the key it goes on."""
    async with sf.Surefoot(url, codec=Encrypted({"winter": OLD})) as app:
        await work(app)
        await (await app.run("asks")).signal("card", SECRET)
    for codec, said in ((Encrypted({"summer": NEW}), "winter"), (None, "no keys were given")):
        async with sf.Surefoot(url, codec=codec) as app:
            run = await app.run("unknown")
            await run.wake()
            async with asyncio.timeout(20):
                while (await run.status()).waiting_for != "blocked" or said not in (await run.status()).reason:
                    await asyncio.sleep(0.01)
            with pytest.raises(sf.MissingKey, match=said):
                await (await app.run("done")).result()
    async with sf.Surefoot(url, codec=Encrypted({"summer": NEW, "winter": OLD})) as app:
        run = await app.run("unknown")
        await run.wake()
        async with asyncio.timeout(20):
            while (await run.status()).waiting_for != "doubt":
                await asyncio.sleep(0.01)
        (view,) = await app.unknowns()
        await app.resolve(view.id, is_done=True, by="me", reason="looked", value="fine")
        assert await run.result(timeout_s=20) == "fine"


async def test_doubts_and_questions_whose_key_is_missing_hinder_no_others(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches one doubt, under a key that a worker was not given, for which it looks into no others, and escalates none."""
    monkeypatch.setattr("surefoot.effects.live.sweep.IDLE_MS", -1_000)
    clock, told, heard = MovedClock(), list[str](), list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context["message"]))

    async def landed(order: str) -> sf.Landed:
        return sf.Landed(order)

    @sf.effect(key="probed:{order}", in_doubt=sf.Probe(landed, longest_life="1ms"))
    async def probed(order: str) -> str:
        await asyncio.Event().wait()
        return order

    @sf.effect(key="asked:{order}", approve=sf.Approve())
    async def asked(order: str) -> None: ...

    async def leave(app: sf.Surefoot, order: str) -> None:
        """Leave two doubts and a question."""
        with pytest.raises(sf.OutcomeUnknown):
            await doubt(order, SECRET)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(probed(order), 0.05)
        with pytest.raises(sf.ApprovalNeeded):
            await asked(order)
        await app.store.barrier()

    async with sf.Surefoot(url, clock=clock, codec=Encrypted({"winter": OLD}), is_worker=False) as app:
        await leave(app, "A-1")
    async with sf.Surefoot(
        url,
        clock=clock,
        codec=Encrypted({"summer": NEW}),
        is_worker=False,
        on_escalation=lambda one: told.append(one.key),
    ) as app:
        await leave(app, "A-2")
        await sweep(app.guard)
        states = app.store.read_now(lambda c: c.execute("SELECT state FROM ledger ORDER BY id").fetchall())
        assert [State(state) for (state,) in states] == [State.UNKNOWN, State.UNKNOWN, State.UNKNOWN, State.DONE]
        clock.moved_ms = 25 * HOUR_MS
        for _ in range(2):
            await app.worker.escalating.look()
        assert told == ["doubt:A-2", "asked:A-2"]
        assert [one.partition(": ")[2] for one in heard] == [
            "effect 1 is overdue, or may be, and can't be read",
            "effect 2 is overdue, or may be, and can't be read",
            "approval 1 is overdue, or may be, and can't be read",
        ]


@pytest.mark.usefixtures("quick_eviction")
async def test_what_is_under_a_missing_key_is_listed_among_the_rest(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a list that fails whole for one row under a key that is gone, one that shows a value which was declared to be
    hidden where nobody can read that, and a person who decides about what cannot be read."""

    @sf.effect(key="asked:{order}", approve=sf.Approve())
    async def asked(order: str) -> None: ...

    @sf.effect(key="hides:{order}", redact=("return",))
    async def hides(order: str) -> str:
        raise TimeoutError

    @sf.durable(name="pays and asks")
    async def pays_and_asks(order: str) -> Any:
        await think(SECRET)
        return await sf.wait_signal("card")

    winter, both = Encrypted({"winter": OLD}), Encrypted({"summer": NEW, "winter": OLD})
    async with sf.Surefoot(url, codec=winter) as app:
        await work(app)
        with pytest.raises(sf.ApprovalNeeded):
            await asked("A-1")
        with pytest.raises(sf.OutcomeUnknown):
            await hides("A-1")
        run = await app.start(pays_and_asks, "A-1", id="hides")
        async with asyncio.timeout(20):
            while (await run.status()).waiting_for != "signal":
                await asyncio.sleep(0.01)
        await app.worker.stop()
        for one in ("asks", "hides"):
            await (await app.run(one)).signal("other", SECRET)
        await app.store.commit(
            lambda tx: ledger.add_evidence(tx, 2, "late answer", "w", "x", is_open=True), label="test"
        )
    async with sf.Surefoot(url, codec=both, is_worker=False) as app:
        hidden = (await app.unknowns())[0]
        await app.resolve(hidden.id, is_done=True, by="ann", reason="looked", value=SECRET)
    is_missing = "(encrypted: a value at journal:"
    async with sf.Surefoot(url, codec=Encrypted({"summer": NEW}), is_worker=False) as app:
        with pytest.raises(sf.OutcomeUnknown):
            await doubt("A-9", "new")
        with pytest.raises(sf.ApprovalNeeded):
            await asked("A-9")
        new, old = await app.unknowns()
        assert (new.key, new.arguments) == ("doubt:A-9", {"order": "A-9", "card": "new"})
        assert old.key.startswith(is_missing)
        assert old.key == old.arguments
        assert "is encrypted under key 'winter', and the keys here are summer" in old.key
        first, second = await app.approvals()
        assert (first.key, second.key, second.arguments) == (first.arguments, "asked:A-9", {"order": "A-9"})
        assert "under key 'winter'" in first.key
        with pytest.raises(sf.MissingKey, match="winter"):
            await app.approve(first.id, by="ann", reason="it is fine")
        with pytest.raises(sf.MissingKey, match="winter"):
            await app.resolve(old.id, is_done=True, by="ann", reason="looked")
        assert len(await app.unknowns()) == len(await app.approvals()) == 2
    monkeypatch.setenv("SUREFOOT_KEYS", f"summer={base64.b64encode(NEW).decode()}")
    monkeypatch.delenv("COLUMNS", raising=False)

    def typed(*words: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([*words, "--store", url])
        out, err = capsys.readouterr()
        assert (end.value.code, err.replace("2 approvals to decide: surefoot approvals\n", "")) == (0, "")
        assert SECRET not in out
        return out

    commands = [["unknowns"], ["approvals"], ["approvals", "--id", "1"], ["effects"], ["effects", "--id", str(old.id)],
                ["effects", "--id", str(hidden.id)],
                *(["show", one] for one in ("done", "failed", "unknown", "asks", "hides"))]  # fmt: skip
    for words in commands:
        for more in ([], ["--json"]):
            said = await asyncio.to_thread(typed, *words, *more)
            assert "is encrypted under key 'winter', and the keys here are summer" in said.replace("\n", " "), words
    monkeypatch.setenv(
        "SUREFOOT_KEYS", f"summer={base64.b64encode(NEW).decode()},winter={base64.b64encode(OLD).decode()}"
    )
    async with sf.Surefoot(url, codec=both, is_worker=False) as app:
        await app.store.commit(lambda tx: tx.execute("DELETE FROM evidence WHERE kind = 'late answer'"), label="test")
        await app.approve(first.id, by="ann", reason="it is fine")
        assert [one.key for one in await app.unknowns()] == ["doubt:A-9", "doubt:A-2"]


async def test_a_process_without_the_key_of_a_doubt_can_open_an_old_store(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a process that can't be started, or forgets a session which that doubt needs, once sessions are tidied up."""
    monkeypatch.setattr("surefoot.leases.session.KEPT", 0)
    monkeypatch.setattr("surefoot.leases.session.PRUNED_AT_ONCE", 1)
    async with sf.Surefoot(url, codec=Encrypted({"winter": OLD}), is_worker=False) as app:
        with pytest.raises(sf.OutcomeUnknown):
            await doubt("A-1", SECRET)
    for _ in range(3):
        async with sf.Surefoot(url, codec=Encrypted({"summer": NEW}), is_worker=False) as app:
            sessions = app.store.read_now(lambda c: c.execute("SELECT id FROM sessions ORDER BY id LIMIT 1").fetchall())
            assert sessions == [(1,)]


async def test_what_can_not_be_read_is_no_hindrance_to_retention(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a store that grows for ever because a key of something old is gone, and values that outlive their time once
    it is back."""

    @sf.effect(key="asked:{order}", approve=sf.Approve())
    async def asked(order: str) -> None: ...

    async with sf.Surefoot(url, codec=Encrypted({"winter": OLD})) as app:
        await (await app.start(secret_shop, "A-1", SECRET, id="old")).result()
        with pytest.raises(sf.ApprovalNeeded):
            await asked("A-1")
        await app.deny(1, by="me", reason="no")
    both = Encrypted({"summer": NEW, "winter": OLD})
    for codec, is_left in ((Encrypted({"summer": NEW}), True), (both, False)):
        async with sf.Surefoot(url, codec=codec) as app:
            await (await app.start(secret_shop, f"{is_left}", SECRET, id=f"new {is_left}")).result()
            await asyncio.sleep(0.01)
            caplog.clear()
            await app.gc(0.001)
            assert ("left what it could not read" in caplog.text) == is_left
            with pytest.raises(sf.Forgotten):
                await (await app.run(f"new {is_left}")).result()
    async with sf.Surefoot(url, codec=both) as app:
        kept = app.store.read_now(lambda c: c.execute("SELECT count(*) FROM journal WHERE body IS NOT NULL").fetchall())
        calls = app.store.read_now(lambda c: [ledger.call_of(c, row) for n in (1, 2, 3) if (row := ledger.get(c, n))])
        assert all(call.forgotten_at_ms for call in calls)
        assert kept == [(len(calls) + 1,)], (
            "of each effect, and of the question, what was called, without its arguments"
        )
        with pytest.raises(sf.Forgotten):
            await (await app.run("old")).result()


@pytest.mark.usefixtures("quick_eviction")
async def test_a_signal_whose_key_is_missing_is_taken_once_the_key_is_back(url: str) -> None:
    """Catches a signal that is lost, or an error that is taken for its payload, because a key was not given for a while."""
    async with sf.Surefoot(url, codec=Encrypted({"summer": NEW})) as app:
        run = await app.start(secret_asks, "A-3", id="asks")
        async with asyncio.timeout(20):
            while (await run.status()).waiting_for != "signal":
                await asyncio.sleep(0.01)
    async with sf.Surefoot(url, codec=Encrypted({"winter": OLD, "summer": NEW}), is_worker=False) as app:
        await (await app.run("asks")).signal("card", SECRET)
    async with sf.Surefoot(url, codec=Encrypted({"summer": NEW})) as app:
        run = await app.run("asks")
        async with asyncio.timeout(20):
            while (await run.status()).waiting_for != "blocked":
                await asyncio.sleep(0.01)
    async with sf.Surefoot(url, codec=Encrypted({"summer": NEW, "winter": OLD})) as app:
        run = await app.run("asks")
        await run.wake()
        assert await run.result(timeout_s=5) == SECRET


async def test_keys_change_and_the_old_one_is_thrown_away(url: str) -> None:
    """Catches a value that a rotation has passed over, and one that it has spoilt."""
    async with sf.Surefoot(url) as app:  # written before there was a codec
        await (await app.start(secret_shop, "A-0", SECRET, id="plain")).result()
    async with sf.Surefoot(url, codec=Encrypted({"old": OLD})) as app:
        await (await app.start(secret_shop, "A-1", SECRET, id="old")).result()
        with pytest.raises(sf.RunFailed):
            await (await app.start(secret_fails, SECRET, id="failed")).result()
        assert (await doubt.outcome("A-2", SECRET)).told == "unknown"
        assert (await refused.outcome("A-3", SECRET)).told == "not_done"
    both = Encrypted({"new": NEW, "old": OLD})
    async with sf.Surefoot(url, codec=both) as app:
        before = seen(app)
        assert await app.rotate_keys() > 0
        assert await app.rotate_keys() == 0
        assert seen(app) == before
        assert f"no money on {SECRET}" in str(before)
    data = on_disk(url)
    assert b"\x01\x03old" not in data or _in_use(url) == []
    async with sf.Surefoot(url, codec=Encrypted({"new": NEW})) as app:
        assert seen(app) == before
        assert await (await app.run("plain")).result() == await (await app.run("old")).result() == {"paid with": SECRET}
        with pytest.raises(sf.RunFailed, match=SECRET):
            await (await app.run("failed")).result()


@pytest.mark.usefixtures("quick_eviction")
async def test_words_and_letters_are_written_anew_too(url: str) -> None:
    """Catches a reason, or a signal that nobody has taken yet, that only the key which was thrown away opens."""

    @sf.effect(key="refuse:{order}")
    async def refuse(order: str, card: str) -> None:
        raise sf.NotDone(f"no such card {card}")

    @sf.durable(name="refused and asks")
    async def code(card: str) -> Any:
        with contextlib.suppress(sf.NotDone):
            await refuse("A-1", card)
        return await sf.wait_signal("later")

    async with sf.Surefoot(url, codec=Encrypted({"old": OLD})) as app:
        run = await app.start(code, SECRET, id="r")
        async with asyncio.timeout(20):
            while (await run.status()).waiting_for != "signal":
                await asyncio.sleep(0.01)
        await app.worker.stop()
        await run.signal("later", SECRET)
        await run.signal("other", SECRET)
        await sf.document("note").write(SECRET, await sf.document("note").read())
        await app.store.commit(partial(keep_payload, run_id="r", digest=b"d", body=SECRET.encode()), label="test")
    told: list[int] = []
    async with sf.Surefoot(url, codec=Encrypted({"new": NEW, "old": OLD}), is_worker=False) as app:
        written = await app.rotate_keys(tell=told.append)
        assert told == sorted(set(told))
        assert told[-1] == written
        assert await app.rotate_keys(tell=told.append) == 0
    async with sf.Surefoot(url, codec=Encrypted({"new": NEW})) as app:
        run = await app.run("r")
        assert await run.result(timeout_s=20) == SECRET
        view = app.store.read_now(lambda connection: show(connection, "r"))
        assert [step.reason for step in view.steps if step.kind == "not_done"] == [f"no such card {SECRET}"]
        assert [letter.payload for letter in app.store.read_now(lambda c: unread(c, run.row, 9))] == [SECRET]
        assert (await sf.document("note").read()).value == SECRET
        assert app.store.read_now(partial(load_payload, digest=b"d")) == SECRET.encode()


def _in_use(url: str) -> list[Any]:
    """Return rows that still need the old key; what unused pages hold is no row."""
    store = open_store(url, MIGRATIONS)
    try:
        return store.read_now(
            lambda c: c.execute(
                "SELECT j.id FROM journal j LEFT JOIN blobs b ON b.id = j.blob"
                " WHERE substr(coalesce(j.body, b.body), 1, 5) = x'01036f6c64'"
            ).fetchall()
        )
    finally:
        store.close()


KILLED = """
import asyncio, os, sys
from surefoot.app import MIGRATIONS
from surefoot.journal.encrypted import Encrypted
from surefoot.runs.rows import rotating
from surefoot.store import open_store
rotating.ROWS_AT_ONCE = 2
codec = Encrypted({"new": b"n" * 32, "old": b"o" * 32})
store, left = open_store(sys.argv[1], MIGRATIONS, codec=codec), int(sys.argv[2])
commit = store.commit
async def counted(*args, **options):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    return await commit(*args, **options)
store.commit = counted
asyncio.run(rotating.rotate(store, codec))
store.close()
"""


async def test_a_rotation_killed_anywhere(url: str) -> None:
    """Catches a store between two keys that can't be read with both, or that the next rotation can't finish."""
    async with sf.Surefoot(url, codec=Encrypted({"old": OLD})) as app:
        for n in range(3):
            await (await app.start(secret_shop, f"A-{n}", SECRET, id=f"{n}")).result()
    both, kills = Encrypted({"new": NEW, "old": OLD}), 0
    for at in range(1, 100, 3):
        ended = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", KILLED, url, str(at)], check=False, timeout=60
        )
        assert ended.returncode in (0, -signal.SIGKILL)
        async with sf.Surefoot(url, codec=both, is_worker=False) as app:
            assert (await pay.outcome("A-2", "another")).value == {"paid with": SECRET}
        if ended.returncode == 0:
            break
        kills += 1
    assert kills > 0
    async with sf.Surefoot(url, codec=Encrypted({"new": NEW}), is_worker=False) as app:
        assert (await pay.outcome("A-0", "another")).value == {"paid with": SECRET}


async def test_a_value_in_another_place_is_found(url: str) -> None:
    """Catches somebody who can write to the file and puts one customer's value where another's was."""
    codec = Encrypted({"k": OLD})
    async with sf.Surefoot(url, codec=codec) as app:
        await (await app.start(secret_shop, "A-1", "small", id="1")).result()
        await (await app.start(secret_shop, "A-2", "large", id="2")).result()
        await app.store.commit(
            lambda tx: (
                tx.execute(
                    "UPDATE journal SET body = (SELECT body FROM journal j, ledger l WHERE l.record = j.id AND l.id = 2)"
                    " WHERE id = (SELECT record FROM ledger WHERE id = 1)"
                )
                and None
            ),
            label="test",
        )
        with pytest.raises(sf.Undecodable, match="moved here from elsewhere"):
            await pay("A-1", "small")


async def test_the_keys_of_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a command line that can't read what the program has written."""
    async with sf.Surefoot(url, codec=Encrypted({"k": OLD})) as app:
        await (await app.start(secret_shop, "A-1", SECRET, id="1")).result()
    command = [sys.executable, "-m", "surefoot"]
    show = [*command, "effects", "--store", url, "--json"]
    blind = await asyncio.to_thread(subprocess.run, show, check=False, capture_output=True, text=True)
    assert (blind.returncode, blind.stderr, SECRET in blind.stdout) == (0, "", False)
    assert "no keys were given, as in SUREFOOT_KEYS" in blind.stdout
    doctor = await asyncio.to_thread(
        subprocess.run, [*command, "doctor", url], check=False, capture_output=True, text=True
    )
    assert doctor.returncode == (1 if is_on_postgres(url) else 0), doctor.stdout
    monkeypatch.setenv("SUREFOOT_KEYS", f"k={base64.b64encode(OLD).decode()}")
    shown = await asyncio.to_thread(subprocess.run, show, check=False, capture_output=True, text=True)
    assert SECRET in shown.stdout
    rotated = await asyncio.to_thread(
        subprocess.run, [*command, "rotate-keys", "--store", url, "--json"], check=False, capture_output=True, text=True
    )
    assert '"rows": 0' in rotated.stdout
    assert isinstance(sf.Surefoot(url).codec, Encrypted)


@pytest.mark.parametrize("keys", [{}, {"k": b"short"}, {"": OLD}, {"k" * 65: OLD}, {"k": "no base64!"}])
def test_keys_that_can_not_be(keys: dict[str, Any]) -> None:
    """Catches a key that is taken for one and protects nothing."""
    with pytest.raises(sf.SurefootError):
        Encrypted(keys)


def test_keys_of_the_environment_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches keys under which nobody would find what they have written, and a key that is shown."""
    old, new = (base64.b64encode(key).decode() for key in (OLD, NEW))
    monkeypatch.setenv("SUREFOOT_KEYS", f" new={new} , old={old} ")
    codec = Encrypted.from_environment()
    assert repr(codec) == "<Encrypted under 'new', reads 2 keys>"
    url = f"sqlite:///{tmp_path}/keys.db"
    open_store(url, MIGRATIONS).close()
    for bad, why in (
        ("o" * 43, "has no name"),
        (f"{'o' * 43}=", "is not 32 bytes as base64"),
        (f"={'o' * 43}", "has no name of"),
        (f"{'o' * 86}==", "has no name of"),
        ("old=\udcff" + "o" * 43, "is not 32 bytes"),
        ("\udcffoooo=oooo", "has no name of"),
    ):
        monkeypatch.setenv("SUREFOOT_KEYS", f"new={new},{bad}")
        with pytest.raises(SystemExit) as end:
            main(["runs", "--store", url])
        said = capsys.readouterr().err
        assert (end.value.code, f"SUREFOOT_KEYS: key 2 {why}" in said, "oooo" in said) == (2, True, False), said
    for nothing in ("", " "):
        monkeypatch.setenv("SUREFOOT_KEYS", nothing)
        assert Encrypted.from_environment() is None


def test_without_its_library_encryption_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an import error in the middle of somebody else's code, or values that are written as they are."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(
        sf.SurefootError, match=r"needs the cryptography library\n  hint: pip install 'surefoot\[encryption\]'"
    ):
        Encrypted({"k": OLD})


@pytest.mark.parametrize("head", [Head(reason="words"), Head(detail={"asked": 1}), Head(reason="words", detail=[1])])
def test_words_in_a_head_are_sealed_for_their_record(head: Head) -> None:
    """Catches a reason that is written as it is, and a rotation that passes over it, or that never comes to an end."""
    codec, other = Encrypted({"k": OLD}), Encrypted({"new": NEW, "k": OLD})
    stored = sealing.sealed_head(codec, head, 7)
    assert (stored.reason, stored.detail) == ("", None)
    assert sealing.opened_head(codec, stored, 7) == head
    with pytest.raises(sf.Undecodable):
        sealing.opened_head(codec, stored, 8)
    with pytest.raises(sf.MissingKey):
        sealing.opened_head(None, stored, 7)
    assert [sealing.is_head_current(one, stored) for one in (codec, other)] == [True, False]
    assert not sealing.is_head_current(codec, head)


def test_a_head_without_words_has_nothing_to_seal() -> None:
    """Catches heads that grow by an empty secret, and are rotated for it."""
    codec, head = Encrypted({"k": OLD}), Head(name="pay", record=3)
    assert sealing.sealed_head(codec, head, 7) == head
    assert sealing.is_head_current(codec, head)


def test_words_whose_key_is_missing_are_shown_as_sealed_and_rotated_by_nobody() -> None:
    """Catches runs that can't be listed for want of a key, and a rotation that writes "(encrypted)" over the words."""
    with_key, without, codec, place = (
        SqliteConnection(":memory:"),
        SqliteConnection(":memory:"),
        Encrypted({"k": OLD}),
        b"run:1",
    )
    with_key.codec = codec
    stored = sealing.sealed_text(with_key, SECRET, place)
    assert SECRET not in stored
    assert sealing.opened_text(with_key, stored, place, is_strict=True) == SECRET
    with pytest.raises(sf.Undecodable):
        sealing.opened_text(with_key, stored, b"run:2")
    shown = sealing.opened_text(without, stored, place)
    assert shown == "(encrypted: this value is encrypted, and no keys were given, as in SUREFOOT_KEYS)"
    with pytest.raises(sf.MissingKey):
        sealing.opened_text(without, stored, place, is_strict=True)
    assert sealing.sealed_text(with_key, "", place) == sealing.opened_text(with_key, "", place) == ""
    assert sealing.sealed_text(without, SECRET, place) == sealing.opened_text(without, SECRET, place) == SECRET
    assert [sealing.is_text_current(codec, text) for text in (stored, "", "plain")] == [True, True, False]
    assert not sealing.is_text_current(Encrypted({"new": NEW, "k": OLD}), stored)


@given(value=st.binary(max_size=200), place=st.binary(max_size=20), at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_changed_bit_is_found(value: bytes, place: bytes, at: int, bit: int) -> None:
    """Catches a sealed value of which a part is not authenticated."""
    codec = Encrypted({"k": OLD})
    sealed = codec.seal(value, place)
    assert codec.open(sealed, place) == value
    changed = bytearray(sealed)
    changed[at % len(changed)] ^= 1 << bit
    with pytest.raises(sf.Undecodable):
        codec.open(bytes(changed), place)
    with pytest.raises(sf.Undecodable):
        codec.open(sealed, place + b"x")
    assert codec.seal(value, place) != sealed


async def test_without_a_codec_values_lie_as_they_are(url: str) -> None:
    """Catches a cost or a change for those who have no codec."""
    async with sf.Surefoot(url) as app:
        await (await app.start(secret_shop, "A-1", SECRET, id="1")).result()
        outcome = app.store.read_now(
            lambda c: load_record(c, int(str(c.execute("SELECT record FROM ledger").fetchall()[0][0])))
        )
        assert outcome.body == b'{"paid with":"4111-1111-1111-1111"}'
        with pytest.raises(sf.SurefootError, match="no keys"):
            await app.rotate_keys()
    assert SECRET.encode() in on_disk(url)
