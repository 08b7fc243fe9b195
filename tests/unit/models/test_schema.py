"""What is asked of the decoder: only words it knows, and an end to everything."""

import json
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from surefoot.models.schema import MAX_CHARS, MAX_ITEMS, MAX_NUMBER, JsonValue, bounded

KNOWN = {
    "null": {"type"},
    "boolean": {"type"},
    "string": {"type", "minLength", "maxLength", "pattern", "format"},
    "integer": {"type", "minimum", "maximum", "multipleOf"},
    "number": {"type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "array": {"type", "items", "prefixItems", "minItems", "maxItems"},
    "object": {"type", "properties", "required", "additionalProperties", "patternProperties", "maxProperties"},
}


def check(told: Any) -> None:
    """Fail unless the schema uses only known words and bounds every value."""
    if "enum" in told or "const" in told:
        assert len(told) == 1
        return
    if "anyOf" in told:
        assert set(told) == {"anyOf"}
        for branch in told["anyOf"]:
            check(branch)
        return
    assert set(told) <= KNOWN[told["type"]], told
    match told["type"]:
        case "string":
            assert told["maxLength"] <= max(MAX_CHARS, told.get("minLength", 0))
        case "integer" | "number":
            assert {"minimum", "exclusiveMinimum"} & set(told)
            assert {"maximum", "exclusiveMaximum"} & set(told)
            assert told["type"] == "integer" or told["multipleOf"] > 0
        case "array":
            assert "maxItems" in told
            for part in told.get("prefixItems", [told["items"]] if "items" in told else []):
                check(part)
        case "object":
            assert told["additionalProperties"] is False
            for part in (*told["properties"].values(), *told.get("patternProperties", {}).values()):
                check(part)


class Line(BaseModel):
    sku: str
    count: int = Field(ge=1, le=9)


class Order(BaseModel):
    order_id: str = Field(pattern=r"^A-\d{4}$")
    amount: Decimal
    state: Literal["open", "closed"]
    lines: list[Line]
    note: str | None = None
    extra: dict[str, int] = {}


class Tree(BaseModel):
    name: str
    children: list["Tree"] = []


class Endless(BaseModel):
    inner: "Endless"


@pytest.mark.parametrize("kind", [Order, Tree, Line, dict[str, Any], list[int], int | str, Any])
def test_schemas_of_pydantic_become_bounded(kind: Any) -> None:
    """Catches a keyword of Pydantic's that switches the grammar off."""
    told = bounded(TypeAdapter(kind).json_schema())
    check(told)
    json.dumps(told)


def test_what_the_caller_says_is_kept() -> None:
    """Catches bounds that forget the caller's own."""
    told: Any = bounded(Order.model_json_schema())
    assert told["required"] == ["order_id", "amount", "state", "lines"]
    assert told["properties"]["order_id"]["pattern"] == r"^A-\d{4}$"
    assert told["properties"]["state"] == {"enum": ["open", "closed"]}
    assert told["properties"]["lines"]["items"]["properties"]["count"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
    }


def test_a_decimal_is_a_number() -> None:
    """Catches amounts in words: Pydantic allows text for a Decimal."""
    assert bounded(TypeAdapter(Decimal).json_schema()) == {
        "type": "number",
        "multipleOf": 0.01,
        "minimum": -MAX_NUMBER,
        "maximum": MAX_NUMBER,
    }


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "string"}, {"type": "string", "minLength": 1, "maxLength": MAX_CHARS}),
        ({"type": "string", "maxLength": 9000}, {"type": "string", "minLength": 1, "maxLength": MAX_CHARS}),
        ({"type": "string", "minLength": 200}, {"type": "string", "minLength": 200, "maxLength": 200}),
        ({"type": "string", "maxLength": 0}, {"const": ""}),
        ({"type": "string", "pattern": "^(?!x)a"}, {"type": "string", "minLength": 1, "maxLength": MAX_CHARS}),
        ({"type": "string", "format": "uri"}, {"type": "string", "minLength": 1, "maxLength": MAX_CHARS}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date", "maxLength": 10}),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 5}, {"type": "integer", "minimum": 1, "maximum": 5}),
        ({"type": "boolean", "title": "B", "default": True}, {"type": "boolean"}),
        ({"const": 7}, {"const": 7}),
        ({"allOf": [{"type": "integer", "minimum": 0}, {"maximum": 5}]}, {"type": "integer", "minimum": 0, "maximum": 5}),
        ({"type": ["string", "null"], "maxLength": 5}, {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 5},
                                                                  {"type": "null"}]}),
        ({"not": {"type": "string"}}, None),
        ({"type": "array", "uniqueItems": True, "items": {"type": "boolean"}},
         {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": MAX_ITEMS}),
        ({"type": "array", "items": {"type": "boolean"}, "maxItems": 0},
         {"type": "array", "items": {"type": "boolean"}, "minItems": 0, "maxItems": 0}),
        ({"$ref": "#/$defs/Missing"}, {"type": "null"}),
    ],
)  # fmt: skip
def test_each_keyword(schema: dict[str, JsonValue], told: dict[str, JsonValue] | None) -> None:
    """Catches a keyword that changes its meaning on the way."""
    found = bounded(schema)
    check(found)
    assert told is None or found == told


