"""Documents that agents share: small values in our own store, each with a version that every write raises.

What holds: a write says which version it was decided on, and is done only if that is still the version, in one transaction;
otherwise it raises `Stale` with the difference. So of two that read the same version one writes, and the other decides
again. In a run, reading and writing are steps: a replay gives what they came to, and writes nothing. A version is never
used twice, not even by a document that was deleted and written anew.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec.structs import replace

from surefoot.coordination.held import HeldBySession
from surefoot.coordination.rules import BadResource, canonical
from surefoot.effects import Guard, Look, Seen, Stale, around, remember, remembered
from surefoot.effects.binding import bound_guard, open_guard
from surefoot.effects.classify import describe
from surefoot.effects.versions import retold
from surefoot.journal import Kind, codec_of, current_frame, insert_record
from surefoot.journal.records import Head
from surefoot.journal.sealing import of_document, opened, sealed
from surefoot.runs.live.run import LiveRun
from surefoot.runs.live.strand import _saga
from surefoot.runs.live.taken import LiveStep
from surefoot.runs.steps import take_step
from surefoot.store import Migration, StoreError, Tx
from surefoot.store.codec import codec_of as cipher_of
from surefoot.store.connection import Connection

T = TypeVar("T")

AVAILABLE_AFTER_S = 1.0
"""How long a read that may be `available` waits for the store before it gives what this process has read last."""

DOCUMENTS = Migration(
    "coordination",
    2,
    "documents",
    """CREATE TABLE documents (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        body BLOB,
        changed_at_ms INTEGER NOT NULL,
        changed_by TEXT NOT NULL)""",
)

_encode, _decode = msgspec.json.encode, msgspec.json.decode
_STORED = codec_of(list, "document")


class Document(Generic[T]):
    """A shared document. Made by `sf.document`."""

    def __init__(self, name: str, type: Any) -> None:
        self.name = canonical([name])[0]
        self._codec = codec_of(type, f"document {name}")

    async def read(
        self, *, consistency: Literal["strict", "available"] = "strict", key: str | None = None
    ) -> Seen[T | None]:
        """Return the document and its version; None for one that isn't there.

        Args:
            consistency: "strict": as the store has it, or an error. "available": when the store doesn't answer within a
                second, what this process has read of it last, marked as `is_remembered`; a write that is decided on it is
                checked as any other.
            key: In a run, the caller's distinction between reads in parallel tasks.

        Raises:
            StoreError: The store doesn't answer, and nothing may stand in for it.
        """
        if consistency not in ("strict", "available"):
            raise BadResource(f"consistency={consistency!r}", hint='use "strict" (default) or "available"')
        run = current_frame.get()
        guard = await self._guard()
        load = partial(self._load, guard, is_available=consistency == "available")
        stored = await take_step(f"read {self.name}", key, _STORED, load) if isinstance(run, LiveRun) else await load()
        seen = self._seen(stored, guard)
        if isinstance(run, LiveRun):
            run.seen[self.name] = Look(seen.version, stored[1], partial(self._again, guard))
        return seen

    async def _guard(self) -> Guard:
        return bound_guard.get() or await open_guard(self.name, "document")

    async def _load(self, guard: Guard, *, is_available: bool) -> list[Any]:
        """Return version, data, and whether that is only remembered."""
        name = f"document {self.name}"
        try:
            async with asyncio.timeout(AVAILABLE_AFTER_S if is_available else None):
                version, body = await guard.store.read(self._find)
        except (TimeoutError, StoreError):
            kept = remembered(name) if is_available else None
            if kept is None:
                raise
            return [*_decode(kept), True]
        data = None if body is None else _decode(body)
        remember(name, _encode([version, data]))
        return [version, data, False]

    async def _again(self, guard: Guard) -> tuple[str, Any]:
        version, data, _ = await self._load(guard, is_available=False)
        return str(version), data

    def _find(self, connection: Connection) -> tuple[int, bytes | None]:
        sql = "SELECT id, version, body FROM documents WHERE name = ?"
        found = connection.execute(sql, (self.name,)).fetchall()
        if not found:
            return 0, None
        row, version, body = found[0]
        return int(version), opened(cipher_of(connection), body, of_document(row))

    def _seen(self, stored: list[Any], guard: Guard) -> Seen[T | None]:
        version, data, is_remembered = stored
        value = None if data is None else self._codec.load(_encode(data))
        look = Look(str(version), data, partial(self._again, guard))
        return Seen(self.name, look.version, value, look, bool(is_remembered))

    async def write(self, value: T, seen: Seen[Any], *, key: str | None = None) -> Seen[T | None]:
        """Write the document, if it is still in the version that was seen.

        Args:
            value: What it is to be; not None.
            seen: What `read`, or the last `write`, has returned.
            key: In a run, the caller's distinction between writes in parallel tasks.

        Returns:
            The document as it is now.

        Raises:
            Stale: It has changed; the error has the difference. Nothing was written.
            LeaseLost: A lease around this, outside runs, is lost. Nothing was written.
            Unserializable: The value doesn't fit.
            BadResource: It is written in a saga, which could not take it back.
        """
        if value is None:
            raise BadResource(f"document {self.name}: None is no value", hint="use delete(seen)")
        return await self._put(self._codec.dump(value)[0], seen, "write", key)

    async def delete(self, seen: Seen[Any], *, key: str | None = None) -> None:
        """Delete the document, if it is still in the version that was seen. Args and errors as for `write`."""
        await self._put(None, seen, "delete", key)

    async def _put(self, body: bytes | None, seen: Seen[Any], verb: str, key: str | None) -> Seen[T | None]:
        if not isinstance(seen, Seen) or seen.name != self.name:
            raise BadResource(
                f"document {self.name}: a write says what it was decided on, and this is {seen!r:.100}",
                hint=f"seen = await document.read(); await document.{verb}(..., seen)",
            )
        guard, run = await self._guard(), current_frame.get()
        if isinstance(run, LiveRun):
            found = await self._put_in_run(run, guard, body, seen, verb, key)
        else:
            unit = partial(self._compare_and_set, body, seen, guard.duty.session.name, self._require_leases())
            found = await guard.store.commit(unit, label="document", size=len(body or b""))
        if "stale" in found:
            raise retold(found["reason"], found["stale"])
        stored = [found["version"], None if body is None else _decode(body), False]
        remember(f"document {self.name}", _encode(stored[:2]))
        if isinstance(run, LiveRun):
            run.seen[self.name] = Look(str(found["version"]), stored[1], partial(self._again, guard))
        return self._seen(stored, guard)

    async def _put_in_run(
        self, run: LiveRun, guard: Guard, body: bytes | None, seen: Seen[Any], verb: str, key: str | None
    ) -> dict[str, Any]:
        if saga := _saga.get():
            raise BadResource(
                f"document {self.name} is written in saga {saga}, and nothing would take it back; it was not",
                hint="write it after the saga",
            )
        request = hashlib.blake2b(seen.version.encode() + b" " + (body or b""), digest_size=16).hexdigest()
        step = run.open_step(f"{verb} {self.name}", key)
        try:
            if step.ended is None:
                return await self._put_for_step(run, guard, step, body, seen, request)
            record = step.ended
            if record.kind is Kind.INTERRUPTED:
                await run.meet_again()
            if record.kind is not Kind.DECIDED or record.body is None or record.head.request != request:
                step.raise_divergence(
                    f"{verb} {self.name} on version {seen.version}", "another value, or another version"
                )
            recorded: dict[str, Any] = _decode(record.body)
            return recorded
        except BaseException as error:
            step.interrupt(describe(error))
            raise
        finally:
            step.close()

    async def _put_for_step(
        self, run: LiveRun, guard: Guard, step: LiveStep, body: bytes | None, seen: Seen[Any], request: str
    ) -> dict[str, Any]:
        """Write, and record in the same transaction what came of it."""
        draft = step.draft(Kind.DECIDED, head=Head(name=self.name, request=request))

        def unit(tx: Tx) -> dict[str, Any]:
            run.require(tx)
            if run.is_simulated:
                found: dict[str, Any] = {"version": int(seen.version) + 1}
            else:
                found = self._compare_and_set(body, seen, f"run {run.run_id}", _no_leases, tx)
            insert_record(tx, replace(draft, body=_encode(found)))
            return found

        found = await step.commit(unit, "document", len(body or b""))
        step.end(replace(draft, body=_encode(found)))
        return found

    def _require_leases(self) -> Callable[[Tx], None]:
        held = [gate for gate in around.get() if isinstance(gate, HeldBySession)]

        def require(tx: Tx) -> None:
            for one in held:
                one.require_in(tx)

        return require

    def _compare_and_set(
        self, body: bytes | None, seen: Seen[Any], who: str, require: Callable[[Tx], None], tx: Tx
    ) -> dict[str, Any]:
        require(tx)
        version, there = self._find(tx.connection)
        if str(version) != seen.version:
            data = None if there is None else _decode(there)
            stale = Stale(self.name, read=seen.look.data, now=data, read_version=seen.version, now_version=version)
            return {"stale": stale.difference, "reason": stale.reason}
        if version == 0:
            tx.execute(
                "INSERT INTO documents (name, version, changed_at_ms, changed_by) VALUES (?, 0, ?, ?)",
                (self.name, tx.now_ms, who),
            )
        (row,) = tx.row("SELECT id FROM documents WHERE name = ?", (self.name,)) or (0,)
        tx.execute(
            "UPDATE documents SET version = ?, body = ?, changed_at_ms = ?, changed_by = ? WHERE id = ?",
            (version + 1, sealed(tx.codec, body, of_document(row)), tx.now_ms, who, row),
        )
        return {"version": version + 1}


def _no_leases(_tx: Tx) -> None:
    """A run's own epoch guards what it writes."""


def document(name: str, type: Any = object) -> Document[Any]:
    """Return a document that agents share, of this name in the store.

    Args:
        name: Its name, "plan/7".
        type: Its type: a pydantic model, a dataclass or a JSON type.

    Raises:
        BadResource: The name means nothing.
    """
    return Document(name, type)
