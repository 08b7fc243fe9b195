"""How a user's value becomes bytes in the journal and comes back the same.

What holds: a value is proven loadable before it is called recorded, and the code that made it gets the loaded copy, so
the first execution sees what every replay will see. JSON values need no annotation; everything else is written and read
through the declared type (pydantic). No pickle: bytes from the journal are data, never code.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from pydantic import Secret, SecretBytes, SecretStr, TypeAdapter
from pydantic_core import PydanticSerializationError, to_jsonable_python

from surefoot.problem import SurefootError

Value: TypeAlias = bytes
"""A user's value as JSON, UTF-8."""

VALUE_BYTES_MAX = 16 * 1024 * 1024
"""Largest single value. A whole run must stay loadable in memory on a small worker; larger things belong in a file
store, with their address in the journal."""

_encode = msgspec.json.Encoder(order=None).encode
_decode = msgspec.json.Decoder(strict=True).decode
NOT_JSON = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
"""What an encoder raises for a value that has no JSON form."""

_STARS = b"**********"
"""What pydantic writes for a secret: looked for first, as walking through a value costs more."""

_PLAIN = (object, Any, None, type(None), dict, list, str, int, float, bool)
_CONTAINERS = {
    dict[str, Any]: dict,
    dict[str, object]: dict,
    list[Any]: list,
    list[object]: list,
}
"""Declared types that promise no more than a container of JSON values: a value that comes back equal as plain JSON needs
no pydantic, which is several times slower at it. What does not (a date inside) still goes through pydantic."""


class Unserializable(SurefootError):
    """A value can't be kept in the journal, or would come back different. Nothing was recorded of it."""


class Undecodable(SurefootError):
    """A recorded value no longer fits the declared type: code and journal disagree. Terminal for this code version."""


class Forgotten(SurefootError):
    """What is asked for was recorded, and retention has deleted its value since: it is known that it happened, not what it
    came to."""


class ValueTooLarge(SurefootError):
    """A value is above `VALUE_BYTES_MAX`."""