@pytest.mark.parametrize(("low", "high", "step"), [(0, 1000, 0.01), (0, 1, 0.01), (0, 0.5, 0.001), (0, 0.01, 0.0001)])
def test_narrow_ranges_get_finer_steps(low: float, high: float, step: float) -> None:
    """Catches a probability that can only be 0.00 or 0.01."""
    assert bounded({"type": "number", "minimum": low, "maximum": high})["multipleOf"] == step


def test_recursion_ends() -> None:
    """Catches a tree that is written for ever; what can't end is nothing."""
    depth = json.dumps(bounded(Tree.model_json_schema())).count('"name"')
    assert depth == 2 * 4  # four levels, each named in `properties` and `required`
    assert bounded(Endless.model_json_schema()) == {"type": "null"}


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Schemas with every keyword we know and some we don't, often contradictory."""
    small = st.integers(-5, 300)
    leaf: st.SearchStrategy[Any] = st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object", "other"]),
            "minLength": st.integers(0, 300),
            "maxLength": st.integers(0, 300),
            "pattern": st.sampled_from(["^a", r"\d+", "(?=x)", r"(a)\1"]),
            "format": st.sampled_from(["date", "email", "uri", "decimal"]),
            "minimum": small,
            "exclusiveMaximum": small,
            "multipleOf": st.sampled_from([0, 1, 0.5, 5]),
            "enum": st.lists(st.integers(), max_size=2),
            "title": st.just("T"),
            "x-other": st.just(1),
        },
    )

    def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["array", "object"]),
                "items": inner,
                "prefixItems": st.lists(inner, max_size=2),
                "minItems": st.integers(0, 3),
                "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
                "required": st.lists(st.sampled_from("abcd"), max_size=2),
                "additionalProperties": inner | st.booleans(),
                "anyOf": st.lists(inner | st.booleans(), max_size=3),
                "oneOf": st.lists(inner, max_size=2),
                "allOf": st.lists(inner, max_size=2),
                "not": inner,
                "$ref": st.sampled_from(["#/$defs/A", "#/$defs/B"]),
            },
        )

    nested = st.recursive(leaf, grow, max_leaves=8)
    return st.builds(lambda root, a: {**root, "$defs": {"A": a}}, nested, nested)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a machine under load
@given(schemas())
def test_any_schema_becomes_bounded(schema: dict[str, Any]) -> None:
    """Catches a combination of keywords that slips through unbounded, or fails."""
    check(bounded(schema))


def test_parts_that_lead_back_to_themselves_end() -> None:
    """Catches a recursion without end: a schema that is, among others, all of itself."""
    own: dict[str, Any] = {"type": "array", "items": {}, "allOf": [{"type": "array", "$ref": "#/$defs/A"}]}
    check(bounded({"type": "array", "$ref": "#/$defs/A", "$defs": {"A": own}}))
