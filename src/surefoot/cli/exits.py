"""Exit codes, as a table, and the errors that only a command line can make.

What holds: every way a command can end has one number; an error of Surefoot is printed as what happened and what to do
next, and its class alone decides the number.
"""

from __future__ import annotations

from enum import IntEnum

from surefoot.approvals import ApprovalNeeded, ApprovalNotFound, CannotDecide
from surefoot.coordination.events import GroupNotFound, GroupServed, LetterNotFound
from surefoot.effects import BadEffect, Denied, KeyConflict
from surefoot.effects.rows.desk import CannotResolve, UnfitValue
from surefoot.journal import Unserializable, ValueTooLarge
from surefoot.journal.encrypted import BadKeys
from surefoot.journal.texts import BadText
from surefoot.leases import LeaseLost
from surefoot.people import NotAllowed
from surefoot.problem import SurefootError
from surefoot.runs import BadRunId, CannotFork, CannotUndo, RunConflict, RunNotFound, SignalRefused, UnknownKind
from surefoot.store import StoreError


class ExitCode(IntEnum):
    """How a command ended. The numbers are what scripts rely on: never reused, never renumbered."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    STORE = 5
    WAITING = 6
    BUG = 70
    UNWRITTEN = 74
    INTERRUPTED = 130
    READER_LEFT = 141


MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "done as asked",
    ExitCode.FAILED: "the thing asked for failed: the run failed or was cancelled, the download broke off, "
    "the doctor found an error",
    ExitCode.USAGE: "the command line is wrong: an option, a module, an argument, JSON that can't be read, SUREFOOT_KEYS",
    ExitCode.NOT_FOUND: "there is no such run, effect, approval or dead letter",
    ExitCode.REFUSED: "refused, nothing changed: another input, no doubt left, decided before, not allowed, not yet",
    ExitCode.STORE: "trouble with the store: none there, not writable, damaged, full",
    ExitCode.WAITING: "the run has not ended: it waits for a person, or longer than --timeout",
    ExitCode.BUG: "an error that Surefoot did not expect, with its traceback: please report it",
    ExitCode.UNWRITTEN: "the output could not be written: a full disk, a terminal that is gone; what was recorded stays",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C or SIGTERM; nothing recorded is lost, and what goes on was said",
    ExitCode.READER_LEFT: "the reader of the output has left, as in `surefoot runs | head -1`",
}
"""What each number says, for the help."""


class WrongUsage(SurefootError):
    """What was typed can't be carried out: a module, a function, an argument."""


class EffectNotFound(SurefootError):
    """There is no effect of this number."""


class Refused(SurefootError):
    """It makes no sense any more, or not yet. Nothing was changed."""


class NoStoreThere(StoreError):
    """No store was named, or there is none at the place that was named. None was made."""


class Unwritten(SurefootError):
    """What was asked for could not be written to stdout."""


class ReaderLeft(Exception):
    """Whoever read our output has closed it."""


class Interrupted(Exception):
    """Ctrl-C in a command that has nothing to hand back."""


BY_ERROR: tuple[tuple[type[Exception], ExitCode], ...] = (
    (WrongUsage, ExitCode.USAGE),
    (UnknownKind, ExitCode.USAGE),
    (BadRunId, ExitCode.USAGE),
    (BadText, ExitCode.USAGE),
    (BadEffect, ExitCode.USAGE),
    (BadKeys, ExitCode.USAGE),
    (Unserializable, ExitCode.USAGE),
    (ValueTooLarge, ExitCode.USAGE),
    (UnfitValue, ExitCode.USAGE),
    (RunNotFound, ExitCode.NOT_FOUND),
    (EffectNotFound, ExitCode.NOT_FOUND),
    (ApprovalNotFound, ExitCode.NOT_FOUND),
    (LetterNotFound, ExitCode.NOT_FOUND),
    (GroupNotFound, ExitCode.NOT_FOUND),
    (GroupServed, ExitCode.REFUSED),
    (CannotDecide, ExitCode.REFUSED),
    (ApprovalNeeded, ExitCode.WAITING),
    (NotAllowed, ExitCode.REFUSED),
    (RunConflict, ExitCode.REFUSED),
    (CannotResolve, ExitCode.REFUSED),
    (CannotUndo, ExitCode.REFUSED),
    (CannotFork, ExitCode.REFUSED),
    (SignalRefused, ExitCode.REFUSED),
    (KeyConflict, ExitCode.REFUSED),
    (Denied, ExitCode.REFUSED),
    (Refused, ExitCode.REFUSED),
    (Unwritten, ExitCode.UNWRITTEN),
    (StoreError, ExitCode.STORE),
    (LeaseLost, ExitCode.STORE),
    (SurefootError, ExitCode.FAILED),
)
"""Which number an error ends with; the first that fits."""


def exit_code_of(error: Exception) -> ExitCode:
    """Return the number a command ends with when this error comes out of it."""
    return next((code for kind, code in BY_ERROR if isinstance(error, kind)), ExitCode.BUG)
