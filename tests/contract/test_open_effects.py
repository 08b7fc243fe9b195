"""Effects whose parameters are somebody else's: whatever arguments a call has, they have a key, a match, and a doubt."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

import surefoot as sf
from surefoot.effects import OpenSpec
from surefoot.effects.classify import NeverSent
from surefoot.effects.live.perform import perform


async def act(
    app: sf.Surefoot, spec: OpenSpec, sent: list[Any], error: Exception | None = None, **arguments: Any
) -> Any:
    """Perform it once; `sent` notes what it did it with."""

    async def do(**given: Any) -> str:
        sent.append(given)
        if error is not None:
            raise error
        return f"done {len(sent)}"

    one = spec.doing(do)
    return await perform(app.guard, one, one.bind((), arguments), None)


async def test_a_key_a_match_and_words_that_are_free(app: sf.Surefoot) -> None:
    """Catches a key that is not the effect's identity, and an argument that must agree, or need not, taken otherwise."""
    spec, sent = OpenSpec("pay", key="pay:{order}", free_text=("why",)), list[Any]()
    first = await act(app, spec, sent, order="A", cents=5, why="late")
    assert (first.told, first.value) == ("done", "done 1")
    assert (await act(app, spec, sent, order="A", cents=5, why="very late")).told == "repeated"
    assert (await act(app, spec, sent, order="A", cents=6, why="late")).told == "conflict"
    assert (await act(app, spec, sent, order="A", cents=5, tip=1)).told == "conflict"
    assert (await act(app, spec, sent, order="B", cents=5)).told == "done"
    assert sent == [{"order": "A", "cents": 5, "why": "late"}, {"order": "B", "cents": 5}]


@pytest.mark.parametrize("arguments", [{}, {"cents": 5}, {"order": ""}, {"order": None}])
async def test_a_call_without_what_it_is_known_by_is_not_made(app: sf.Surefoot, arguments: dict[str, Any]) -> None:
    """Catches different effects that share one key."""
    sent: list[Any] = []
    with pytest.raises(sf.BadEffect, match="order"):
        await act(app, OpenSpec("pay", key="pay:{order}"), sent, **arguments)
    assert sent == []


@pytest.mark.parametrize("in_doubt", [sf.Resend(), sf.Overwrite(), sf.AskPerson()])
async def test_what_was_never_sent_is_not_done(app: sf.Surefoot, in_doubt: Any) -> None:
    """Catches a send that did not leave and becomes a doubt, or keeps its key."""
    spec, sent = OpenSpec("pay", key="pay:{order}", in_doubt=in_doubt), list[Any]()
    assert (await act(app, spec, sent, NeverSent("no session"), order="A")).told == "not_done"
    assert (await act(app, spec, sent, order="A")).told == "done"


async def test_a_later_send_that_did_not_leave_says_nothing_of_the_first(app: sf.Surefoot) -> None:
    """Catches an outage after a lost reply that is taken for the service's refusal of the key."""
    spec, sent, errors = (
        OpenSpec("pay", in_doubt=sf.Resend()),
        [],
        [TimeoutError(), NeverSent("down"), NeverSent("down")],
    )

    async def do(**given: Any) -> str:
        sent.append(given)
        if errors:
            raise errors.pop(0)
        return "paid"

    one = spec.doing(do)
    outcome = await perform(app.guard, one, one.bind((), {"order": "A"}), None)
    assert (outcome.told, outcome.value, len(sent)) == ("done", "paid", 4)


def test_a_declaration_without_code_says_what_its_service_offers() -> None:
    """Catches a class of doubt that needs the effect's own transaction, where nobody has its code."""
    elsewhere = sf.Receipts(lambda: sqlite3.connect(":memory:"), paramstyle=sqlite3.paramstyle)
    for in_doubt in (sf.Transactional(), sf.Transactional(receipts=elsewhere)):
        with pytest.raises(sf.BadEffect, match="effect pay: a Transactional effect") as raised:
            OpenSpec("pay", in_doubt=in_doubt)
        assert raised.value.hint


