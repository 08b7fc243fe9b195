"""The lost time of a restored store: what was done between the snapshot and its restore, and is not in the ledger.

A restored store has forgotten which keys were used in that time. So an effect that it would claim anew may have happened,
and is in doubt from its claim on: it goes the way of its class, as if its sender had died. That holds for runs that were
under way when the snapshot was taken for as long as they live, since what they had done meanwhile is lost; and for all
others until a person has looked (`surefoot trust`), since whoever asked before the restore may ask again. Effects in the
store's own database are not in doubt: they were lost with the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from surefoot.effects.doubt import InDoubt, Read, Transactional
from surefoot.store.connection import Connection

TRUST = "surefoot trust"

LostSince: TypeAlias = Callable[[Connection, int | None], int | None]
"""Says from when on a new effect of a run, or of none, may have been done unknown to the store; None: never."""


def may_be_lost(in_doubt: InDoubt) -> bool:
    """Whether an effect of this class can have happened without the store knowing."""
    return not isinstance(in_doubt, Read) and not (isinstance(in_doubt, Transactional) and in_doubt.receipts is None)
