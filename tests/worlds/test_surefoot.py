"""Surefoot in the crash table: killed at every point of a call's life, it ends where the undisturbed run ends.

At a service that offers keys, or a look-up behind an enforced expiry, nobody is asked and nothing is done twice. At one
that offers nothing, nothing is done twice either: what nobody can know is named, and a person's look settles it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.worlds import peers, sweep
from tests.worlds.cases import Result, Verdict
from tests.worlds.crash_table import BUSINESS, CONTROLS, DEEP, MAIN, render

NOTHING = "surefoot, nothing"

IN_DOUBT_AT = {"after_claim", "lost_call", "during_call", "during_call+300ms", "after_reply"}
"""Where a call is killed between its intent and its outcome: all that a service without an offer leaves to a person."""


def faults(results: Sequence[Result]) -> list[str]:
    """What went wrong in any case, in one line each; must be empty."""
    return [
        f"{result.engine} {result.task} {result.at}#{result.nth} {result.tool}: {result.verdict}, after a person"
        f" {result.after_person}, {result.duplicates} duplicates {result.difference} {result.error[-300:]}"
        for result in results
        if not result.exact or result.duplicates or result.misled or not result.named_rightly
    ]


def asked(results: Sequence[Result]) -> set[tuple[str, str]]:
    """The engines and points at which a person was asked."""
    return {(result.engine, result.at) for result in results if result.verdict == Verdict.IN_DOUBT}


def test_a_kill_at_any_point_ends_in_the_undisturbed_world() -> None:
    """Would catch an act without its claim, a claim without its reasons, a fence that is too short, a lost outcome, and
    a run that asks a person what the service could have told, or does not ask what only a person can tell."""
    results = sweep.measure(MAIN, "points", per_tool=1, tools=["send_money"])

    assert faults(results) == []
    assert asked(results) == {(NOTHING, at) for at in IN_DOUBT_AT}
    assert len(results) == len(MAIN) * (len(sweep.POINTS) + 1)
    assert all(result.fired == 1 for result in results)


def test_a_model_that_forgot_cannot_do_it_again() -> None:
    """Would catch two runs that both resolve one effect, a resend in other words than the first, and a run that waits
    for another run's effect and is never woken when it has its outcome."""
    results = sweep.measure(BUSINESS, "forgot", per_tool=1, tools=["send_email"])

    assert faults(results) == []
    assert asked(results) == {(f"{NOTHING}, business key", at) for at in IN_DOUBT_AT}


@pytest.mark.slow
def test_the_whole_crash_table() -> None:
    """Would catch one of the 81 effects whose arguments, values or refusals fare otherwise than those of the sample."""
    results = sweep.measure(MAIN, "points", deadline_s=30)

    assert faults(results) == []
    assert asked(results) == {(NOTHING, at) for at in IN_DOUBT_AT}
    assert len(results) == len(MAIN) * 81 * (len(sweep.POINTS) + 1)
    assert all(result.fired == 1 for result in results)


@pytest.mark.slow
def test_every_task_is_undisturbed_without_kills() -> None:
    """Would catch a tool whose arguments or values do not survive the journal."""
    results = sweep.measure(MAIN, "undisturbed", deadline_s=30)

    assert faults(results) == []
    assert asked(results) == set()


@pytest.mark.slow
def test_every_operation_of_the_store_can_be_killed_at_and_so_can_the_recovery() -> None:
    """Would catch a place that has no name: a transaction that must not be cut in two, an order that must not change."""
    tools = [*DEEP, "create_calendar_event", "append_to_file", "reserve_hotel", "add_user_to_channel"]
    results = sweep.measure(MAIN, "crossings", "recoveries", per_tool=1, tools=tools, deadline_s=30)

    assert faults(results) == []
    assert len(results) > 2_000
    assert {engine for engine, _ in asked(results)} == {NOTHING}


@pytest.mark.slow
def test_no_model_that_forgot_does_any_of_the_effects_again() -> None:
    """Would catch a business key that two wordings of one decision do not share."""
    results = sweep.measure(BUSINESS, "forgot", deadline_s=30)
    repeats = sweep.measure(BUSINESS, "repeats", deadline_s=30)

    assert faults(results) == faults(repeats) == []
    assert asked(results) == {(f"{NOTHING}, business key", at) for at in IN_DOUBT_AT}
    assert asked(repeats) == set()


@pytest.mark.slow
def test_the_page_of_the_docs_can_be_made() -> None:
    """Would catch a command in the docs that no longer runs."""
    results = sweep.measure([*CONTROLS, *MAIN], "points", per_tool=1, tools=["send_money"])
    page = render(results)

    assert "| **surefoot, keys** | 1/1 | 1/1 |" in page
    assert "| **record after** | 1/1 | 1/1 | 1/1 | 0/1, 1 doubled |" in page


@pytest.mark.slow
def test_other_durable_engines_do_twice_what_they_had_not_recorded_unless_the_tool_sends_a_key() -> None:
    """Would catch a row of the docs about somebody else's engine that is no longer true."""
    results = peers.points()
    by_hand = [result for result in results if result.engine.endswith("by hand")]
    as_is = [result for result in results if not result.engine.endswith("by hand")]

    assert faults(by_hand) == []
    assert {result.at for result in as_is if result.duplicates} == {"during_call", "after_reply", "during_call+300ms"}
    assert len(results) == 2 * 2 * 13 * (len(sweep.POINTS) + 1)