def test_any_argument_may_be_hidden_but_what_the_key_shows() -> None:
    """Catches a secret that is shown because nobody has declared its parameter."""
    assert OpenSpec("pay", key="pay:{order}", redact=("card",)).redact == ("card",)
    with pytest.raises(sf.BadEffect, match="its key shows 'order'"):
        OpenSpec("pay", key="pay:{order}", redact=("order",))


def test_arguments_have_names() -> None:
    """Catches an argument that is dropped because nobody knows what it is."""
    with pytest.raises(TypeError, match=r"pay\(\) takes its arguments by name"):
        OpenSpec("pay").bind((1,), {})


async def test_what_is_sent_again_are_the_first_words(app: sf.Surefoot) -> None:
    """Catches a resend under one key in other words than the first."""
    spec = OpenSpec("pay", key="pay:{order}", free_text=("why",), in_doubt=sf.AskPerson())
    sent: list[Any] = []
    assert (await act(app, spec, sent, TimeoutError(), order="A", why="first")).told == "unknown"
    again = OpenSpec("pay", key="pay:{order}", free_text=("why",), in_doubt=sf.Resend())
    assert (await act(app, again, sent, order="A", why="second")).told in ("done", "repeated")
    assert sent == [{"order": "A", "why": "first"}] * 2


@pytest.mark.parametrize("is_all", [False, True])
async def test_a_probe_is_given_the_arguments_it_names(app: sf.Surefoot, is_all: bool) -> None:
    """Catches a probe that can't ask, because what was called with is out of its reach."""
    asked: list[Any] = []

    async def ask_by_order(order: str) -> sf.Landed:
        asked.append(order)
        return sf.Landed("found")

    async def ask_by_all(order: str, **others: Any) -> sf.Landed:
        asked.append((order, others))
        return sf.Landed("found")

    spec, sent = (
        OpenSpec("pay", in_doubt=sf.Probe(ask_by_all if is_all else ask_by_order, longest_life="1ms")),
        list[Any](),
    )
    outcome = await act(app, spec, sent, TimeoutError(), order="A", cents=5)
    assert (outcome.told, outcome.value, asked) == ("done", "found", [("A", {"cents": 5}) if is_all else "A"])


async def test_what_it_acts_on_is_named_by_its_arguments(app: sf.Surefoot) -> None:
    """Catches a resource that nobody holds because the tool is somebody else's, and a call that does not say which it is
    about."""
    spec, held = OpenSpec("pay", key="pay:{order}:{n}", resource="order/{order}"), list[Any]()

    async def do(**given: Any) -> None:
        held.append(list(sf.current_effect().tokens))

    one = spec.doing(do)
    await perform(app.guard, one, one.bind((), {"order": "A", "n": 1}), None)
    assert held == [["order/A"]]
    unheld = OpenSpec("look", key="look:{n}", resource="order/{order}").doing(do)
    for arguments in ({"n": 1}, {"n": 1, "order": ""}):
        with pytest.raises(sf.BadEffect, match="order"):
            await perform(app.guard, unheld, unheld.bind((), arguments), None)
    assert len(held) == 1


@pytest.mark.parametrize(("once_for", "acts"), [("run", 3), ("app", 1)])
async def test_a_key_is_once_for_what_it_says(app: sf.Surefoot, once_for: Any, acts: int) -> None:
    """Catches a key of one run that stands in the way of another run's, or of a call in none."""
    spec, sent = OpenSpec("greet", key="greet:{who}", once_for=once_for), list[Any]()

    @sf.durable
    async def greets(_number: int) -> None:
        await act(app, spec, sent, who="ann")
        await act(app, spec, sent, who="ann")

    for number in range(2):
        await (await app.start(greets, number, id=f"g{number}")).result(timeout_s=10)
    await act(app, spec, sent, who="ann")
    assert len(sent) == acts
