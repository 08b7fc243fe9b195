"""The spec of a tool that somebody else wrote: its arguments are a JSON object, whatever is in it.

What holds: all that an effect is (a key, what must agree, a class of doubt) is declared without its code at hand; what it
does is said call by call. Its doubts are ended by the run that asked for it, whose caller has that code, or by a person.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from surefoot.effects.doubt import Transactional
from surefoot.effects.keys import BadEffect, Identity, KeyTemplate, call_key, fingerprint, identify
from surefoot.effects.spec import Bound, EffectSpec
from surefoot.journal.values import canonical_arguments


class OpenSpec(EffectSpec):
    """One effect with open parameters. The options are those of `surefoot.effect`.

    Raises:
        BadEffect: The declaration means nothing, or needs code of its author's own.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(_unsaid, name=name, **options)
        if isinstance(self.in_doubt, Transactional):
            raise BadEffect(
                f"effect {name}: a Transactional effect writes in a transaction of its own code's",
                hint="declare what its service offers: sf.Resend, sf.Probe, sf.Overwrite or sf.AskPerson",
            )

    def doing(self, function: Callable[..., Awaitable[Any]]) -> OpenSpec:
        """Return it for one call: called with the arguments as keywords, `function` does it."""
        spec = copy.copy(self)
        spec.function = function
        return spec

    def takes(self, name: str) -> bool:
        """Whether it may have a parameter of this name: nobody has said that it hasn't."""
        return True

    def _key_signature(self) -> inspect.Signature | None:
        return None

    def _matched_parameters(self, match: tuple[str, ...] | None, free_text: tuple[str, ...]) -> tuple[str, ...]:
        self._match, self._free_text = match, frozenset(free_text)
        return ()

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound:
        """Return the call's arguments, as they are."""
        if args:
            raise TypeError(f"{self.name}() takes its arguments by name")
        return Bound((), kwargs, kwargs)

    def record(self, bound: Bound) -> tuple[bytes, Bound]:
        """See `EffectSpec.record`."""
        data, copies = self._whole.dump(bound.arguments)
        return data, Bound((), copies, copies)

    def rebound(self, bound: Bound, arguments: bytes) -> Bound:
        """See `EffectSpec.rebound`."""
        return self.bind((), self.rebuild(arguments))

    def rebuild(self, arguments: bytes) -> dict[str, Any]:
        """Return recorded arguments."""
        recorded: dict[str, Any] = msgspec.json.decode(arguments)
        return recorded

    def known(self, function: Callable[..., Any], bound: Bound) -> dict[str, Any]:
        """See `EffectSpec.known`."""
        parameters = inspect.signature(function).parameters
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return bound.arguments
        return {name: value for name, value in bound.arguments.items() if name in parameters}

    def identity(self, bound: Bound, run_id: str | None, step: str) -> Identity:
        """See `EffectSpec.identity`.

        Raises:
            BadEffect: The call lacks an argument by which it is known, or has it empty.
        """
        arguments, run = bound.arguments, f"run {run_id}"
        matched = fingerprint(canonical_arguments({name: arguments[name] for name in arguments if self._matches(name)}))
        if self.template is None:
            return identify("app" if run_id is None else run, self.name, call_key(step), matched)
        self._require(self.template, arguments, "by which it is known")
        scope = run if self.once_for == "run" and run_id is not None else "app"
        return identify(scope, self.name, self.template.key(arguments), matched)

    def _names(self, templates: tuple[KeyTemplate, ...], bound: Bound) -> tuple[str, ...]:
        for template in templates:
            self._require(template, bound.arguments, "which names a thing that it is about")
        return super()._names(templates, bound)

    def _require(self, template: KeyTemplate, arguments: Mapping[str, Any], what: str) -> None:
        missing = [field for field in template.fields if field not in arguments]
        if missing:
            raise BadEffect(
                f"effect {self.name}: the call has no {missing[0]!r}, {what}",
                hint=f"pass {missing[0]}; it has: {', '.join(arguments) or 'no arguments'}",
            )

    def _matches(self, name: str) -> bool:
        return name not in self._free_text if self._match is None else name in self._match


async def _unsaid(**arguments: Any) -> Any:
    raise AssertionError("what it does is said by `doing`")
