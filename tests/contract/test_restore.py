"""Backup and restore: a snapshot while others write, and a world that has moved on since it was taken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.contract.conftest import until

import surefoot as sf
from surefoot.cli import main
from surefoot.cli.checks import INVARIANTS
from surefoot.effects.rows import desk
from surefoot.store import CorruptStore, SystemClock, UnusablePath, copying, open_store, parse_url
from surefoot.store.finding import broken


class World:
    """The services outside: what was done in them, and when they forget."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.keys: dict[str, str] = {}
        self.tokens: list[int] = []
        self.state: dict[str, str] = {}

    def deduped(self, key: str, what: str) -> str:
        if key not in self.keys:
            self.acts.append(what)
            self.keys[key] = f"receipt {len(self.keys)}"
        return self.keys[key]


WORLD = World()

pytestmark = [
    pytest.mark.usefixtures("quick_eviction"),
    pytest.mark.sqlite_only("a backup is a copy of SQLite's file"),
]


@pytest.fixture(autouse=True)
def world() -> World:
    WORLD.__init__()  # type: ignore[misc]  # a new world under the same name
    return WORLD


def current() -> str:
    effect = sf.current_effect()
    WORLD.tokens.append(effect.token)
    return effect.idempotency_key


@sf.effect(key="resend:{order}", in_doubt=sf.Resend("24h"))
async def resends(order: str) -> str:
    return WORLD.deduped(current(), f"resend {order}")


@sf.effect(key="short:{order}", in_doubt=sf.Resend("1ms"))
async def forgets(order: str) -> str:
    return WORLD.deduped(current(), f"short {order}")


async def look_up(order: str) -> Any:
    key = sf.current_effect().idempotency_key
    return sf.Landed(WORLD.keys[key]) if key in WORLD.keys else sf.NotLanded()


@sf.effect(key="probe:{order}", in_doubt=sf.Probe(look_up, longest_life="50ms"))
async def probed(order: str) -> str:
    key = current()
    WORLD.acts.append(f"probe {order}")
    WORLD.keys[key] = f"probed {order}"
    return WORLD.keys[key]


@sf.effect(key="set:{order}", in_doubt=sf.Overwrite())
async def overwrites(order: str) -> str:
    WORLD.state[order] = "set"
    return "set"


@sf.effect(key="ask:{order}")
async def asks(order: str) -> str:
    current()
    WORLD.acts.append(f"ask {order}")
    return f"asked {order}"


@sf.effect(key="own:{order}", in_doubt=sf.Transactional())
def own(order: str) -> str:
    return f"own {order}"


ACTS: dict[str, Any] = {
    "resend": resends,
    "short": forgets,
    "probe": probed,
    "set": overwrites,
    "ask": asks,
    "own": own,
}


async def act(kind: str, order: str) -> str:
    if kind == "own":
        return await sf.in_thread(own, order)
    return str(await ACTS[kind](order))


@sf.durable
async def lost_work(kind: str, order: str) -> str:
    await sf.wait_signal("go")
    return await act(kind, order)


@sf.durable
async def lost_family(kind: str, order: str) -> str:
    await sf.wait_signal("go")
    return str(await sf.child(child_work, kind, order))


@sf.durable
async def child_work(kind: str, order: str) -> str:
    return await act(kind, order)


def back_up(url: str, file: Path) -> copying.Copied:
    return copying.backup(parse_url(url), file, INVARIANTS, SystemClock(), lambda done, of: None)


def typed(*words: str) -> int:
    """Type a command; return its exit code."""
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


def restored(file: Path, url: str, *more: str) -> None:
    assert typed("restore", str(file), "--to", url, *more) == 0


async def reach(run: sf.Run, wanted: str) -> None:
    async with asyncio.timeout(20):
        while (await run.status()).waiting_for != wanted:
            await asyncio.sleep(0.01)


@pytest.fixture
def new_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/restored.db"


