"""What `app.agent(agent)` returns when the app's engine is Temporal: it starts runs as workflows, under the same ids."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
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
from surefoot.runs import start_run
from surefoot.runs.durable import ELSEWHERE
from surefoot.runs.life import RunState

if TYPE_CHECKING:
    from surefoot.adapters.temporal.engine import Engine
    from surefoot.app import Surefoot

_logger = logging.getLogger("surefoot")


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
    ) -> AgentRun:
        """Start a run of the agent, or return the run of that id; see `DurableAgent.start`.

        The run is on disk in our store when this returns, and its workflow is started, now or by the next worker that
        reaches Temporal.
        """
        if deadline_s is not None:
            raise SurefootError(
                f"run {id!r}: deadline_s={deadline_s!r} is not supported on Temporal",
                hint="leave it out; limit the agent with usage_limits, its tools with timeout_s",
            )
        kind, body, digest = await self._asked(
            id, prompt, deps, usage_limits, message_history, conversation_id=conversation_id, model=model
        )
        app = self._app
        run = await start_run(app.store, app.worker, kind, body, digest, run_id=id, deadline_ms=None, is_elsewhere=True)
        found = AgentRun(app.store, app.worker, run.row, run.id, run.kind)
        row = await found.look()
        if row.state is RunState.PENDING and row.kind.startswith(ELSEWHERE):
            try:
                await self._engine.bridge.tell(row)
            except RPCError as error:
                _logger.warning("run %s is on disk; its workflow is started once Temporal is reached: %s", id, error)
        return found

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
