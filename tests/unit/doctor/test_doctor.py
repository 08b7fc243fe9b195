"""What is said of a careless module, and that nothing is said of what is done well beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tests.unit.doctor import careless

import surefoot as sf
from surefoot.doctor import CHECKS, Finding, Severity, lines, look, of_module
from surefoot.doctor.clients import CLIENTS, Client, clients_in, retries_of, timeout_of
from surefoot.doctor.found import Code
from surefoot.doctor.inside import Inside, calls_of
from surefoot.doctor.stub import proposed_key, stub
from surefoot.runs.durable import _registered


@pytest.fixture(scope="module")
def code() -> Code:
    """What is found in the careless module, without what other tests have declared."""
    found = look(careless)
    mine = tuple(tool for tool in found.tools if tool.name.startswith("care") or "careless support" in tool.agents)
    kinds = tuple(kind for kind in found.kinds if kind.name.startswith("care"))
    return Code(found.module, mine, kinds, found.nameless_agents, found.plain_agents, found.apps)


def said(code: Code, check: str) -> list[str]:
    """Return what a check says, with what to do."""
    return [f"{one.words} -> {' '.join(one.next)}" for one in CHECKS[check](code)]


def test_every_tool_is_listed_with_the_worst_first(code: Code) -> None:
    """Would catch a tool that is missing from the list, or a risk that is told as none."""
    shown = [(one.name, one.doubt, one.key, one.scope, one.risk) for one in lines(code.tools)]
    assert shown == [
        ("cancel_order", "undeclared", None, "call", "undeclared"),
        ("find_order", "undeclared", None, "call", "undeclared"),
        ("careless.ship", "ask a person", None, "call", "no key"),
        ("careless.hold", "ask a person", "careless.hold:{order_id}", "app", "person"),
        ("careful.mail", "probe", "careful.mail:{order_id}", "app", "fence"),
        ("careless.mail", "probe", "careless.mail:{order_id}", "app", "fence"),
        ("careful.refund", "resend", "careful.refund:{order_id}", "app", "keys"),
        ("careless.refund", "resend", "careless.refund:{order_id}", "app", "keys"),
        ("careless.price", "read", None, "call", "read"),
        ("list_orders", "read", None, "call", "read"),
    ]
    by_name = {one.name: one for one in lines(code.tools)}
    assert by_name["careless.refund"].agents == ("careless support",)
    assert by_name["careless.refund"].match == ("order_id", "amount")


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("undeclared tools", [
            "cancel_order (agent careless support) declares nothing: a person ends its doubts, a second run acts again -> "
            'write @sf.effect(key="cancel_order:{order_id}", free_text=("reason",), in_doubt=sf.AskPerson()) '
            "above cancel_order",
            "find_order (agent careless support) declares nothing: a person ends its doubts, a second run acts again -> "
            "write @sf.read above find_order; only if it changes nothing",
        ]),
        ("keys", ['careless.ship has no key: a second run, or another agent, acts again -> '
                  'key="careless.ship:{order_id}", if two of these would be a mistake']),
        ("deadlines", ["careless.ship asks a person, and escalates after 24h, the default -> "
                       'in_doubt=sf.AskPerson(deadline="4h"), as long as your customer can wait']),
        ("late imports", ["careless.ship imports json when it is called: a deploy changes that under runs that are open -> "
                          "import it at the top of the module"]),
    ],
)  # fmt: skip
def test_what_is_said(code: Code, check: str, expected: list[str]) -> None:
    """Would catch a finding that is lost, one about what is done well, and words that don't say what to write."""
    assert said(code, check) == expected


def test_resends_without_a_key_are_seen_through_helpers(code: Code) -> None:
    """Would catch a look that stops at the tool's own lines: the careful one sends its key from a helper."""
    words = said(code, "resends")
    assert len(words) == 2
    assert "careless.refund (agent careless support) is sent again for 24h, the default life of a key" in words[0]
    assert "its code never seems to use the key" in words[1]


