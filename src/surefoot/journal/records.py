"""Records: the small, typed facts a run is made of.

What holds: a record is written once and never changed; `seq` orders the records of one run, in the order of writing, and a
number that was taken for what nobody had to write after all (a claim that had to wait) is in none; a value is born in one
record, and later records refer to it by its number; every record names what it came after (`after`, program order of its
task) and, where more is known, the records whose bytes it came from (`causes`).

The kinds and the shape of `head` are data on disk: pinned by golden files, changed only with a migration.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any

import msgspec

from surefoot.journal.values import Value

NEXT = -1
"""Stands for a record's number until it is written: of a run that several processes write to at once, only the transaction
knows the next one."""


class Kind(IntEnum):
    """What a record says. The numbers are data on disk: never reused, never renumbered."""

    STARTED = 1
    """The run began; body: its input."""
    DECIDED = 2
    """A decision or an internal step ended; body: its value."""
    RAISED = 3
    """A step ended in an error; body: the error as data."""
    READ = 4
    """A read returned; body: its value."""
    CLAIMED = 5
    """An effect is about to happen; body: the call."""
    DONE = 6
    """The effect happened; body: its value."""
    NOT_DONE = 7
    """The effect is known not to have happened; head.reason says why, head.state `left` that nothing was sent."""
    UNKNOWN = 8
    """Nobody knows whether the effect happened, and the caller was told so."""
    REPEATED = 9
    """The effect had happened before; head.record points to the first outcome."""
    CONFLICT = 10
    """The key is taken by a different call; head shows both."""
    DENIED = 11
    """A gate refused; head.reason says which and why."""
    TIMER_SET = 12
    """A durable timer; head.wake_at_ms says when."""
    TIMER_FIRED = 13
    """That timer was passed."""
    SIGNAL = 14
    """A signal was received; body: its payload, head.signal its row."""
    CHILD = 15
    """A child run was started; head.run is its id."""
    CHILD_ENDED = 16
    """What the child returned; body: its value, or the error as data with head.state."""
    DRIFT = 17
    """On replay the same decision was asked with other request content; head has both digests."""
    ENDED = 18
    """The run ended; head.state, body: result or error."""
    VERDICT = 19
    """What a check of the outcome found; the place for it is kept from the first format on."""
    EXPIRED = 20
    """The run's deadline had passed when this step was asked for, or while it waited; the step raised DeadlinePassed."""
    INTERRUPTED = 21
    """The step was left without an outcome: its task was cancelled or timed out while it went on."""
    ASKED = 22
    """An effect asks for what its gate waits for, an approval; body: the call. Nothing is claimed yet."""
    PUBLISHED = 23
    """An event was published, head.name its topic; in a run, body: its id; outside runs, what it says."""


kind_of = cache(Kind)
"""`Kind` of a number, or ValueError; asking the enumeration itself takes ten times as long."""


ENDS_STEP = frozenset(
    {Kind.DECIDED, Kind.RAISED, Kind.READ, Kind.DONE, Kind.NOT_DONE, Kind.UNKNOWN, Kind.REPEATED, Kind.CONFLICT,
     Kind.DENIED, Kind.TIMER_FIRED, Kind.SIGNAL, Kind.CHILD_ENDED, Kind.EXPIRED, Kind.INTERRUPTED, Kind.PUBLISHED}
)  # fmt: skip
"""The kinds after which a step has its outcome."""

OPENS_STEP = frozenset({Kind.ASKED, Kind.CLAIMED, Kind.TIMER_SET, Kind.CHILD})
"""The kinds that say a step has begun."""


class Head(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """The small facts beside a record's value. Every field is optional; absent means not applicable.

    Attributes:
        name: The step's function, model or tool.
        causes: Numbers of the records whose bytes this one came from, beyond `after`.
        request: Digest of what a decision was asked, for drift.
        reason: Why, in words.
        record: Another record, as the id of its row.
        effect: The effect's row in the ledger.
        run: The id of another run.
        state: The state a run ended in.
        wake_at_ms: When a timer fires, wall clock.
        signal: The signal's row.
        cost: What the attempt used, as reported: tokens, requests, money.
        sealed: Reason and detail, under a codec; see `sealing`. Of a record that is read to be shown, and whose key is
            missing, the words that say so.
        forgotten_at_ms: When retention took its value away, wall clock; 0 while it is kept.
        detail: Whatever else explains it, as data.
    """

    name: str = ""
    causes: tuple[int, ...] = ()
    request: str = ""
    reason: str = ""
    record: int = 0
    effect: int = 0
    run: str = ""
    state: str = ""
    wake_at_ms: int = 0
    signal: int = 0
    cost: dict[str, float] | None = None
    forgotten_at_ms: int = 0
    sealed: str = ""
    detail: Any = None


NO_HEAD = Head()
_encode_head = msgspec.json.Encoder().encode
_decode_head = msgspec.json.Decoder(Head).decode


def encode_head(head: Head) -> bytes | None:
    """Return the head's bytes; None for an empty one, which is the common case."""
    return None if head is NO_HEAD else _encode_head(head)


def decode_head(data: bytes | None) -> Head:
    """Return the head of a row."""
    return NO_HEAD if data is None else _decode_head(data)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record, as written or read.

    Attributes:
        run: The run's row, or None for an effect outside any run.
        seq: Its number in the run, from 1; 0 outside runs; `NEXT` to be given the next one when it is written.
        kind: What it says.
        step: The step's identity in the run; empty for records about the run itself.
        after: The number of the record the asking task had seen last; 0 for the start.
        head: Small facts.
        body: The value, or None.
        id: Its row once read back, 0 before.
        at_ms: Wall clock of its transaction; 0 before it is written.
    """

    run: int | None
    seq: int
    kind: Kind
    step: str
    after: int = 0
    head: Head = NO_HEAD
    body: Value | None = None
    id: int = 0
    at_ms: int = 0