async def moved_on(url: str, file: Path, kinds: list[str], *, function: Any = lost_work) -> None:
    """Take a backup of waiting runs, then let the world move on: each run acts, and ends."""
    async with sf.Surefoot(url) as app:
        runs = {kind: await app.start(function, kind, "A-1", id=kind) for kind in kinds}
        live = app.worker.live
        await until(lambda: all(run.row not in live or live[run.row].waits for run in runs.values()))
        await app.store.barrier()
        await asyncio.to_thread(back_up, url, file)
        for run in runs.values():
            await run.signal("go")
            await run.result(timeout_s=20)


@pytest.mark.parametrize("function", [lost_work, lost_family], ids=["run", "child"])
async def test_what_the_world_has_seen_since_is_not_done_again(
    url: str, new_url: str, tmp_path: Path, function: Any
) -> None:
    """Catches an effect that a restored store does a second time, because what it knows is older than the world."""
    file = tmp_path / "backup"
    await moved_on(url, file, ["resend", "short", "probe", "set", "ask", "own"], function=function)
    acts = list(WORLD.acts)
    assert sorted(acts) == ["ask A-1", "probe A-1", "resend A-1", "short A-1"]
    highest = max(WORLD.tokens)
    restored(file, new_url)
    async with sf.Surefoot(new_url) as app:
        runs = {kind: await app.run(kind) for kind in ACTS}
        for run in runs.values():
            await run.signal("go")
        assert await runs["resend"].result(timeout_s=20) == "receipt 0"
        assert await runs["probe"].result(timeout_s=20) == "probed A-1"
        assert await runs["set"].result(timeout_s=20) == "set"
        assert await runs["own"].result(timeout_s=20) == "own A-1"
        async with asyncio.timeout(20):
            while {view.name for view in await app.unknowns()} != {"forgets", "asks"}:
                await asyncio.sleep(0.01)
        assert WORLD.acts == acts
        assert min(WORLD.tokens[4:]) > highest, "the service must be able to tell the new store from the old one"
        asked = next(view for view in await app.unknowns() if view.name == "asks")
        said = app.store.read_now(lambda c: desk.evidence(c, asked.id))
        assert any("restored" in str(one.body) for one in said)
        await app.resolve(asked.id, is_done=True, by="Ada", reason="saw it", value="asked A-1")
        assert await runs["ask"].result(timeout_s=20) == "asked A-1"


async def test_what_the_world_has_not_seen_is_done(url: str, new_url: str, tmp_path: Path) -> None:
    """Catches a restored store that never acts again where its class can find out that nothing has happened."""
    file = tmp_path / "backup"
    async with sf.Surefoot(url) as app:
        for kind in ("resend", "probe", "set", "own"):
            await app.start(lost_work, kind, "A-1", id=kind)
        await app.store.barrier()
        await asyncio.to_thread(back_up, url, file)
    restored(file, new_url)
    async with sf.Surefoot(new_url) as app:
        for kind in ("resend", "probe", "set", "own"):
            run = await app.run(kind)
            await run.signal("go")
            await run.result(timeout_s=20)
        assert sorted(WORLD.acts) == ["probe A-1", "resend A-1"]


async def test_new_runs_are_in_doubt_until_somebody_has_looked(url: str, new_url: str, tmp_path: Path) -> None:
    """Catches a message that is delivered again after a restore, and whose first run the store has forgotten."""
    file = tmp_path / "backup"
    async with sf.Surefoot(url) as app:
        await app.start(lost_work, "ask", "old", id="old")
        await app.store.barrier()
        await asyncio.to_thread(back_up, url, file)
        run = await app.start(child_work, "ask", "A-1", id="forgotten")
        await run.result()
        assert await asks("outside") == "asked outside"
    restored(file, new_url)
    async with sf.Surefoot(new_url) as app:
        again = await app.start(child_work, "ask", "A-1", id="forgotten")
        await reach(again, "doubt")
        assert (await asks.outcome("outside")).told == "unknown"
        assert WORLD.acts == ["ask A-1", "ask outside"]
    assert await typed_in_thread("trust", "--store", new_url, "--by", "Ada", "--reason", "compared with the books") == 0
    async with sf.Surefoot(new_url) as app:
        fresh = await app.start(child_work, "ask", "A-2", id="fresh")
        assert await fresh.result(timeout_s=20) == "asked A-2"
        old = await app.run("old")
        await old.signal("go")
        await reach(old, "doubt")  # it was under way in the backup: what it has done since, nobody knows
        assert WORLD.acts == ["ask A-1", "ask outside", "ask A-2"]