def test_fences_are_held_against_clients(code: Code) -> None:
    """Would catch a probe that is believed while its own client still waits for the answer."""
    (word,) = said(code, "fences")
    assert word.startswith(
        "careless.mail: its probe is believed 5 s after the send, and an httpx client 'patient' waits 60 s"
    )


def test_clients_that_retry_are_named_with_what_to_set(code: Code) -> None:
    """Would catch retries beneath the claim, with the kind of tool for which they are harm told from the others."""
    found = [(one.severity, one.words.partition(" uses ")[0]) for one in CHECKS["retries beneath us"](code)]
    assert found == [
        (Severity.NOTE, "careless.refund (agent careless support)"),
        (Severity.WARNING, "careless.mail"),
        (Severity.WARNING, "careless.hold"),
    ]
    assert "and is declared one_request=True" in said(code, "retries beneath us")[1]
    assert "httpx.HTTPTransport(retries=0)" in said(code, "retries beneath us")[1]
    assert "'@retry of" in said(code, "retries beneath us")[2] or "tenacity" in said(code, "retries beneath us")[2]


def test_blocking_tools_are_told_from_patient_ones(code: Code) -> None:
    """Would catch an async tool that stops its whole process, and a thread that nothing ends."""
    words = [one.partition(" -> ")[0].partition(", ")[0] for one in said(code, "blocking tools")]
    assert [word.partition(" (line")[0] for word in words] == [
        "careless.ship runs in a thread",
        "careless.price is async and calls time.sleep",
    ]


def test_replays_that_differ_are_seen_in_durable_functions_alone(code: Code) -> None:
    """Would catch time and chance taken from the machine; a nested function, which may be a step, is left alone."""
    words = [one.words.partition(" itself")[0] for one in CHECKS["replays"](code)]
    assert sorted(word.removeprefix("durable careless run calls ") for word in words) == [
        "datetime.now", "open", "random.random", "time.time", "uuid.uuid4",
    ]  # fmt: skip


def test_agents_that_a_restart_would_not_find(code: Code) -> None:
    """Would catch an agent without a name, and one that is only thought to be durable."""
    words = said(code, "names")
    assert words[0].startswith("the agent nameless has no name")
    assert words[1].startswith("the agent other is not made durable")
    assert len(words) == 2


async def test_open_runs_of_unknown_kinds_are_an_error(tmp_path: Path) -> None:
    """Would catch a deploy that leaves runs behind that nobody can go on with."""
    url = f"sqlite:///{tmp_path}/agents.db"

    async def gone() -> None:
        await sf.wait_signal("never")

    sf.durable(name="a kind that will be gone")(gone)
    async with sf.Surefoot(url) as app:
        await app.start("a kind that will be gone", id="r-1")
    module = ModuleType("a_module_of_mine")
    module.app = sf.Surefoot(url)  # type: ignore[attr-defined]  # as a user's module would
    known = _registered.pop("a kind that will be gone")
    try:
        (finding,) = of_module(CHECKS["kinds in the store"])(module)
    finally:
        _registered["a kind that will be gone"] = known
    assert finding.severity is Severity.ERROR
    assert "1 open run of kind 'a kind that will be gone'" in finding.words
    assert list(of_module(CHECKS["kinds in the store"])(module)) == []


def test_every_check_survives_code_without_source() -> None:
    """Would catch a look that needs the source of what was built at run time, or of C."""
    module = ModuleType("built")
    exec(
        "import surefoot as sf\n@sf.effect(name='built.act')\ndef act(x): return x\nact2 = sf.effect(len)", vars(module)
    )
    for check in CHECKS.values():
        assert all(isinstance(one, Finding) for one in of_module(check)(module))


# -- clients -----------------------------------------------------------------------------------------------------------


