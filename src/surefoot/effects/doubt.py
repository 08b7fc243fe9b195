"""What may be done about an effect in doubt: six classes, declared by whoever wrote the tool. Pure.

Nothing here decides whether the effect happened. A class says what the service offers, and so which move can find out or
make it irrelevant; each carries the assumption under which that is right, printed with the guarantee.

Source: the two-generals argument (Akkoyunlu 1975, Gray 1978): between act and record our journal looks the same whether
the effect landed or not, so every rule that doesn't consult the service is wrong in one of the two cases.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from surefoot.effects.receipts import Receipts
from surefoot.problem import SurefootError

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}

CLOCK_TOLERANCE_MS = 60_000
"""Wall clock and boot clock may differ by this much over a key's life before we call the key expired."""

RESENDS_MAX = 5
"""Sends of one effect within one process before it is parked for later. With the back-off below: about 6 s."""

ASKS_MAX = 4
"""Questions to a probe within one process before the effect is parked for later."""

RETRY_PARKED_MS = 60_000
"""When a parked effect whose class can resolve itself is tried again."""


ESCALATE_AFTER_MS = 86_400_000
"""The deadline of a doubt that only a person can end, unless its class says another: a day. Data on disk: claims note
only other ones."""


LONGEST_MS = 253_402_300_799_999
"""The longest duration: what lies between 1970 and the end of the calendar, in milliseconds."""


def duration_ms(text: str | float) -> int:
    """Return milliseconds of "24h", "300ms", "2d", "1.5s", or of a number of seconds.

    Raises:
        SurefootError: It is neither, or not positive, or longer than the calendar.
    """
    if isinstance(text, int | float):
        value, unit = float(text), "s"
    else:
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)\s*", text) if isinstance(text, str) else None
        if found is None:
            raise SurefootError(f"{text!r} is not a duration", hint='write "300ms", "30s", "15m", "24h" or "7d"')
        value, unit = float(found[1]), found[2]
    if not value * _UNITS_MS[unit] <= LONGEST_MS:  # not a number is refused too
        raise SurefootError(f"{text!r}: a duration of more than {LONGEST_MS // 86_400_000:,} days", hint='write "7d"')
    milliseconds = int(value * _UNITS_MS[unit])
    if milliseconds <= 0:
        raise SurefootError(f"{text!r}: a duration must be longer than nothing", hint='write "24h" or "30s"')
    return milliseconds


@dataclass(frozen=True, slots=True)
class Landed:
    """A probe's answer: the effect happened; `value` is what the first caller should have got."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class NotLanded:
    """A probe's answer: the service never did it."""

    reason: str = "the service has no trace of it"


@dataclass(frozen=True, slots=True)
class CannotTell:
    """A probe's answer: the service can't say."""

    reason: str = "the service could not tell"


Answer: TypeAlias = Landed | NotLanded | CannotTell
Ask: TypeAlias = Callable[..., Awaitable[Answer] | Answer]
ReadBack: TypeAlias = Callable[..., Awaitable[bool] | bool]


@dataclass(frozen=True, slots=True)
class Read:
    """No state change: run again. Only the recorded answer is ever used."""

    name = "read"
    assumption = "calling it changes nothing at the service"


@dataclass(frozen=True, slots=True)
class Resend:
    """The service dedupes on our key: send the same bytes again under the same key.

    Args:
        key_ttl: How long the service remembers a key, as "24h" or seconds. After it, or when the clocks disagree, the
            effect is left to a person. A stored refusal is an outcome, not a reason to try again.
    """

    key_ttl: str | float = "24h"
    name = "resend"

    @property
    def key_ttl_ms(self) -> int:
        """The life of a key, in milliseconds."""
        return duration_ms(self.key_ttl)

    @property
    def assumption(self) -> str:
        """Under which a second send does no harm."""
        return f"the service dedupes on our key for {self.key_ttl}"


@dataclass(frozen=True, slots=True)
class Overwrite:
    """Same arguments, same state, with a precondition: resend with it; when it fails, read back.

    Args:
        read_back: Called with the effect's arguments; True when the service's state equals what we set. None: a failed
            precondition on a resend is left to a person.
    """

    read_back: ReadBack | None = None
    name = "overwrite"
    assumption = "no other writer in between"


@dataclass(frozen=True, slots=True)
class Probe:
    """A truthful look-up by our reference; asked only behind a fence.

    Args:
        ask: Called with the effect's arguments (and finds `current_effect()`); answers `Landed`, `NotLanded` or
            `CannotTell`.
        longest_life: After this time since the last possible send no request of ours can still land: the expiry the
            service enforces, or the longest time a request can live on the way. Without it a probe that says "not found"
            lies whenever a straggler is on its way.
    """

    ask: Ask
    longest_life: str | float
    name = "probe"

    @property
    def longest_life_ms(self) -> int:
        """The fence, in milliseconds."""
        return duration_ms(self.longest_life)

    @property
    def assumption(self) -> str:
        """Under which the fence holds."""
        return f"no request lands later than {self.longest_life} after it was sent, and the look-up is truthful"