@sf.durable
async def lost_walk(kind: str, order: str) -> str:
    await sf.uuid()
    await sf.wait_signal("go")
    return await act(kind, order)


async def test_a_fork_is_as_old_as_its_source(url: str, new_url: str, tmp_path: Path) -> None:
    """Catches a fork, and a fork of it, that does what its source has done in the lost time, because the fork is new."""
    file = tmp_path / "backup"
    await moved_on(url, file, ["ask"], function=lost_walk)
    restored(file, new_url)
    assert await typed_in_thread("trust", "--store", new_url, "--by", "Ada", "--reason", "compared with the books") == 0
    async with sf.Surefoot(new_url) as app:
        run = await app.run("ask")
        for number in range(2):
            run = await run.fork("uuid", id=f"fork {number}", act=True)
            await run.signal("go")
            await reach(run, "doubt")
        assert WORLD.acts == ["ask A-1"]


async def take_back(order: str) -> None:
    current()
    WORLD.acts.append(f"back {order}")


@sf.effect(key="undoable:{order}", compensate=take_back)
async def undoable(order: str) -> str:
    WORLD.acts.append(f"do {order}")
    return order


@sf.durable
async def does(order: str) -> str:
    return await undoable(order)


@sf.durable
async def lets_do(order: str) -> str:
    return str(await sf.child(does, order))


@pytest.mark.parametrize("function", [does, lets_do], ids=["run", "child"])
async def test_an_undo_is_as_old_as_what_it_undoes(url: str, new_url: str, tmp_path: Path, function: Any) -> None:
    """Catches a run that was undone in the lost time and is undone once more, because the undo is new."""
    file = tmp_path / "backup"
    async with sf.Surefoot(url) as app:
        run = await app.start(function, "A-1", id="old")
        await run.result(timeout_s=20)
        await app.store.barrier()
        await asyncio.to_thread(back_up, url, file)
        await (await run.undo("wrong")).result(timeout_s=20)
    restored(file, new_url)
    assert await typed_in_thread("trust", "--store", new_url, "--by", "Ada", "--reason", "compared with the books") == 0
    async with sf.Surefoot(new_url) as app:
        undo = await (await app.run("old")).undo("wrong")
        async with asyncio.timeout(20):
            while not await app.unknowns():
                assert WORLD.acts == ["do A-1", "back A-1"]
                await asyncio.sleep(0.01)
        assert (await undo.status()).state != "completed"
        fresh = await app.start(function, "A-2", id="new")
        await fresh.result(timeout_s=20)
        await (await fresh.undo("wrong")).result(timeout_s=20)
        assert WORLD.acts == ["do A-1", "back A-1", "do A-2", "back A-2"]


CHAINED: sf.Topic[str] = sf.Topic("chained", str)
ARRIVED: sf.Topic[str] = sf.Topic("arrived", str)


def serve() -> None:
    """Act on what arrives and tell the next group, which acts on that."""

    @sf.on(ARRIVED, group="first", since="beginning")
    async def first(order: str) -> None:
        await CHAINED.publish(order)
        await child_of(order)

    @sf.on(CHAINED, group="second", since="beginning")
    async def second(order: str) -> None:
        await sf.child(child_work, "ask", order)


async def child_of(order: str) -> None:
    await sf.child(child_work, "ask", f"{order} first")


