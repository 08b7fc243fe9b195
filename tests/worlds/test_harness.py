"""The harness: that it finds what hand-written loops are known to do, and says so when an engine breaks off.

Without these controls a green table means nothing: the loops that record after or before the act must fail just where
theory says, and the bare rules that are right must not.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping

import pytest
from tests.worlds import sweep
from tests.worlds.cases import Engine, Memory, Report, Result, Verdict, Work
from tests.worlds.kills import Kill, Point
from tests.worlds.plain import FENCED_PROBE
from tests.worlds.service import Offer, Terms

PLAIN = "tests.worlds.plain"
POINTS = [*(point.value for point in sweep.POINTS), "during_call+300ms"]

# One call whose repetition changes the state, and one that refuses it.
SAMPLE = ("send_money", "invite_user_to_slack")


def expectation(cases: int, twice: str, twice_late: str, misled: str, skipped_late: str) -> dict[str, list[str]]:
    """The failure model's table for a number of cases: what each loop makes of a kill at each of `POINTS`."""
    ok, lost, asked = f"{cases} ok", f"{cases} lost", f"{cases} in doubt, {cases} exact after a person"
    told = f"{twice}, {misled}"
    return {
        #                      before_claim  after_claim  lost_call  during_call  after_reply  after_record  +300ms
        "record after": [ok, ok, ok, told, told, ok, twice_late],
        "record before": [ok, lost, lost, ok, ok, ok, skipped_late],
        "key": [ok, ok, ok, ok, ok, ok, ok],
        "business key": [ok, ok, ok, ok, ok, ok, ok],
        "probe": [ok, ok, ok, ok, ok, ok, twice_late],
        "probe behind a fence": [ok, ok, ok, ok, ok, ok, ok],
        "stop and ask": [ok, asked, asked, asked, asked, ok, asked],
    }


def matrix(results: list[Result]) -> dict[str, list[str]]:
    """The table as the expectation writes it: engine by kill point, in the order of `POINTS`."""
    cells = sweep.table(results)
    return {engine: [str(cells[engine, point]) for point in POINTS] for engine in dict.fromkeys(e for e, _ in cells)}


def test_plain_loops_fail_and_hold_where_theory_says() -> None:
    """Would catch a harness that misses duplicates or losses, kills elsewhere than it says, or finds fault with all."""
    engines = ["RECORD_AFTER", "RECORD_BEFORE", "BUSINESS_KEY", "PROBE", "FENCED_PROBE", "STOP_AND_ASK"]
    places = [f"{PLAIN}:{name}" for name in engines]
    measured = sweep.measure(places, "points", "repeats", per_tool=1, tools=SAMPLE)
    results = [result for result in measured if result.memory == Memory.KEPT]
    repeats = [result for result in measured if result.memory == Memory.REPEATS]

    twice = "1 ok, 1 wrong, 2 duplicates"
    expected = expectation(2, twice, twice, "1 misled", "2 ok")
    assert matrix(results) == {engine: row for engine, row in expected.items() if engine != "key"}
    assert {result.engine for result in repeats if not result.duplicates} == {"business key"}
    assert all(result.fired == 1 for result in results)
    assert all(result.named_rightly for result in results)
    wrong = next(result for result in results if result.verdict == Verdict.WRONG)
    assert any("bank_account.transactions" in place for place in wrong.difference)


def test_a_business_key_holds_when_another_run_decides_anew_and_when_the_recovery_is_killed_too() -> None:
    """Would catch recoveries that are never hit, and a sweep over them that stops early."""
    place = f"{PLAIN}:BUSINESS_KEY"
    results = sweep.measure([place], "forgot", "recoveries", per_tool=1, tools=["send_money"])
    recoveries = [result for result in results if result.memory == Memory.KEPT]

    assert all(result.exact and not result.duplicates for result in results)
    assert len(results) - len(recoveries) == len(POINTS)
    for at in {result.at for result in recoveries}:
        depths = sorted(result.nth for result in recoveries if result.at == at)
        assert depths == list(range(1, len(depths) + 1))
        assert len(depths) >= 4
    assert all((result.fired, result.workers) == (2, 3) for result in recoveries)


class Raises:
    """An engine that breaks."""

    name = "raises"
    terms = Terms(Offer.NOTHING)

    def run(self, work: Work) -> Report:
        raise LookupError("no such thing")

    def resolve(self, work: Work, landed: Mapping[str, bool]) -> Report:
        raise NotImplementedError