class ValueCodec:
    """Writes and reads values of one declared type.

    Attributes:
        is_plain: Whether the type is a JSON type, whose values are read back as they are.
        dump: Returns the bytes of a value, and the value as it will be read back. Raises `Unserializable` when it has no
            JSON form, or one that reads back as something else, and `ValueTooLarge` above `VALUE_BYTES_MAX`.
    """

    def __init__(self, declared: Any, owner: str) -> None:
        self._declared = declared
        self._owner = owner
        self._adapter: TypeAdapter[Any] | None = None
        self.is_plain = declared in _PLAIN if _is_hashable(declared) else False
        self._container = _CONTAINERS.get(declared) if _is_hashable(declared) else None
        self.dump: Callable[[Any], tuple[Value, Any]] = self._dump_typed
        if self.is_plain:
            self.dump = self._dump_plain
        elif self._container is not None:
            self.dump = self._dump_container

    def prepare(self) -> None:
        """Do now what the first value would wait for.

        Raises:
            Unserializable: The declared type can't be written as JSON.
        """
        if not self.is_plain:
            self._typed()

    def _typed(self) -> TypeAdapter[Any]:
        if self._adapter is None:
            try:
                self._adapter = TypeAdapter(self._declared)
            except Exception as error:  # pydantic raises many kinds for a type it can't handle
                raise Unserializable(
                    f"{self._owner}: its declared type {self._declared!r} can't be written as JSON ({error})",
                    hint="declare a pydantic model, a dataclass or a JSON type",
                ) from error
        return self._adapter

    def _dump_plain(self, value: Any) -> tuple[Value, Any]:
        try:
            data = _encode(value)
            copy = _decode(data)
        except NOT_JSON as error:
            raise self._refusal(value, str(error)) from error
        if copy != value or type(copy) is not type(value):
            raise self._refusal(value, f"it would be read back as {type(copy).__name__} {_short(copy)}")
        if len(data) > VALUE_BYTES_MAX:
            raise self._too_large(data)
        return data, copy

    def _dump_container(self, value: Any) -> tuple[Value, Any]:
        if type(value) is self._container:
            try:
                data = _encode(value)
                copy = _decode(data)
            except NOT_JSON:
                copy = None
            if copy == value and len(data) <= VALUE_BYTES_MAX:
                return data, copy
        return self._dump_typed(value)

    def _dump_typed(self, value: Any) -> tuple[Value, Any]:
        adapter = self._typed()
        try:
            data = adapter.dump_json(value, warnings="error")
            if _STARS in data and _has_secret(value):
                raise self._refused_secret(value)
            copy = adapter.validate_json(data)
        except Unserializable:
            raise
        except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
            raise self._refusal(value, str(error)) from error
        if (changed := _changed(value, copy)) is not None:
            raise self._refused_change(*changed)
        if len(data) > VALUE_BYTES_MAX:
            raise self._too_large(data)
        return data, copy

    def _refused_change(self, was: type, becomes: type) -> Unserializable:
        return Unserializable(
            f"{self._owner}: a {was.__name__} would be read back as a {becomes.__name__}, by the declared type"
            f" {self._declared!r}",
            hint="declare the class that is returned; of several that look alike in JSON, give each a field that tells it"
            ' apart: kind: Literal["refused"] = "refused"',
        )

    def _too_large(self, data: Value) -> ValueTooLarge:
        return ValueTooLarge(
            f"{self._owner}: a value of {len(data):,} bytes; the limit is {VALUE_BYTES_MAX:,}",
            hint="keep it in a file or an object store and return its address",
        )

    def _refused_secret(self, value: Any) -> Unserializable:
        return Unserializable(
            f"{self._owner}: a {type(value).__name__} holds a SecretStr or SecretBytes, which would come back as stars",
            hint="take the secret from where it is kept inside the function; or declare plain text, hidden by redact=",
        )

    def _refusal(self, value: Any, why: str) -> Unserializable:
        path = _first_foreign(value)
        where = f" at {path}" if path else ""
        return Unserializable(
            f"{self._owner}: a {type(value).__name__} can't be kept in the journal{where}: {why}",
            hint="return JSON values, or annotate the function with the pydantic model or dataclass it returns",
        )

    def fits(self, value: Any) -> bool:
        """Whether a value is of the declared type, where that is a JSON type, whose values are read back as they are. A
        whole number is a float too."""
        declared = self._declared
        return (
            not self.is_plain
            or declared is object
            or isinstance(value, (int, float) if declared is float else declared)
        )

    def load(self, data: Value) -> Any:
        """Return the value.

        Raises:
            Undecodable: The bytes don't fit the declared type any more.
        """
        try:
            if self.is_plain:
                return _decode(data)
            if self._container is not None and type(value := _decode(data)) is self._container:
                return value
            return self._typed().validate_json(data)
        except (ValueError, msgspec.MsgspecError) as error:
            raise Undecodable(
                f"{self._owner}: the recorded value no longer fits {self._declared!r}: {error}",
                hint="bring back the code that wrote it, or make the type accept the old form; then wake the run",
            ) from error


def codec_of(declared: Any, owner: str) -> ValueCodec:
    """Return the codec of a declared type; a missing annotation means JSON values."""
    return ValueCodec(object if declared in (typing.Any, types.NoneType, None) else declared, owner)


def canonical(value: Any) -> Any:
    """Return a JSON-able form in which equal values are equal: decimals without trailing zeros, sorted sets."""
    return _canonical(value)


def canonical_bytes(value: Any) -> bytes:
    """Return `canonical(value)` as bytes that are equal when the values are: keys sorted, no spaces."""
    return _canonical_encode(_canonical(value))


