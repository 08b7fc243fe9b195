"""The public surface: what users write. Everything else may move."""

from __future__ import annotations

import surefoot

NAMES = [
    "AmbiguousStep",
    "ApprovalNeeded",
    "Approve",
    "AskPerson",
    "BadEffect",
    "CannotDecide",
    "CannotTell",
    "Codec",
    "CurrentEffect",
    "DeadLetter",
    "DeadlinePassed",
    "Denied",
    "Divergence",
    "EffectError",
    "Encrypted",
    "Escalation",
    "Event",
    "EventConflict",
    "Forgotten",
    "KeyConflict",
    "Landed",
    "LeaseLost",
    "LetterNotFound",
    "MissingKey",
    "NoStore",
    "NotAllowed",
    "NotDone",
    "NotInRun",
    "NotLanded",
    "NotOpen",
    "Outcome",
    "OutcomeUnknown",
    "Overwrite",
    "People",
    "PreconditionFailed",
    "Probe",
    "Read",
    "Receipts",
    "Resend",
    "Run",
    "RunCancelled",
    "RunConflict",
    "RunFailed",
    "RunNotFound",
    "RunStatus",
    "Signal",
    "SignalRefused",
    "StepFailed",
    "StoreError",
    "Surefoot",
    "SurefootError",
    "Suspend",
    "Topic",
    "Transactional",
    "Undecodable",
    "UnknownKind",
    "Unserializable",
    "ValueTooLarge",
    "branch",
    "child",
    "configure",
    "current_effect",
    "durable",
    "effect",
    "in_thread",
    "nothing_to_undo",
    "now",
    "on",
    "random",
    "read",
    "saga",
    "sleep",
    "sleep_until",
    "step",
    "uuid",
    "wait_signal",
]


def test_the_public_names_are_these() -> None:
    """Catches a name that is added without a thought, or taken away from under its users."""
    assert sorted(surefoot.__all__) == NAMES


def test_every_public_name_says_what_it_is() -> None:
    """Catches a name that is listed and not there, or that has no words of its own."""
    for name in surefoot.__all__:
        assert (getattr(surefoot, name).__doc__ or "").strip(), name