@dataclass(frozen=True, slots=True)
class Transactional:
    """The effect is one transaction of a database.

    In our store's own database act, claim and settlement are one commit: the function must be synchronous, and writes
    through `sf.current_effect().execute(...)`. In another database it opens its own transaction, sync or async, and leaves
    a receipt in it: `sf.current_effect().receipt(execute, value)`.

    Args:
        receipts: Where receipts are, for an effect in another database; None for our store's own.
    """

    receipts: Receipts | None = None
    name = "transactional"
    assumption = "the database keeps its word"


@dataclass(frozen=True, slots=True)
class AskPerson:
    """The service offers nothing: a person decides.

    Args:
        deadline: How long it may stay unknown, as "4h" or seconds, counted by the wall clock from when the doubt was
            noted. After this it is escalated, never decided: see `Surefoot(on_escalation=...)`.
    """

    deadline: str | float = "24h"
    name = "ask a person"
    assumption = "a person looks before saying what happened"

    @property
    def deadline_ms(self) -> int:
        """The deadline, in milliseconds."""
        return duration_ms(self.deadline)


InDoubt: TypeAlias = Read | Resend | Overwrite | Probe | Transactional | AskPerson


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a move is chosen.

    Attributes:
        first_sent_ms: Wall clock of the first claim.
        first_sent_boot_ms: Boot time of the first claim, None when the machine has booted since.
        last_sent_boot_ms: Boot time of the last possible send.
        now_ms: Wall clock.
        now_boot_ms: Boot time.
        sends: Sends by this process.
        asks: Questions put by this process.
        is_precondition_failed: Whether the last send was answered by a failed precondition.
    """

    first_sent_ms: int
    first_sent_boot_ms: int | None
    last_sent_boot_ms: int
    now_ms: int
    now_boot_ms: int
    sends: int
    asks: int
    is_precondition_failed: bool = False


@dataclass(frozen=True, slots=True)
class SendAgain:
    """Send the same call under the same key, after a pause."""

    after_ms: int


@dataclass(frozen=True, slots=True)
class AskService:
    """Ask the probe, after the fence and a pause."""

    after_ms: int


@dataclass(frozen=True, slots=True)
class ReadItBack:
    """Compare the service's state with what we set."""


@dataclass(frozen=True, slots=True)
class LookForReceipt:
    """Find the receipt, or make sure that there can never be one, after a pause."""

    after_ms: int


@dataclass(frozen=True, slots=True)
class Park:
    """Leave it unknown: a person, or evidence that arrives, must end it."""

    reason: str
    retry_after_ms: int | None = None


Move: TypeAlias = SendAgain | AskService | ReadItBack | LookForReceipt | Park


def next_move(in_doubt: InDoubt, facts: Facts) -> Move:
    """Return what to do about an effect whose outcome is unknown."""
    match in_doubt:
        case Resend():
            return _resend(in_doubt, facts)
        case Overwrite():
            if facts.is_precondition_failed:
                return (
                    ReadItBack() if in_doubt.read_back else Park("the precondition failed, and there is no read-back")
                )
            return _again(facts)
        case Probe():
            return _probe(in_doubt, facts)
        case Read():
            return _again(facts)
        case Transactional(Receipts()):
            if facts.asks >= ASKS_MAX:
                return Park(f"its receipt could not be looked for {facts.asks} times", RETRY_PARKED_MS)
            return LookForReceipt(backoff_ms(facts.asks))
        case Transactional():
            return Park("the database's own transaction left no trace of an outcome")
        case _:
            return Park("the service offers no way to find out")


def fence_left_ms(in_doubt: Probe, facts: Facts) -> int:
    """Return how long an earlier request may still land."""
    return max(0, in_doubt.longest_life_ms - max(0, facts.now_boot_ms - facts.last_sent_boot_ms))


def _resend(in_doubt: Resend, facts: Facts) -> Move:
    by_wall = facts.now_ms - facts.first_sent_ms
    by_boot = by_wall if facts.first_sent_boot_ms is None else facts.now_boot_ms - facts.first_sent_boot_ms
    if abs(by_wall - by_boot) > CLOCK_TOLERANCE_MS or by_wall < -CLOCK_TOLERANCE_MS:
        return Park(f"the clocks disagree about the age of the key (wall {by_wall} ms, boot {by_boot} ms)")
    if max(by_wall, by_boot) >= in_doubt.key_ttl_ms:
        return Park(f"the key has outlived the service's memory of {in_doubt.key_ttl}")
    return _again(facts)


def _again(facts: Facts) -> Move:
    if facts.sends >= RESENDS_MAX:
        return Park(f"no answer after {facts.sends} sends under one key", RETRY_PARKED_MS)
    return SendAgain(backoff_ms(facts.sends))


def _probe(in_doubt: Probe, facts: Facts) -> Move:
    if facts.asks >= ASKS_MAX:
        return Park(f"the probe gave no answer {facts.asks} times", RETRY_PARKED_MS)
    return AskService(fence_left_ms(in_doubt, facts) + (backoff_ms(facts.asks) if facts.asks else 0))


def backoff_ms(tries: int) -> int:
    """Return the pause before the next try: 0, then 200 ms doubling, at most 5 s."""
    return 0 if tries == 0 else min(5_000, 100 * 2**tries)
