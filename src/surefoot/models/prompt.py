"""What the small model reads: a work log to choose the next tool from, a form to fill in for its input.

Owns: the wording, and what can be done next. A 135M model does not follow tool-calling conventions; it continues
patterns. The *log* (numbered steps, each naming a tool, with the result below) gets the order of work right but hardly
reads the task; the *form* (examples of texts and forms filled in from them, then our text) copies names and amounts
rightly but has no idea of order. So the tool is chosen in the log and its input is written in the form. What always
holds: the same conversation gives the same text; prompts begin with what changes least, for the runtime's prompt cache.

Pure: no model, no I/O. The wordings are the best of some thirty measured on the demo's tickets and on an office-booking
set; the examples use words of neither.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic_ai.models import ModelRequestParameters

from surefoot.models.conversation import FINISH, Conversation, Step, clean, clipped
from surefoot.models.schema import Schema

DESCRIPTION_CHARS = 80
LOG_CHARS = 2400
"""All tasks, steps and notes of a log together; beyond it the oldest are left out and `...` stands for them."""
LOG_TASK_CHARS = 400
LOG_ENTRY_CHARS = 60  # of an input or result: which tool comes next hardly depends on what the last one found
KNOWN_CHARS = 900
"""All results in a form together; beyond it the oldest are left out."""

_CLAUSE = re.compile(r"[.:;,(]")
_HINT = "You work step by step: first look, then act, then tell."
_FINISH_NAMES = (FINISH, "answer", "end_task", "give_the_final_answer")
_FORMS = """\
Fill in each form from the text.

Text: Please reserve table 7 for Eva Lind on Friday, the booking is R-2083.
Form: find_booking
{"booking_id": "R-2083"}

Text: {"member_id": "K-771", "phone": "555-0142", "paid": "35.00"} I lost my key to room B12 (member K-771). I want \
the 20.00 for the new one back.
Form: pay_back
{"member_id": "K-771", "amount": 20.00, "reason": "new key"}

Text: {"member": "M-3306", "mail": "tom@mail.example", "files": [{"file": "X-1", "name": "plan"}, {"file": "X-4", \
"name": "list"}, {"file": "X-9", "name": "photo"}]} This is member M-3306. The files X-1 and X-9 were damaged. Send me \
both again. Thanks, Tom
Form: send_files
{"member": "M-3306", "files": ["X-1", "X-9"]}

Text: {"member": "M-3306", "mail": "tom@mail.example", "city": "Bonn"} Please tell me by mail when you open on Monday.
Form: write_mail
{"to": "tom@mail.example", "subject": "Opening hours", "text": "Dear Tom, we open at 9 on Monday."}

Text: {"trip": "Z-52", "seat": "12", "fare": "18.40"} I waited for the bus of trip Z-52, and it never came. Give me \
back the money.
Form: pay_fare
{"trip": "Z-52", "amount": 18.40, "reason": "the bus never came"}

Text: {"member": "M-3306", "mail": "tom@mail.example", "home": "Altgasse 3, 8010 Graz"} Member M-3306 has a new home: \
Ringstrasse 11, 1010 Wien.
Form: set_home
{"member": "M-3306", "home": "Ringstrasse 11, 1010 Wien"}

Text: I was told that I can ask here when trip Z-52 leaves.
Form: find_trip
{"trip": "Z-52"}

"""
_TEXT_SCHEMA: Schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


@dataclass(frozen=True, slots=True)
class Action:
    """One thing the model can do next.

    Attributes:
        shown: Its name in the log.
        description: One short sentence.
        schema: JSON schema of its input.
        tool: The tool's real name; None for answering in text.
        is_json_text: Whether the answer is the input itself, as JSON text (native structured output).
        is_final: Whether it ends the task.
    """

    shown: str
    description: str
    schema: Schema
    tool: str | None = None
    is_json_text: bool = False
    is_final: bool = False

    @property
    def is_reply(self) -> bool:
        """Whether it is an answer in free text."""
        return self.tool is None and not self.is_json_text

    @property
    def line(self) -> str:
        """The action as the list of tools shows it."""
        properties = self.schema.get("properties")
        names = ", ".join(properties) if isinstance(properties, Mapping) else ""
        return f"- {self.shown}({names}): {self.description}".rstrip(": ")

    @property
    def promise(self) -> str:
        """The description's first clause as the end of the sentence "Ok, I will ..."."""
        words = _CLAUSE.split(self.description)[0].strip() or self.shown.replace("_", " ")
        return words[0].lower() + words[1:]


