"""The commands that keep a store for years: `gc`."""

from __future__ import annotations

from typing import Annotated

import typer

from surefoot.cli.place import Desk, JsonOption, StoreOption, at_desk
from surefoot.cli.screen import emit, line, say
from surefoot.cli.shapes import GcDocument
from surefoot.cli.words import count_words, moment
from surefoot.effects.doubt import duration_ms
from surefoot.runs.retention import Swept

TELL_EVERY = 10_000
"""Records between two lines about how far it is."""


def gc(
    *,
    older_than: Annotated[str, typer.Option(metavar="TIME", help='Counted from a run\'s end: "90d", "12h".')],
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Delete the values of what ended long ago.

    Of a run that ended before that time its records, values and letters go; of an effect its arguments and its value. What
    stays for ever: that the run ended and how, each effect's key and outcome, digests of the values. So a key that was done
    stays done, and an id stays taken.

    Nothing goes that has not ended, or that something refers to which has not. It works in small steps beside workers, and
    may be interrupted and called again.
    """

    told = 0

    def tell(swept: Swept) -> None:
        nonlocal told
        if swept.records - told >= TELL_EVERY:
            told = swept.records
            say(f"{count_words(swept.records, 'record')} deleted so far")

    async def work(desk: Desk) -> None:
        before_ms = desk.now_ms - duration_ms(older_than)
        swept = await desk.app.gc(older_than, is_dry_run=is_dry_run, tell=None if is_json else tell)
        document = GcDocument(
            is_dry_run, moment(before_ms) or "", swept.runs, swept.effects, swept.records, swept.bytes_before,
            swept.bytes_after,
        )  # fmt: skip
        return emit(document) if is_json else _show(document)

    at_desk(store, work)


def _show(document: GcDocument) -> None:
    would = "would go" if document.is_dry_run else "are gone"
    line(
        f"{count_words(document.records, 'record')} of {count_words(document.runs, 'run')}, and the values of "
        f"{count_words(document.effects, 'effect')}, {would}: all that ended before {document.before}"
    )
    if not document.is_dry_run:
        line(f"{document.bytes_before:,} bytes before, {document.bytes_after:,} after")
