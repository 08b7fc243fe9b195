"""Which store a command works on, and having it open.

What holds: a command that only looks or tells never makes a store; the commands that are suggested next name the store
again when it is not the one that would be found anyway.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from msgspec import Struct

from surefoot.app import Surefoot
from surefoot.cli.exits import NoStoreThere, WrongUsage
from surefoot.cli.secrets import Secrets, seen
from surefoot.cli.stopping import execute, opened
from surefoot.people import PROGRAM, Deed, record
from surefoot.people.trail import identify
from surefoot.store import is_there, parse_url, shown
from surefoot.store.connection import Connection

T = TypeVar("T")
S = TypeVar("S", bound=Struct)

DEFAULT_URL = "sqlite:///agents.db"
ENVIRONMENT = "SUREFOOT_URL"

LIMIT_S = 30.0
"""How long a command that only looks or tells waits for the store to open. Far above what a busy one needs."""

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar=ENVIRONMENT,
        metavar="URL",
        help=f"The store, for example sqlite:///agents.db. Without it: {DEFAULT_URL} if that file is there.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of text; its shape is below.")
]


SecretsOption = Annotated[
    bool,
    typer.Option("--show-secrets", help="Show what is redacted, too; needs --reason, and is part of the trail."),
]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="With --show-secrets: who looks; without it, your account.")
]
WhyOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="With --show-secrets: why.")]


ModuleOption = Annotated[
    str | None,
    typer.Option(
        "--module", metavar="MODULE[:APP]", help="The module with the app, if it authenticates people; an app in it."
    ),
]


def person() -> str:
    """Return the name of whoever types, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in many containers
        return "command line"


def refuse_program(by: str | None) -> None:
    """Refuse the name under which programs act, which no rule binds."""
    if by == PROGRAM:
        raise WrongUsage(f"--by {PROGRAM} stands for the app's own code", hint="name the person who decides")


def asked_secrets(target: str, *, is_secret: bool, by: str | None, reason: str | None) -> Secrets | None:
    """Return who wants to see secrets of what, and why; None for nobody."""
    if not is_secret:
        if by is not None or reason is not None:
            raise WrongUsage("--by and --reason go with --show-secrets", hint="leave them out")
        return None
    if reason is None or not reason.strip():
        raise WrongUsage("--show-secrets needs --reason: who looks at secrets says why", hint='--reason "..."')
    refuse_program(by)
    return Secrets(target, by or person(), reason)


def find_url(given: str | None, *, is_made: bool = False) -> str:
    """Return the URL of the store to work on.

    Args:
        given: What `--store` or the environment says.
        is_made: Whether the command may make a store that was named and is not there.

    Raises:
        NoStoreThere: None was named and the default is not there; or the one named is not there and may not be made.
    """
    if given is None:
        if not parse_url(DEFAULT_URL).exists():
            raise NoStoreThere(
                f"no store was named, and there is no {parse_url(DEFAULT_URL)} here",
                hint=f"--store sqlite:///PATH, or set {ENVIRONMENT}; `surefoot run` and `surefoot worker` make a store "
                "where --store says",
            )
        return DEFAULT_URL
    if not is_made and not is_there(given):
        raise NoStoreThere(
            f"there is no store at {shown(given)}",
            hint="name another with --store; the one that your worker was started with",
        )
    return given


class Desk:
    """One open store, as the commands see it."""

    def __init__(self, app: Surefoot, *, is_secret: bool = False) -> None:
        self.app = app
        self._is_secret = is_secret

    def seen(self, document: S) -> S:
        """Return a document as it may be shown here."""
        return document if self._is_secret else seen(document)

    @property
    def now_ms(self) -> int:
        """Wall clock."""
        return self.app.store.clock.wall_ms()

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query, all of it on one snapshot."""

        return await self.app.store.read(lambda connection: on_snapshot(connection, query))

    def command(self, *words: str) -> str:
        """Return a command to type, quoted for a shell, that works on this store."""
        return command(self.app.url, *words)


def on_snapshot(connection: Connection, query: Callable[[Connection], T]) -> T:
    """Run a query that asks several things so that all answers are of one moment."""
    with connection:
        found = query(connection)
    return found  # noqa: RET504  a context manager may swallow, as far as types go


def command(url: str, *words: str) -> str:
    """Return a command to type, quoted for a shell; it names the store if it would not be found without."""
    store = () if url == os.environ.get(ENVIRONMENT, DEFAULT_URL) else ("--store", shown(url))
    return " ".join(["surefoot", *(word if word in _PLACEHOLDERS else shlex.quote(word) for word in (*words, *store))])


YOU, HOW = "YOU", "HOW YOU KNOW"
"""What a suggested command has in the place of a name and a reason."""

_PLACEHOLDERS = frozenset({"[JSON]"})
"""Words of a suggested command that the person replaces; they are not quoted."""


def at_desk(
    given: str | None,
    work: Callable[[Desk], Awaitable[T]],
    secrets: Secrets | None = None,
    *,
    module: str | None = None,
) -> T:
    """Open the store that is there, work, and close it; who wants to see secrets is noted first.

    Args:
        given: What `--store` or the environment says.
        work: What to do.
        secrets: Who wants to see secrets, and why; None for nobody.
        module: Where the app's code is, which authenticates people; None without.
    """
    people = None
    if module is None:
        url = find_url(given)
    else:
        from surefoot.cli.code import find_app, load_module

        with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints is no data of ours
            name, _, app_name = module.partition(":")
            theirs = find_app(load_module(name), app_name or None, given, is_made=False)
        url, people = theirs.url, theirs.people

    async def whole() -> T:
        app = Surefoot(url, is_worker=False, people=people)
        await opened(app, LIMIT_S)
        try:
            if secrets is not None:
                who = await identify(people, secrets.by)
                deed = Deed(act="show secrets", who=who, target=secrets.target, reason=secrets.reason)
                await app.store.commit(lambda tx: record(tx, deed), label="show secrets")
            return await work(Desk(app, is_secret=secrets is not None))
        finally:
            await app.close()

    return execute(whole)
