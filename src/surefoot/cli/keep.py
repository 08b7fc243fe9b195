"""The commands that keep a store for years: `backup`, `restore`, `trust`, `gc`, `rotate-keys`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from surefoot.app import MIGRATIONS
from surefoot.cli import checks
from surefoot.cli.exits import Refused, WrongUsage
from surefoot.cli.inputs import countable
from surefoot.cli.place import Desk, JsonOption, StoreOption, at_desk, command, find_url
from surefoot.cli.screen import emit, line, say, to_type
from surefoot.cli.shapes.keeping import BackupDocument, GcDocument, RestoreDocument, RotateDocument, TrustDocument
from surefoot.cli.words import count_words, moment
from surefoot.coordination import restoring
from surefoot.effects.doubt import duration_ms
from surefoot.leases.session import live_processes
from surefoot.problem import SurefootError
from surefoot.runs.rows.retention import Swept
from surefoot.store import SystemClock, checksums, copying, open_store, parse_url, preparing
from surefoot.store.sqlite import connect_to_read

TELL_EVERY = 10_000
"""Records between two lines about how far it is."""

PAGES_TOLD = 50_000
"""Pages between two lines about how far a copy is: 200 MiB."""


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
    try:
        age_ms = duration_ms(older_than)
    except SurefootError as error:
        raise WrongUsage(f"--older-than: {error.message}", hint=error.hint) from error
    told = 0

    def tell(swept: Swept) -> None:
        nonlocal told
        if swept.records - told >= TELL_EVERY:
            told = swept.records
            say(f"{count_words(swept.records, 'record')} deleted so far")

    async def work(desk: Desk) -> None:
        before_ms = desk.now_ms - age_ms
        swept = await desk.app.gc(older_than, is_dry_run=is_dry_run, tell=None if is_json else tell)
        document = GcDocument(
            is_dry_run, moment(before_ms) or "", swept.runs, swept.effects, swept.records, swept.events, swept.bytes_before,
            swept.bytes_after,
        )  # fmt: skip
        return emit(document) if is_json else _show(document)

    at_desk(store, work)


def _show(document: GcDocument) -> None:
    would = "would go" if document.is_dry_run else "are gone"
    line(
        f"{count_words(document.records, 'record')} of {count_words(document.runs, 'run')}, and the values of "
        f"{count_words(document.effects, 'effect')} and {count_words(document.events, 'event')}, {would}: "
        f"all that ended before {document.before}"
    )
    if not document.is_dry_run:
        line(f"{document.bytes_before:,} bytes before, {document.bytes_after:,} after")


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to put it; nothing is overwritten.")],
    *,
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Copy the store to a file, while workers work.

    The copy is one snapshot, read back and verified before it gets its name. It is no store: `surefoot restore` makes one
    of it.
    """
    source = parse_url(find_url(store)).resolve()
    made = copying.backup(source, file.absolute(), checks.INVARIANTS, SystemClock(), _progress(is_json))
    document = BackupDocument(str(file), made.size, moment(made.taken_at_ms) or "")
    return emit(document) if is_json else line(f"{document.path}: {document.bytes:,} bytes, verified")


def _progress(is_quiet: bool) -> Callable[[int, int], None]:
    """Return what says now and then how far a copy is."""
    told = 0

    def tell(done: int, of: int) -> None:
        nonlocal told
        if not is_quiet and done - told >= PAGES_TOLD:
            told = done
            say(f"{done:,} of {of:,} pages")

    return tell


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    *,
    to: Annotated[str, typer.Option(metavar="URL", help="Where the store is to be; nothing is overwritten.")],
    replaces: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The store it takes the place of, if that is still there: nobody opens it again."
        ),
    ] = None,
    incarnation: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="INT",
            callback=countable,
            help="Its number is at least this, if other restores have been lost.",
        ),
    ] = 0,
    is_salvage: Annotated[
        bool, typer.Option("--salvage", help="FILE is a damaged store: take what can be read of it.")
    ] = False,
    is_json: JsonOption = False,
) -> None:
    """Make a store of a backup.

    The world may be further than the backup. So the store is a new incarnation, whose tokens are above all earlier ones;
    effects without outcome are in doubt; and an effect that it would claim anew may have been done since, so that it is in
    doubt too and goes the way of its class: for runs of the backup always, for all others until `surefoot trust`.
    """
    source, target = file.absolute(), parse_url(to).absolute()
    if not source.exists():
        raise WrongUsage(f"there is no file {file}", hint="name a backup")
    copying.refuse_existing(target)
    for place in (target, *((parse_url(replaces).resolve(),) if replaces else ())):
        alive = live_processes(place)
        if alive:
            pids = ", ".join(str(pid) for pid in alive)
            raise Refused(
                f"{place}: process {pids} works with it", hint="end it first: two stores must not act at once"
            )
    with copying.scratch(target) as copy:
        copying.copy_pages(source, copy, _progress(is_json), is_salvage=is_salvage)
        copying.verify(copy, ())
        snapshot_at_ms = _become_a_store(copy, source, is_salvage=is_salvage)
        if not is_salvage:
            copying.refuse_cut_off(source, copy)
        at_least = max(incarnation, _retired(replaces) + 1 if replaces else 0)
        document = _begin_anew(copy, to, snapshot_at_ms, at_least)
        copying.verify(copy, checks.INVARIANTS)
        copying.put_in_place(copy, target)
    return emit(document) if is_json else _show_restored(document)


