"""What a caller outside runs is told where a run would wait."""

from __future__ import annotations

from surefoot.problem import SurefootError


class ApprovalNeeded(SurefootError):
    """The call waits for an approval. Nothing was done; the same call acts once it is approved.

    Attributes:
        approval: The approval's number, for `surefoot approve`.
    """

    is_retryable = True

    def __init__(self, approval: int, what: str) -> None:
        super().__init__(
            f"approval {approval} is needed: {what}; nothing was done",
            hint=f"surefoot approve {approval} --by YOU --reason WHY, then call it again",
        )
        self.approval = approval
