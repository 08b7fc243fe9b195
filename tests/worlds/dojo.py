"""AgentDojo as data: its tasks, the calls they consist of, and the whole state they leave behind.

The package (MIT, offline, deterministic) is a world with third-party tools and third-party tasks: what its reference
solutions call are the decisions of our model, and what its environment holds afterwards is the truth we compare with.
The benchmark's own verdict is never used: it passes half of the worlds that a duplicated call has corrupted.

Always true here:

* A state is rebuilt by copying objects (or forking a process) and replaying calls, never through JSON: the package's
  validators rebuild their live maps from `initial_*`, so `validate(dump(env))` forgets what was done.
* A digest is of the whole state. Left out are only marks of having looked (`read`, `web_requests`); stamps of the wall
  clock made after this module was loaded read `(now)`; lists that the tools make from sets are sorted, repeats kept.

AgentDojo pulls in six model SDKs that its environments never touch, so it is installed without its dependencies and
the package that imports the SDKs is replaced by an empty one before the first import.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib
import json
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic_core import to_jsonable_python

Json: TypeAlias = Any  # JSON values; a recursive alias would only be cast away again at every use

BENCHMARK = "v1.2.2"
LOADED_AT = datetime.datetime.now()

EFFECTFUL = frozenset(
    {
        "add_calendar_event_participants",
        "add_user_to_channel",
        "append_to_file",
        "cancel_calendar_event",
        "create_calendar_event",
        "create_file",
        "delete_email",
        "delete_file",
        "invite_user_to_slack",
        "post_webpage",
        "remove_user_from_slack",
        "reschedule_calendar_event",
        "reserve_car_rental",
        "reserve_hotel",
        "reserve_restaurant",
        "schedule_transaction",
        "send_channel_message",
        "send_direct_message",
        "send_email",
        "send_money",
        "share_file",
        "update_password",
        "update_scheduled_transaction",
        "update_user_info",
    }
)
"""Tools that change something others can see. Every other tool is a read; some of those leave marks of looking."""

FREE_TEXT: Mapping[str, tuple[str, ...]] = {
    "append_to_file": ("content",),
    "create_calendar_event": ("title", "description"),
    "create_file": ("content",),
    "post_webpage": ("content",),
    "schedule_transaction": ("subject",),
    "send_channel_message": ("body",),
    "send_direct_message": ("body",),
    "send_email": ("subject", "body"),
    "send_money": ("subject",),
    "update_scheduled_transaction": ("subject",),
}
"""Parameters a model words differently each time it decides the same thing. No task makes two effectful calls that
agree in all other parameters (`test_dojo` checks it), so tool and other parameters are the business key."""


@dataclass(frozen=True)
class Call:
    """One tool call of a task, as the model decided it."""

    label: str
    """Unique in the case; the `tool_call_id` of the decision."""
    tool: str
    args: Mapping[str, Json]
    effectful: bool
    """Whether its tool is one of `EFFECTFUL`."""
    changes: bool
    """Whether the undisturbed call changes the state; one effectful call sets what is already set."""
    origin: str
    """The label of the call that decided this first; differs from `label` when a model that forgot decides again."""

    @property
    def business_key(self) -> str:
        """What the call is about, whatever its wording: the tool and all parameters that are not free text."""
        free = FREE_TEXT.get(self.tool, ())
        return f"{self.tool}:{canonical({name: value for name, value in self.args.items() if name not in free})}"

    def reworded(self) -> Call:
        """The same decision by a model that forgot it: another id, other words."""
        free = FREE_TEXT.get(self.tool, ())
        args = {name: f"In other words: {value}" if name in free else value for name, value in self.args.items()}
        return Call(f"{self.label}~again", self.tool, args, self.effectful, self.changes, self.origin)


@dataclass(frozen=True)
class Task:
    """One user task: what is asked, and the calls of its reference solution in order."""

    name: str
    prompt: str
    calls: tuple[Call, ...]

    @property
    def effects(self) -> tuple[Call, ...]:
        """The calls that change the state when nothing goes wrong."""
        return tuple(call for call in self.calls if call.changes)


class World:
    """A live environment: performs tool calls and shows its whole state."""

    def __init__(self, task: str) -> None:
        suite, task_id = task.split("/")
        user_task = _suites()[suite].user_tasks[task_id]
        self._environment = user_task.init_environment(_environment(suite).model_copy(deep=True))
        self._runtime = _runtime(suite)

    def perform(self, tool: str, args: Mapping[str, Json]) -> tuple[Json, str | None]:
        """Run a tool; returns its value and, if it refused, why."""
        value, error = self._runtime.run_function(self._environment, tool, args)
        return to_jsonable_python(value), error

    def state(self) -> Json:
        """The whole state, canonical: JSON-able, equal for equal worlds."""
        return _canonical_state(self._environment.model_dump(mode="json"))


@functools.cache
def load() -> Mapping[str, Task]:
    """All user tasks of the benchmark by name, with `changes` measured by replaying each once."""
    return {
        f"{suite_name}/{task_id}": _task(f"{suite_name}/{task_id}", user_task, _environment(suite_name))
        for suite_name, suite in _suites().items()
        for task_id, user_task in suite.user_tasks.items()
    }


def replay(task: str, calls: Sequence[Call]) -> Json:
    """The state after these calls ran undisturbed, each once, in order."""
    world = World(task)
    for call in calls:
        world.perform(call.tool, call.args)
    return world.state()


def canonical(value: Json) -> str:
    """One text per JSON value, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(state: Json) -> str:
    """A short name for a state."""
    return hashlib.blake2b(canonical(state).encode(), digest_size=12).hexdigest()


