"""Mutants: one small change each to the syntax tree of a file. Pure.

The operators are the usual ones (DeMillo, Lipton and Sayward 1978), without those whose mutants the type checker refuses or
that only change words for people.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}  # fmt: skip
WORDS = frozenset({"reason", "hint", "label", "doc"})
"""Keywords whose values people read; changing them is no mistake of the engine."""


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        path: The file, below `src`.
        line: Where.
        what: The change, in words.
        source: The whole file with it.
    """

    path: str
    line: int
    what: str
    source: str

    @property
    def name(self) -> str:
        """What it is called in the report."""
        return f"{self.path}:{self.line} {self.what}"


def mutants_of(path: str, source: str) -> Iterator[Mutant]:
    """Yield all mutants of a file."""
    tree = ast.parse(source)
    for place, node in enumerate(_nodes(tree)):
        for what, line, change in _changes(node):
            mutated = copy.deepcopy(tree)
            change(_nodes(mutated)[place])
            yield Mutant(path, line, what, ast.unparse(ast.fix_missing_locations(mutated)))


def _nodes(tree: ast.AST) -> list[ast.AST]:
    """Return the nodes that may be changed, always in the same order."""
    found: list[ast.AST] = []

    def walk(node: ast.AST) -> None:
        found.append(node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_comment"):
                continue
            if name == "keywords" and isinstance(
                node, ast.ClassDef
            ):  # frozen, gc: what the type checker or nobody sees
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _is_words(child):
                    walk(child)

    walk(tree)
    return found


def _is_words(node: ast.AST) -> bool:
    """Whether a node is there for people or the type checker only."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.keyword):
        return node.arg in WORDS
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"
    return isinstance(node, ast.JoinedStr | ast.Assert | ast.Raise)


Change = tuple[str, int, Callable[[ast.AST], None]]


def _changes(node: ast.AST) -> Iterator[Change]:
    """Yield what may be changed about a node: in words, at which line, and how."""
    line = getattr(node, "lineno", 1)
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            other = COMPARISONS[type(op)]
            yield f"{type(op).__name__} becomes {other.__name__}", line, _setting("ops", [other()])
        case ast.BoolOp(op=op):
            other_op, names = (ast.Or(), "and becomes or") if isinstance(op, ast.And) else (ast.And(), "or becomes and")
            yield names, line, _setting("op", other_op)
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            turned = ARITHMETIC[type(op)]
            yield f"{type(op).__name__} becomes {turned.__name__}", line, _setting("op", turned())
        case ast.Constant(value=bool(value)):
            yield f"{value} becomes {not value}", line, _setting("value", not value)
        case ast.Constant(value=int(value)):
            yield f"{value} becomes {value + 1}", line, _setting("value", value + 1)
        case ast.UnaryOp(op=ast.Not()):
            yield "not is left out", line, _without_not
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not _is_turned_anyway(test):
            yield "the condition is turned", line, _turned
    yield from _left_out(node)


def _is_turned_anyway(test: ast.expr) -> bool:
    """Whether another operator makes the same of a condition."""
    return isinstance(test, ast.UnaryOp) or (isinstance(test, ast.Compare) and type(test.ops[0]) in (
        ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn))  # fmt: skip


def _left_out(node: ast.AST) -> Iterator[Change]:
    """Yield what a block becomes without one of its statements."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if not isinstance(block, list):
            continue
        for place, statement in enumerate(block):
            is_plain = isinstance(statement, ast.Expr | ast.AugAssign) and not _is_words(statement)
            is_leaving = isinstance(statement, ast.Return | ast.Continue | ast.Break) and len(block) > 1
            if is_plain or is_leaving:
                what = ast.unparse(statement).partition("\n")[0][:60]
                yield f"without `{what}`", statement.lineno, _leaving_out(name, place)


def _setting(name: str, value: object) -> Callable[[ast.AST], None]:
    return lambda node: setattr(node, name, value)


def _without_not(node: ast.AST) -> None:
    assert isinstance(node, ast.UnaryOp)
    node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)


def _turned(node: ast.AST) -> None:
    assert isinstance(node, ast.If | ast.While | ast.IfExp)
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _leaving_out(name: str, place: int) -> Callable[[ast.AST], None]:
    return lambda node: getattr(node, name).__setitem__(place, ast.Pass())
