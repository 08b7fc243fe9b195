"""Effects: things done to the world outside, each claimed before the act, settled once, and never left in silence."""

from surefoot.effects.binding import NoStore, add_open, bound_guard, remove_open, set_opener
from surefoot.effects.classify import NotDone, PreconditionFailed
from surefoot.effects.current import CurrentEffect, current_effect
from surefoot.effects.doubt import (
    AskPerson,
    CannotTell,
    Landed,
    NotLanded,
    Overwrite,
    Probe,
    Read,
    Resend,
    Transactional,
)
from surefoot.effects.effect import Declaration, effect, in_thread, read, versioned
from surefoot.effects.gates import AroundGate, Gate, HoldingGate, OwnGate, Pass, Refuse, Request, Wait, around
from surefoot.effects.keys import BadEffect
from surefoot.effects.live.guard import Guard
from surefoot.effects.live.simulate import NothingRecorded, SimulatedGuard
from surefoot.effects.open_spec import OpenSpec
from surefoot.effects.outcome import (
    MEANING,
    Denied,
    EffectError,
    KeyConflict,
    Outcome,
    OutcomeUnknown,
    Telling,
    told_to_model,
)
from surefoot.effects.receipts import Receipts
from surefoot.effects.rows.ledger import MIGRATIONS
from surefoot.effects.spec import SPEC, EffectSpec, nothing_to_undo
from surefoot.effects.versions import Look, Seen, Stale, remember, remembered

__all__ = [
    "MEANING",
    "MIGRATIONS",
    "SPEC",
    "AroundGate",
    "AskPerson",
    "BadEffect",
    "CannotTell",
    "CurrentEffect",
    "Declaration",
    "Denied",
    "EffectError",
    "EffectSpec",
    "Gate",
    "Guard",
    "HoldingGate",
    "KeyConflict",
    "Landed",
    "Look",
    "NoStore",
    "NotDone",
    "NotLanded",
    "NothingRecorded",
    "OpenSpec",
    "Outcome",
    "OutcomeUnknown",
    "Overwrite",
    "OwnGate",
    "Pass",
    "PreconditionFailed",
    "Probe",
    "Read",
    "Receipts",
    "Refuse",
    "Request",
    "Resend",
    "Seen",
    "SimulatedGuard",
    "Stale",
    "Telling",
    "Transactional",
    "Wait",
    "add_open",
    "around",
    "bound_guard",
    "current_effect",
    "effect",
    "in_thread",
    "nothing_to_undo",
    "read",
    "remember",
    "remembered",
    "remove_open",
    "set_opener",
    "told_to_model",
    "versioned",
]