def diff(expected: Json, found: Json, limit: int = 6) -> list[str]:
    """The places where two states differ, in words, at most `limit` of them."""
    places = list(_differences("", expected, found))
    rest = len(places) - limit
    return places[:limit] + ([f"... and {rest} more"] if rest > 0 else [])


def _differences(path: str, expected: Json, found: Json) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            place = f"{path}.{key}" if path else key
            if key not in found:
                yield f"{place}: missing, expected {_short(expected[key])}"
            elif key not in expected:
                yield f"{place}: not expected, found {_short(found[key])}"
            else:
                yield from _differences(place, expected[key], found[key])
    elif isinstance(expected, list) and isinstance(found, list):
        for index in range(max(len(expected), len(found))):
            place = f"{path}[{index}]"
            if index >= len(found):
                yield f"{place}: missing, expected {_short(expected[index])}"
            elif index >= len(expected):
                yield f"{place}: not expected, found {_short(found[index])}"
            else:
                yield from _differences(place, expected[index], found[index])
    elif expected != found:
        yield f"{path}: expected {_short(expected)}, found {_short(found)}"


def _short(value: Json) -> str:
    text = canonical(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


_LOOKED = {"read", "web_requests"}
_STAMPS = {"timestamp", "last_modified"}
_FROM_SETS = {"participants", "recipients"}


def _canonical_state(value: Json, name: str = "") -> Json:
    if isinstance(value, dict):
        return {key: _canonical_state(item, key) for key, item in value.items() if key not in _LOOKED}
    if isinstance(value, list):
        items = [_canonical_state(item) for item in value]
        return sorted(items) if name in _FROM_SETS else items
    if name in _STAMPS and datetime.datetime.fromisoformat(value) >= LOADED_AT:
        return "(now)"
    return value


def _task(name: str, user_task: Any, environment: Any) -> Task:
    truth = user_task.ground_truth(environment.model_copy(deep=True))
    world = World(name)
    calls = []
    for index, reference in enumerate(truth):
        tool, args, label = reference.function, dict(reference.args), f"{name}#{index}"
        effectful = tool in EFFECTFUL
        before = world.state() if effectful else None
        _, error = world.perform(tool, args)
        if error is not None:
            raise RuntimeError(f"the reference call {label} {tool} was refused: {error}")
        calls.append(Call(label, tool, args, effectful, effectful and world.state() != before, label))
    return Task(name, user_task.PROMPT, tuple(calls))


@functools.cache
def _suites() -> Mapping[str, Any]:
    try:
        agentdojo = importlib.import_module("agentdojo")
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "agentdojo is not installed; run: pip install --no-deps agentdojo==0.1.35 (its dependencies are model SDKs "
            "that its environments do not need)"
        ) from missing
    pipeline = "agentdojo.agent_pipeline"
    _stand_in(pipeline, __path__=[f"{agentdojo.__path__[0]}/agent_pipeline"])
    _stand_in(f"{pipeline}.ground_truth_pipeline", GroundTruthPipeline=object)
    suites: Mapping[str, Any] = importlib.import_module("agentdojo.task_suite.load_suites").get_suites(BENCHMARK)
    return suites


def _stand_in(name: str, **content: Any) -> None:
    """Put a module with just this content where the package would import its own."""
    if name not in sys.modules:
        sys.modules[name] = module = types.ModuleType(name)
        vars(module).update(content)


@functools.cache
def _environment(suite: str) -> Any:
    return _suites()[suite].load_and_inject_default_environment({})


@functools.cache
def _runtime(suite: str) -> Any:
    return importlib.import_module("agentdojo.functions_runtime").FunctionsRuntime(_suites()[suite].tools)
