"""Signals with a type: declared once, checked where they are sent, and again where they are waited for.

known to the sender   -> a payload that doesn't fit, or a name that the kind doesn't take, is refused before it is sent
not known to it       -> it is kept unread: the run goes on waiting, and says what came and why it doesn't fit
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from surefoot.journal import Undecodable, Unserializable, ValueCodec, codec_of
from surefoot.journal.texts import BadText, require_text
from surefoot.journal.values import Value
from surefoot.runs.errors import SignalRefused

T = TypeVar("T")

_CHECKED: dict[Any, Any] = {str: str, int: int, float: int | float, bool: bool, list: list, dict: dict}
"""Types whose values are read as plain JSON, whatever it holds; a sender is not trusted with that."""

_JSON = codec_of(object, "a signal")


class Signal(Generic[T]):
    """A signal that runs of some kinds wait for: its name, and what its payload must be.

    Name it in `@sf.durable(signals=[...])`, so that senders are told at once of what the run could not take.

    Args:
        name: Its name, data on disk. Names that start with "$" are Surefoot's own.
        type: The payload's type; every JSON value fits `object`.

    Raises:
        BadText: The name is none.
    """

    def __init__(self, name: str, type: type[T] | Any = object) -> None:
        if not name or (isinstance(name, str) and name.startswith("$")):
            raise BadText(f"signal {name!r}: a signal has a name, without $ before it", hint="pick another name")
        require_text("signal", name)
        self.name = name
        self.type = type
        self._codec = codec_of(type, f"signal {name}")

    def __repr__(self) -> str:
        return f"<Signal {self.name!r} of {self.expected}>"

    @property
    def expected(self) -> str:
        """The payload's type, in words."""
        return type_words(self.type)

    def problem(self, body: Value) -> str:
        """Return why a payload doesn't fit, in words; empty if it does."""
        return misfit(self._codec, self.type, body)

    def dump(self, payload: Any, run_id: str) -> Value:
        """Return a payload as bytes: a value of the type, or its JSON form.

        Raises:
            SignalRefused: It doesn't fit.
        """
        try:
            body = _JSON.dump(payload)[0]
        except Unserializable:
            body = self._codec.dump(payload)[0]
        if problem := self.problem(body):
            raise SignalRefused(
                f"signal {self.name} to run {run_id}: {problem}", hint=f"it takes {self.expected}; nothing was sent"
            )
        return body


def type_words(declared: Any) -> str:
    """Return a payload's type in words."""
    return getattr(declared, "__name__", str(declared)) if declared is not object else "any JSON value"


def misfit(codec: ValueCodec, declared: Any, body: Value) -> str:
    """Return why a payload is not of a type, in words and without its values; empty if it is."""
    try:
        value = codec.load(body)
    except Undecodable as error:
        return _problems(error)
    wanted = next((known for plain, known in _CHECKED.items() if declared is plain), object)
    is_bool = isinstance(value, bool) and declared in (int, float)
    fits = isinstance(value, wanted) and not is_bool
    return "" if fits else f"a {type(value).__name__} is no {type_words(declared)}"


def _problems(error: Undecodable) -> str:
    """Return what doesn't fit, by its place and without the value, which may be a secret."""
    if not isinstance(error.__cause__, ValidationError):
        return error.message
    found = error.__cause__.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in found)


def signal_for(
    name: str | Signal[Any], payload: Any, *, declared: Iterable[Signal[Any]], run_id: str
) -> tuple[str, Value]:
    """Return name and bytes of a signal to a run, as far as the sender knows what it takes.

    Args:
        name: The signal.
        payload: Its payload.
        declared: What the run's kind declares; empty where it declares nothing, or is not known here.
        run_id: The run.

    Raises:
        SignalRefused: The run's kind takes no such signal, or no such payload.
        BadText: The name is none.
        Unserializable: It has no JSON form.
    """
    known = {one.name: one for one in declared}
    title = name.name if isinstance(name, Signal) else name
    require_text("signal", title)
    if known and title not in known:
        takes = ", ".join(f"{one.name} ({one.expected})" for one in known.values())
        raise SignalRefused(f"run {run_id} takes no signal {title!r}", hint=f"it takes {takes}; nothing was sent")
    spec = known.get(title) or (name if isinstance(name, Signal) else Signal(title))
    return title, spec.dump(payload, run_id)
