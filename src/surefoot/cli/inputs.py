"""What is typed becomes arguments and payloads: JSON read with its place told when it is wrong, values checked by type.

What holds: nothing typed is evaluated; a value either fits the declared type or is refused with the parameter's name.
"""

from __future__ import annotations

import inspect
import json
import sys
import typing
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import typer
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from surefoot.cli.exits import WrongUsage
from surefoot.cli.words import clean

EXCERPT_CHARS = 30
"""How much of a wrong text is shown before and after the place."""


NUMBER_MAX = 2**62
"""Largest number taken: half of what SQLite and PostgreSQL can hold, and no store has counted that far."""


def read_text(typed: str, what: str) -> str:
    """Return what was typed, or, for "-" and "@FILE", what standard input or the file holds."""
    if typed == "-":
        return sys.stdin.read()
    if typed.startswith("@"):
        path = Path(typed[1:])
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise WrongUsage(f"{what}: can't read {path}: {error}", hint="@FILE reads JSON from a file") from error
    return typed


def read_json(typed: str, what: str) -> Any:
    """Return the JSON value that was typed, or that "-" or "@FILE" holds.

    Raises:
        WrongUsage: It is no JSON, where the message shows the place; or an object in it has one name twice.
    """
    text = read_text(typed, what)
    check_json(text, what)
    return msgspec.json.decode(text)


def check_json(text: str, what: str) -> None:
    """Refuse what is no JSON, showing the place, and objects that say one thing twice."""
    try:
        json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=partial(_each_once, what))
        msgspec.json.decode(text)
    except json.JSONDecodeError as error:
        raise WrongUsage(
            f"{what} is no JSON: {error.msg}, line {error.lineno}, column {error.colno}\n{_excerpt(error)}",
            hint='text needs double quotes, and the shell single quotes around all of it: \'{"order": "A-1"}\'',
        ) from error
    except (ValueError, RecursionError) as error:
        raise WrongUsage(f"{what} is no JSON: {error}", hint="write plain JSON as in RFC 8259") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _each_once(what: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, unless it has one name twice: readers of JSON differ in which of the two they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in found if names.count(name) > 1)
        raise WrongUsage(f"{what} has {doubled!r} twice in one object", hint="keep the one that is meant")
    return found


def _excerpt(error: json.JSONDecodeError) -> str:
    """Return the line that is wrong, around the place, with a mark below it."""
    lines = error.doc.splitlines() or [""]
    whole = lines[min(error.lineno, len(lines)) - 1]
    start = max(0, error.colno - 1 - EXCERPT_CHARS)
    before = ("…" if start else "") + clean(whole[start : error.colno - 1])
    end = error.colno - 1 + EXCERPT_CHARS
    after = clean(whole[error.colno - 1 : end]) + ("…" if len(whole) > end else "")
    return f"    {before}{after}\n    {' ' * len(before)}^"


def one_of(names: Sequence[str]) -> Callable[[str | None], str | None]:
    """Return a check of an option that takes one of these names."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(names)}")
        return value

    return check


def countable(value: int | None) -> int | None:
    """Check an option or an argument that counts something of a store, or is its number there."""
    if value is not None and abs(value) > NUMBER_MAX:
        raise typer.BadParameter(f"{value} is more than any store has counted to")
    return value


# -- arguments of a durable function ----------------------------------------------------------------------------------


def arguments_of(
    function: Callable[..., Any], signature: inspect.Signature, *, typed: Sequence[str], given: str | None
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments to start a durable function with.

    Args:
        function: The function, for its annotations.
        signature: Its signature.
        typed: Words, one for each positional parameter in order; see `_from_word`.
        given: JSON: an object of arguments by name, or an array of arguments in order; None for no `--input`.

    Raises:
        WrongUsage: They don't fit the function.
    """
    hints = _hints(function)
    if given is not None and typed:
        raise WrongUsage("arguments and --input were both given", hint="give one of them")
    if given is None:
        args = [_from_word(word, parameter, hints) for word, parameter in _in_order(typed, signature)]
        kwargs: dict[str, Any] = {}
    else:
        args, kwargs = _from_json(read_text(given, "--input"), signature, hints)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise WrongUsage(
            f"the arguments don't fit {describe(signature)}: {error}",
            hint="give every parameter without a default, in order or by name: --input '{\"NAME\": VALUE}'",
        ) from error
    return args, kwargs


