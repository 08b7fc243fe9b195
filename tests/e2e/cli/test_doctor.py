"""`surefoot doctor`: what it finds, what it leaves alone, and how it ends."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.e2e.cli.conftest import Shell

import surefoot as sf
from surefoot.cli import doctor
from surefoot.store import checksums
from surefoot.store.examine import file_system_of

CHECKS = [*doctor.STORE_CHECKS, *doctor.RECORD_CHECKS]


def damage(path: Path, sql: str) -> None:
    """Change a closed store behind Surefoot's back."""
    connection = checksums.connect(path)
    connection.execute(sql)
    connection.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a closed store with a run of each kind of end, an unknown effect, and a run that waits."""
    path = tmp_path_factory.mktemp("made") / "agents.db"

    async def work() -> None:
        async with sf.Surefoot(f"sqlite:///{path}") as app:
            await (await app.start("plan_parcel", "A-1", id="planned")).result()
            await (await app.start("send_parcel", "A-1", id="sent")).result()
            with pytest.raises(sf.RunFailed):
                await (await app.start("break_parcel", "A-1", id="broken")).result()
            unknown = await app.start("pay_parcel", "A-1", id="unknown")
            await app.start("ask_parcel", "A-1", id="asks")
            while (await unknown.status()).waiting_for != "doubt":
                await asyncio.sleep(0.01)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        patch.setattr("surefoot.runs.live.eviction.QUIET_S", 0.1)
        asyncio.run(work())
    return path


@pytest.fixture
def store(made: Path, shell: Shell) -> Path:
    """Return a copy of it in the shell's directory."""
    return Path(shutil.copy(made, shell.place / "agents.db"))


@pytest.fixture
def quick_eviction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs that wait leave memory soon."""
    monkeypatch.setattr("surefoot.runs.live.run.LiveRun.wait.__kwdefaults__", {"grace_s": 0.1}, raising=False)
    monkeypatch.setattr("surefoot.runs.live.eviction.QUIET_S", 0.1)


def test_a_sound_store_has_no_errors(shell: Shell, store: Path) -> None:
    """Catches a check that finds fault with what Surefoot itself writes, or an invariant that does not hold."""
    assert store.exists()
    for words in (("doctor",), ("doctor", "--full"), ("doctor", shell.url)):
        done = shell.here(*words, "--json")
        assert [one for one in done.document["findings"] if one["severity"] == "error"] == []
        assert done.code == 0
        assert done.document["checks"] == CHECKS
    assert "effect" in shell.here("doctor").out


BROKEN = [
    ("UPDATE journal SET kind = 99 WHERE id = 1", "known kind"),
    ("UPDATE journal SET blob = 77, body = NULL WHERE id = 1", "blob"),
    ("UPDATE journal SET seq = 1 WHERE run = 1", "number of its own"),
    ("DELETE FROM journal WHERE kind = 5", "claim is in the journal"),
    ("DELETE FROM journal WHERE kind = 6", "outcome is in the journal"),
    ("DELETE FROM journal WHERE kind = 18", "has its end"),
    ("UPDATE journal SET after = 77 WHERE kind = 5", "came after one that is there"),
    ("DELETE FROM journal WHERE kind = 1", "beginning"),
    ("UPDATE ledger SET state = 9 WHERE id = 1", "known state"),
    ("UPDATE ledger SET generation = 3 WHERE id = 1", "generations"),
    ("UPDATE evidence SET effect = 777", "evidence"),
    ("DELETE FROM runs WHERE run_id = 'planned'", "belongs to one that is there"),
    ("UPDATE runs SET holder = 1 WHERE state = 4", "holder"),
    ("UPDATE runs SET parent = 777 WHERE id = 1", "parent"),
    ("UPDATE runs SET state = 7 WHERE id = 1", "known state"),
    ("INSERT INTO waiters VALUES (777, 'run', 1)", "wait"),
    ("UPDATE ledger SET run = 777", "effect's run"),
    ("UPDATE ledger SET record = 1 WHERE state = 3", "no outcome yet"),
    ("PRAGMA application_id = 7", "no Surefoot store"),
    ("PRAGMA journal_mode = DELETE", "journal_mode"),
    ("INSERT INTO surefoot_format VALUES ('runs', 99, 'future', 0)", "format 99"),
]


@pytest.mark.parametrize(("sql", "said"), BROKEN, ids=[said for _, said in BROKEN])
def test_each_damage_is_named(shell: Shell, store: Path, sql: str, said: str) -> None:
    """Catches an invariant that is listed and never broken by anything, and a doctor that ends well over damage."""
    damage(store, sql)
    done = shell.here("doctor", "--json")
    errors = [one["words"] for one in done.document["findings"] if one["severity"] == "error"]
    assert any(said in words for words in errors), errors
    assert done.code == 1


def test_it_never_writes(shell: Shell, store: Path) -> None:
    """Catches a doctor that mends, migrates or checkpoints what it looks at."""
    before = store.read_bytes()
    shell.here("doctor", "--full")
    assert store.read_bytes() == before


def test_a_store_in_use_is_looked_at(shell: Shell, store: Path) -> None:
    """Catches a doctor that needs the store for itself, or that can't see who works with it."""
    assert store.exists()

    async def work() -> None:
        async with sf.Surefoot(shell.url, name="the clerk"):
            done = await asyncio.to_thread(shell.type, "doctor", "--json")
            notes = [one["words"] for one in done.document["findings"] if one["check"] == "sessions"]
            assert any("the clerk" in words for words in notes), notes
            assert done.code == 0, done.out

    asyncio.run(work())