def offered(parameters: ModelRequestParameters, tool_choice: object = None) -> tuple[Action, ...]:
    """Return what the model may do next, tools first, ways to finish last.

    Args:
        parameters: The request's tools and output settings.
        tool_choice: The setting of that name: None or "auto", "none", "required", a list of names, or a `ToolOrOutput`.
    """
    tools = getattr(parameters, "declared_function_tools", parameters.function_tools)
    outputs = parameters.output_tools
    may_finish = True
    if isinstance(tool_choice, list):
        tools = [tool for tool in tools if tool.name in tool_choice]
        outputs = [tool for tool in outputs if tool.name in tool_choice]
        may_finish = False
    elif tool_choice == "required":
        outputs, may_finish = [], False
    elif tool_choice == "none":
        tools = []
    elif (named := getattr(tool_choice, "function_tools", None)) is not None:
        tools = [tool for tool in tools if tool.name in named]
    actions = [Action(t.name, _short(t.description), t.parameters_json_schema, t.name) for t in tools]
    taken = {tool.name for tool in (*tools, *outputs)}
    finish = next((name for name in _FINISH_NAMES if name not in taken), _FINISH_NAMES[-1])
    says_text = may_finish and parameters.allow_text_output
    for tool in outputs:
        is_only_end = len(outputs) == 1 and not says_text
        shown = finish if is_only_end else tool.name
        told = "End the task with the result." if is_only_end else _short(tool.description)
        actions.append(Action(shown, told, tool.parameters_json_schema, tool.name, is_final=True))
    if says_text and parameters.output_object is not None:
        schema = parameters.output_object.json_schema
        actions.append(Action(finish, "End the task with the result.", schema, is_json_text=True, is_final=True))
    elif says_text:
        actions.append(Action(finish, "End the task with an answer.", _TEXT_SCHEMA, is_final=True))
    return tuple(actions)


def _short(description: str | None) -> str:
    """The first sentence of a description, on one line."""
    line = clean(description or "").split(". ")[0].rstrip(".")
    return f"{clipped(line, DESCRIPTION_CHARS)}." if line else ""


def choice_prompt(conversation: Conversation, actions: Sequence[Action]) -> str:
    """Return the log up to the name of the next tool, quote included."""
    head = f"{conversation.instructions} {_HINT}\n\nTools:\n" + "".join(f"{action.line}\n" for action in actions)
    return f'{head}\n{_log(conversation, actions)}Step {len(conversation.current.steps) + 1}. Tool: "'


def known_text(conversation: Conversation) -> str:
    """Return what an input can be taken from: the results so far, then what was asked."""
    task = conversation.current
    known = [entry if isinstance(entry, str) else entry.result or "" for entry in task.entries]
    return " ".join(part for part in (*_last_that_fit(known, KNOWN_CHARS), task.text) if part)


def form_prompt(text: str, action: Action) -> str:
    """Return the form up to where the input of the chosen tool begins."""
    return f"{_FORMS}Text: {text}\nForm: {action.shown}\n"


def reply_prompt(choice: str, action: Action) -> str:
    """Return the log up to the text of the answer, quote included."""
    return f'{choice}{action.shown}"\nInput: {{"text": "'


def _log(conversation: Conversation, actions: Sequence[Action]) -> str:
    """The tasks with their steps; when it gets too long, without the oldest."""
    shown = {action.tool: action.shown for action in actions}
    lines: list[str] = []
    for task in conversation.tasks:
        lines.append(f"Task: {clipped(task.text, LOG_TASK_CHARS)}\n")
        number = 0
        for entry in task.entries:
            if isinstance(entry, str):
                lines.append(f"Note: {entry}\n")
            else:
                number += 1
                lines.append(_lines_of(entry, number, shown.get(entry.action, entry.action)))
    kept = _last_that_fit(lines, LOG_CHARS)
    if len(kept) == len(lines):
        return "".join(lines)
    asked = f"Task: {clipped(conversation.current.text, LOG_TASK_CHARS)}\n"
    return "".join([asked, "...\n", *(line for line in kept if line != asked)])


def _lines_of(step: Step, number: int, name: str) -> str:
    given = clipped(step.arguments, LOG_ENTRY_CHARS)
    result = "pending" if step.result is None else clipped(step.result, LOG_ENTRY_CHARS)
    return f'Step {number}. Tool: "{name}"\nInput: {given}\nResult: {result}\n'


def _last_that_fit(lines: Sequence[str], limit: int) -> list[str]:
    room = limit
    kept: list[str] = []
    for line in reversed(lines):
        room -= len(line)
        if room < 0:
            break
        kept.append(line)
    return kept[::-1]


def fit_prompt(task: str) -> str:
    """Return the chat in which an action's promise is the likelier the better it fits the task."""
    return f"<|im_start|>user\n{task}<|im_end|>\n<|im_start|>assistant\nOk, I will"


def chat_prompt(conversation: Conversation) -> str:
    """Return the plain chat of an agent that has no tools and answers in text."""
    turns = [("system", conversation.instructions)]
    for task in conversation.tasks:
        turns.append(("user", task.text))
        for entry in task.entries:
            if isinstance(entry, Step):
                turns.append(("assistant", _said(entry)))
            else:
                turns.append(("user", entry))
    return _chat(turns)


def _chat(turns: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


def _said(step: Step) -> str:
    if step.action != FINISH:
        return f"{step.action} {step.arguments} -> {step.result or 'pending'}"
    return str(json.loads(step.arguments)["text"])
