"""What a decorated function declares: its name, key, class of doubt, and how its arguments become data."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import GenericAlias
from typing import Any

import msgspec

from surefoot.effects.cancellation import of_users
from surefoot.effects.doubt import ESCALATE_AFTER_MS, AskPerson, InDoubt, Read, Transactional
from surefoot.effects.gates import OwnGate
from surefoot.effects.keys import KEY_CHARS_MAX, BadEffect, Identity, KeyTemplate, call_key, fingerprint, identify
from surefoot.effects.versions import VersionOf
from surefoot.journal.values import Undecodable, canonical_arguments, codec_of

SPEC = "__surefoot_effect__"
"""The attribute by which the spec of a decorated function is found."""

RETURNS_CHARS_MAX = 100
"""How much of a declared type's name a claim keeps: enough to recognize it, and a claim stays small."""

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


async def nothing_to_undo() -> None:
    """Declare, as `compensate=sf.nothing_to_undo`, that an effect needs no compensation: undo and saga pass it over."""


class Bound(msgspec.Struct, frozen=True):
    """A call's arguments: how to call with them, and by name."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: dict[str, Any]


class EffectSpec:
    """One declared effect. Built once, by the decorator; see `surefoot.effect` for the meaning of the arguments."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        key: str | None = None,
        match: tuple[str, ...] | None = None,
        in_doubt: InDoubt | None = None,
        once_for: str = "app",
        occurrence: str | None = None,
        refused_on: tuple[type[BaseException], ...] = (),
        timeout_s: float | None = None,
        when_unknown: str = "park",
        compensate: Callable[..., Any] | None = None,
        free_text: tuple[str, ...] = (),
        one_request: bool = False,
        approve: OwnGate | None = None,
        redact: tuple[str, ...] = (),
        resource: str | tuple[str, ...] = (),
        resource_timeout_s: float = 30.0,
        unchanged: str | tuple[str, ...] = (),
        thing: str | None = None,
        version: VersionOf | None = None,
        consistency: str = "strict",
    ) -> None:
        self.function = function
        self.name = name or function.__name__
        self.in_doubt: InDoubt = in_doubt if in_doubt is not None else AskPerson()
        self.deadline_ms = self.in_doubt.deadline_ms if isinstance(self.in_doubt, AskPerson) else ESCALATE_AFTER_MS
        self.receipts = self.in_doubt.receipts if isinstance(self.in_doubt, Transactional) else None
        self.refused_on = refused_on
        self.one_request = one_request
        self.timeout_s = timeout_s
        self.when_unknown = when_unknown
        self.compensate = compensate
        self.approve = approve
        self.redact = tuple(redact)
        self.occurrence = occurrence
        self.once_for = once_for
        self.is_async = inspect.iscoroutinefunction(function)
        self.is_read = isinstance(self.in_doubt, Read)
        self.signature = inspect.signature(function)
        hints = _hints(function)
        self.codec = codec_of(hints.get("return", object), self.name)
        self.returns = "" if self.codec.is_plain else inspect.formatannotation(hints["return"])[:RETURNS_CHARS_MAX]
        self._skipped = frozenset(_context_parameters(self.signature, hints))
        self._parameters = tuple(parameter for parameter in self.signature.parameters if parameter not in self._skipped)
        self._codecs = {
            parameter: codec_of(_type_of(self.signature.parameters[parameter], hints), f"{self.name}({parameter})")
            for parameter in self._parameters
        }
        self.template = None if key is None else KeyTemplate(key, self._key_signature(), self.name, occurrence)
        self._matched = self._matched_parameters(match, free_text)
        self._resources = self._templates(resource)
        self._unchanged = self._templates(unchanged)
        self._thing = self._templates(() if thing is None else thing)
        self.is_versioned = bool(self._unchanged)
        self.tells_version = bool(self._thing)
        self.version = version
        self.consistency = consistency
        self.resource_timeout_s = resource_timeout_s
        self._is_plain_data = all(codec.is_plain for codec in self._codecs.values())
        self._whole = codec_of(dict, f"{self.name}(...)")
        self._all = tuple(self.signature.parameters)
        self._is_plain = all(
            parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            for parameter in self.signature.parameters.values()
        )
        self._is_simple = self._is_plain and self._is_plain_data and not self._skipped
        self._check()

    def _templates(self, names: str | tuple[str, ...]) -> tuple[KeyTemplate, ...]:
        named = (names,) if isinstance(names, str) else tuple(names)
        return tuple(KeyTemplate(name, self._key_signature(), self.name) for name in named)

    def _key_signature(self) -> inspect.Signature | None:
        return self.signature

    def _matched_parameters(self, match: tuple[str, ...] | None, free_text: tuple[str, ...]) -> tuple[str, ...]:
        for name in (*(match or ()), *free_text, *((self.occurrence,) if self.occurrence else ())):
            if name not in self.signature.parameters:
                raise BadEffect(
                    f"effect {self.name}: {name!r} is no parameter of it",
                    hint=f"use some of: {', '.join(self.signature.parameters)}",
                )
        if match is not None:
            return match
        return tuple(name for name in self._parameters if name not in free_text)

    def _check(self) -> None:
        if self.when_unknown not in ("park", "tell_model"):
            raise BadEffect(
                f"effect {self.name}: when_unknown={self.when_unknown!r}", hint='use "park" (default) or "tell_model"'
            )
        if self.once_for not in ("app", "run"):
            raise BadEffect(f"effect {self.name}: once_for={self.once_for!r}", hint='use "app" (default) or "run"')
        if isinstance(self.in_doubt, Transactional) and self.receipts is None and self.is_async:
            raise BadEffect(
                f"effect {self.name}: a Transactional effect runs inside the commit and can't be async",
                hint="make it `def` and write through sf.current_effect().execute(...); for another database: receipts=",
            )
        self._check_redact()
        if self.approve is not None:
            self.approve.check(self)
        if self.consistency not in ("strict", "available"):
            raise BadEffect(
                f"read {self.name}: consistency={self.consistency!r}", hint='use "strict" (default) or "available"'
            )
        if self.is_versioned and isinstance(self.in_doubt, Transactional) and self.receipts is None:
            raise BadEffect(
                f"effect {self.name}: a Transactional effect acts inside a commit, which can't wait for another look",
                hint="leave unchanged= away, and compare in its own SQL: UPDATE ... WHERE version = ?",
            )
        if not self.resource_timeout_s >= 0:
            raise BadEffect(
                f"effect {self.name}: resource_timeout_s={self.resource_timeout_s}",
                hint="use seconds; 0 to wait for nobody",
            )
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise BadEffect(f"effect {self.name}: timeout_s={self.timeout_s}", hint="use seconds above 0, or None")

    def takes(self, name: str) -> bool:
        """Whether it has a parameter of this name, as far as is declared."""
        return name in self.signature.parameters

    def _check_redact(self) -> None:
        """Refuse to hide what isn't there, or what the key, which everybody sees, would show."""
        for name in self.redact:
            if name != "return" and not self.takes(name):
                raise BadEffect(
                    f"effect {self.name}: redact names {name!r}, which is no parameter of it",
                    hint=f'use some of: {", ".join(self.signature.parameters)}; "return" for its value',
                )
            if self.template is not None and name in self.template.fields:
                raise BadEffect(
                    f"effect {self.name}: its key shows {name!r}, which redact hides",
                    hint="a key is shown everywhere: build it from a reference, not from the secret",
                )

    def resources_of(self, bound: Bound) -> tuple[str, ...]:
        """Return what a call holds while it acts, each resource once.

        Raises:
            BadEffect: A parameter that names one is empty, or the name is too long.
        """
        return self._names(self._resources, bound) if self._resources else ()

    def unchanged_of(self, bound: Bound) -> tuple[str, ...]:
        """Return the things that must be as they were read. Raises as `resources_of`."""
        return self._names(self._unchanged, bound)

    def thing_of(self, bound: Bound) -> str | None:
        """Return which thing a versioned read reads; None for other reads. Raises as `resources_of`."""
        return next(iter(self._names(self._thing, bound)), None)

    def _names(self, templates: tuple[KeyTemplate, ...], bound: Bound) -> tuple[str, ...]:
        found = dict.fromkeys(template.key(bound.arguments) for template in templates)
        for name in found:
            if not name or len(name) > KEY_CHARS_MAX:
                raise BadEffect(
                    f"effect {self.name}: the name of a thing has {len(name)} characters",
                    hint=f"a name has 1 to {KEY_CHARS_MAX} characters: order/7",
                )
        return tuple(found)

    @property
    def matched(self) -> tuple[str, ...]:
        """The parameters that must agree for one key."""
        return self._matched

    @property
    def needs_context(self) -> bool:
        """Whether it takes a framework's context, which is not recorded: only its own caller can call it again."""
        return bool(self._skipped)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound:
        """Return the call's arguments, in the order of the parameters and with defaults filled in.

        Raises:
            TypeError: As the function itself would.
        """
        if self._is_plain:  # a call that leaves nothing out, and is written in order, needs no looking up
            if not args and tuple(kwargs) == self._all:
                return Bound(tuple(kwargs.values()), {}, kwargs)
            if not kwargs and len(args) == len(self._all):
                return Bound(args, {}, dict(zip(self._all, args, strict=True)))
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return Bound(bound.args, bound.kwargs, bound.arguments)

    def record(self, bound: Bound) -> tuple[bytes, Bound]:
        """Return the arguments as bytes, and the call with what these bytes read back as.

        Every send, the first included, uses the copy: what is sent again after a crash is then the same. Arguments that
        carry a framework's context are not recorded, and stay the caller's.

        Raises:
            Unserializable: One has no JSON form, or one that reads back as something else.
        """
        if self._is_simple:
            data, copies = self._whole.dump(bound.arguments)
            return data, Bound(tuple(copies.values()), {}, copies)
        if self._is_plain_data:
            given = {name: bound.arguments[name] for name in self._parameters}
            data, copies = self._whole.dump(given)
        else:
            dumped = {name: self._codecs[name].dump(bound.arguments[name]) for name in self._parameters}
            data = _encode({name: msgspec.Raw(value) for name, (value, _) in dumped.items()})
            copies = {name: copy for name, (_, copy) in dumped.items()}
        return data, self._rebound(bound, copies)

    def _rebound(self, bound: Bound, copies: Mapping[str, Any]) -> Bound:
        values = {**bound.arguments, **copies}
        if self._is_plain:
            return Bound(tuple([values[name] for name in self._all]), {}, values)
        again = inspect.BoundArguments(self.signature, OrderedDict(values))
        return Bound(again.args, again.kwargs, values)

    def rebound(self, bound: Bound, arguments: bytes) -> Bound:
        """Return a call with recorded arguments: fresh copies, whatever an earlier attempt did to its own.

        Raises:
            Undecodable: They no longer fit the parameters.
        """
        return self._rebound(bound, self.rebuild(arguments))

    def identity(self, bound: Bound, run_id: str | None, step: str) -> Identity:
        """Return which effect the call means: by its key, or, without one, by its place in the run.

        Args:
            bound: The call's arguments.
            run_id: The run, or None.
            step: The step's identity in the run; outside runs, something unique.
        """
        arguments = bound.arguments
        if self._matched != self._all:
            matched = fingerprint(canonical_arguments({name: arguments[name] for name in self._matched}))
        else:
            matched = fingerprint(canonical_arguments(arguments))
        if self.template is None:
            return identify("app" if run_id is None else f"run {run_id}", self.name, call_key(step), matched)
        scope = f"run {run_id}" if self.once_for == "run" and run_id is not None else "app"
        return identify(scope, self.name, self.template.key(arguments), matched)

    def rebuild(self, arguments: bytes) -> dict[str, Any]:
        """Return recorded arguments as the function's own types, for a send by somebody else than the caller."""
        try:
            recorded = _decode(arguments)
            return {name: self._codecs[name].load(bytes(recorded[name])) for name in self._parameters}
        except (KeyError, msgspec.MsgspecError) as error:
            raise Undecodable(
                f"effect {self.name}: recorded arguments no longer fit its parameters ({error})",
                hint="bring back the parameters, or resolve the effect by hand: surefoot resolve",
            ) from error

    def known(self, function: Callable[..., Any], bound: Bound) -> dict[str, Any]:
        """Return those of the call's arguments that a probe or a compensation has parameters for."""
        parameters = inspect.signature(function).parameters
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return {name: bound.arguments[name] for name in self._parameters}
        return {name: bound.arguments[name] for name in self._parameters if name in parameters}

    async def call(self, bound: Bound) -> Any:
        """Run the function; a synchronous one in a thread.

        Raises:
            CancelledItself: See `cancellation`.
        """
        if self.is_async:
            return await of_users(self.function(*bound.args, **bound.kwargs))
        return await of_users(asyncio.to_thread(self.function, *bound.args, **bound.kwargs))


def _type_of(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    """Return the type of what a call has under a parameter's name."""
    declared = hints.get(parameter.name, object)
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return GenericAlias(tuple, (declared, ...))
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return GenericAlias(dict, (str, declared))
    return declared


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # a name only known to type checkers: treat as not annotated
        return {}


def _context_parameters(signature: inspect.Signature, hints: Mapping[str, Any]) -> list[str]:
    """Return parameters that carry a framework's context (Pydantic AI's RunContext): not part of the request."""
    return [name for name in signature.parameters if getattr(hints.get(name), "__name__", "") == "RunContext"]