def posing_as(name: str, **attributes: Any) -> Any:
    """Return an object of a class with this full name."""
    package, _, kind = name.rpartition(".")
    made = type(kind, (), {"__module__": f"{package}._client"})()
    vars(made).update(attributes)
    return made


POSES: list[tuple[str, Any, int, float | None]] = [
    ("openai.OpenAI", {"max_retries": 2, "timeout": 600.0}, 2, 600.0),
    ("anthropic.AsyncAnthropic", {"max_retries": 0, "timeout": SimpleNamespace(read=30.0)}, 0, 30.0),
    ("requests.Session", {"adapters": {"https://": SimpleNamespace(max_retries=SimpleNamespace(total=4))}}, 4, None),
    ("urllib3.PoolManager", {"connection_pool_kw": {}}, 3, None),
    ("urllib3.PoolManager", {"connection_pool_kw": {"retries": False}}, 0, None),
    ("botocore.BaseClient", {"meta": SimpleNamespace(config=SimpleNamespace(retries=None, read_timeout=60))}, 4, 60.0),
    ("botocore.BaseClient", {"meta": SimpleNamespace(config=SimpleNamespace(
        retries={"total_max_attempts": 1}, read_timeout=5))}, 0, 5.0),
    ("stripe.StripeClient", {"_requestor": SimpleNamespace(_options=SimpleNamespace(max_network_retries=2))}, 2, None),
    ("openai.OpenAI", {}, 0, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "attributes", "retries", "timeout_s"), POSES)
def test_a_client_is_recognized_by_its_class(name: str, attributes: Any, retries: int, timeout_s: float | None) -> None:
    """Would catch a line of the table that finds nothing, and a client of another version that breaks the look."""
    thing = posing_as(name, **attributes)
    ((_, client, found),) = clients_in(Inside(reached={1: ("it", thing)}))
    assert found is thing
    assert retries_of(client, thing) == retries
    assert timeout_of(client, thing) == timeout_s


def test_every_client_is_tried() -> None:
    """Would catch a line of the table without a test."""
    tried = {name for name, *_ in POSES} | {"httpx.AsyncClient", "tenacity.BaseRetrying"}
    assert [client.title for client in CLIENTS if not tried & set(client.is_it)] == []
    assert isinstance(CLIENTS[0], Client)


# -- stubs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "key"),
    [
        ("refund", [("order_id", "str"), ("amount", "int"), ("reason", "str")], "refund:{order_id}"),
        ("pay", [("iban", "str"), ("invoice_number", "int")], "pay:{iban}:{invoice_number}"),
        ("move", [("source", "str"), ("target", "str")], "move:{source}:{target}"),
        ("post", [("message", "str")], ""),
        ("store", [("row", "dict[")], ""),
    ],
)
def test_a_key_is_proposed_of_what_says_which(name: str, parameters: list[tuple[str, str]], key: str) -> None:
    """Would catch a key of words that a model puts differently each time."""
    assert proposed_key(name, parameters) == key


@pytest.fixture
def declared() -> Iterator[dict[str, Any]]:
    """A place to execute stubs in."""
    yield {"sf": sf}
    sys.modules.pop("stubbed", None)


def test_a_stub_is_code_that_runs(declared: dict[str, Any]) -> None:
    """Would catch a proposal that can't be pasted."""

    def cancel(order_id: str, day: Any, reason: str, extra: dict[str, str]) -> None: ...

    line = stub("cancel", cancel)
    exec(f"{line}\nasync def cancel(order_id, day, reason, extra): ...", declared)
    spec = declared["cancel"].__surefoot_effect__
    assert (spec.template.text, spec.matched) == ("cancel:{order_id}", ("order_id", "day", "extra"))


def test_calls_are_named_in_full_whatever_they_are_called_here() -> None:
    """Would catch an alias that hides the clock."""
    source = {call.target for call in calls_of(careless.careless_run)}
    assert {"time.time", "uuid.uuid4"} <= source
