"""Agents on a Temporal cluster: the same agents and effects, with Temporal's loop, retries and timers.

    address      the URL of a cluster
    agents       `TemporalAgent`, what `app.agent(agent)` returns
    engine       client, worker and bridge of one app
    bridge       tells Temporal what has changed in our store
    workflow     the workflow that runs an agent;  `waiting` its waits,  `here` its place in the run
    rows         the activities that write the run's row
    durability   Pydantic AI's Temporal capability, with ours in it;  `backend` the seam
    performing   what an activity does: a tool call through the ledger, a recorded decision
    calls        an activity as a place in a run
    continuing   long runs, in several workflows
    payloads     what lies in Temporal's history, and what beside it
    parked       what a call waits for

What holds: Temporal's history rules what is done next; our ledger, on PostgreSQL, rules what was done. An activity ends
with a result only when that is on disk in our store, so two attempts of one call that are alive at once can't both act,
and what either did is told once.
"""

from surefoot.problem import SurefootError

try:
    import temporalio as _temporalio  # noqa: F401
    from pydantic_ai.durable_exec import CallToolResult as _contract  # noqa: F401  the newest part of what we need
except ImportError as missing:
    raise SurefootError(
        f"the Temporal SDK and Pydantic AI are needed ({missing})", hint='pip install "surefoot[temporal]"'
    ) from missing

from surefoot.adapters.temporal.address import Address, parse
from surefoot.adapters.temporal.agents import TemporalAgent
from surefoot.adapters.temporal.engine import Engine

__all__ = ["Address", "Engine", "TemporalAgent", "parse"]
