"""JSON schemas that a small model cannot ramble in.

Owns: the translation of a tool's JSON schema to one that the constrained decoder understands and always ends. What
always holds, for any input: the result uses only keywords in the tables below (the decoder drops a grammar it does not
understand *without a word*, so an unknown keyword would mean unconstrained text); every string, array, number and map
has an upper bound; what the result allows, the input allows too, as far as the decoder can express it: `pattern`s with
look-around, `not`, `if` and the like are dropped, and the agent framework's validation stays the judge.

Pure: no model, no I/O. Source: llguidance (Microsoft), whose Lark dialect embeds `%json`.
"""

import math
import re
from collections.abc import Mapping, Sequence

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]
Schema = Mapping[str, JsonValue]
Told = dict[str, JsonValue]

MAX_CHARS = 120
"""Longest string, in characters, whatever the schema allows: about 30 tokens, half a second."""
MAX_ITEMS = 5
MAX_KEYS = 5
MAX_NUMBER = 1_000_000
DECIMALS = 2  # unless the range is so narrow that more are needed
MAX_DEPTH = 4
"""How often a recursive schema may be entered; deeper, optional parts are left out."""

_FORMATS = {  # with the most characters we let each have: fractions of seconds, names of hosts have no end of their own
    "date": 10, "time": 20, "date-time": 32, "duration": 20,
    "uuid": 36, "ipv4": 15, "ipv6": 45, "hostname": 48, "email": 48,
}  # fmt: skip
_UNSUPPORTED_REGEX = re.compile(r"\(\?(?!:)|\\[1-9bBAZzpPkK]")  # look-around, flags, back-references, anchors, classes


class _Untold(Exception):
    """This part can't be told in the decoder's words, or is a recursion entered more often than `MAX_DEPTH`."""


def bounded(schema: Schema) -> dict[str, JsonValue]:
    """Return a schema with the same meaning in the decoder's words, and with a bound on everything.

    Args:
        schema: Any JSON schema; local `$ref`s are resolved.

    Returns:
        A self-contained schema. `{"type": "null"}` where nothing of the input can be expressed.
    """
    definitions = schema.get("$defs") or schema.get("definitions")
    try:
        return _told(schema, definitions if isinstance(definitions, Mapping) else {}, ())
    except _Untold:
        return {"type": "null"}


def _told(schema: JsonValue, defs: Mapping[str, JsonValue], path: tuple[str, ...]) -> Told:
    if schema is False:
        raise _Untold
    if not isinstance(schema, Mapping):
        return _anything()
    combined = _combined(schema, defs, path)
    if combined is not None:
        return combined
    kind = schema.get("type")
    match kind if isinstance(kind, str) else _guessed_type(schema):
        case "object":
            return _object(schema, defs, path)
        case "array":
            return _array(schema, defs, path)
        case "string":
            return _string(schema)
        case "integer":
            return _integer(schema)
        case "number":
            return _number(schema)
        case "boolean" | "null" as simple:
            return {"type": simple}
    return _anything()


def _combined(schema: Schema, defs: Mapping[str, JsonValue], path: tuple[str, ...]) -> Told | None:
    """References, fixed values and alternatives; None if the schema is none of them."""
    if isinstance(ref := schema.get("$ref"), str):
        return _resolved(ref, defs, path)
    if allowed := _items(schema.get("enum")):
        return {"enum": list(allowed)}
    if "const" in schema:
        return {"const": schema["const"]}
    if branches := _items(schema.get("anyOf")) or _items(schema.get("oneOf")):
        return _either(branches, defs, path)
    if parts := _items(schema.get("allOf")):
        if path.count("allOf") >= MAX_DEPTH:  # its parts lead back to it
            raise _Untold
        return _told(_merged(schema, parts, defs), defs, (*path, "allOf"))
    if kinds := _items(schema.get("type")):
        return _either([{**schema, "type": each} for each in kinds], defs, path)
    return None


