"""AgentDojo's tools as functions with their own names and parameters, for any framework that reads signatures."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from tests.worlds import dojo
from tests.worlds.dojo import Call


@functools.cache
def functions(suite: str) -> dict[str, Any]:
    """Return the tools that a suite's tasks use, by name, as the package has them."""
    used = {call.tool for task in dojo.load().values() if task.name.startswith(f"{suite}/") for call in task.calls}
    return {function.name: function for function in dojo._suites()[suite].tools if function.name in used}


def suites() -> list[str]:
    """Return the names of the suites."""
    return list(dojo._suites())


def parameters(function: Any) -> list[inspect.Parameter]:
    """Return a tool's parameters, with its types and defaults."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=given.annotation,
            default=inspect.Parameter.empty if given.is_required() else given.default,
        )
        for name, given in function.parameters.model_fields.items()
    ]


def pose(call: Callable[..., Any], name: str, given: list[inspect.Parameter]) -> Callable[..., Any]:
    """Give a function of keyword arguments a name and parameters."""
    call.__name__ = call.__qualname__ = name
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in given} | {"return": Any}
    signature = inspect.Signature(given, return_annotation=Any)
    call.__signature__ = signature  # type: ignore[attr-defined]  # what `inspect.signature` goes by
    return call


def validated(suite: str, call: Call) -> dict[str, Any]:
    """Return a call's arguments as the tool's own types, as any framework for agents does."""
    model = functions(suite)[call.tool].parameters.model_validate(dict(call.args))
    return {name: getattr(model, name) for name in call.args}
