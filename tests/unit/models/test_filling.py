"""How an input is written value by value, with a writer that follows its grammar blindly."""

import json
from typing import Any, cast

import pytest

from surefoot.models.completion import GREEDY, Completion
from surefoot.models.engine import Session
from surefoot.models.errors import GrammarIgnored
from surefoot.models.filling import fill_in


class Writer:
    """A session that writes what it was given, one answer per call."""

    def __init__(self, *answers: str, cut_at: int | None = None) -> None:
        self.answers = list(answers)
        self.calls: list[dict[str, Any]] = []
        self.cut_at = cut_at

    def complete(self, prompt: str, **more: Any) -> Completion:
        self.calls.append({"prompt": prompt, **more})
        text = self.answers.pop(0)
        for stop in more.get("stop", ()):
            text = text.partition(stop)[0]
        return Completion(text, 10, 0, 3, is_cut=len(self.calls) == self.cut_at)

    @property
    def session(self) -> Session:
        return cast(Session, self)


REFUND: dict[str, Any] = {
    "type": "object",
    "properties": {
        "order_id": {"enum": ["A-1"]},
        "amount": {"type": "number"},
        "reason": {"type": "string"},
        "items": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["order_id", "amount", "reason", "items"],
}


def test_values_are_written_and_names_are_given() -> None:
    """Catches an object that does not parse, and a value without alternative that costs a call."""
    writer = Writer(" 42.50,", 'it broke",', ' ["a", "b"]}')
    filled = fill_in(writer.session, "Form: refund\n", REFUND, GREEDY, 100)
    assert json.loads(filled.text) == {"order_id": "A-1", "amount": 42.5, "reason": "it broke", "items": ["a", "b"]}
    assert not filled.is_cut
    assert [call["prompt"] for call in writer.calls] == [
        'Form: refund\n{"order_id": "A-1", "amount":',
        'Form: refund\n{"order_id": "A-1", "amount": 42.50, "reason": "',
        'Form: refund\n{"order_id": "A-1", "amount": 42.50, "reason": "it broke", "items":',
    ]
    assert [call["max_tokens"] for call in writer.calls] == [100, 97, 94]


def test_text_in_which_the_stop_was_not_found_still_parses() -> None:
    """Catches a closing quote that is written twice, or the bracket taken for text."""
    schema: Any = {"type": "object", "properties": {"note": {"type": "string"}}, "required": ["note"]}
    for answer in ("done", 'done"', 'done"}'):
        writer = Writer(answer)
        writer.complete = lambda prompt, answer=answer, **_: Completion(answer, 1, 0, 1, is_cut=False)  # type: ignore[method-assign]
        assert json.loads(fill_in(writer.session, "", schema, GREEDY, 9).text) == {"note": "done"}


def test_a_cut_is_reported_and_ends_the_writing() -> None:
    """Catches a half-written input passed off as whole."""
    writer = Writer(" 42.50,", "never ending", cut_at=2)
    filled = fill_in(writer.session, "", REFUND, GREEDY, 6)
    assert filled.is_cut
    assert len(writer.calls) == 2
    assert filled.text.startswith('{"order_id": "A-1", "amount": 42.50, "reason": "never')


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "boolean"}}, "required": ["a"]},
        {"type": "object", "additionalProperties": {"type": "boolean"}},
        {"type": "array", "items": {"type": "boolean"}},
    ],
)
def test_other_schemas_are_written_as_a_whole(schema: dict[str, Any]) -> None:
    """Catches optional properties that are always written."""
    writer = Writer('{"a": true}')
    assert fill_in(writer.session, "", schema, GREEDY, 50).text == '{"a": true}'
    assert "%json" in writer.calls[0]["grammar"]


def test_an_object_without_properties_costs_nothing() -> None:
    """Catches a call to write `{}`."""
    writer = Writer()
    empty: Any = {"type": "object", "properties": {}, "additionalProperties": False}
    assert fill_in(writer.session, "", empty, GREEDY, 50).text == "{}"


@pytest.mark.parametrize("answer", ["once upon a time", '{"a": '])
def test_text_outside_the_grammar_is_an_error(answer: str) -> None:
    """Catches the decoder's habit of dropping a grammar without a word."""
    with pytest.raises(GrammarIgnored, match="not JSON"):
        fill_in(Writer(answer).session, "", {"type": "array", "items": {"type": "boolean"}}, GREEDY, 50)
