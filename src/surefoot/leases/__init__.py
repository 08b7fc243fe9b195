"""Leases: who may act for a thing, and until when. A worker holds one session; runs and claims are held by it."""

from surefoot.leases.duty import Duty
from surefoot.leases.rules import Life, SessionFacts, judge
from surefoot.leases.session import Holder, LeaseLost, Session, Sessions
from surefoot.leases.tables import MIGRATIONS

__all__ = ["MIGRATIONS", "Duty", "Holder", "LeaseLost", "Life", "Session", "SessionFacts", "Sessions", "judge"]
