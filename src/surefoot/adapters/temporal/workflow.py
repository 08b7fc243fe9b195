"""The workflow that runs an agent: Pydantic AI's loop, in Temporal's history.

One dynamic workflow for all agents: its type is the run's kind, its id the run's business id. It is not sandboxed: a
sandbox would load the agents' modules a second time, and what they import while they run would be refused in a task
that Temporal retries for ever. What holds: whatever the agent raises ends the run; only a history that the code no
longer fits, which a rollback mends, leaves the workflow where it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic_ai import Agent
from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from surefoot.adapters.pydantic_ai import transcripts
from surefoot.adapters.temporal import here
from surefoot.adapters.temporal.continuing import Carried, loaded
from surefoot.adapters.temporal.parked import Wait
from surefoot.adapters.temporal.waiting import ROW_RETRIES, ROW_TIMEOUT, Waits, keep_waits
from surefoot.journal import current_frame
from surefoot.journal.texts import without_surrogates
from surefoot.journal.values import Unserializable, ValueTooLarge
from surefoot.problem import SurefootError
from surefoot.runs import KindSpec
from surefoot.runs.errors import name_of

BEGIN, END = "surefoot__begin", "surefoot__end"
"""The activities that write a run's beginning and its end."""

WAKE = "surefoot__wake"
"""The signal by which a workflow is told to look again."""


class AgentKind:
    """An agent whose runs are workflows.

    Args:
        spec: Its kind, which knows its input and result.
        agent: The agent.
        name: Its durable name.
        capability: What makes its runs durable.
    """

    def __init__(self, spec: KindSpec, agent: Agent[Any, Any], name: str, capability: Any) -> None:
        self.spec = spec
        self.agent = agent
        self.name = name
        self.capability = capability


agents: dict[tuple[str, str, str], AgentKind] = {}
"""By namespace, task queue and kind, which is what a workflow knows of itself."""


class InWorkflow:
    """Stands for the run in workflow code: an effect called there is refused, because each replay would call it again.

    See `journal.frame.Frame`, of which it has what is asked first.
    """

    is_one_step = True
    sagas = 0
    run_id = ""

    def open_step(self, name: str, key: str | None) -> Any:
        """Refuse.

        Raises:
            SurefootError: Always.
        """
        raise SurefootError(
            f"{name} was called in workflow code, where each replay would call it again; nothing was done",
            hint="call effects and reads in tools; output functions and validators run in the workflow on Temporal",
        )


@workflow.defn(dynamic=True, sandboxed=False)
class AgentWorkflow:
    """Runs an agent to its end."""

    def __init__(self) -> None:
        self._waits: Waits | None = None

    @workflow.signal(name=WAKE)
    def wake(self) -> None:
        """Look again at what is waited for."""
        if self._waits is not None:
            self._waits.signal()

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Any:
        """Execute the run."""
        info = workflow.info()
        kind = agents.get((info.namespace, info.task_queue, info.workflow_type))
        if kind is None:  # raised as it is: the task is tried again, by a worker that knows it
            known = ", ".join(sorted(key[2] for key in agents)) or "none"
            raise RuntimeError(f"no agent of this worker is {info.workflow_type!r}; it has {known}")
        begun = await _write(BEGIN, {"run_id": info.workflow_id})
        if begun.get("ended"):
            raise ApplicationError(
                f"run {info.workflow_id} has ended before", type="surefoot.Ended", non_retryable=True
            )
        waits = self._waits = Waits(begun["run"], begun["last_letter"])
        keep_waits(waits)
        carried = loaded(_text(args[0])) if args else None
        end = await self._execute(kind, begun, carried)
        while left := (await _write(END, {"run": begun["run"], **end})).get("open"):
            reason = f"ends as {end['state']} once its unknown effects are known"
            await waits.until_woken(Wait("doubt", reason, tuple(("effect", effect) for effect in left)))
        return _given(end)

    async def _execute(self, kind: AgentKind, begun: dict[str, Any], carried: Carried | None) -> dict[str, Any]:
        """Run the agent, from its beginning or from where an earlier workflow has left it; return how the run ends."""
        info = workflow.info()
        current_frame.set(InWorkflow())  # type: ignore[arg-type]  # it has no more than it is asked for
        try:
            args, kwargs = kind.spec.load_input(begun["input"].encode())
            prompt, deps, usage_limits, history = args
            conversation = kwargs.get("conversation_id")
            now = here.Here(begun["run"], kind.name, len(history or ()) if carried is None else carried.given)
            here.here.set(now)
            if carried is not None:
                now.conversation.go_on_from(carried.decisions, carried.made)
                prompt, history = None, carried.history()
            result = await kind.agent.run(
                prompt,
                deps=deps,
                usage_limits=usage_limits,
                usage=None if carried is None else carried.used(),
                message_history=history,
                model=kwargs.get("model"),
                capabilities=[kind.capability],
                run_id=info.workflow_id
                if carried is None
                else f"{info.workflow_id} {info.run_id}",  # each part its own
                **({} if conversation is None else {"conversation_id": conversation}),
            )
            body = kind.spec.result.dump(result.output)[0].decode()
            return {"state": "completed", "body": body, "transcript": transcripts.payload_of(result, now.given)}
        except asyncio.CancelledError:
            return {"state": "cancelled"}
        except (Unserializable, ValueTooLarge, SurefootError) as error:
            return _failed(error)
        except Exception as error:
            return {"state": "cancelled"} if is_cancelled_exception(error) else _failed(error)


def _text(value: RawValue) -> str:
    text: str = workflow.payload_converter().from_payload(value.payload, str)
    return text


def _failed(error: BaseException) -> dict[str, Any]:
    """Return the end of a run whose agent raised; of an activity's error, what its code raised."""
    while isinstance(error, ActivityError) and error.cause is not None:
        error = error.cause
    name = error.type if isinstance(error, ApplicationError) and error.type else name_of(error)
    text = error.message if isinstance(error, ApplicationError) else str(error)
    return {"state": "failed", "error": [name, without_surrogates(text)]}


def _given(end: dict[str, Any]) -> Any:
    """End the workflow as the run has ended."""
    if end["state"] == "cancelled":
        raise asyncio.CancelledError("the run was cancelled")
    if end["state"] == "failed":
        name, text = end["error"]
        raise ApplicationError(text, type=name, non_retryable=True)
    return end["body"]


async def _write(name: str, asked: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = await workflow.execute_activity(
        name, asked, start_to_close_timeout=ROW_TIMEOUT, retry_policy=ROW_RETRIES, result_type=dict
    )
    return found
