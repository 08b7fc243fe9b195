"""What goes into Temporal's history: small values as they are, or sealed under your keys; large ones by reference.

Temporal refuses payloads above 2 MB by default, and tries again. What holds: above `STORED_ABOVE` a value lies in our
store, and the history has its digest; above `STORED_MAX` it is refused, by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec, SerializationContext, WithSerializationContext

from surefoot.journal import ValueTooLarge
from surefoot.journal.payloads import keep_payload, load_payload
from surefoot.journal.values import VALUE_BYTES_MAX
from surefoot.problem import SurefootError
from surefoot.store import Store
from surefoot.store.codec import Codec

STORED_ABOVE = 128 * 1024
"""Bytes above which a value lies in our store. Temporal warns from 256 KB on, and a history may have 50 MB."""

STORED_MAX = 4 * VALUE_BYTES_MAX
"""Bytes above which a value is refused: a tool's result may have a quarter of it, the messages of a run all of it."""

STORED, SEALED = b"surefoot/stored", b"surefoot/sealed"
"""The encodings of our payloads."""

PLACE = b"temporal"
"""The place for which values in a history are sealed: they are not ours to write anew."""


class _Reference(msgspec.Struct, frozen=True):
    """What lies in the history in place of a large value."""

    digest: str
    bytes: int


class StoreCodec(PayloadCodec, WithSerializationContext):
    """Seals and refers.

    Args:
        store: Gives the store, now.
        codec: Seals what stays in the history; None: it lies there as it is.
        run_id: The run whose values these are.
    """

    def __init__(self, store: Callable[[], Store], codec: Codec | None, run_id: str = "") -> None:
        self._store = store
        self._codec = codec
        self._run_id = run_id

    def with_context(self, context: SerializationContext) -> StoreCodec:
        """Return it for the values of one workflow."""
        run_id = getattr(context, "workflow_id", None) or self._run_id
        return self if run_id == self._run_id else StoreCodec(self._store, self._codec, run_id)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See `PayloadCodec.encode`."""
        return [await self._encode(payload) for payload in payloads]

    async def _encode(self, payload: Payload) -> Payload:
        size = len(payload.data)
        if size <= STORED_ABOVE and self._codec is None:
            return payload
        data = payload.SerializeToString()
        if size <= STORED_ABOVE:
            assert self._codec is not None, "or it would lie there as it is"
            return Payload(metadata={"encoding": SEALED}, data=self._codec.seal(data, PLACE))
        if size > STORED_MAX:
            raise ValueTooLarge(
                f"run {self._run_id}: a value of {size:,} bytes; the limit is {STORED_MAX:,}",
                hint="return a reference from the tool, like a URL; shorten the message history with a history processor",
            )
        digest = hashlib.blake2b(data, digest_size=16).digest()
        unit: Any = partial(keep_payload, run_id=self._run_id, digest=digest, body=data)
        await self._store().commit(unit, label="payload", size=len(data))
        reference = msgspec.json.encode(_Reference(digest.hex(), size))
        return Payload(metadata={"encoding": STORED}, data=reference)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """See `PayloadCodec.decode`."""
        return [await self._decode(payload) for payload in payloads]

    async def _decode(self, payload: Payload) -> Payload:
        match payload.metadata.get("encoding"):
            case b"surefoot/sealed":
                if self._codec is None:
                    raise SurefootError(
                        f"run {self._run_id}: a value in Temporal's history is encrypted, and this app has no keys",
                        hint="sf.Surefoot(..., codec=sf.Encrypted(...)), or set SUREFOOT_KEYS",
                    )
                return Payload.FromString(self._codec.open(payload.data, PLACE))
            case b"surefoot/stored":
                reference = msgspec.json.decode(payload.data, type=_Reference)
                query = partial(load_payload, digest=bytes.fromhex(reference.digest))
                found = await self._store().read(query)
                if found is None:
                    raise SurefootError(
                        f"run {self._run_id}: a value of {reference.bytes:,} bytes is not in this store",
                        hint="was it deleted by retention? is the store the one the run was started with?",
                    )
                return Payload.FromString(found)
        return payload
