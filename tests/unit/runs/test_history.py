"""The journal arranged for a replay: which record is whose, and what is left."""

from __future__ import annotations

from surefoot.journal import Kind, Record
from surefoot.journal.records import Head
from surefoot.runs.live.replay import arrange


def record(seq: int, kind: Kind, step: str = "", after: int = 0, **head: object) -> Record:
    return Record(7, seq, kind, step, after, Head(**head))  # type: ignore[arg-type]  # of the test's own making


def test_records_that_are_no_steps_are_none() -> None:
    """Catches a replay that asks the code for a step that was a check's verdict, a drift, or the run's own end."""
    history = arrange(
        [
            record(1, Kind.STARTED),
            record(2, Kind.DECIDED, "a"),
            record(3, Kind.DRIFT, "a", 2),
            record(4, Kind.VERDICT, "a", 2),
            record(5, Kind.ENDED, state="completed"),
        ]
    )
    assert history.started is not None
    assert list(history.steps) == ["a"]
    assert (history.last_seq, history.drifts, history.left_over()) == (5, {"a"}, ["a"])


def test_a_step_has_its_newest_claim_or_question_and_its_first_outcome() -> None:
    """Catches a replay that is given what was written of a step after its end, the question for its claim, or a claim that
    was left before the act for the question that came after it."""
    history = arrange(
        [
            record(1, Kind.ASKED, "pay"),
            record(2, Kind.CLAIMED, "pay"),
            record(3, Kind.DONE, "pay"),
            record(4, Kind.INTERRUPTED, "pay"),
            record(5, Kind.CLAIMED, "left"),
            record(6, Kind.ASKED, "left"),
        ]
    )
    step, left = history.steps["pay"], history.steps["left"]
    assert step.opened is not None
    assert step.ended is not None
    assert left.opened is not None
    assert (step.opened.seq, step.ended.seq, step.began, left.opened.seq) == (2, 3, 2, 6)


def test_an_outcome_that_the_code_left_unseen_is_an_interruption_to_it() -> None:
    """Catches a replay that hands over what the code did not wait for the first time."""
    history = arrange([record(1, Kind.DONE, "pay"), record(2, Kind.INTERRUPTED, name="pay")])
    assert history.steps["pay"].is_interrupted


def test_cancellations_signals_and_deadlines_are_found() -> None:
    """Catches a letter that is delivered twice, and a deadline that is raised at a second place."""
    history = arrange(
        [
            record(1, Kind.SIGNAL, "signal go", signal=3),
            record(2, Kind.SIGNAL, signal=4, name="$cancel"),
            record(3, Kind.EXPIRED, "late", -2),
        ]
    )
    assert (history.signals_taken, list(history.cancels)) == ({3}, [4])
    assert history.expired is not None
    assert history.steps["late"].is_fork
    assert history.followers["", 0] == "signal go"
    assert ("", -2) not in history.followers
