"""What always holds of the tables of leases, as queries for what breaks it."""

from __future__ import annotations

from surefoot.store.finding import Invariant

INVARIANTS = (
    Invariant(
        "a resource is held by as many as have places",
        "SELECT min(id) FROM leases WHERE token > 0 GROUP BY kind, resource HAVING count(*) > max(places)",
    ),
    Invariant(
        "every number and token of a lease was drawn",
        "SELECT id FROM leases WHERE token > (SELECT number FROM lease_numbers)"
        " OR number > (SELECT number FROM lease_numbers)",
    ),
    Invariant(
        "one ask is granted at all its resources, or at none",
        "SELECT min(id) FROM leases GROUP BY number HAVING min(token) != max(token)",
    ),
)
"""Checked by `surefoot doctor`."""
