"""Coordination: how agents that share something keep out of each other's way, and how work finds one of many.

Above `runs`, for what it offers is taken as steps of runs; below `adapters`. Each part works alone, outside runs, too.
"""

from surefoot.coordination.desk import LeaseDesk
from surefoot.coordination.documents import DOCUMENTS, Document, document
from surefoot.coordination.gate import ResourceGate
from surefoot.coordination.leases import Lease, ResourceBusy, elect, lease, semaphore
from surefoot.coordination.rules import BadResource
from surefoot.coordination.tables import LEASES

MIGRATIONS = (LEASES, DOCUMENTS)

__all__ = [
    "MIGRATIONS",
    "BadResource",
    "Document",
    "Lease",
    "LeaseDesk",
    "ResourceBusy",
    "ResourceGate",
    "document",
    "elect",
    "lease",
    "semaphore",
]
