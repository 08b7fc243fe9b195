"""Tools that Pydantic AI says need approval: asked for durably, by the same gate as `sf.Approve`.

The framework asks what becomes of the calls of one response that need approval (`requires_approval`, `ApprovalRequired`, an
`ApprovalRequiredToolset`). We let them through, and note them; each then waits at its own claim, with the arguments that it
would act with. So an approval is bound to what was validated, and calls of one response are decided one by one.

What holds: an agent whose output may be `DeferredToolRequests`, and a capability that answers before us, are left alone.
"""

from __future__ import annotations

import dataclasses
import typing
from types import UnionType
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults

from surefoot.adapters.pydantic_ai.conversations import Conversation
from surefoot.approvals import Approve
from surefoot.effects import EffectSpec


def let_through(
    conversation: Conversation, context: RunContext[Any], requests: DeferredToolRequests
) -> DeferredToolResults | None:
    """Answer for the calls that need approval: they go on, to wait at their claims; None to leave them to the user."""
    if not requests.approvals or _is_users_own(getattr(context.agent, "output_type", None)):
        return None
    conversation.gated.update(call.tool_call_id for call in requests.approvals)
    return requests.build_results(approvals={call.tool_call_id: True for call in requests.approvals})


def _is_users_own(declared: Any) -> bool:
    """Whether an agent's output may be the requests themselves, so that its caller handles them."""
    if isinstance(declared, list | tuple):
        return any(map(_is_users_own, declared))
    if isinstance(declared, UnionType) or typing.get_origin(declared) is typing.Union:
        return any(map(_is_users_own, typing.get_args(declared)))
    return declared is DeferredToolRequests


def gate_of(conversation: Conversation, call_id: str, spec: EffectSpec | None) -> Approve | None:
    """Return what a tool call that was let through waits for: what its effect declares, or anybody's approval.

    The framework has found that this call needs it, so a condition of the effect's own is not asked any more.
    """
    if call_id not in conversation.gated:
        return None
    own = None if spec is None else spec.approve
    return dataclasses.replace(own, when=None) if isinstance(own, Approve) else Approve()