async def test_events_of_the_backup_stay_in_doubt(url: str, new_url: str, tmp_path: Path) -> None:
    """Catches an event that was acted on in the lost time: its group comes to it again after a person has looked, and what
    its run does, and what it tells others to do, would be done twice."""
    file = tmp_path / "backup"
    async with sf.Surefoot(url, is_worker=False) as app:
        await ARRIVED.publish("A-1", id="old")
        await app.store.barrier()
        await asyncio.to_thread(back_up, url, file)
    serve()
    done = ["ask A-1", "ask A-1 first"]
    async with sf.Surefoot(url):
        async with asyncio.timeout(20):
            while sorted(WORLD.acts) != done:
                await asyncio.sleep(0.01)
    restored(file, new_url)
    assert await typed_in_thread("trust", "--store", new_url, "--by", "Ada", "--reason", "compared with the books") == 0
    async with sf.Surefoot(new_url) as app:
        async with asyncio.timeout(20):
            while len(await app.unknowns()) != 2:
                await asyncio.sleep(0.01)
        await ARRIVED.publish("A-2", id="new")
        async with asyncio.timeout(20):
            while len(WORLD.acts) < 4:
                await asyncio.sleep(0.01)
        assert sorted(WORLD.acts) == [*done, "ask A-2", "ask A-2 first"]
        assert len(await app.unknowns()) == 2


@sf.effect(key="lost:{order}", in_doubt=sf.Probe(look_up, longest_life="300ms"))
async def unanswered(order: str) -> str:
    current()
    await asyncio.Event().wait()
    return ""


@sf.durable
async def acts_at_once(order: str) -> str:
    return await unanswered(order)


async def test_effects_without_outcome_come_back_in_doubt(url: str, new_url: str, tmp_path: Path) -> None:
    """Catches a claim of the backup that a restored store believes to be somebody's, or nobody's: its fence counts anew."""
    file = tmp_path / "backup"
    async with sf.Surefoot(url) as app:
        await app.start(acts_at_once, "A-1", id="acting")
        async with asyncio.timeout(10):
            while not WORLD.tokens:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(back_up, url, file)
        restored_early = typed_in_thread("restore", str(file), "--to", new_url)
        assert await restored_early == 0
        store = open_store(new_url, sf.app.MIGRATIONS)
        rows = store.read_now(lambda c: c.execute("SELECT state, holder FROM ledger").fetchall())
        runs = store.read_now(lambda c: c.execute("SELECT state, holder, epoch FROM runs").fetchall())
        live = store.read_now(
            lambda c: c.execute("SELECT count(*) FROM sessions WHERE closed_at_ms IS NULL").fetchall()
        )
        store.close()
        assert rows == [(3, 0)]
        assert runs == [(1, None, 2)]
        assert live == [(0,)]
        await app.worker._halt(sf.Suspend("enough"))


async def typed_in_thread(*words: str) -> int:
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "surefoot", *words], check=False, capture_output=True, timeout=60
    )
    return done.returncode


async def test_a_backup_under_writers_is_one_snapshot(url: str, tmp_path: Path) -> None:
    """Catches a copy in which a commit is half there, or that never comes to its end because others write."""
    async with sf.Surefoot(url) as app:
        ended = asyncio.Event()

        async def write() -> None:
            for n in range(10_000):
                if ended.is_set():
                    return
                await (await app.start(child_work, "own", f"{n}", id=f"{n}")).result()

        writing = asyncio.create_task(write())
        files = []
        for n in range(5):
            await asyncio.sleep(0)
            made = await asyncio.to_thread(back_up, url, tmp_path / f"backup {n}")
            files.append(made.path)
        ended.set()
        await writing
    counts = []
    for n, file in enumerate(files):
        target = f"sqlite:///{tmp_path}/{n}.db"
        restored(file, target)
        store = open_store(target, sf.app.MIGRATIONS)
        assert store.read_now(lambda c: [f for f in broken(c, INVARIANTS) if f.severity.value == "error"]) == []
        counts.append(store.read_now(lambda c: int(str(c.execute("SELECT count(*) FROM runs").fetchall()[0][0]))))
        store.close()
    assert counts == sorted(counts)


