"""Names of agents and tools: data in the journal, and what an open run does when they have changed since.

An agent's run stands under its name, and a model's recorded answer calls tools by theirs. With the old names given (`was`,
`tools_were`) open runs go on; without, they are blocked with a hint, before anything is asked or done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from surefoot.runs import Divergence
from surefoot.runs.live.replay import parent_of, step_key
from surefoot.runs.live.run import LiveRun


class Names:
    """What an agent and its tools are called, and were.

    Args:
        name: The agent's durable name.
        was: Its earlier names.
        tools_were: Earlier names of its tools, each with today's.
    """

    def __init__(self, name: str, was: Iterable[str] = (), tools_were: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.was = (was,) if isinstance(was, str) else tuple(was)
        self.tools_were = dict(tools_were or {})

    def in_journal(self, run: LiveRun, parent: str) -> str:
        """Return the name under which the agent's next run stands in the journal."""
        known = (name for name in (self.name, *self.was) if _is_there(run, parent, name, is_asked=False))
        return next(known, self.name) if run.history.steps else self.name

    def check(self, run: LiveRun, parent: str) -> None:
        """Stop a run whose journal has the run of another agent at this place; called by the task that runs the agent.

        Raises:
            Divergence: It has.
        """
        if not run.history.steps or self._is_recorded(run, parent):
            return
        other = run.next_inside(parent)
        if other is not None and other.rpartition("/")[2].startswith("decision["):
            known = parent_of(other).rpartition("/")[2]
            raise run.stop(
                Divergence(
                    run.run_id,
                    step_key(parent, self.name, None),
                    f"a run of agent {self.name!r}",
                    f"one of agent {known!r}; was it renamed? say so: was=[{known!r}]",
                )
            )

    def _is_recorded(self, run: LiveRun, parent: str) -> bool:
        return any(_is_there(run, parent, name) for name in (self.name, *self.was))


def _is_there(run: LiveRun, parent: str, name: str, *, is_asked: bool | None = None) -> bool:
    """Whether the journal has steps of runs of this agent; with `is_asked`, such that were asked for, or not yet."""
    base = step_key(parent, name, None)
    for key, step in run.history.steps.items():
        if is_asked in (None, step.is_asked) and key.startswith(base):
            occurrence, slash, _ = key[len(base) :].partition("/")
            if slash and (not occurrence or occurrence.startswith("#")):
                return True
    return False


def check_tools(run: LiveRun, decision: str, response: Any, parameters: Any, *, is_drift: bool) -> None:
    """Block a run whose recorded answer calls a tool that was there then, and is not now.

    A call of a tool that never was is the model's mistake, and is told to it as ever.
    """
    recorded = run.history.steps.get(decision)
    if recorded is None:
        return
    tools = (*getattr(parameters, "function_tools", ()), *getattr(parameters, "output_tools", ()))
    names = {tool.name for tool in tools}
    for part in response.get("parts", ()):
        name = part.get("tool_name")
        if part.get("part_kind") != "tool-call" or name in names:
            continue
        path = step_key(decision, str(part.get("tool_call_id") or name), None)
        if is_drift or any(key.startswith(f"{path}/") for key in run.history.steps):
            raise run.stop(
                Divergence(
                    run.run_id,
                    path,
                    f"no tool {name!r} among {', '.join(sorted(names)) or 'none'}",
                    f"a call of it; was it renamed? say so: tools_were={{{name!r}: ...}}",
                )
            )