def canonical_arguments(arguments: dict[str, Any]) -> bytes:
    """Return `canonical_bytes(arguments)`; those of most effects are texts and whole numbers, their own canonical form."""
    for value in arguments.values():
        if type(value) not in _CANONICAL:
            return canonical_bytes(arguments)
    return _canonical_encode(arguments)


_canonical_encode = msgspec.json.Encoder(order="deterministic").encode
_CANONICAL = frozenset({str, int, bool, type(None)})


def _canonical(value: Any) -> Any:
    kind = type(value)
    if kind in _CANONICAL:
        return value
    if kind is float:
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if kind is dict:
        return {str(key): _canonical(item) for key, item in value.items()}
    if kind in (list, tuple):
        return [_canonical(item) for item in value]
    return _canonical_foreign(value)


def _canonical_foreign(value: Any) -> Any:
    from decimal import Decimal

    if isinstance(value, Decimal):
        return format(value.normalize(), "f") if value.is_finite() else str(value)
    if isinstance(value, set | frozenset):
        return sorted((_canonical(item) for item in value), key=_canonical_encode)
    if hasattr(value, "model_dump"):
        return _canonical(value.model_dump(mode="python"))
    if hasattr(value, "__dataclass_fields__"):
        return {name: _canonical(getattr(value, name)) for name in value.__dataclass_fields__}
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError as error:
        raise Unserializable(
            f"an argument of type {type(value).__name__} has no JSON form", hint="pass JSON values or pydantic models"
        ) from error


def _is_hashable(declared: Any) -> bool:
    try:
        hash(declared)
    except TypeError:
        return False
    return True


def _has_secret(value: Any) -> bool:
    """Whether a value holds one of pydantic's secrets, which it writes as stars."""
    left, seen = [value], dict[int, Any]()  # what was seen is kept, so that no other value gets its id
    while left:
        one = left.pop()
        if isinstance(one, Secret | SecretStr | SecretBytes):
            return True
        if id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, dict):
            left.extend(one.values())
        elif isinstance(one, list | tuple | set | frozenset):
            left.extend(one)
        elif hasattr(one, "__dataclass_fields__"):
            left.extend(getattr(one, name, None) for name in one.__dataclass_fields__)
        else:
            left.extend(getattr(one, "__dict__", {}).values())
    return False


def _changed(value: Any, copy: Any) -> tuple[type, type] | None:
    """Return the class of the first object of users' whose copy is of another one, and that one; None where there is none.

    By a base class a copy has lost what its own class adds, and of several classes whose JSON forms are the same it may be
    the wrong one: what was refused is read back as granted.
    """
    left = [(value, copy)]
    while left:
        one, other = left.pop()
        fields, others = _fields_of(one), _fields_of(other)
        if fields is not None and others is not None:
            if type(one) is not type(other):
                return type(one), type(other)
            left.extend((item, others[name]) for name, item in fields.items() if name in others)
        elif isinstance(one, dict) and isinstance(other, dict):
            left.extend((item, other[key]) for key, item in one.items() if key in other)
        elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
            left.extend(zip(one, other, strict=False))
    return None


def _fields_of(value: Any) -> dict[str, Any] | None:
    """Return the fields of a pydantic model or a dataclass; None of anything else."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return {name: getattr(value, name, None) for name in kind.__dataclass_fields__}
    return value.__dict__ if hasattr(kind, "__pydantic_fields__") else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _first_foreign(value: Any, path: str = "$", depth: int = 0) -> str:
    """Return the path of the first part that JSON has no equal for, or an empty string."""
    if depth > 100:
        return path
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"{path} (key {_short(key)} is {type(key).__name__})"
            found = _first_foreign(item, f"{path}.{key}", depth + 1)
            if found:
                return found
        return ""
    if type(value) is list:
        for index, item in enumerate(value):
            found = _first_foreign(item, f"{path}[{index}]", depth + 1)
            if found:
                return found
        return ""
    is_same = type(value) in (str, int, bool, type(None)) or (type(value) is float and value - value == 0)
    return "" if is_same else f"{path} ({type(value).__name__})"
