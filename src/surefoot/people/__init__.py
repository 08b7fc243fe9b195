"""People: who may do what, and the trail of what they did. Asked in the transactions of effects and runs."""

from surefoot.people.roles import PROGRAM, NotAllowed, People, Proven
from surefoot.people.tables import MIGRATIONS
from surefoot.people.trail import Deed, record

__all__ = ["MIGRATIONS", "PROGRAM", "Deed", "NotAllowed", "People", "Proven", "record"]