class Hangs(Raises):
    """An engine that never ends."""

    name = "hangs"

    def run(self, work: Work) -> Report:
        while True:
            time.sleep(1)


class GivesUp(Raises):
    """An engine that leaves its run unfinished and names no doubt."""

    name = "gives up"

    def run(self, work: Work) -> Report:
        return Report(finished=False)


class Dies(Raises):
    """An engine whose process dies of something else than our kill."""

    name = "dies"

    def run(self, work: Work) -> Report:
        os.kill(os.getpid(), signal.SIGSEGV)
        return Report(finished=True)


class Pretends(Raises):
    """An engine that says it is done and has done nothing."""

    name = "pretends"

    def run(self, work: Work) -> Report:
        return Report(finished=True)


BROKEN: list[Engine] = [Raises(), Hangs(), GivesUp(), Dies(), Pretends()]


def test_an_engine_that_breaks_off_is_never_taken_for_a_sound_one() -> None:
    """Would catch crashes, hangs and empty reports that count as passed cases."""
    results = sweep.measure([f"{__name__}:BROKEN"], "undisturbed", per_tool=1, tools=["send_money"], deadline_s=0.5)
    found = {result.engine: (result.verdict, result.error.splitlines()[-1:]) for result in results}

    assert found == {
        "raises": ("error", ["LookupError: no such thing"]),
        "hangs": ("stuck", []),
        "gives up": ("stuck", []),
        "dies": ("error", ["the worker died of signal 11"]),
        "pretends": ("lost", []),
    }


def test_a_kill_and_its_fault_are_told_apart() -> None:
    """Would catch points that nobody kills at: neither the service nor the trap."""
    by_service = {point for point in Point if Kill(point).fault is not None}

    assert by_service == {Point.LOST_CALL, Point.DURING_CALL, Point.DURING_LOOK_UP}
    assert str(Kill(Point.DURING_CALL, straggles_s=0.3)) == "during_call+300ms"
    assert FENCED_PROBE.life_s < sweep.STRAGGLES_S


@pytest.mark.slow
def test_the_whole_table_of_plain_loops() -> None:
    """Would catch a change in any of the 81 calls' worth as a witness: the figures are those of the failure model."""
    results = sweep.measure([f"{PLAIN}:ALL"], "points")
    found = matrix(results)

    # How much a late act harms depends on whether it lands before or after the recovery: these three have bounds.
    late = {engine: sweep.table(results)[engine, POINTS[-1]] for engine in ("record after", "record before", "probe")}
    for engine in late:
        found[engine][-1] = "late"
    twice = "17 ok, 64 wrong, 81 duplicates"
    assert found == expectation(81, twice, "late", "7 misled", "late")
    assert late["record after"].duplicates == 81
    assert 60 <= late["record after"].count(Verdict.WRONG) <= 64
    assert 40 <= late["probe"].count(Verdict.WRONG) <= 64
    # Nothing is done twice and nothing is lost, but what lands late lands after what should have followed it.
    assert late["record before"].duplicates == late["record before"].count(Verdict.LOST) == 0
    assert late["record before"].count(Verdict.WRONG) <= 8
    assert all(result.fired == 1 and result.named_rightly for result in results)


@pytest.mark.slow
def test_every_crossing_of_a_run_and_of_its_recovery_can_be_killed_at() -> None:
    """Would catch a point that has no name and that no case reaches."""
    places = [f"{PLAIN}:{name}" for name in ("BUSINESS_KEY", "FENCED_PROBE", "STOP_AND_ASK")]
    results = sweep.measure(places, "crossings", "recoveries", per_tool=1)

    assert len(results) > 1000
    assert all(result.exact and result.named_rightly and not result.duplicates for result in results)


@pytest.mark.slow
def test_every_task_is_undisturbed_without_kills() -> None:
    """Would catch tasks whose state depends on how, not whether, their calls are made."""
    results = sweep.measure([f"{PLAIN}:ALL"], "undisturbed")

    assert len(results) == 97 * 7
    assert all(result.exact and not result.duplicates for result in results)


@pytest.mark.slow
def test_only_a_business_key_holds_when_another_run_decides_anew() -> None:
    """Would catch a model that forgets nothing: the same ids or words, which any key absorbs."""
    results = sweep.measure([f"{PLAIN}:ALL"], "forgot", per_tool=1)
    sound = {engine for engine in matrix(results) if not any(r.duplicates for r in results if r.engine == engine)}

    assert sound == {"business key"}
    assert all(result.exact for result in results if result.engine in sound)
