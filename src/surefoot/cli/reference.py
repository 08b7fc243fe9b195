"""The reference page of the command line, made from the commands themselves: `python -m surefoot.cli.reference`.

What holds: the page says what `--help` says; a test compares the page in the repository with what this makes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct
from typer.main import get_command

from surefoot.cli.app import app
from surefoot.cli.exits import MEANING, ExitCode
from surefoot.cli.shapes.describe import fields_of, title_of
from surefoot.cli.shapes.documents import DOCUMENTS, SHARED

PAGE = Path("docs/reference/cli.md")

HEAD = """# The command line

`surefoot COMMAND`, or `python -m surefoot COMMAND`. This page is made from the commands by
`python -m surefoot.cli.reference`; a test fails when it is stale.

- Data goes to stdout, words to stderr. Into a pipe or a file nothing is coloured, cut or wrapped.
- `--json` prints one JSON document, of ASCII characters only; the shapes are below. Fields may be added, never renamed.
- The store is `--store`, else `SUREFOOT_URL`, else `sqlite:///agents.db` if that file is there. Only `run` and `worker`
  make a store that is not there, and only one that was named.
- Text that comes from models, tools or the web is data: it is never evaluated, and characters that control a terminal
  or hide are shown by their number (`\\u001b`). Long values are shortened; `--full` and `--json` show them whole.
- JSON can be typed, read from standard input (`-`) or from a file (`@FILE`).
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD, _exit_codes(), *_commands(), _shapes()]
    return "\n".join(parts)


def _exit_codes() -> str:
    rows = [f"| {code.value} | {_cell(MEANING[code])} |" for code in ExitCode]
    return "\n".join(["## Exit codes\n", "| code | meaning |", "|---|---|", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command's words and the command, in the order of the help."""
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]  # the root is a group
        if hasattr(command, "commands"):
            yield from ((f"{name} {sub}", held) for sub, held in command.commands.items())
        else:
            yield name, command


def _commands() -> Iterator[str]:
    for name, command in commands():
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        options = [param for param in command.params if param.param_type_name == "option"]
        usage = " ".join(["surefoot", name, *(_argument(argument) for argument in arguments), "[OPTIONS]"])
        lines = [f"## {name}\n", f"```\n{usage}\n```\n", _paragraphs(command.help), "", "| | |", "|---|---|"]
        lines += [f"| `{_argument(argument)}` | {argument.help} |" for argument in arguments]
        lines += [f"| `{_option(option)}` | {_about(option)} |" for option in options]
        documents = " or ".join(f"[{title_of(shape)}](#{_anchor(shape)})" for shape in DOCUMENTS.get(name, ()))
        lines += ["", f"`--json` prints: {documents}.\n"] if documents else [""]
        yield "\n".join(lines)


def _argument(argument: Any) -> str:
    words = str(argument.metavar) + ("..." if argument.nargs == -1 else "")
    return words if argument.required else f"[{words}]"


def _option(option: Any) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {option.metavar}"


def _about(option: Any) -> str:
    notes = ["required"] if option.required else []
    notes += [f"default: {option.default}"] if option.default not in (None, False, True) and not option.required else []
    notes += [f"environment: {option.envvar}"] if option.envvar else []
    return (option.help or "") + (f" ({'; '.join(notes)})" if notes else "")


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _shapes() -> str:
    lines = [
        "## Shapes\n",
        "Every field is there, null where it does not apply. Times are ISO 8601 in UTC and sort as text.",
        "",
    ]
    documents = dict.fromkeys(shape for shapes in DOCUMENTS.values() for shape in shapes)
    for shape in (*documents, *SHARED):
        lines += [f"### {title_of(shape)}\n", f"{shape.__doc__}\n", "| field | type | meaning |", "|---|---|---|"]
        lines += [f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in fields_of(shape)]
        lines += [""]
    return "\n".join(lines)


def _anchor(shape: type[Struct]) -> str:
    return title_of(shape).lower().replace(" ", "-")


def write(path: Path = PAGE) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE)
