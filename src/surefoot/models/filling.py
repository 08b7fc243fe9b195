"""A tool's input, written value by value inside the grammar of its schema.

Owns: how a JSON object is generated. What always holds: the text parses and fits the bounded schema, unless the token
limit cuts it (`is_cut`). Where all properties are required, only values are generated and names are put into the prompt:
reading a token costs a quarter of writing one, and a value that has no alternative costs nothing. Other schemas are
written as a whole.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from surefoot.models.completion import Completion, Sampling
from surefoot.models.engine import Session
from surefoot.models.errors import GrammarIgnored
from surefoot.models.grammar import lark, lark_quoted
from surefoot.models.schema import JsonValue, Schema, bounded

_ENDS_AT_COMMA = frozenset({"number", "integer", "boolean", "null"})


@dataclass(frozen=True, slots=True)
class Filled:
    """What was written.

    Attributes:
        text: A JSON value; its beginning only, if `is_cut`.
        is_cut: Whether the token limit ended it.
    """

    text: str
    is_cut: bool


def fill_in(session: Session, prompt: str, schema: Schema, sampling: Sampling, max_tokens: int) -> Filled:
    """Write a JSON value after a prompt.

    Args:
        session: The model.
        prompt: A form, up to where the value begins.
        schema: Of the value.
        sampling: How tokens are drawn.
        max_tokens: At most so many are generated.

    Raises:
        GrammarIgnored: What came back is not JSON: a fault of the translation of the schema.
    """
    told = bounded(schema)
    if told.get("type") == "object" and not told.get("properties") and "patternProperties" not in told:
        return Filled("{}", is_cut=False)
    properties, required = told.get("properties"), told.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, list) or set(required) != set(properties):
        done = session.complete(prompt, max_tokens=max_tokens, grammar=lark(told), sampling=sampling, lane="forms")
        return Filled(_checked(done, told), done.is_cut)
    writing = _Writing(session, prompt, sampling, max_tokens)
    for name, part in properties.items():
        if not writing.add(name, part, is_last=name == list(properties)[-1]):
            break
    return writing.result()


class _Writing:
    """An object while it is written."""

    def __init__(self, session: Session, prompt: str, sampling: Sampling, max_tokens: int) -> None:
        self._session = session
        self._prompt = prompt
        self._sampling = sampling
        self._left = max_tokens
        self._text = "{"
        self._is_cut = False

    def add(self, name: str, part: JsonValue, *, is_last: bool) -> bool:
        """Write one property; return whether there is room for more."""
        end = "}" if is_last else ","
        self._text += f"{json.dumps(name, ensure_ascii=False)}:"
        schema: Schema = part if isinstance(part, Mapping) else {}
        only = _only_value(schema)
        if only is not None:
            self._text += f" {only}"
        elif _is_plain_string(schema):
            self._text += ' "'
            limits = (_length(schema, "minLength", 1), _length(schema, "maxLength", 1))
            done = self._complete(lark_quoted(*limits, after=end), stop=(f'"{end}',))
            written = json.dumps(done.text.removesuffix(end).removesuffix('"'), ensure_ascii=False)[1:]
            self._text += written[:-1] if done.is_cut else written
        else:
            stop = (end,) if schema.get("type") in _ENDS_AT_COMMA else ()
            done = self._complete(lark(schema, before=" ", after=end), stop=stop)
            self._text += f" {_checked(done, schema, end)}"
        if not self._is_cut:
            self._text += end if is_last else f"{end} "
        return not self._is_cut

    def _complete(self, grammar: str, stop: tuple[str, ...]) -> Completion:
        done = self._session.complete(
            self._prompt + self._text,
            max_tokens=max(1, self._left),
            grammar=grammar,
            sampling=self._sampling,
            stop=stop,
            lane="forms",
        )
        self._left -= done.tokens
        self._is_cut = done.is_cut
        return done

    def result(self) -> Filled:
        """Return what was written."""
        return Filled(self._text, self._is_cut)


def _checked(done: Completion, schema: Schema, end: str = "") -> str:
    text = done.text.strip().removesuffix(end) if end else done.text.strip()
    if not done.is_cut:
        try:
            json.loads(text)
        except ValueError as error:
            told = json.dumps(schema)[:400]
            raise GrammarIgnored(f"not JSON: {text[:200]!r}, for {told}", hint="report this schema") from error
    return text


def _only_value(schema: Schema) -> str | None:
    """The one value a schema allows, as JSON; None if there are more."""
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    allowed = schema.get("enum")
    if isinstance(allowed, list) and len(allowed) == 1:
        return json.dumps(allowed[0], ensure_ascii=False)
    return "null" if schema.get("type") == "null" else None


def _is_plain_string(schema: Schema) -> bool:
    return schema.get("type") == "string" and not schema.keys() & {"pattern", "format"}


def _length(schema: Schema, keyword: str, otherwise: int) -> int:
    value = schema.get(keyword)
    return value if isinstance(value, int) else otherwise