@pytest.mark.parametrize("page_bytes", [512, 65_536])
async def test_a_store_with_pages_of_another_size_is_copied(url: str, tmp_path: Path, page_bytes: int) -> None:
    """Catches a backup that calls a sound store damaged, since its file was made with another size of pages."""
    with contextlib.closing(apsw.Connection(str(parse_url(url)))) as made:
        made.execute(f"PRAGMA page_size = {page_bytes}; VACUUM")
    async with sf.Surefoot(url) as app:
        first = await (await app.start(child_work, "own", "A-1", id="1")).result()
        back_up(url, tmp_path / "backup")
    restored(tmp_path / "backup", f"{url}.new")
    async with sf.Surefoot(f"{url}.new") as app:
        assert await (await app.start(child_work, "own", "A-1", id="1")).result() == first


async def test_nothing_is_overwritten_and_nothing_half_is_left(url: str, tmp_path: Path) -> None:
    """Catches a backup or a restore over something that is there, and scratch files that stay after a failure."""
    async with sf.Surefoot(url):
        pass
    file = tmp_path / "backup"
    file.write_text("precious")
    with pytest.raises(UnusablePath, match="overwritten"):
        back_up(url, file)
    assert file.read_text() == "precious"
    good = tmp_path / "good"
    back_up(url, good)
    assert typed("restore", str(good), "--to", url) == 5
    assert typed("restore", str(tmp_path / "nothing"), "--to", f"{url}.new") == 2
    assert typed("restore", str(file), "--to", f"{url}.new") == 5
    assert [path for path in tmp_path.iterdir() if "partial" in path.name] == []
    assert not Path(f"{parse_url(url)}.new").exists()


@pytest.mark.parametrize("left", ["-wal", "-journal", "-desk"])
async def test_nothing_is_restored_beside_what_another_store_has_left(url: str, tmp_path: Path, left: str) -> None:
    """Catches a restored store that SQLite reads with the log of the one before it: all is as it was, its incarnation and
    what is in doubt included, though the restore has said otherwise."""
    file, old = tmp_path / "backup", parse_url(url)
    async with sf.Surefoot(url) as app:
        await app.store.barrier()
        await asyncio.to_thread(back_up, url, file)
    old.rename(tmp_path / "old.db")
    beside = old.with_name(f"{old.name}{left}")
    beside.touch()
    assert await typed_in_thread("restore", str(file), "--to", url) == 5
    assert not old.exists()
    with pytest.raises(UnusablePath, match=f"{left}: is there already"):
        copying.refuse_existing(old)
    for one in tmp_path.glob(f"{old.name}-*"):
        if one.is_file():
            one.rename(one.with_name(one.name.replace(old.name, "old.db")))
    assert await typed_in_thread("restore", str(file), "--to", url) == 0
    async with sf.Surefoot(url) as app:
        assert app.guard.incarnation == 2