@pytest.mark.usefixtures("quick_eviction")
def test_what_waits_for_a_person_is_named(shell: Shell) -> None:
    """Catches a doctor that calls a store well in which runs are stuck and doubts overdue."""

    async def work() -> None:
        async with sf.Surefoot(shell.url) as app:
            call = await app.start("call_parcel", "A-1", id="overdue")
            changed = await app.start("change_parcel", "A-1", id="blocked")
            for run, wanted in ((call, "doubt"), (changed, "signal")):
                while (await run.status()).waiting_for != wanted:
                    await asyncio.sleep(0.01)
        (shell.place / "changed").touch()
        async with sf.Surefoot(shell.url) as app:
            run = await app.run("blocked")
            await run.wake()
            while (await run.status()).waiting_for != "blocked":
                await asyncio.sleep(0.01)

    asyncio.run(work())
    done = shell.here("doctor", "--json")
    warnings = {one["words"]: one["next"] for one in done.document["findings"] if one["severity"] == "warning"}
    assert any("overdue" in words for words in warnings)
    assert any("blocked" in words and following == "surefoot show blocked" for words, following in warnings.items())


def test_what_is_no_store(shell: Shell) -> None:
    """Catches a traceback where the answer is that there is nothing, or something else."""
    assert shell.here("doctor").code == 5
    assert shell.here("doctor", "sqlite:///nowhere.db").code == 5
    assert shell.here("doctor", "postgresql://somewhere/db").code == 5
    (shell.place / "agents.db").write_bytes(b"no database, though it is long enough to look like one" * 100)
    done = shell.here("doctor", "--json")
    assert done.code == 1
    assert done.document["findings"][0]["severity"] == "error"


def test_a_module_is_looked_at_with_the_store_of_its_app(shell: Shell, store: Path) -> None:
    """Catches a doctor that takes a module for a store, or forgets the store its app keeps."""
    assert store.exists()
    (shell.place / "office.py").write_text("import surefoot as sf\napp = sf.Surefoot('sqlite:///agents.db')\n")
    for target in ("office", "office:app"):
        done = shell.here("doctor", target, "--json")
        assert done.document["store"] == shell.url
        assert done.code == 0
    assert shell.here("doctor", "office:nothing").code == 2
    assert shell.here("doctor", "nowhere").code == 2


def test_network_file_systems_are_told_from_local_ones() -> None:
    """Catches a mount point that is confused with one whose name begins the same."""
    mounts = "rootfs / ext4 rw 0 0\nfiler:/x /data nfs4 rw 0 0\n/dev/b /data/local\\040disk xfs rw 0 0\n"
    assert file_system_of(Path("/data/a.db"), mounts) == "nfs4"
    assert file_system_of(Path("/database/a.db"), mounts) == "ext4"
    assert file_system_of(Path("/data/local disk/a.db"), mounts) == "xfs"
    assert file_system_of(Path("/a.db"), "") == ""
