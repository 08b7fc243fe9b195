"""Tools that Pydantic AI says need approval: asked for durably, by the same gate as `sf.Approve`.

The framework asks what becomes of the calls of one response that need approval (`requires_approval`, `ApprovalRequired`, an
`ApprovalRequiredToolset`). We let them through, and note them; each then waits at its own claim, with the arguments that it
would act with. So an approval is bound to what was validated, and calls of one response are decided one by one.

What holds: an agent whose output may be `DeferredToolRequests`, and a capability that answers before us, are left alone.
"""

from __future__ import annotations

import dataclasses

from pydantic_ai import DeferredToolRequests
from pydantic_ai.tools import DeferredToolApprovalResult

from surefoot.adapters.pydantic_ai.conversations import Conversation
from surefoot.approvals import Approve
from surefoot.effects import EffectSpec


def let_through(
    conversation: Conversation, requests: DeferredToolRequests
) -> dict[str, bool | DeferredToolApprovalResult]:
    """Answer for the calls that need approval, by their ids: they go on, to wait at their claims."""
    asked = [call.tool_call_id for call in requests.approvals]
    conversation.gated.update(asked)
    return dict.fromkeys(asked, True)


def gate_of(conversation: Conversation, call_id: str, spec: EffectSpec | None) -> Approve | None:
    """Return what a tool call that was let through waits for: what its effect declares, or anybody's approval.

    The framework has found that this call needs it, so a condition of the effect's own is not asked any more.
    """
    return ask_anybody(spec) if call_id in conversation.gated else None


def ask_anybody(spec: EffectSpec | None) -> Approve:
    """Return what a call that the framework says needs approval waits for."""
    own = None if spec is None else spec.approve
    return dataclasses.replace(own, when=None) if isinstance(own, Approve) else Approve()
