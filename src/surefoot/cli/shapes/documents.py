"""Which document each command prints with `--json`, and the shapes that documents are made of."""

from __future__ import annotations

from msgspec import Struct

from surefoot.cli.shapes.doctor import DoctorDocument, FindingShape, ToolShape
from surefoot.cli.shapes.doubts import ContradictionShape, StuckShape, UnknownsDocument, UnknownShape
from surefoot.cli.shapes.effects import EffectDocument, EffectsDocument, EffectShape, EvidenceShape, ResolveDocument
from surefoot.cli.shapes.keeping import (
    BackupDocument,
    GcDocument,
    ModelDocument,
    RestoreDocument,
    RotateDocument,
    TrustDocument,
)
from surefoot.cli.shapes.parts import Advice, HolderShape
from surefoot.cli.shapes.people import (
    ApprovalsDocument,
    ApprovalShape,
    AuditDocument,
    DecisionDocument,
    EntryShape,
    NoteShape,
)
from surefoot.cli.shapes.runs import (
    CancelDocument,
    OutcomeDocument,
    RunsDocument,
    RunShape,
    ShowDocument,
    SignalDocument,
    SignalShape,
    StepShape,
    WorkerDocument,
)
from surefoot.cli.shapes.sharing import (
    DroppedDocument,
    EventsDocument,
    GroupShape,
    LeasesDocument,
    LetterDocument,
    LetterShape,
)
from surefoot.cli.shapes.versions import AgainShape, DeployDocument, ForkDocument, ShadowShape

SHARED: tuple[type[Struct], ...] = (
    RunShape, HolderShape, StepShape, SignalShape, EffectShape, EvidenceShape, UnknownShape, ContradictionShape,
    StuckShape, AgainShape, ShadowShape, ApprovalShape, GroupShape, LetterShape,
    NoteShape, EntryShape, Advice, FindingShape, ToolShape,
)  # fmt: skip
"""The shapes that documents are made of."""

DOCUMENTS: dict[str, tuple[type[Struct], ...]] = {
    "run": (OutcomeDocument,),
    "worker": (WorkerDocument,),
    "runs": (RunsDocument,),
    "show": (ShowDocument,),
    "signal": (SignalDocument,),
    "cancel": (CancelDocument,),
    "undo": (OutcomeDocument,),
    "effects": (EffectsDocument, EffectDocument),
    "unknowns": (UnknownsDocument,),
    "approvals": (ApprovalsDocument,),
    "leases": (LeasesDocument,),
    "audit": (AuditDocument,),
    "events": (EventsDocument,),
    "approve": (DecisionDocument,),
    "deny": (DecisionDocument,),
    "resolve": (ResolveDocument,),
    "redeliver": (LetterDocument,),
    "discard": (LetterDocument,),
    "drop-group": (DroppedDocument,),
    "check-deploy": (DeployDocument,),
    "fork": (ForkDocument,),
    "model pull": (ModelDocument,),
    "doctor": (DoctorDocument,),
    "gc": (GcDocument,),
    "backup": (BackupDocument,),
    "restore": (RestoreDocument,),
    "trust": (TrustDocument,),
    "rotate-keys": (RotateDocument,),
}
"""What each command prints with `--json`."""
