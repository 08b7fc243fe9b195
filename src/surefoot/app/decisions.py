"""What people decide about what is in a store: approvals, doubts, dead letters, groups.

What holds: who decides is asked for before anything is changed, and each decision is in the trail with its reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from surefoot.approvals import ApprovalView, decide
from surefoot.coordination.events import GroupView
from surefoot.coordination.events.letters import decide as decide_letter
from surefoot.coordination.events.letters import drop_group
from surefoot.effects.rows import desk
from surefoot.effects.rows.desk import EffectView
from surefoot.leases import Sessions
from surefoot.people import People
from surefoot.people.trail import identify
from surefoot.runs import Worker
from surefoot.runs.rows.desk import is_open, wake
from surefoot.store import Store


class Decisions(ABC):
    """The side of an app that people decide at.

    Args:
        people: Who may decide what, as the app was told.
    """

    def __init__(self, people: People | None) -> None:
        self._people = people

    @property
    @abstractmethod
    def store(self) -> Store:
        """The open store."""

    @property
    @abstractmethod
    def worker(self) -> Worker:
        """The worker of this process."""

    @property
    def people(self) -> People | None:
        """The rules it was given."""
        return self._people

    async def identify(self, name: str) -> str:
        """Return a name as this app's `People(authenticate=...)` has proven it; as it was given, where there is none.

        For `by=` of what a run's handle does: `await run.cancel("...", by=await app.identify("anna"))`. `approve`, `deny`,
        `resolve`, `undone` and what decides about events ask for themselves.

        Raises:
            NotAllowed: It was not proven.
        """
        return await identify(self._people, name)

    async def approve(self, approval: int, *, by: str, reason: str) -> ApprovalView:
        """Say yes to an approval; whoever waits for it goes on.

        Args:
            approval: Its number.
            by: Who decides: a claim that is recorded, unless `People(authenticate=...)` proves it.
            reason: Why; kept for ever.

        Raises:
            ApprovalNotFound, AlreadyDecided, NobodyWaits, NotAllowed: See each; nothing was changed.
        """
        return await self._decide(approval, is_yes=True, by=by, reason=reason)

    async def deny(self, approval: int, *, by: str, reason: str) -> ApprovalView:
        """Say no: whoever waits is told that it is denied, and why. Also takes an approval back that is not used yet.

        Args and errors: as for `approve`.
        """
        return await self._decide(approval, is_yes=False, by=by, reason=reason)

    async def _decide(self, approval: int, *, is_yes: bool, by: str, reason: str) -> ApprovalView:
        worker, who = self.worker, await self.identify(by)
        found = await decide(
            self.store,
            worker.sessions,
            approval,
            is_yes=is_yes,
            who=who,
            reason=reason,
            is_open=is_open,
            wake=worker.tell,
        )
        worker.nudge()
        return found

    async def resolve(
        self, effect: int, *, is_done: bool, by: str, reason: str, value: Any = None, is_fence_passed: bool = False
    ) -> EffectView:
        """End a doubt by a person's word; see `surefoot.effects.rows.desk.resolve_by_person`."""
        return await desk.resolve_by_person(
            self.store,
            Sessions(self.store),
            effect,
            is_done=is_done,
            who=await self.identify(by),
            reason=reason,
            value=value,
            is_fence_passed=is_fence_passed,
            wake=wake,
        )

    async def undone(self, effect: int, *, by: str, reason: str) -> EffectView:
        """Note that a done effect was undone by hand; see `surefoot.effects.rows.desk.undone_by_person`."""
        who = await self.identify(by)
        return await desk.undone_by_person(self.store, effect, who=who, reason=reason, wake=wake)

    async def redeliver(self, event: int, *, group: str, by: str, reason: str) -> None:
        """Bring a dead letter to its group again, as a new run, behind what has come for its key meanwhile.

        Args:
            event: The event's number.
            group: The group's name.
            by: Who decides.
            reason: Why.

        Raises:
            LetterNotFound, NotAllowed: See each; nothing was changed.
        """
        await decide_letter(self.store, event, group, is_again=True, who=await self.identify(by), reason=reason)
        self.worker.nudge()

    async def discard(self, event: int, *, group: str, by: str, reason: str) -> None:
        """Close a dead letter: nobody will act on it. Args and errors: as for `redeliver`."""
        await decide_letter(self.store, event, group, is_again=False, who=await self.identify(by), reason=reason)

    async def drop_group(self, group: str, *, topic: str, by: str, reason: str) -> GroupView:
        """Forget a group that nobody serves any more, so that it no longer keeps its topic's events; return what it was.

        Runs that it has begun stay. If it comes again it is a new group, which begins where its `since=` says; what the old
        one has begun to act on is a dead letter in it, for the id of its run is taken.

        Args:
            group: Its name.
            topic: Its topic.
            by: Who decides.
            reason: Why.

        Raises:
            GroupNotFound, GroupServed, NotAllowed: See each; nothing was changed.
        """
        return await drop_group(self.store, topic, group, who=await self.identify(by), reason=reason)