def _become_a_store(copy: Path, source: Path, *, is_salvage: bool) -> int | None:
    """Give a copy the mark of a store; return when the snapshot was taken, or None if nothing says so."""
    with contextlib.closing(checksums.connect(copy)) as connection:
        taken_at_ms = copying.taken_at_ms(connection)
        owner = connection.pragma("application_id")
        if owner not in preparing.KINDS:
            raise WrongUsage(f"{source} is neither a backup nor a store", hint="surefoot backup FILE makes a backup")
        if taken_at_ms is None and not is_salvage:
            raise WrongUsage(
                f"{source} is no backup, it {preparing.KINDS[owner]}",
                hint="surefoot backup FILE makes a backup; --salvage takes what can be read of a damaged store",
            )
        connection.pragma("user_version", 0)
        connection.pragma("application_id", preparing.APPLICATION_ID)
    return taken_at_ms


def _retired(url: str) -> int:
    """Retire the store that is replaced; return its incarnation."""
    path = parse_url(url).resolve()
    with contextlib.closing(connect_to_read(path)) as connection:
        rows = connection.execute("SELECT incarnation FROM store_incarnation").fetchall()
    copying.retire(path)
    return int(str(rows[0][0]))


def _begin_anew(copy: Path, url: str, snapshot_at_ms: int | None, at_least: int) -> RestoreDocument:
    made = open_store(f"sqlite:///{copy}", MIGRATIONS)
    try:
        incarnation = made.writer.commit_blocking(
            lambda tx: restoring.begin_anew(tx, snapshot_at_ms, at_least), label="restore"
        )
        counts = made.read_now(
            lambda connection: connection.execute(
                "SELECT (SELECT count(*) FROM runs WHERE state <= 3), (SELECT count(*) FROM ledger WHERE state <= 3),"
                " (SELECT snapshot_at_ms FROM store_restored ORDER BY id DESC LIMIT 1)"
            ).fetchall()[0]
        )
    finally:
        made.close()
    runs, effects, since_ms = (int(str(count)) for count in counts)
    return RestoreDocument(url, incarnation, moment(since_ms) or "", runs, effects)


def _show_restored(document: RestoreDocument) -> None:
    line(
        f"{document.store}: incarnation {document.incarnation}, {count_words(document.open_runs, 'open run')}, "
        f"{count_words(document.unknown_effects, 'effect')} in doubt"
    )
    line(
        f"What was done since {document.lost_since} it doesn't know: new effects are in doubt until somebody has looked."
    )
    to_type(command(document.store, "unknowns"))
    to_type(command(document.store, "trust", "--by", "YOU", "--reason", "HOW YOU KNOW"))


def trust(
    *,
    by: Annotated[str, typer.Option(metavar="NAME", help="Who says so; kept for ever.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="How they know; kept for ever.")],
    store: StoreOption = None,
    is_json: JsonOption = False,
) -> None:
    """Say that what was done in a restored store's lost time has been looked at.

    Runs that are started from now on, and effects outside runs, act without doubt again. Runs that were under way in the
    backup, and those that act on events published before it, stay in doubt about each effect that they claim anew.
    """

    async def work(desk: Desk) -> None:
        count = await desk.app.store.commit(lambda tx: restoring.trust(tx, by, reason), label="trust")
        if is_json:
            return emit(TrustDocument(count))
        return line("noted: new runs act without doubt again" if count else "there is no restore to say this of")

    at_desk(store, work)


def rotate_keys(*, store: StoreOption = None, is_json: JsonOption = False) -> None:
    """Write all values anew that are not under the current key.

    The keys are those of SUREFOOT_KEYS ("name=base64", several with commas): the first one writes, all read. Let all
    processes have the new key first before this is called; throw the old one away when it has ended well. It works in small
    steps beside workers, and may be interrupted and called again.
    """

    told = 0

    def tell(rows: int) -> None:
        nonlocal told
        if not is_json and rows - told >= TELL_EVERY:
            told = rows
            say(f"{count_words(rows, 'row')} written so far")

    async def work(desk: Desk) -> None:
        rows = await desk.app.rotate_keys(tell=tell)
        return (
            emit(RotateDocument(rows)) if is_json else line(f"{count_words(rows, 'row')} written under the current key")
        )

    at_desk(store, work)
