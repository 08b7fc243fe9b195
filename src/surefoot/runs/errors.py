"""What can go wrong with a run, each by its own name."""

from __future__ import annotations

from typing import Any

from surefoot.journal.texts import has_half_characters
from surefoot.problem import SurefootError


class RunConflict(SurefootError):
    """The id is taken by a run with another kind or input. Nothing was started; both are shown."""


class BadRunId(SurefootError):
    """What was given as a run's id is none: it is empty, or no text that can be kept."""


class RunNotFound(SurefootError):
    """There is no run of this id."""


class RunFailed(SurefootError):
    """The run ended in an error.

    Attributes:
        error_type: The qualified name of the error's class.
        error: The error as it was recorded.
    """

    def __init__(self, run_id: str, error_type: str, error: str) -> None:
        super().__init__(f"run {run_id} failed: {error_type}: {error}", hint=f"surefoot show {run_id}")
        self.error_type = error_type
        self.error = error


class RunCancelled(SurefootError):
    """The run was cancelled."""


class StepFailed(SurefootError):
    """A step raised. The same on the first execution and on every replay, so that the code after it goes the same way.

    Attributes:
        error_type: The qualified name of the error's class.
        error: Its message.
    """

    def __init__(self, step: str, error_type: str, error: str) -> None:
        super().__init__(f"step {step} failed: {error_type}: {error}")
        self.step = step
        self.error_type = error_type
        self.error = error


class DeadlinePassed(SurefootError):
    """The run's deadline has passed; raised by its next step. Catch it to finish in order."""


class Blocked(SurefootError):
    """Code and journal disagree: the run is parked as blocked until the code is mended or rolled back."""


class Divergence(Blocked):
    """The code asked for another step, or for other arguments of an effect, than the journal holds at this place.

    Attributes:
        step: The step's identity.
        asked: What the code asked for.
        recorded: What the journal holds.
    """

    def __init__(self, run_id: str, step: str, asked: str, recorded: str) -> None:
        super().__init__(
            f"run {run_id}, step {step}: the code asked for {asked}, the journal holds {recorded}",
            hint="bring back the code that began this run, or mend it; the run goes on then: surefoot signal "
            f"{run_id} wake",
        )
        self.step = step
        self.asked = asked
        self.recorded = recorded


class AmbiguousStep(SurefootError):
    """Two tasks ask for steps of one name under one parent: on replay nobody could tell which is which."""


class RecordRefused(SurefootError):
    """A record of the run could not be written, so nothing that follows it is: durability stays a prefix."""


class CannotUndo(SurefootError):
    """The run can't be undone as it is. Nothing, or nothing more, was compensated."""


class CannotFork(SurefootError):
    """The run can't be forked like this. No run was made."""


class SignalRefused(SurefootError):
    """The run can't take this signal: it has ended, or its kind takes no such signal or payload. Nothing was sent."""


class NotInRun(SurefootError):
    """Something that only a run can do was called outside of one."""


class UnknownKind(SurefootError):
    """No function of this name is registered in this process."""


class Suspend(BaseException):
    """Unwinds the code of a run that is parked, taken over or handed back. Not an error, and not to be caught: every
    further call into Surefoot raises it again, and what the code does meanwhile is not recorded."""

    def __init__(self, reason: Any = "") -> None:
        super().__init__(reason)


GOING_DOWN = (SystemExit, KeyboardInterrupt, GeneratorExit)
"""What unwinds code because its process, or whoever drives it, goes down: it says nothing of the run."""


def name_of(error: BaseException) -> str:
    """Return the qualified name of an error's class, as it is recorded."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def require_id(run_id: object) -> None:
    """Refuse what can't be a run's business id.

    Raises:
        BadRunId: It is no text, empty, or has half a character in it.
    """
    if not isinstance(run_id, str) or not run_id:
        raise BadRunId(f"id={run_id!r}: a run needs a business id", hint='id="ticket-991"; the same id, the same run')
    if has_half_characters(run_id):
        raise BadRunId(
            f"id={run_id!r} can't be written as UTF-8", hint="half a character: where was it cut or misread?"
        )
