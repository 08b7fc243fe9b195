"""What is done about a doubt, at the very limits; and what an exception says."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

import surefoot as sf
from surefoot.effects.classify import NeverSent, describe, not_done_reason
from surefoot.effects.doubt import (
    ASKS_MAX,
    CLOCK_TOLERANCE_MS,
    RESENDS_MAX,
    RETRY_PARKED_MS,
    AskService,
    Facts,
    InDoubt,
    LookForReceipt,
    Move,
    Park,
    ReadItBack,
    SendAgain,
    backoff_ms,
    fence_left_ms,
    next_move,
)

HOUR_MS = 3_600_000
NOW_MS, BOOT_MS = 10 * HOUR_MS, 5 * HOUR_MS
FACTS = Facts(NOW_MS, BOOT_MS, BOOT_MS, NOW_MS, BOOT_MS, sends=1, asks=0)
"""Sent right now, and once."""

KEYS, PROBE = sf.Resend(key_ttl="1h"), sf.Probe(sf.NotLanded, longest_life="10s")
RECEIPTS = sf.Transactional(receipts=sf.Receipts(lambda: sqlite3.connect(":memory:"), paramstyle="qmark"))


def later(wall_ms: int, boot_ms: int | None = None) -> Facts:
    """Return the facts after some time, by both clocks."""
    return replace(FACTS, now_ms=NOW_MS + wall_ms, now_boot_ms=BOOT_MS + (wall_ms if boot_ms is None else boot_ms))


def test_an_assumption_names_the_time_it_holds_for() -> None:
    """Catches a promise that hides until when it stands."""
    assert KEYS.assumption == "the service dedupes on our key for 1h"
    assert PROBE.assumption.startswith("no request lands later than 10s after it was sent")


def test_pauses_double_up_to_five_seconds() -> None:
    """Catches a service in trouble that is stormed, and a doubt that sleeps for hours."""
    assert [backoff_ms(tries) for tries in range(8)] == [0, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]


@pytest.mark.parametrize(("known", "move"), [
    (later(0), SendAgain(200)),
    (later(HOUR_MS - 1), SendAgain(200)),
    (later(HOUR_MS), Park("the key has outlived the service's memory of 1h")),
    (later(HOUR_MS - 1, HOUR_MS), Park("the key has outlived the service's memory of 1h")),
    (later(HOUR_MS, HOUR_MS - 1), Park("the key has outlived the service's memory of 1h")),
    (later(CLOCK_TOLERANCE_MS, 0), SendAgain(200)),
    (later(0, CLOCK_TOLERANCE_MS), SendAgain(200)),
    (later(CLOCK_TOLERANCE_MS + 1, 0), Park("the clocks disagree about the age of the key (wall 60001 ms, boot 0 ms)")),
    (later(0, CLOCK_TOLERANCE_MS + 1), Park("the clocks disagree about the age of the key (wall 0 ms, boot 60001 ms)")),
    (later(-CLOCK_TOLERANCE_MS, 0), SendAgain(200)),
    (replace(later(-CLOCK_TOLERANCE_MS), first_sent_boot_ms=None), SendAgain(200)),
    (replace(later(-CLOCK_TOLERANCE_MS - 1), first_sent_boot_ms=None),
     Park("the clocks disagree about the age of the key (wall -60001 ms, boot -60001 ms)")),
    (replace(later(HOUR_MS - 1, 0), first_sent_boot_ms=None), SendAgain(200)),
    (replace(later(HOUR_MS, 0), first_sent_boot_ms=None), Park("the key has outlived the service's memory of 1h")),
    (replace(FACTS, sends=RESENDS_MAX - 1), SendAgain(1_600)),
    (replace(FACTS, sends=RESENDS_MAX), Park(f"no answer after {RESENDS_MAX} sends under one key", RETRY_PARKED_MS)),
])  # fmt: skip
def test_a_key_is_used_for_as_long_as_it_lives_and_no_longer(known: Facts, move: Move) -> None:
    """Catches a send at the moment when the service has forgotten the key, and a key that is given up too early."""
    assert next_move(KEYS, known) == move


@pytest.mark.parametrize(
    ("age_ms", "left_ms"), [(0, 10_000), (1, 9_999), (9_999, 1), (10_000, 0), (10_001, 0), (-5, 10_000)]
)
def test_a_fence_counts_from_the_last_send(age_ms: int, left_ms: int) -> None:
    """Catches a fence that is a moment short, and one that a clock set back makes longer than itself."""
    known = later(0, age_ms)
    assert fence_left_ms(PROBE, known) == left_ms
    assert next_move(PROBE, known) == AskService(left_ms)
    assert next_move(PROBE, replace(known, asks=1)) == AskService(left_ms + 200)


@pytest.mark.parametrize(("in_doubt", "known", "move"), [
    (PROBE, replace(FACTS, asks=ASKS_MAX), Park(f"the probe gave no answer {ASKS_MAX} times", RETRY_PARKED_MS)),
    (PROBE, replace(later(HOUR_MS), asks=ASKS_MAX - 1), AskService(backoff_ms(ASKS_MAX - 1))),
    (RECEIPTS, FACTS, LookForReceipt(0)),
    (RECEIPTS, replace(FACTS, asks=ASKS_MAX - 1), LookForReceipt(backoff_ms(ASKS_MAX - 1))),
    (RECEIPTS, replace(FACTS, asks=ASKS_MAX),
     Park(f"its receipt could not be looked for {ASKS_MAX} times", RETRY_PARKED_MS)),
    (sf.Transactional(), FACTS, Park("the database's own transaction left no trace of an outcome")),
    (sf.AskPerson(), FACTS, Park("the service offers no way to find out")),
    (sf.Read(), FACTS, SendAgain(200)),
    (sf.Overwrite(), FACTS, SendAgain(200)),
    (sf.Overwrite(), replace(FACTS, is_precondition_failed=True),
     Park("the precondition failed, and there is no read-back")),
    (sf.Overwrite(lambda: True), replace(FACTS, is_precondition_failed=True), ReadItBack()),
    (sf.Overwrite(lambda: True), replace(FACTS, sends=0), SendAgain(0)),
])  # fmt: skip
def test_each_class_does_what_its_service_offers(in_doubt: InDoubt, known: Facts, move: Move) -> None:
    """Catches a question too many, and a doubt that is left to a person though somebody could be asked."""
    assert next_move(in_doubt, known) == move


class Closed(PermissionError): ...


@pytest.mark.parametrize(("error", "refused_on", "is_one_request", "reason"), [
    (sf.NotDone("closed"), (), False, "closed"),
    (NeverSent("no session"), (), False, "no session"),
    (Closed("by  the\nbank"), (PermissionError,), False, "refused by the service: Closed: by the bank"),
    (Closed(), (ValueError, PermissionError), True, "refused by the service: Closed"),
    (Closed(), (ValueError,), True, None),
    (ConnectionRefusedError("no"), (), True, "never sent: ConnectionRefusedError: no"),
    (ConnectionRefusedError("no"), (), False, None),
    (ConnectionRefusedError("no"), (OSError,), True, "refused by the service: ConnectionRefusedError: no"),
])  # fmt: skip
def test_what_an_exception_says(
    error: Exception, refused_on: tuple[type[Exception], ...], is_one_request: bool, reason: str | None
) -> None:
    """Catches "not done" that is read into an exception, and a reason that nobody can read."""
    assert not_done_reason(error, refused_on, is_one_request=is_one_request) == reason


def test_an_error_is_told_in_one_line_of_some_length() -> None:
    """Catches a page of HTML as the reason of a doubt."""
    assert describe(ValueError("x" * 501)) == f"ValueError: {'x' * 500}"
    assert describe(ValueError("x" * 500)) == f"ValueError: {'x' * 500}"
    assert describe(ValueError(" \n")) == "ValueError"
