"""What is looked for in code, each check a function that yields findings; which there are is the table at the end.

What holds: each finding names the tool or function and says what to write. What only follows from a look at code says
"seems": see `inside`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import ModuleType

import apsw

from surefoot.doctor.clients import Client, clients_in, retries_of, timeout_of
from surefoot.doctor.found import Code, Tool, look
from surefoot.doctor.inside import calls_of, look_inside
from surefoot.doctor.stub import proposed_key, stub
from surefoot.effects import AskPerson, EffectSpec, Probe, Resend, Transactional
from surefoot.runs import known_kinds
from surefoot.store import UnusablePath, parse_url
from surefoot.store.finding import Finding, Severity

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

NOT_AGAIN: dict[str, str] = {
    "time.time": "sf.now()", "time.time_ns": "sf.now()", "time.monotonic": "sf.now()", "time.sleep": "await sf.sleep(...)",
    "asyncio.tasks.sleep": "await sf.sleep(...)", "datetime.datetime.now": "sf.now()",
    "datetime.datetime.utcnow": "sf.now()", "datetime.datetime.today": "sf.now()", "datetime.date.today": "sf.now()",
    "uuid.uuid1": "sf.uuid()", "uuid.uuid4": "sf.uuid()", "secrets.": "sf.random() or sf.uuid()",
    "random.": "sf.random()", "os.urandom": "sf.random()", "os.getenv": "an argument of the run",
    "_io.open": "@sf.read or @sf.effect around it", "io.open": "@sf.read or @sf.effect around it",
    "threading.Thread": "await sf.in_thread(...) inside a step", "subprocess.": "@sf.effect around it",
    "requests.": "@sf.read or @sf.effect around it", "httpx.": "@sf.read or @sf.effect around it",
    "urllib.request.": "@sf.read or @sf.effect around it", "builtins.input": "sf.wait_signal(...)",
}  # fmt: skip
"""What a durable function must not call itself, because a replay would get another answer, and what to write instead."""

BLOCKING = ("time.sleep", "requests.", "subprocess.run", "subprocess.check_output", "subprocess.check_call",
            "urllib.request.", "httpx.get", "httpx.post", "httpx.put", "httpx.delete", "httpx.request")  # fmt: skip
"""What holds up the event loop when an async tool calls it."""


def _acting(code: Code) -> Iterator[tuple[Tool, EffectSpec]]:
    for tool in code.tools:
        if tool.spec is not None and not tool.spec.is_read:
            yield tool, tool.spec


def undeclared(code: Code) -> Iterator[Finding]:
    """Tools of which nobody has said what they are."""
    for tool in code.tools:
        if not tool.is_declared and tool.origin:
            yield Finding(
                NOTE,
                f"{tool.title}: each that is in neither reads= nor effects= is an effect that a person ends",
                ("declare them by name: app.agent(agent, reads=[...], effects={...})",),
            )
        elif not tool.is_declared:
            proposal = stub(tool.name, tool.function)
            doubt = "; only if it changes nothing" if proposal == "@sf.read" else ""
            yield Finding(
                WARNING,
                f"{tool.title} declares nothing: a person ends its doubts, a second run acts again",
                (f"write {proposal} above {_place(tool)}{doubt}",),
            )


def keys(code: Code) -> Iterator[Finding]:
    """Effects that a second run would do again."""
    for tool, spec in _acting(code):
        if spec.template is None:
            parameters = [(name, "") for name in spec.signature.parameters]
            key = proposed_key(spec.name, parameters) or f"{spec.name}:..."
            yield Finding(
                WARNING,
                f"{tool.title} has no key: a second run, or another agent, acts again",
                (f'key="{key}", if two of these would be a mistake',),
            )


def deadlines(code: Code) -> Iterator[Finding]:
    """Doubts of which nobody has said how long they may last."""
    for tool, spec in _acting(code):
        if isinstance(spec.in_doubt, AskPerson) and spec.in_doubt.deadline == AskPerson().deadline:
            yield Finding(
                NOTE,
                f"{tool.title} asks a person, and escalates after {spec.in_doubt.deadline}, the default",
                ('in_doubt=sf.AskPerson(deadline="4h"), as long as your customer can wait',),
            )


def resends(code: Code) -> Iterator[Finding]:
    """Effects that are sent again to a service that may not know them again."""
    for tool, spec in _acting(code):
        if not isinstance(spec.in_doubt, Resend):
            continue
        if spec.in_doubt.key_ttl == Resend().key_ttl:
            yield Finding(
                NOTE,
                f"{tool.title} is sent again for {spec.in_doubt.key_ttl}, the default life of a key",
                ('in_doubt=sf.Resend(key_ttl="..."), what your service states',),
            )
        if tool.function is not None and "idempotency_key" not in look_inside(tool.function).names:
            yield Finding(
                WARNING,
                f"{tool.title} is sent again, and its code never seems to use the key it is sent under: "
                "the service can't know it again",
                ("send sf.current_effect().idempotency_key along, or declare another class of doubt",),
            )


def fences(code: Code) -> Iterator[Finding]:
    """Probes that are asked while a request may still land."""
    for tool, spec in _acting(code):
        if not isinstance(spec.in_doubt, Probe):
            continue
        life_s = spec.in_doubt.longest_life_ms / 1_000
        waits: list[tuple[str, float | None]] = (
            [("its timeout_s", spec.timeout_s)] if spec.timeout_s is not None else []
        )
        waits += [(f"{client.title} {name!r}", timeout_of(client, thing)) for name, client, thing in _clients(tool)]
        for whose, timeout_s in waits:
            if timeout_s is not None and timeout_s > life_s:
                yield Finding(
                    WARNING,
                    f"{tool.title}: its probe is believed {life_s:g} s after the send, and {whose} waits "
                    f"{timeout_s:g} s for an answer: a request that is still waited for may land later",
                    ("longest_life= at least as long as any request can take, or a shorter timeout",),
                )


def retries(code: Code) -> Iterator[Finding]:
    """Clients that send again beneath the claim."""
    for tool, spec in _acting(code):
        for name, client, thing in _clients(tool):
            if retries_of(client, thing) > 0:
                is_wrong = spec.one_request or not isinstance(spec.in_doubt, Resend)
                yield Finding(
                    WARNING if is_wrong else NOTE,
                    f"{tool.title} uses {client.title} {name!r}, which seems to retry by itself"
                    + (", and is declared one_request=True" if spec.one_request else ""),
                    (f"{client.to_set}; Surefoot sends again where the declaration allows it",),
                )


def imports(code: Code) -> Iterator[Finding]:
    """Code that is read from the disk when a tool is called."""
    for tool in code.tools:
        late = look_inside(tool.function).imports if tool.function is not None and not tool.origin else set()
        if late:
            yield Finding(
                NOTE,
                f"{tool.title} imports {', '.join(sorted(late))} when it is called: a deploy changes that "
                "under runs that are open",
                ("import it at the top of the module",),
            )


def blocking(code: Code) -> Iterator[Finding]:
    """Tools that hold up the event loop, or a thread and a claim, for as long as they like."""
    for tool in code.tools:
        if tool.function is None:
            continue
        is_async = tool.spec.is_async if tool.spec is not None else None
        if is_async:
            for call in calls_of(tool.function):
                if call.target.startswith(BLOCKING):
                    yield Finding(
                        WARNING,
                        f"{tool.title} is async and calls {call.written} (line {call.line}), which holds up "
                        "every run of its process",
                        ("make it a plain `def`, which runs in a thread, or use an async client",),
                    )
        elif _holds_a_thread(tool):
            yield Finding(
                NOTE,
                f"{tool.title} runs in a thread, and nothing seems to limit its time: "
                "a thread can't be stopped, and its claim lasts as long",
                ("timeout_s=30, and a timeout in its client",),
            )


def replays(code: Code) -> Iterator[Finding]:
    """Durable functions that would go another way on replay."""
    for kind in code.kinds:
        for call in calls_of(kind.function):
            found = next((one for one in NOT_AGAIN if _is_call(call.target, one)), None)
            if found is not None:
                yield Finding(
                    WARNING,
                    f"durable {kind.name} calls {call.written} itself (line {call.line}): a replay gets "
                    "another answer, or does it again",
                    (f"write {NOT_AGAIN[found]}, or put it into a step of its own (@sf.step)",),
                )


def names(code: Code) -> Iterator[Finding]:
    """Agents that a restart would not find again, or that are not durable."""
    for variable in code.nameless_agents:
        yield Finding(
            WARNING,
            f"the agent {variable} has no name, and its runs are found by it after a restart",
            (f'{variable} = Agent(..., name="{variable}")',),
        )
    for variable in code.plain_agents:
        yield Finding(
            NOTE,
            f"the agent {variable} is not made durable in this module",
            (f"app.agent({variable}), if its runs are to survive their process",),
        )


def kinds_in_store(code: Code) -> Iterator[Finding]:
    """Open runs in the app's store that this module could not go on with."""
    for app in code.apps:
        try:
            path = parse_url(app.url)
        except UnusablePath:
            continue
        if not path.exists():
            continue
        connection = apsw.Connection(f"file:{path}?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        try:
            rows = connection.execute(
                "SELECT kind, count(*), min(run_id) FROM runs WHERE state < 4 GROUP BY kind ORDER BY kind"
            ).fetchall()
        finally:
            connection.close()
        for kind, count, first in rows:
            if kind not in known_kinds():
                yield Finding(
                    ERROR,
                    f"{count} open run{'s' * (count != 1)} of kind {kind!r} in {app.url}, first {first}, "
                    "which this module doesn't know: they would wait",
                    ("import the module that defines it, or bring its name back: names are data on disk",),
                )


def _clients(tool: Tool) -> list[tuple[str, Client, object]]:
    return [] if tool.function is None else list(clients_in(look_inside(tool.function)))


def _has_timeouts(tool: Tool) -> bool:
    return any(timeout_of(client, thing) is not None for _, client, thing in _clients(tool))


def _holds_a_thread(tool: Tool) -> bool:
    """Whether a synchronous effect may go on for as long as it likes."""
    spec = tool.spec
    if spec is None or spec.is_async or spec.is_read or spec.timeout_s is not None:
        return False
    return not isinstance(spec.in_doubt, Transactional) and not _has_timeouts(tool)


def _is_call(target: str, known: str) -> bool:
    return target.startswith(known) if known.endswith(".") else target == known


def _place(tool: Tool) -> str:
    return tool.function.__name__ if tool.function is not None else tool.name


CHECKS: dict[str, Callable[[Code], Iterable[Finding]]] = {
    "undeclared tools": undeclared,
    "keys": keys,
    "deadlines": deadlines,
    "resends": resends,
    "fences": fences,
    "retries beneath us": retries,
    "late imports": imports,
    "blocking tools": blocking,
    "replays": replays,
    "names": names,
    "kinds in the store": kinds_in_store,
}
"""All checks of code, in the order in which they are made."""


def of_module(check: Callable[[Code], Iterable[Finding]]) -> Callable[[ModuleType], Iterable[Finding]]:
    """Return a check as one of a module."""
    return lambda module: check(look(module))
