"""What values become in the journal, and which are refused, by their types and their sizes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

import surefoot as sf
from surefoot.journal import codec_of
from surefoot.journal.values import VALUE_BYTES_MAX, canonical, canonical_arguments, canonical_bytes


class Order(BaseModel):
    amount: Decimal
    tags: set[str] = set()


@dataclass
class Line:
    order: Order
    count: float


class Foreign: ...


class Folder(BaseModel):
    """Its two folders around it are not kept: through them a walk finds no end."""

    name: str
    above: Any = Field(default=None, exclude=True)
    beside: Any = Field(default=None, exclude=True)


def test_a_walk_for_secrets_comes_to_its_end() -> None:
    """Catches a value that never comes back because what is in it points to each other, and a secret behind that."""
    one, other = Folder(name="**********"), Folder(name="other")
    one.above, one.beside, other.above, other.beside = other, other, one, one
    assert codec_of(Folder, "x").dump(one)[1] == Folder(name="**********")
    other.beside = {"key": SecretStr("hunter2")}
    with pytest.raises(sf.Unserializable, match="x: a Folder holds a SecretStr"):
        codec_of(Folder, "x").dump(one)


@pytest.mark.parametrize("declared", [str, list[str], dict[str, Any]])
def test_a_value_of_the_limit_is_kept_and_one_byte_more_is_not(declared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a limit that holds for some types only, or is off by one."""
    values: dict[Any, Any] = {str: "abc", list[str]: ["abc"], dict[str, Any]: {"abc": 1}}
    value, codec = values[declared], codec_of(declared, "pay")
    size = len(codec.dump(value)[0])
    monkeypatch.setattr("surefoot.journal.values.VALUE_BYTES_MAX", size)
    assert codec.dump(value)[1] == value
    monkeypatch.setattr("surefoot.journal.values.VALUE_BYTES_MAX", size - 1)
    with pytest.raises(sf.ValueTooLarge, match=f"pay: a value of {size} bytes; the limit is {size - 1}") as raised:
        codec.dump(value)
    assert raised.value.hint
    assert VALUE_BYTES_MAX == 16 * 1024 * 1024


def test_containers_promise_no_more_than_json() -> None:
    """Catches a plain container that goes through pydantic for nothing, and one that is taken for another."""
    assert codec_of(dict[str, Any], "x").dump(OrderedDict(a=1)) == (b'{"a":1}', {"a": 1})
    assert codec_of(dict[str, Any], "x").dump({"when": date(2026, 1, 2)}) == (
        b'{"when":"2026-01-02"}',
        {"when": "2026-01-02"},
    )
    assert codec_of(dict[str, Any], "x").load(b'{"a":1}') == {"a": 1}
    for declared, foreign in ((list[Any], {"a": 1}), (dict[str, Any], {"a": object()}), (list[object], 1)):
        with pytest.raises(sf.Unserializable):
            codec_of(declared, "x").dump(foreign)
    for declared, data in ((list[Any], b'{"a":1}'), (dict[str, Any], b"[1]")):
        with pytest.raises(sf.Undecodable, match="no longer fits"):
            codec_of(declared, "x").load(data)


def test_an_annotation_that_nobody_can_hash_is_a_type_like_any_other() -> None:
    """Catches a declaration that fails because of what is beside its type."""
    declared = Annotated[int, {"unit": "cents"}]
    codec = codec_of(declared, "x")
    assert (codec.is_plain, codec.dump(5), codec.load(b"5")) == (False, (b"5", 5), 5)


def test_a_type_that_cannot_be_written_is_named() -> None:
    """Catches an effect that is declared to return what no journal keeps, and an error that doesn't say whose it is."""
    with pytest.raises(
        sf.Unserializable, match=r"lookup: its declared type .*Foreign.* can't be written as JSON"
    ) as raised:
        codec_of(Foreign, "lookup").dump(Foreign())
    assert raised.value.hint == "declare a pydantic model, a dataclass or a JSON type"


