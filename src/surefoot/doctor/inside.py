"""A look inside a function: the names it uses, what it imports when called, the objects it reaches. Nothing is called.

A look at code proves nothing: a name may be used for something else, and a client may be reached by a way that is not seen.
What follows from it is a hint, and is worded as one.
"""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Any

DEPTH_MAX = 4
"""How many calls deep the user's own functions are followed."""

ATTRIBUTES_DEPTH = 2
"""How deep objects of the user's own classes are looked into for clients they hold."""


@dataclass
class Inside:
    """What was seen in a function and the functions of its own package that it uses.

    Attributes:
        names: All names and attributes in its code.
        imports: Modules that it imports when it is called.
        reached: Objects it can reach by name, with that name.
    """

    names: set[str] = field(default_factory=set)
    imports: set[str] = field(default_factory=set)
    reached: dict[int, tuple[str, Any]] = field(default_factory=dict)


def look_inside(function: Callable[..., Any]) -> Inside:
    """Return what can be seen in a function."""
    seen = Inside()
    _follow(function, seen, set(), 0)
    return seen


def _follow(function: Any, seen: Inside, visited: set[int], depth: int) -> None:
    if isinstance(function, FunctionType):
        _reach(function.__name__, function, seen, 0)
        function = inspect.unwrap(function)
    if not isinstance(function, FunctionType) or id(function) in visited or depth > DEPTH_MAX:
        return
    visited.add(id(function))
    package = (function.__module__ or "").partition(".")[0]
    for code in _codes(function.__code__):
        seen.names.update(code.co_names)
        seen.imports.update(_imports(code))
    for name, value in _reachable(function):
        _reach(name, value, seen, 0)
        is_own = isinstance(value, FunctionType) and (value.__module__ or "").partition(".")[0] == package
        if is_own:
            _follow(value, seen, visited, depth + 1)


def _reach(name: str, value: Any, seen: Inside, depth: int) -> None:
    """Note an object, and what an object of a class in plain Python holds."""
    if isinstance(value, str | bytes | int | float | type | type(None)) or id(value) in seen.reached:
        return
    seen.reached[id(value)] = (name, value)
    held = getattr(value, "__dict__", None)
    if depth < ATTRIBUTES_DEPTH and isinstance(held, dict) and not isinstance(value, ModuleType | FunctionType):
        for attribute, part in list(held.items())[:100]:
            _reach(f"{name}.{attribute}", part, seen, depth + 1)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _imports(code: CodeType) -> set[str]:
    return {str(one.argval) for one in dis.get_instructions(code) if one.opname == "IMPORT_NAME"}


def _reachable(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what the function's code can name: globals, and what it closes over."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    for name in sorted(names & function.__globals__.keys()):
        yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue
    if (own := getattr(function, "__self__", None)) is not None:
        yield "self", own


@dataclass(frozen=True)
class Call:
    """A call in the source of a function.

    Attributes:
        target: The full name of what is called, as far as names lead: "time.time", "io.open".
        written: As it is written.
        line: Where, in the file.
    """

    target: str
    written: str
    line: int


def calls_of(function: Callable[..., Any]) -> list[Call]:
    """Return the calls in a function's own source, outside the functions defined in it; none if it has no source."""
    try:
        lines, start = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return []
    own = tree.body[0]
    body = own.body if isinstance(own, ast.FunctionDef | ast.AsyncFunctionDef) else [own]
    scope = {**vars(builtins), **getattr(function, "__globals__", {})}
    return [
        Call(target, ast.unparse(node.func), start + node.lineno - 1)
        for statement in body
        for node in _outside_of_functions(statement)
        if isinstance(node, ast.Call) and (target := _target(node.func, scope))
    ]


def _outside_of_functions(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _outside_of_functions(child)


def _target(node: ast.expr, scope: dict[str, Any]) -> str:
    """Return the full name of what an expression names, by looking it up."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in scope:
        return ""
    found = scope[node.id]
    for at, part in enumerate(parts):
        if not isinstance(found, ModuleType | type):
            return ".".join([_full_name(found), *parts[at:]])
        found = getattr(found, part, None)
    return _full_name(found)


def _full_name(thing: Any) -> str:
    if isinstance(thing, ModuleType):
        return thing.__name__
    owner = getattr(thing, "__self__", None)  # random.random is a method of a hidden object, date.today of its class
    module = getattr(thing, "__module__", None) or (owner if isinstance(owner, type) else type(owner)).__module__
    return f"{module}.{getattr(thing, '__qualname__', type(thing).__name__)}".lstrip(".")
