"""Values under a codec: sealed for their place, opened from there.

What a codec covers: values, arguments, keys and errors in the journal, payloads of signals, evidence, and reasons in words.
What stays readable: names of kinds, steps and signals, ids of runs, states, times, who did what, and the digests of keys
and of arguments. Digests are not keyed, for they must stay the same for ever: whoever has the file can try guesses on them.
"""

from __future__ import annotations

import base64

import msgspec
from msgspec.structs import replace

from surefoot.journal.records import Head
from surefoot.journal.values import Undecodable
from surefoot.store.codec import Codec, codec_of, is_sealed
from surefoot.store.connection import Connection

_MARK = "sealed:"


class MissingKey(Undecodable):
    """A value was sealed under a key that this process doesn't have. Nothing is wrong with the value."""


def of_record(record: int) -> bytes:
    """Return the place of a record's value, wherever its bytes lie."""
    return b"journal:%d" % record


def of_head(record: int) -> bytes:
    """Return the place of the words in a record's head."""
    return b"head:%d" % record


def of_letter(run: int, name: str) -> bytes:
    """Return the place of a signal's payload."""
    return f"inbox:{run}:{name}".encode()


def of_evidence(effect: int, kind: str) -> bytes:
    """Return the place of a piece of evidence."""
    return f"evidence:{effect}:{kind}".encode()


def of_run(run: int) -> bytes:
    """Return the place of why a run waits, or how it ended."""
    return b"run:%d" % run


def of_document(document: int) -> bytes:
    """Return the place of a shared document."""
    return b"document:%d" % document


def sealed(codec: Codec | None, value: bytes | None, place: bytes) -> bytes | None:
    """Return what is written for a value."""
    return value if codec is None or value is None else codec.seal(value, place)


def opened(codec: Codec | None, stored: bytes | None, place: bytes) -> bytes | None:
    """Return the value of what was written.

    Raises:
        MissingKey: It is sealed, and there is no codec.
        Undecodable: It can't be opened.
    """
    if stored is None or not is_sealed(stored):
        return stored
    if codec is None:
        raise MissingKey(
            "this value is encrypted, and no keys were given, as in SUREFOOT_KEYS",
            hint="sf.Surefoot(..., codec=sf.Encrypted(...)); for the command line set SUREFOOT_KEYS",
        )
    return codec.open(stored, place)


def sealed_head(codec: Codec, head: Head, record: int) -> Head:
    """Return a head whose words and details are sealed."""
    if not head.reason and head.detail is None:
        return head
    words = msgspec.json.encode([head.reason, head.detail])
    text = base64.b64encode(codec.seal(words, of_head(record))).decode()
    return replace(head, reason="", detail=None, sealed=text)


def opened_head(codec: Codec | None, head: Head, record: int) -> Head:
    """Return a sealed head with its words and details."""
    words = opened(codec, base64.b64decode(head.sealed), of_head(record))
    reason, detail = msgspec.json.decode(words or b"null")
    return replace(head, reason=reason, detail=detail, sealed="")


def unread_words(missing: MissingKey) -> str:
    """Return what people are shown in the place of a value whose key is missing: which key that is."""
    return f"(encrypted: {missing.message})"


def opened_to_show(codec: Codec | None, stored: bytes | None, place: bytes) -> bytes | None:
    """Return a JSON value of what was written; where its key is missing, the words that say so, as JSON.

    Raises:
        Undecodable: It can't be opened for another reason.
    """
    try:
        return opened(codec, stored, place)
    except MissingKey as missing:
        return msgspec.json.encode(unread_words(missing))


def sealed_text(connection: Connection, text: str, place: bytes) -> str:
    """Return what is written for words in a column of text."""
    codec = codec_of(connection)
    return text if codec is None or not text else _MARK + base64.b64encode(codec.seal(text.encode(), place)).decode()


def is_head_current(codec: Codec, head: Head) -> bool:
    """Whether a head as it is stored would be written the same way today."""
    if head.sealed:
        return codec.is_current(base64.b64decode(head.sealed))
    return not head.reason and head.detail is None


def is_text_current(codec: Codec, stored: str) -> bool:
    """Whether words as they are stored would be written the same way today."""
    return not stored or (stored.startswith(_MARK) and codec.is_current(base64.b64decode(stored.removeprefix(_MARK))))


def opened_text(connection: Connection, stored: str, place: bytes, *, is_strict: bool = False) -> str:
    """Return the words; where the key is missing, that they are sealed, so that a run is listed; unless `is_strict`."""
    if not stored.startswith(_MARK):
        return stored
    try:
        found = opened(codec_of(connection), base64.b64decode(stored.removeprefix(_MARK)), place)
    except MissingKey as missing:
        if is_strict:
            raise
        return unread_words(missing)
    return (found or b"").decode()
