"""An agent as a kind of run: what `app.agent(agent)` returns, and the function behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.usage import UsageLimits

from surefoot.adapters.pydantic_ai.capability import Durable
from surefoot.adapters.pydantic_ai.declarations import Effects
from surefoot.adapters.pydantic_ai.listing import ToolClass, tool_classes
from surefoot.journal import current_frame
from surefoot.problem import SurefootError
from surefoot.runs import KindSpec, Run, register, start_run

if TYPE_CHECKING:
    from surefoot.app import Surefoot


class DurableAgent:
    """An agent whose runs are durable. Made by `app.agent(agent)`."""

    def __init__(
        self, app: Surefoot, agent: Agent[Any, Any], name: str, reads: Iterable[str], effects: Effects | None
    ) -> None:
        self._app = app
        self._agent = agent
        self.name = name
        self._capability = Durable(reads=reads, effects=effects, name=name)
        self._kind = KindSpec(f"agent {name}", self._function())
        register(self._kind)

    def _function(self) -> Callable[..., Awaitable[Any]]:
        agent, capability = self._agent, self._capability
        deps_type = getattr(agent, "deps_type", type(None))
        output_type = getattr(agent, "output_type", object)

        async def run_agent(prompt, deps=None, usage_limits=None, message_history=None):  # type: ignore[no-untyped-def]
            result = await agent.run(
                prompt,
                deps=deps,
                usage_limits=usage_limits,
                message_history=message_history,
                capabilities=[capability],
                run_id=_run_id(),
            )
            return result.output

        run_agent.__qualname__ = f"agent.<locals>.{self.name}"
        run_agent.__annotations__ = {
            "prompt": str,
            "deps": object if deps_type is type(None) else deps_type | None,
            "usage_limits": UsageLimits | None,
            "message_history": list[ModelMessage] | None,
            "return": output_type if isinstance(output_type, type) else object,
        }
        return run_agent

    async def start(
        self,
        prompt: str,
        *,
        id: str,
        deps: Any = None,
        usage_limits: UsageLimits | None = None,
        message_history: list[ModelMessage] | None = None,
        deadline_s: float | None = None,
    ) -> Run:
        """Start a run of the agent, or return the run of that id.

        Args:
            prompt: What is asked of it.
            id: The business id: the same id with the same input is the same run.
            deps: Its dependencies, which become part of the run's input: JSON values or what `deps_type` declares.
            usage_limits: Limits on requests, tool calls and tokens; they hold across replays.
            message_history: Earlier messages.
            deadline_s: As for `Surefoot.start`.

        Raises:
            RunConflict: The id belongs to a run with another input.
        """
        body, digest = self._kind.dump_input((prompt, deps, usage_limits, message_history), {})
        store = self._app.store
        deadline_ms = None if deadline_s is None else store.clock.wall_ms() + int(deadline_s * 1_000)
        return await start_run(store, self._app.worker, self._kind, body, digest, run_id=id, deadline_ms=deadline_ms)

    async def tools(self) -> list[ToolClass]:
        """Return the agent's tools, each with its declared class, or the one that its server's hints propose.

        MCP servers are started, or connected to, and asked. A proposal changes nothing until it is declared.
        """
        return await tool_classes(self._agent, self._capability.declarations)


def _run_id() -> str:
    """Return the agent run's id: the run's own, so that replays and their messages carry the same."""
    run = current_frame.get()
    assert run is not None, "called inside a run"
    return run.run_id


def durable_agent(
    app: Surefoot,
    agent: Any,
    *,
    name: str | None = None,
    reads: Iterable[str] = (),
    effects: Effects | None = None,
) -> DurableAgent:
    """Return a durable form of an agent; the agent itself is not changed."""
    if not isinstance(agent, Agent):
        raise SurefootError(f"{agent!r} is no Pydantic AI Agent", hint="app.agent(Agent(..., name='support'))")
    durable_name = name or agent.name
    if not durable_name:
        raise SurefootError(
            "the agent has no name, and a name is what its runs are found by after a restart",
            hint='Agent(..., name="support"), or app.agent(agent, name="support")',
        )
    return DurableAgent(app, agent, durable_name, reads, effects)
