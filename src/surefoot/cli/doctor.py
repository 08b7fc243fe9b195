"""The command `doctor`: what is wrong, or soon will be, with a store or with code; each finding with the next command.

What holds: it never writes. A check is a function that yields findings; which checks there are is data. One check that
can't be made is a finding too, and keeps none of the others from being made.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Annotated, TypeVar

import typer

from surefoot.app import MIGRATIONS
from surefoot.cli import checks
from surefoot.cli.code import find_app, load_module
from surefoot.cli.exits import ExitCode, WrongUsage
from surefoot.cli.place import JsonOption, StoreOption, command, find_url
from surefoot.cli.screen import Column, emit, heading, line, listing, say, to_type
from surefoot.cli.shapes.doctor import DoctorDocument, FindingShape, ToolShape
from surefoot.cli.words import count_words
from surefoot.doctor import CHECKS, Code, ToolLine, lines, look
from surefoot.journal import Codec, Encrypted, MissingKey
from surefoot.problem import SurefootError
from surefoot.store import examine, shown
from surefoot.store.examine import Examined, examined
from surefoot.store.finding import Finding, Severity, broken

T = TypeVar("T")

STORE_CHECKS: dict[str, Callable[[Examined], Iterable[Finding]]] = {
    "library": examine.library,
    "file system": examine.file_system,
    "permissions": examine.permissions,
    "size": examine.size,
    "log": examine.log_size,
    "journal mode": examine.journal_mode,
    "format": examine.file_format,
    "pages": examine.pages,
}
"""What is looked at in a store's file, in this order."""

RECORD_CHECKS: dict[str, Callable[[Examined], Iterable[Finding]]] = {
    "records": lambda store: broken(store.connection, checks.INVARIANTS),
    "sessions": checks.sessions,
    "runs": checks.stuck_runs,
    "unknowns": checks.unknowns,
}
"""What is looked at in its tables, if they have the format this code knows."""

CODE_CHECKS: dict[str, Callable[[Code], Iterable[Finding]]] = CHECKS
"""What is looked at in a module, in this order."""

TOOL_COLUMNS = (Column("tool"), Column("in doubt"), Column("key", is_flexible=True), Column("match", is_flexible=True),
                Column("once for"), Column("risk", is_flexible=True))  # fmt: skip
"""How the tools of code are listed."""

ORDER = {severity: place for place, severity in enumerate(Severity)}
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: ""}


def doctor(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="A store's URL, or MODULE or MODULE:APP for code and the store of its app. Without it: the store.",
        ),
    ] = None,
    *,
    is_full: Annotated[
        bool, typer.Option("--full", help="Look at every page of the store, which takes as long as reading the file.")
    ] = False,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Look for what is wrong with a store or with code.

    It never writes, and may be asked while workers work. Exit code 1 if there is an error; warnings and notes end with 0.
    """
    if target is not None and "://" in target and store is not None and store != target:
        raise WrongUsage(f"two stores were named: {target} and {store}", hint="name one")
    is_code = target is not None and "://" not in target
    findings: list[FindingShape] = []
    tools: list[ToolShape] = []
    url: str | None
    codec: Codec | None = None
    if is_code:
        module_name, _, name = str(target).partition(":")
        with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints is no data of ours
            module = load_module(module_name)
        code = look(module)
        tools = [_tool(one) for one in lines(code.tools)]
        findings += _made(CODE_CHECKS, code, None)
        url, codec = _store_of(module, name or None, store)
    else:
        url = find_url(target or store)
    if url is not None:
        findings += _look_at(url, codec, is_full=is_full)
    findings.sort(key=lambda one: ORDER[Severity(one.severity)])
    made = [*(CODE_CHECKS if is_code else ()), *((*STORE_CHECKS, *RECORD_CHECKS) if url else ())]
    document = DoctorDocument(shown(str(target or url)), None if url is None else shown(url), made, findings, tools)
    if is_json:
        emit(document)
    else:
        _show(document)
    if any(one.severity == Severity.ERROR.value for one in findings):
        raise typer.Exit(ExitCode.FAILED)


def _store_of(module: ModuleType, name: str | None, given: str | None) -> tuple[str | None, Codec | None]:
    """Return the store of a module's app; None if it is not there yet, or the module has no app and none was named."""
    try:
        app = find_app(module, name, given)
        return find_url(app.url), app.codec
    except (WrongUsage, SurefootError):
        if name is not None or given is not None:
            raise
        return None, None


def _look_at(url: str, codec: Codec | None, *, is_full: bool) -> list[FindingShape]:
    try:
        store = examined(url, MIGRATIONS, is_full=is_full)
    except SurefootError as error:
        return [FindingShape(Severity.ERROR.value, "open", error.message, error.hint or None)]
    try:
        store.connection.codec = codec or Encrypted.from_environment()
        found = list(_made(STORE_CHECKS, store, url))
        return found + list(_made(RECORD_CHECKS, store, url)) if examine.is_current(store) else found
    finally:
        store.connection.close()


def _made(table: dict[str, Callable[[T], Iterable[Finding]]], subject: T, url: str | None) -> Iterator[FindingShape]:
    for name, check in table.items():
        try:
            yield from [_shape(name, finding, url) for finding in check(subject)]
        except MissingKey as missing:
            yield FindingShape(Severity.WARNING.value, name, f"could not be looked at: {missing.message}", missing.hint)
        except SurefootError as error:
            yield FindingShape(Severity.ERROR.value, name, error.message, error.hint or None)
        except Exception as error:  # whatever damage makes of a query or a record: it is named, and the rest goes on
            words = f"could not be looked at: {type(error).__name__}: {error}"
            yield FindingShape(Severity.ERROR.value, name, words, examine.RESTORE[0])


def _shape(check: str, finding: Finding, url: str | None) -> FindingShape:
    words = finding.next
    typed = None
    if len(words) == 1 and " " in words[0]:
        typed = words[0]
    elif words:
        typed = command(url or "", *words)
    return FindingShape(finding.severity.value, check, finding.words, typed)


def _tool(one: ToolLine) -> ToolShape:
    return ToolShape(one.name, list(one.agents), one.doubt, one.key, list(one.match), one.scope, one.risk, one.words)


def _show(document: DoctorDocument) -> None:
    if document.tools:
        heading(f"{count_words(len(document.tools), 'tool')}, the worst first")
        rows = [
            [one.name, one.doubt, one.key or "-", ", ".join(one.match) or "-", one.scope, f"{one.risk}: {one.words}"]
            for one in document.tools
        ]
        listing(TOOL_COLUMNS, rows)
    for severity in Severity:
        found = [one for one in document.findings if one.severity == severity.value]
        if not found:
            continue
        heading(count_words(len(found), severity.value))
        for one in found:
            line(f"  {one.check}: {one.words}", STYLES[severity])
            if one.next:
                to_type(f"    {one.next}")
    say(f"{count_words(len(document.checks), 'check')} made of {document.target}")
