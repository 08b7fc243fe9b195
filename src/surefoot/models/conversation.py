"""A message history as the small model is shown it: tasks, the steps done for each, and what came back.

Owns: the reading of Pydantic AI's messages. What always holds: text from users, tools and models can't contain the
model's control tokens, and every text is cut to the limits below, the middle first. Parts that mean nothing to a text
model (thinking, capability records) are passed over; a user's image or file is refused.

Pure: no model, no I/O.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters

# Limits in characters; about four make a token, and the context holds 2048 of those.
INSTRUCTIONS_CHARS = 900
TASK_CHARS = 1200
RESULT_CHARS = 320
ANSWER_CHARS = 300

DEFAULT_INSTRUCTIONS = "You are a careful clerk."
FINISH = "finish"
"""How an answer in text is called in the log, as if it were a tool."""

_FENCE = re.compile(r"</?(?:pyai:[\w-]+|system)[^>]*>")


@dataclass(slots=True)
class Step:
    """One tool call of the log; `result` is None while nothing came back."""

    action: str
    arguments: str
    result: str | None = None


@dataclass(slots=True)
class Task:
    """What a user asked, and what was done about it: steps and notes, in the order they came."""

    text: str
    entries: list[Step | str] = field(default_factory=list)

    @property
    def steps(self) -> list[Step]:
        """The calls of this task."""
        return [entry for entry in self.entries if isinstance(entry, Step)]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A message history as the log shows it."""

    instructions: str
    tasks: tuple[Task, ...]

    @property
    def current(self) -> Task:
        """The task being worked on."""
        return self.tasks[-1] if self.tasks else Task("")


def read(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> Conversation:
    """Return a message history as a conversation.

    Raises:
        UserError: A user's message holds something that is not text.
    """
    reader = _Reader()
    for message in messages:
        if isinstance(message, ModelResponse):
            reader.response(message)
        else:
            reader.request(message)
    told = [part.content for part in getattr(parameters, "instruction_parts", None) or ()]
    if not told:
        told = [m.instructions for m in messages if isinstance(m, ModelRequest) and m.instructions][-1:]
    instructions = " ".join(clean(text) for text in (*reader.system, *told) if text.strip())
    return Conversation(clipped(instructions or DEFAULT_INSTRUCTIONS, INSTRUCTIONS_CHARS), tuple(reader.tasks))


class _Reader:
    """Goes through a history once."""

    def __init__(self) -> None:
        self.system: list[str] = []
        self.tasks: list[Task] = []
        self._open: dict[str, Step] = {}
        self._is_answered = True  # the next user message begins a task, rather than adding to one

    @property
    def _current(self) -> Task:
        if not self.tasks:
            self.tasks.append(Task(""))
        return self.tasks[-1]

    def response(self, message: ModelResponse) -> None:
        calls = [part for part in message.parts if isinstance(part, ToolCallPart)]
        for call in calls:
            step = Step(call.tool_name, clipped(clean(call.args_as_json_str()), RESULT_CHARS))
            self._open[call.tool_call_id] = step
            self._current.entries.append(step)
        said = " ".join(part.content for part in message.parts if isinstance(part, TextPart)).strip()
        if said:
            text = json.dumps({"text": clipped(clean(said), ANSWER_CHARS)}, ensure_ascii=False)
            self._current.entries.append(Step(FINISH, text, "sent"))
        self._is_answered = not calls

    def request(self, message: ModelRequest) -> None:
        for part in message.parts:
            if isinstance(part, SystemPromptPart):
                self.system.append(part.content)
            elif isinstance(part, UserPromptPart):
                self._user(part)
            else:
                self._feedback(part)

    def _user(self, part: UserPromptPart) -> None:
        text = _user_text(part)
        if text and self._is_answered and not text.startswith(_FEEDBACK_MARK):
            self.tasks.append(Task(clipped(text, TASK_CHARS)))
            self._is_answered = False
        elif text:
            self._current.entries.append(clipped(text.removeprefix(_FEEDBACK_MARK), RESULT_CHARS))

    def _feedback(self, part: object) -> None:
        """A tool's result or a validation error; other parts say nothing to this model."""
        if isinstance(part, ToolReturnPart):
            was_refused = getattr(part, "outcome", "success") != "success"
            text = f"error: {_in_words(part.content)}" if was_refused else part.model_response_str()
        elif getattr(part, "part_kind", "") in {"retry-prompt", "retry-feedback"}:
            text = f"error: {_in_words(getattr(part, 'content', ''))}"
        else:
            return
        said = clipped(clean(text), RESULT_CHARS)
        step = self._open.get(str(getattr(part, "tool_call_id", "")))
        if step is None:
            self._current.entries.append(said)
        else:
            step.result = said


_FEEDBACK_MARK = "\x00"


def _user_text(part: UserPromptPart) -> str:
    """The text of a user's message; with a mark in front if it is the framework's feedback on an answer."""
    content: Iterable[object] = [part.content] if isinstance(part.content, str) else part.content
    words = []
    for item in content:
        text = item if isinstance(item, str) else getattr(item, "content", None)
        if isinstance(text, str):
            words.append(text)
        elif getattr(item, "kind", "") != "cache-point":
            raise UserError(f"the local model reads text only, not {type(item).__name__}")
    whole = " ".join(words)
    mark = _FEEDBACK_MARK if "<pyai:" in whole else ""
    return mark + clean(_FENCE.sub("", whole))


def _in_words(content: object) -> str:
    """Validation errors as "field: message", anything else as text."""
    if isinstance(content, list):
        found = [error for error in content if isinstance(error, dict)]
        return "; ".join(f"{'.'.join(map(str, e.get('loc', ())))}: {e.get('msg', '')}" for e in found) + ". Fix it."
    return content if isinstance(content, str) else json.dumps(content, default=str, ensure_ascii=False)


def clean(text: str) -> str:
    """Return text on one line, with the model's control tokens broken."""
    return " ".join(text.replace("<|", "< |").split())


def clipped(text: str, limit: int) -> str:
    """Return text of at most `limit` characters, the middle cut out; the end often holds the question."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 5]} ... {text[-tail:]}"