def _items(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _anything() -> Told:
    return {"anyOf": [_string({}), _number({}), {"type": "boolean"}, {"type": "null"}]}


def _guessed_type(schema: Schema) -> str | None:
    hints = {
        "object": ("properties", "additionalProperties", "required"),
        "array": ("items", "prefixItems", "maxItems", "minItems"),
        "string": ("pattern", "maxLength", "minLength", "format"),
        "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    }
    return next((kind for kind, keywords in hints.items() if any(word in schema for word in keywords)), None)


def _resolved(ref: str, defs: Mapping[str, JsonValue], path: tuple[str, ...]) -> Told:
    name = ref.rsplit("/", 1)[-1]
    if name not in defs or path.count(name) >= MAX_DEPTH:
        raise _Untold
    return _told(defs[name], defs, (*path, name))


def _either(branches: Sequence[JsonValue], defs: Mapping[str, JsonValue], path: tuple[str, ...]) -> Told:
    """Keep the branches the decoder can tell exactly; the others only if there is nothing else.

    A number or free text is how Pydantic describes a `Decimal`: that is told as the number.
    """
    if any(_type_of(branch) == "number" for branch in branches):
        branches = [branch for branch in branches if _type_of(branch) != "string"]
    exact: list[Told] = []
    loose: list[Told] = []
    for branch in branches:
        try:
            told = _told(branch, defs, path)
        except _Untold:
            continue
        (loose if _has_unsupported_pattern(branch) else exact).append(told)
    kept = exact or loose
    if not kept:
        raise _Untold
    return kept[0] if len(kept) == 1 else {"anyOf": list(kept)}


def _type_of(schema: JsonValue) -> JsonValue:
    return schema.get("type") if isinstance(schema, Mapping) else None


def _merged(schema: Schema, parts: Sequence[JsonValue], defs: Mapping[str, JsonValue]) -> Schema:
    """One flat schema for an `allOf`: properties together, of other keywords the last word."""
    whole: dict[str, JsonValue] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in parts:
        if isinstance(part, Mapping) and isinstance(ref := part.get("$ref"), str):
            part = defs.get(ref.rsplit("/", 1)[-1])  # noqa: PLW2901  the same part, looked up
        if not isinstance(part, Mapping):
            continue
        for key, value in part.items():
            old = whole.get(key)
            if key == "properties" and isinstance(old, Mapping) and isinstance(value, Mapping):
                whole[key] = {**old, **value}
            elif key == "required" and isinstance(old, Sequence) and isinstance(value, Sequence):
                whole[key] = [*old, *value]
            else:
                whole[key] = value
    return whole


def _object(schema: Schema, defs: Mapping[str, JsonValue], path: tuple[str, ...]) -> Told:
    declared = schema.get("properties")
    required = schema.get("required")
    names = set(_items(required))
    properties: dict[str, JsonValue] = {}
    for name, part in declared.items() if isinstance(declared, Mapping) else ():
        try:
            properties[name] = _told(part, defs, path)
        except _Untold:
            if name in names:
                raise
    told: Told = {"type": "object", "properties": properties, "additionalProperties": False}
    if kept := [name for name in properties if name in names]:
        told["required"] = kept
    values = schema.get("additionalProperties")
    if not properties and values is not False:
        told["patternProperties"] = {"^[A-Za-z0-9_]{1,24}$": _told(values, defs, path)}
        told["maxProperties"] = _at_most(schema.get("maxProperties"), MAX_KEYS)
    return told


def _array(schema: Schema, defs: Mapping[str, JsonValue], path: tuple[str, ...]) -> Told:
    if first := _items(schema.get("prefixItems")):
        parts = [_told(part, defs, path) for part in first]
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    at_most = _at_most(schema.get("maxItems"), MAX_ITEMS)
    at_least = _whole(schema.get("minItems"), min(1, at_most))  # as with strings: nothing is never what was asked for
    try:
        items = _told(schema.get("items"), defs, path)
    except _Untold:
        if _whole(schema.get("minItems"), 0):
            raise
        return {"type": "array", "items": {"type": "null"}, "minItems": 0, "maxItems": 0}
    return {"type": "array", "items": items, "minItems": at_least, "maxItems": max(at_least, at_most)}


def _string(schema: Schema) -> Told:
    at_least = _whole(schema.get("minLength"), 1)  # an empty string is never what was asked for, and cheap to emit
    at_most = _at_most(schema.get("maxLength"), MAX_CHARS)
    if at_most == 0:
        return {"const": ""}
    told: Told = {"type": "string", "minLength": at_least, "maxLength": max(at_least, at_most)}
    pattern, form = schema.get("pattern"), schema.get("format")
    if isinstance(pattern, str) and not _UNSUPPORTED_REGEX.search(pattern):
        told["pattern"] = pattern
    elif isinstance(form, str) and form in _FORMATS:
        return {"type": "string", "format": form, "maxLength": _FORMATS[form]}
    return told


def _has_unsupported_pattern(schema: JsonValue) -> bool:
    pattern = schema.get("pattern") if isinstance(schema, Mapping) else None
    return isinstance(pattern, str) and _UNSUPPORTED_REGEX.search(pattern) is not None


def _integer(schema: Schema) -> Told:
    low, high = _range(schema, step=1)
    told: Told = {"type": "integer", "minimum": math.ceil(low), "maximum": math.floor(high)}
    if isinstance(step := schema.get("multipleOf"), int) and step > 0:
        told["multipleOf"] = step
    return told


def _number(schema: Schema) -> Told:
    low, high = _range(schema, step=0)
    step = schema.get("multipleOf")
    if not isinstance(step, int | float) or step <= 0:
        narrow = max(0, -math.floor(math.log10(high - low))) if high > low else 0
        step = round(10.0 ** -(DECIMALS + narrow), DECIMALS + narrow)
    told: Told = {"type": "number", "multipleOf": step}
    told["exclusiveMinimum" if _is_open(schema, "exclusiveMinimum", "minimum", low) else "minimum"] = low
    told["exclusiveMaximum" if _is_open(schema, "exclusiveMaximum", "maximum", high) else "maximum"] = high
    return told


def _range(schema: Schema, *, step: int) -> tuple[int | float, int | float]:
    """The closed range of a number; exclusive limits are moved by `step`."""
    lows = [_limit(schema, "minimum", 0), _limit(schema, "exclusiveMinimum", step)]
    highs = [_limit(schema, "maximum", 0), _limit(schema, "exclusiveMaximum", -step)]
    low = max((limit for limit in lows if limit is not None), default=None)
    high = min((limit for limit in highs if limit is not None), default=None)
    if low is None:
        low = -MAX_NUMBER if high is None or high > -MAX_NUMBER else high - MAX_NUMBER
    if high is None:
        high = MAX_NUMBER if low < MAX_NUMBER else low + MAX_NUMBER
    return low, high


def _limit(schema: Schema, keyword: str, move: int) -> int | float | None:
    value = schema.get(keyword)
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value + move


def _is_open(schema: Schema, exclusive: str, inclusive: str, limit: float) -> bool:
    return schema.get(exclusive) == limit and schema.get(inclusive) != limit


def _whole(value: JsonValue, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _at_most(value: JsonValue, limit: int) -> int:
    return min(_whole(value, limit), limit)
