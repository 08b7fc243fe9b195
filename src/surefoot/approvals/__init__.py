"""Approvals: what a person must say yes to before an effect acts, asked durably and used once."""

from surefoot.approvals.approve import Approve
from surefoot.approvals.decide import AlreadyDecided, ApprovalNotFound, CannotDecide, NobodyWaits, decide
from surefoot.approvals.desk import ApprovalView, list_approvals
from surefoot.approvals.errors import ApprovalNeeded
from surefoot.approvals.states import State
from surefoot.approvals.tables import MIGRATIONS

__all__ = [
    "MIGRATIONS",
    "AlreadyDecided",
    "ApprovalNeeded",
    "ApprovalNotFound",
    "ApprovalView",
    "Approve",
    "CannotDecide",
    "NobodyWaits",
    "State",
    "decide",
    "list_approvals",
]
