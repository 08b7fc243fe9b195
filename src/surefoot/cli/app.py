"""The wiring: which commands there are, under which headings, and what becomes of an error.

What holds: an error of Surefoot is a message and a hint on stderr, never a traceback, and its class decides the exit
code; an error that nobody expected is shown with its traceback and a code of its own.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.text import Text
from typer.core import TyperGroup
from typer.main import get_command

import surefoot
from surefoot.cli import approvals, deploy, doctor, effects, events, extras, fork, keep, leases, runs, work
from surefoot.cli.exits import MEANING, ExitCode, Interrupted, ReaderLeft, WrongUsage, exit_code_of
from surefoot.cli.screen import say, to_stdout, words
from surefoot.cli.shapes.describe import fields_of, title_of
from surefoot.cli.shapes.documents import DOCUMENTS
from surefoot.cli.stopping import leave
from surefoot.cli.words import clean
from surefoot.journal.redaction import redacted_text
from surefoot.journal.texts import has_half_characters
from surefoot.problem import SurefootError

HEADINGS: dict[str, dict[str, Callable[..., None]]] = {
    "Execute": {"run": work.run, "worker": work.worker},
    "Look": {
        "runs": runs.runs,
        "show": runs.show_one,
        "effects": effects.effects,
        "unknowns": effects.unknowns,
        "approvals": approvals.approvals,
        "leases": leases.leases,
        "audit": approvals.audit,
        "events": events.events,
    },
    "Decide": {
        "approve": approvals.approve,
        "deny": approvals.deny,
        "resolve": effects.resolve,
        "redeliver": events.redeliver,
        "discard": events.discard,
        "drop-group": events.drop_group,
        "signal": runs.signal,
        "cancel": runs.cancel,
        "undo": work.undo,
    },
    "Other code": {"check-deploy": deploy.check_deploy, "fork": fork.fork},
    "Keep": {
        "doctor": doctor.doctor,
        "backup": keep.backup,
        "restore": keep.restore,
        "trust": keep.trust,
        "gc": keep.gc,
        "rotate-keys": keep.rotate_keys,
    },
    "Try it": {"demo": extras.demo},
}
"""The commands by what a person wants, in the order of the help."""


SENTENCE = 200
"""More letters than the first sentence of any command's help has: it is wrapped in the list, never cut."""


class _Group(TyperGroup):
    """Lists its commands under headings, and names two ways in which a command may be cut short."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with to_stdout():
            return super().make_context(*args, **kwargs)  # which prints --help

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted from None
        except BrokenPipeError:
            raise ReaderLeft from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, names in {**{title: list(held) for title, held in HEADINGS.items()}, "Prepare": ["model"]}.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(SENTENCE)) for name in names])


def _json_help(name: str) -> str:
    """Return the epilog of a command: the shape of its JSON."""
    if name not in DOCUMENTS:
        return ""
    parts = []
    for document in DOCUMENTS[name]:
        rows = [f"  {field:<15} {kind}: {meaning}" for field, kind, meaning in fields_of(document)]
        parts += [f"{title_of(document)} (--json):", *rows]
    return "\b\n" + "\n".join(parts)


EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code.value:>3}  {MEANING[code]}" for code in ExitCode) + (
    "\n\nData goes to stdout, words to stderr. --json prints one document; its shape is in each command's help, and "
    "all shapes are in docs/reference/cli.md. Text from models and tools is data: control characters show as numbers."
)  # fmt: skip

app = typer.Typer(
    cls=_Group, add_completion=False, no_args_is_help=True, rich_markup_mode=None, epilog=EPILOG,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
model_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="The small local model.")
for _commands in HEADINGS.values():
    for _name, _function in _commands.items():
        app.command(_name, epilog=_json_help(_name))(_function)
model_app.command("pull", epilog=_json_help("model pull"))(extras.pull)
app.add_typer(model_app, name="model")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"surefoot {surefoot.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Agents that keep their place, and never act twice unnoticed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process.

    Args:
        arguments: What was typed after `surefoot`; None for this process's own arguments.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before we began, as by `>&-`
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # as long as the process lives
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that can't show a character is no error
    leave(_flushed(_run(list(sys.argv[1:] if arguments is None else arguments))))


def _run(arguments: list[str]) -> int:
    try:
        _refuse_bytes(arguments)
        get_command(app).main(arguments, prog_name="surefoot")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.OK
    except Interrupted:
        say("interrupted; what was recorded stays")
        return ExitCode.INTERRUPTED
    except ReaderLeft:
        return ExitCode.READER_LEFT
    except SurefootError as error:
        _tell(error)
        return exit_code_of(error)
    except Exception:
        with suppress(OSError):
            sys.stderr.write(clean(traceback.format_exc()))
        say("surefoot: this error was not expected; please report it with the lines above")
        return ExitCode.BUG
    return ExitCode.OK


def _refuse_bytes(arguments: list[str]) -> None:
    """Refuse arguments that are no text in this locale: no id, name or value could be kept like that."""
    for number, word in enumerate(arguments, 1):
        if has_half_characters(word):
            raise WrongUsage(
                f"argument {number} is no text in this locale's encoding, {sys.getfilesystemencoding()}: {word!r}",
                hint="type it as UTF-8; LC_ALL=C.UTF-8 sets that encoding",
            )


def _tell(error: SurefootError) -> None:
    console = words()
    console.print(Text.assemble(("error: ", "bold red"), clean(redacted_text(error.message))), soft_wrap=True)
    if error.hint:
        console.print(Text.assemble(("hint: ", "bold"), clean(error.hint)), soft_wrap=True)


def _flushed(code: int) -> int:
    """Write what is left in stdout's buffer; it may take no more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = ExitCode.READER_LEFT
    except OSError:
        code = ExitCode.UNWRITTEN
    if code in (ExitCode.READER_LEFT, ExitCode.UNWRITTEN):
        _silence(sys.stdout)
    try:
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)
    return code


def _silence(stream: TextIO) -> None:
    """Let the interpreter's own last flush succeed, which would complain otherwise."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