def deep(levels: int) -> Any:
    value: Any = object()
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": 1, "b": [{"c": 2}, {"d": (1,)}]}, r" at $.b[1].d (tuple): "),
        ({"a": [1, 2.5, True, None, "x"], "b": float("nan")}, r" at $.b (float): "),
        ({"a": {}, "b": {1: 2}}, r" at $.b (key 1 is int): "),
        ({("x" * 80,): 1}, f" at $ (key ('{'x' * 55}... is tuple): "),
        ({("x" * 55,): 1}, f" at $ (key ('{'x' * 55}',) is tuple): "),
        ([[], [1], object()], r" at $[2] (object): "),
        (deep(100), f" at ${'[0]' * 100} (object): "),
        (deep(101), f" at ${'[0]' * 101}: "),
        (deep(5_000), f" at ${'[0]' * 101}: "),
    ],
)  # fmt: skip
def test_a_refusal_names_the_first_part_that_cannot_be_kept(value: Any, where: str) -> None:
    """Catches a refusal of a large value that leaves its author to search for the reason."""
    with pytest.raises(sf.Unserializable) as raised:
        codec_of(object, "x").dump(value)
    assert where in raised.value.message


@pytest.mark.parametrize("value", [{"a": ["b"]}, ["a"], {"a": {"b": 1}}])
def test_a_value_of_another_type_is_refused_without_a_place(value: Any) -> None:
    """Catches a refusal that points at a part which is fine in itself."""
    with pytest.raises(sf.Unserializable, match=r"x: a \w+ can't be kept in the journal: "):
        codec_of(list[int], "x").dump(value)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (Order(amount=Decimal("12.50"), tags={"b", "a"}), {"amount": "12.5", "tags": ["a", "b"]}),
        (Line(Order(amount=Decimal(1)), 2.0), {"order": {"amount": "1", "tags": []}, "count": 2}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (Decimal("NaN"), "NaN"),
        (Decimal("1E+2"), "100"),
        (2.5, 2.5),
        (float(2**53), float(2**53)),
        (float(2**53 - 1), 2**53 - 1),
        (-0.0, 0),
        ({1: (1, 2)}, {"1": [1, 2]}),
        (b"abc", "abc"),
    ],
)  # fmt: skip
def test_the_canonical_form_of_what_is_no_json(value: Any, form: Any) -> None:
    """Catches a set, a model or a date that makes two keys, or two fingerprints, for one value."""
    assert canonical(value) == form
    assert type(canonical(value)) is type(form)
    assert canonical_arguments({"x": value}) == canonical_bytes({"x": form})


def test_arguments_have_the_form_of_their_values() -> None:
    """Catches a short way for plain arguments that writes them otherwise than the long one."""
    assert canonical_arguments({"b": 1, "a": "x"}) == canonical_bytes({"a": "x", "b": 1}) == b'{"a":"x","b":1}'


def test_an_argument_without_a_form_is_refused() -> None:
    """Catches an identity made of an object's address, which is another one after a restart."""
    with pytest.raises(sf.Unserializable, match="an argument of type Foreign has no JSON form") as raised:
        canonical({"x": Foreign()})
    assert raised.value.hint


class Granted(BaseModel):
    reason: str


class Refused(BaseModel):
    reason: str


class RefusedByKind(BaseModel):
    kind: Literal["refused"] = "refused"
    reason: str


class RefusedForLong(Refused):
    days: int


@dataclass
class Verdict:
    said: Granted | Refused


@pytest.mark.parametrize(
    ("declared", "value", "words"),
    [
        (Granted | Refused, Refused(reason="too late"), "a Refused would be read back as a Granted"),
        (list[Granted | Refused], [Granted(reason="ok"), Refused(reason="too late")], "a Refused would be read back as a"),
        (dict[str, Verdict], {"A-1": Verdict(Refused(reason="too late"))}, "a Refused would be read back as a Granted"),
        (tuple[int, Refused], (1, RefusedForLong(reason="too late", days=9)), "a RefusedForLong would be read back as a R"),
    ],
)  # fmt: skip
def test_what_would_come_back_as_another_class_is_refused(declared: Any, value: Any, words: str) -> None:
    """Catches a refusal that is read back as a grant because both look alike in JSON, and what a base class leaves out."""
    with pytest.raises(sf.Unserializable) as refused:
        codec_of(declared, "decide").dump(value)
    assert refused.value.message.startswith(f"decide: {words}")


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Granted | Refused, Granted(reason="ok")),
        (Granted | RefusedByKind, RefusedByKind(reason="too late")),
        (Refused | RefusedForLong, RefusedForLong(reason="too late", days=9)),
        (list[Verdict], [Verdict(Granted(reason="ok"))]),
    ],
)
def test_classes_that_can_be_told_apart_come_back_as_themselves(declared: Any, value: Any) -> None:
    """Catches a refusal of what is well declared."""
    codec = codec_of(declared, "decide")
    data, copy = codec.dump(value)
    assert copy == codec.load(data) == value
