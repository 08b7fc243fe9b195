"""Grammar texts, and ids that are copied rather than invented."""

from typing import Any

from surefoot.models.grammar import MAX_IDS, grounded, lark, lark_literal, lark_quoted

ID: Any = {"type": "object", "properties": {"order_id": {"type": "string"}, "reason": {"type": "string"}}}


def test_a_grammar_names_its_value_and_what_surrounds_it() -> None:
    """Catches a grammar that the decoder would refuse, or that leaves white space to chance."""
    assert lark({"type": "boolean"}, before=" ", after=",") == (
        '%llguidance {}\nstart: " " value ","\nvalue: %json {"type": "boolean", "x-guidance": '
        '{"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "}}\n'
    )
    assert lark_literal('say "é"') == '%llguidance {}\nstart: "say \\"é\\""\n'
    assert lark_quoted(1, 9, after="}") == '%llguidance {}\nstart: /[^"\\\\\\x00-\\x1f]{1,9}"/ "}"\n'


def test_ids_are_the_words_with_a_digit() -> None:
    """Catches an order number that nobody has seen."""
    found = grounded(ID, 'Result {"id": "A-4411", "price": "42.50"} I paid 18.00 for A-4411, not for B_7! In 2026.')
    assert found["properties"] == {"order_id": {"enum": ["A-4411", "B_7", "2026"]}, "reason": {"type": "string"}}


def test_ids_stay_free_where_the_caller_or_the_text_says_more_or_nothing() -> None:
    """Catches a constraint that overrules the caller's, and one without alternatives."""
    assert grounded(ID, "no number here") == ID
    told: Any = {"type": "object", "properties": {"id": {"type": "string", "pattern": "^A"}, "ids": {"type": "string"}}}
    assert grounded(told, "B-1") == told
    camel: Any = {"properties": {"orderId": {"type": "string"}, "paid": {"type": "string"}}}
    assert grounded(camel, "B-1") == {"properties": {"orderId": {"enum": ["B-1"]}, "paid": {"type": "string"}}}
    many: Any = grounded(ID, " ".join(f"A-{n}" for n in range(100)))
    assert len(many["properties"]["order_id"]["enum"]) == MAX_IDS