def describe(signature: inspect.Signature) -> str:
    """Return a signature for people."""
    return f"({', '.join(str(parameter) for parameter in signature.parameters.values())})"


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # a name only known to type checkers: treat as not annotated
        return {}


def _in_order(values: Sequence[Any], signature: inspect.Signature) -> list[tuple[Any, inspect.Parameter]]:
    """Pair values with the parameters they go to by position."""
    places: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            places += [parameter] * (len(values) - len(places))
        elif parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            places.append(parameter)
    if len(values) > len(places):
        raise WrongUsage(
            f"{len(values)} arguments for {len(places)} parameters: {describe(signature)}",
            hint="quote an argument with spaces for the shell; parameters after * go by name, with --input",
        )
    return list(zip(values, places, strict=False))


def _from_word(word: str, parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    """Read a word as the declared type reads text ("2.50" for a Decimal), else as JSON; without a type, JSON first."""
    declared = hints.get(parameter.name, object)
    if declared is str:
        return word
    adapter = _adapter(parameter.name, declared)
    forms = [json.dumps(word), word] if declared not in (Any, object) else [word, json.dumps(word)]
    problems = []
    for form in forms:
        try:
            value = adapter.validate_json(form)
        except ValidationError as error:
            problems.append(error)
        else:
            json.loads(form, parse_int=str, object_pairs_hook=partial(_each_once, parameter.name))
            return value
    is_json = word.lstrip()[:1] in ("{", "[")
    raise _unfit(parameter.name, word, problems[1 if is_json else 0])


def _from_json(text: str, signature: inspect.Signature, hints: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    check_json(text, "--input")
    if text.lstrip().startswith("["):
        items = msgspec.json.decode(text, type=list[msgspec.Raw])
        return [_from_raw(item, parameter.name, hints) for item, parameter in _in_order(items, signature)], {}
    if not text.lstrip().startswith("{"):
        raise WrongUsage(
            "--input is neither an object nor an array",
            hint="'{\"NAME\": VALUE}' names the arguments, '[VALUE, ...]' gives them in order",
        )
    named = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    _refuse_strangers(named, signature)
    return [], {name: _from_raw(raw, name, hints) for name, raw in named.items()}


def _refuse_strangers(named: dict[str, msgspec.Raw], signature: inspect.Signature) -> None:
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    strangers = [name for name in named if name not in signature.parameters]
    if strangers and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise WrongUsage(
            f"--input has {', '.join(map(repr, strangers))}, which {describe(signature)} does not take",
            hint="the object's names are those of the parameters",
        )


def _from_raw(raw: msgspec.Raw, name: str, hints: dict[str, Any]) -> Any:
    try:
        return _adapter(name, hints.get(name, Any)).validate_json(bytes(raw))
    except ValidationError as error:
        raise _unfit(name, bytes(raw).decode(), error) from error


def _adapter(name: str, declared: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(Any if declared is object else declared)
    except PydanticUserError as error:
        raise WrongUsage(
            f"{name}: its declared type {declared!r} has no JSON form ({error.message})",
            hint="declare a pydantic model, a dataclass or a JSON type",
        ) from error


def _unfit(name: str, text: str, error: ValidationError) -> WrongUsage:
    """Return what is wrong with an argument, and where in it."""
    problems = [
        f"{'.'.join([name, *map(str, problem['loc'])])}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    ]
    shown = text if len(text) <= 2 * EXCERPT_CHARS else f"{text[: 2 * EXCERPT_CHARS]}…"
    return WrongUsage("\n".join(problems), hint=f"it was given {shown}")