async def test_a_backup_that_is_cut_off_is_not_restored(url: str, tmp_path: Path) -> None:
    """Catches zeros in place of what a copy has lost of its last page: no checksum is asked for there."""
    async with sf.Surefoot(url) as app:
        await (await app.start(child_work, "own", "A-1", id="1")).result()
        await asyncio.to_thread(back_up, url, tmp_path / "backup")
    data = (tmp_path / "backup").read_bytes()
    for lost in (1, 100, 4_095, 4_096, len(data) // 2, len(data)):
        (tmp_path / "cut").write_bytes(data[: len(data) - lost])
        assert await typed_in_thread("restore", str(tmp_path / "cut"), "--to", f"{url}.new") != 0, lost
        assert not parse_url(f"{url}.new").exists()
    (tmp_path / "whole").write_bytes(data)
    assert await typed_in_thread("restore", str(tmp_path / "whole"), "--to", f"{url}.new") == 0


async def test_a_backup_is_no_store(url: str, tmp_path: Path) -> None:
    """Catches a backup that somebody copies into place and works with, so that used keys are free again."""
    async with sf.Surefoot(url):
        pass
    back_up(url, tmp_path / "backup.db")
    with pytest.raises(UnusablePath, match="restore"):
        open_store(f"sqlite:///{tmp_path}/backup.db", sf.app.MIGRATIONS)
    assert typed("doctor", f"sqlite:///{tmp_path}/backup.db") == 0
    assert typed("restore", str(parse_url(url)), "--to", f"sqlite:///{tmp_path}/x.db") == 2  # a store is no backup


async def test_the_old_store_is_retired(url: str, new_url: str, tmp_path: Path) -> None:
    """Catches two stores that act at once, where it could have been refused."""
    async with sf.Surefoot(url) as app:
        back_up(url, tmp_path / "backup")
        assert typed("restore", str(tmp_path / "backup"), "--to", new_url, "--replaces", url) == 4
        assert app.guard.incarnation == 1
    restored(tmp_path / "backup", new_url, "--replaces", url)
    with pytest.raises(UnusablePath, match="retired"):
        open_store(url, sf.app.MIGRATIONS)
    async with sf.Surefoot(new_url) as app:
        assert app.guard.incarnation == 2
    again = f"{new_url}.again"
    restored(tmp_path / "backup", again, "--replaces", new_url)
    async with sf.Surefoot(again) as app:
        assert app.guard.incarnation == 3
    restored(tmp_path / "backup", f"{again}.later", "--incarnation", "9")
    async with sf.Surefoot(f"{again}.later") as app:
        assert app.guard.incarnation == 9


async def test_a_damaged_store_is_not_backed_up_but_salvaged(url: str, tmp_path: Path) -> None:
    """Catches a backup of damage, found out when it is needed; and a store that nobody can take anything of any more."""
    async with sf.Surefoot(url) as app:
        for n in range(30):
            await (await app.start(child_work, "own", f"{n}", id=f"{n}")).result()
        path = parse_url(url)
        for suffix in ("", "-wal", "-desk"):
            (tmp_path / f"copy.db{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    log = tmp_path / "copy.db-wal"
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    copy = f"sqlite:///{tmp_path}/copy.db"
    assert typed("doctor", copy) == 1
    with pytest.raises(CorruptStore, match="log is damaged"):
        back_up(copy, tmp_path / "backup")
    with pytest.raises(CorruptStore, match="restore"):
        open_store(copy, sf.app.MIGRATIONS)
    assert typed("restore", str(tmp_path / "copy.db"), "--to", f"{copy}.new") != 0
    restored(tmp_path / "copy.db", f"{copy}.new", "--salvage")
    async with sf.Surefoot(f"{copy}.new") as app:
        assert 0 < len(await app.runs(limit=100)) < 30
        assert app.guard.lost_since is not None


@pytest.mark.parametrize("place", ["backup", "restore"])
def test_killed_in_the_middle(url: str, tmp_path: Path, place: str) -> None:
    """Catches a name under which half a copy lies."""
    open_store(url, sf.app.MIGRATIONS).close()
    back_up(url, tmp_path / "good")
    words = {
        "backup": ["backup", str(tmp_path / "target"), "--store", url],
        "restore": ["restore", str(tmp_path / "good"), "--to", f"sqlite:///{tmp_path}/target"],
    }[place]
    code = """
import os, sys
from surefoot.store import copying
copying.put_in_place = lambda copy, target: os.kill(os.getpid(), 9)
from surefoot.cli import main
main(sys.argv[1:])
"""
    ended = subprocess.run([sys.executable, "-c", code, *words], check=False, capture_output=True, timeout=60)
    assert ended.returncode == -9
    assert not (tmp_path / "target").exists()
    assert typed(*words) == 0
    assert (tmp_path / "target").exists()


def test_the_documents(url: str, new_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches commands whose JSON doesn't say what they did."""
    open_store(url, sf.app.MIGRATIONS).close()
    assert typed("backup", str(tmp_path / "b"), "--store", url, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["bytes"] == (tmp_path / "b").stat().st_size
    assert typed("restore", str(tmp_path / "b"), "--to", new_url, "--json") == 0
    assert json.loads(capsys.readouterr().out)["incarnation"] == 2
    assert typed("trust", "--store", new_url, "--by", "A", "--reason", "B", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"restores": 1}
    assert typed("trust", "--store", new_url, "--by", "A", "--reason", "B") == 0
    assert typed("trust", "--store", new_url, "--by", " ", "--reason", "B") == 1
