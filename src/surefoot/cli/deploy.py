"""`check-deploy`: every open run of a store is walked along its journal by the code that is about to be deployed."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from typing import Annotated

import typer

from surefoot.app import MIGRATIONS
from surefoot.cli.code import find_app, load_module
from surefoot.cli.exits import ExitCode
from surefoot.cli.place import JsonOption, StoreOption
from surefoot.cli.screen import Column, emit, listing, say
from surefoot.cli.secrets import seen
from surefoot.cli.shapes.versions import DeployDocument, ShadowShape
from surefoot.cli.words import CELL_CHARS_MAX, count_words, one_line, shorten
from surefoot.runs.rows.tables import list_open
from surefoot.runs.shadow import LIMIT_S, Shadow, Verdict, shadow
from surefoot.store import looking_at

PAGE = 500
"""Rows of runs in memory at a time; of their journals one."""

TELL_EVERY = 1_000
"""How many runs between two words of progress."""

FINE = frozenset({Verdict.SAME, Verdict.DRIFT})
"""The verdicts that nobody has to look at before a deploy."""

COLUMNS = (Column("run"), Column("kind", is_flexible=True), Column("verdict"), Column("step", is_flexible=True),
           Column("why", is_flexible=True, style="dim"))  # fmt: skip


def check_deploy(
    *,
    target: Annotated[
        str, typer.Argument(metavar="MODULE[:APP]", help="The module to be deployed; an app in it.", show_default=False)
    ],
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only runs of this durable function.")] = None,
    limit_s: Annotated[
        float, typer.Option("--limit", min=0.1, metavar="SECONDS", help="How long one run may take.")
    ] = LIMIT_S,
    is_strict: Annotated[bool, typer.Option("--strict", help="Drift counts as a failure too.")] = False,
    is_all: Annotated[bool, typer.Option("--all", help="List the runs that are the same, too.")] = False,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Walk all open runs with this code, without acting, and say which would not go on.

    Each run's code is called over its journal up to the journal's end; no effect, read or step is begun, nothing is
    written, and connections are refused. Ends with 0 when every run is the same or drifts, with 1 otherwise.
    """
    with contextlib.redirect_stdout(sys.stderr):  # what the user's code prints is no data of ours
        name, _, app_name = target.partition(":")
        url = find_app(load_module(name), app_name or None, store, is_made=False).url
        found, counts = _check(url, kind, limit_s, is_kept=is_all or is_json)
    is_fine = all(verdict in FINE and not (is_strict and verdict is Verdict.DRIFT) for verdict in counts)
    if is_json:
        emit(DeployDocument(is_fine, {verdict.value: counts[verdict] for verdict in Verdict}, found))
    else:
        _tell(found, counts)
    raise typer.Exit(ExitCode.OK if is_fine else ExitCode.FAILED)


def _check(url: str, kind: str | None, limit_s: float, *, is_kept: bool) -> tuple[list[ShadowShape], Counter[Verdict]]:
    found: list[ShadowShape] = []
    counts: Counter[Verdict] = Counter()
    with looking_at(url, MIGRATIONS) as connection:
        after = 0
        while rows := list_open(connection, after=after, kind=kind, limit=PAGE):
            after = rows[-1].id
            for row in rows:
                one = shadow(connection, row, limit_s=limit_s)
                counts[one.verdict] += 1
                if is_kept or one.verdict is not Verdict.SAME:
                    found.append(_shape(one))
                if counts.total() % TELL_EVERY == 0:
                    say(f"{counts.total():,} runs so far")
    return found, counts


def _shape(one: Shadow) -> ShadowShape:
    row = one.run
    shape = ShadowShape(
        run=row.run_id,
        kind=row.kind,
        state=row.state.name.lower(),
        waiting_for=row.waiting_for,
        verdict=one.verdict.value,
        step=one.step,
        asked=one.asked,
        recorded=one.recorded,
        words=one.words,
    )
    return seen(shape)


def _tell(found: list[ShadowShape], counts: Counter[Verdict]) -> None:
    if found:
        listing(COLUMNS, [(one.run, one.kind, _verdict(one), shorten(one_line(one.step), CELL_CHARS_MAX),
                           one_line(one.words)) for one in found])  # fmt: skip
    parts = [f"{count:,} {verdict.value.replace('_', ' ')}" for verdict, count in sorted(counts.items(), key=_order)]
    say(f"{count_words(counts.total(), 'open run')}" + (f": {', '.join(parts)}" if parts else ""))


def _verdict(one: ShadowShape) -> str:
    words = one.verdict.replace("_", " ")
    return f"{words} (blocked now)" if one.waiting_for == "blocked" else words


def _order(pair: tuple[Verdict, int]) -> int:
    return list(Verdict).index(pair[0])
