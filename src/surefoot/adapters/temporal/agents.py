"""What `app.agent(agent)` returns when the app's engine is Temporal: it starts runs as workflows, under the same ids."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic_ai.messages import ModelMessage
from pydantic_ai.usage import UsageLimits
from temporalio.service import RPCError

from surefoot.adapters.pydantic_ai.agents import AgentRun, DurableAgent, Prompt
from surefoot.adapters.pydantic_ai.live import LiveEvent
from surefoot.adapters.temporal.durability import LedgerDurability
from surefoot.adapters.temporal.performing import Performer
from surefoot.adapters.temporal.workflow import AgentKind
from surefoot.problem import SurefootError
from surefoot.runs import RunStatus, Worker
from surefoot.runs.durable import ELSEWHERE
from surefoot.store import Store

if TYPE_CHECKING:
    from surefoot.adapters.temporal.bridge import Bridge
    from surefoot.adapters.temporal.engine import Engine
    from surefoot.app import Surefoot

_logger = logging.getLogger("surefoot")


STUCK_AFTER = 2
"""Attempts at a workflow task from which on a run is said to be stuck: one can fail by chance."""

LOOK_S = 5.0
"""How often somebody who waits for a run's end looks for its workflow in Temporal."""


class TemporalRun(AgentRun):
    """A handle of one run that Temporal executes."""

    def __init__(self, store: Store, worker: Worker, row: int, run_id: str, kind: str, bridge: Bridge) -> None:
        super().__init__(store, worker, row, run_id, kind)
        self._bridge = bridge

    async def status(self) -> RunStatus:
        """Return where the run is; a workflow whose code fails, which Temporal tries again for ever, is blocked."""
        found = await super().status()
        if found.state not in ("running", "pending") or not self.kind.startswith(ELSEWHERE):
            return found
        why = await self._bridge.stuck(self.id, STUCK_AFTER)
        return found if why is None else replace(found, waiting_for="blocked", reason=why)

    async def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait for the run's end and return its result; see `Run.result`.

        A workflow that is gone ends the run; one whose code fails is said aloud, once, and waited for: mending the code,
        or rolling it back, lets it go on.
        """
        looking = asyncio.create_task(self._look_after())
        try:
            return await super().result(timeout_s=timeout_s)
        except TimeoutError as error:
            status = await self.status()
            if status.waiting_for != "blocked" or status.reason in str(error):
                raise
            raise TimeoutError(f"{error}\n  blocked: {status.reason}") from None
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    async def _look_after(self) -> None:
        is_said = False
        while self.kind.startswith(ELSEWHERE):
            await asyncio.sleep(LOOK_S)
            try:
                await self._bridge.compare(await self.look())
                why = None if is_said else await self._bridge.stuck(self.id, STUCK_AFTER)
            except RPCError:  # Temporal is away: the bridge says so
                continue
            if why is not None:
                is_said = True
                _logger.warning("run %s does not go on: %s", self.id, why)


class TemporalAgent(DurableAgent):
    """An agent whose runs are workflows. Open runs that the embedded engine began before go on there."""

    def __init__(self, app: Surefoot, agent: Any, name: str, *, engine: Engine, **options: Any) -> None:
        super().__init__(app, agent, name, **options)
        self._engine = engine
        performer = Performer(lambda: app.guard, self._declarations, self._make_deps)
        deps_type = None if self._make_deps is None else self._type_of_deps()
        for spec in self._kinds:
            known_as = spec.name.removeprefix("agent ")
            capability: Any = LedgerDurability(
                performer,
                name=known_as,
                deps_type=deps_type,
                event_stream_handler=options.get("event_stream_handler"),
            ).for_agent(agent)
            engine.add(AgentKind(spec, agent, known_as, capability))

    async def start(
        self,
        prompt: Prompt = None,
        *,
        id: str,
        deps: Any = None,
        usage_limits: UsageLimits | None = None,
        message_history: Sequence[ModelMessage] | None = None,
        conversation_id: str | None = None,
        model: str | None = None,
        deadline_s: float | None = None,
        **when: Any,
    ) -> AgentRun:
        """Start a run of the agent, or return the run of that id; see `DurableAgent.start` and `Engine.start`."""
        kind, body, digest = await self._asked(
            id, prompt, deps, usage_limits, message_history, conversation_id=conversation_id, model=model
        )
        return await self._engine.start(kind, body, digest, id, deadline_s, self._app.queueing(kind, **when))

    async def run(self, id: str) -> AgentRun:
        """Return the handle of an existing run of this agent; see `DurableAgent.run`."""
        found = await super().run(id)
        if not found.kind.startswith(ELSEWHERE):
            return found
        app = self._app
        return TemporalRun(app.store, app.worker, found.row, found.id, found.kind, self._engine.bridge)

    async def stream(self, prompt: Prompt = None, *, id: str, **options: Any) -> AsyncIterator[LiveEvent]:
        """Refuse: what a run on Temporal does is executed by any worker.

        Raises:
            SurefootError: Always.
        """
        raise SurefootError(
            "live events of a run on Temporal can't be watched from here",
            hint="give the agent an event_stream_handler, which is called in the workers",
        )
        yield  # pragma: no cover  # makes it the iterator that it stands for
