"""The line at a resource: turns, whole asks, and those who are gone, whoever looks and in whatever order."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from surefoot.app import MIGRATIONS
from surefoot.coordination import line, tables
from surefoot.coordination.line import Granted, Standing, Wanted
from surefoot.coordination.owners import Owners
from surefoot.coordination.rules import InLine, is_turn
from surefoot.coordination.tables import Owner
from surefoot.store import Store, Tx, open_store


class Gone:
    """Tells who lives: all whose session was not ended."""

    def __init__(self) -> None:
        self.sessions: set[int] = set()

    def is_alive(self, _connection: object, row: tables.Row) -> bool:
        return row.session not in self.sessions


class Line:
    """One store, and what its line does."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.gone = Gone()
        self.owners = cast(Owners, self.gone)
        self.called: list[int] = []

    def ask(self, session: int, *resources: str, number: int | None = None, places: int = 1) -> Granted | Standing:
        wanted = Wanted("lease", tuple(sorted(resources)), places)

        def unit(tx: Tx) -> Granted | Standing:
            owner = Owner(session, f"s{session}")
            return line.take(tx, self.owners, wanted, owner, number, self.call, boot_ms=0, until_boot_ms=None)

        return self.store.writer.commit_blocking(unit, label="test")

    def give_back(self, number: int) -> None:
        def unit(tx: Tx) -> None:
            line.give_back(tx, self.owners, tables.of_number(tx.connection, number), self.call)

        self.store.writer.commit_blocking(unit, label="test")

    def sweep(self) -> int:
        def unit(tx: Tx) -> int:
            return line.sweep(tx, self.owners, tables.everything(tx.connection), self.call)

        return self.store.writer.commit_blocking(unit, label="test")

    def call(self, _tx: Tx, number: int) -> None:
        self.called.append(number)

    def rows(self) -> list[tables.Row]:
        return self.store.read_now(tables.everything)


@pytest.fixture
def here(url: str) -> Iterator[Line]:
    with _open(url) as store:
        yield Line(store)


@contextmanager
def _open(url: str) -> Iterator[Store]:
    store = open_store(url, MIGRATIONS)
    try:
        yield store
    finally:
        store.close()


def test_who_asks_is_not_gone_whatever_a_clock_says(here: Line) -> None:
    """Catches an asker that takes itself out of the line, and then believes to be granted what it has no row for."""
    held = here.ask(1, "a")
    waits = here.ask(2, "a")
    here.gone.sessions = {2}
    assert isinstance(here.ask(2, "a", number=waits.number), Standing)
    here.give_back(held.number)
    granted = here.ask(2, "a", number=waits.number)
    assert isinstance(granted, Granted)
    assert [(row.number, row.token) for row in here.rows()] == [(waits.number, granted.token)]


def test_one_that_is_gone_is_out_of_all_its_lines(here: Line) -> None:
    """Catches half an ask, which is granted later as if it were whole."""
    here.ask(1, "a", "b")
    here.ask(2, "a", "b")
    here.gone.sessions = {1, 2}
    here.ask(3, "a")
    assert [(row.session, row.resource) for row in here.rows()] == [(3, "a")]


def test_whoever_finds_somebody_gone_calls_who_is_next(here: Line) -> None:
    """Catches a parked run that nobody calls, because the holder before it was cleared away by one that came later."""
    here.ask(1, "a", "b")
    first, second = here.ask(2, "a"), here.ask(3, "b")
    here.gone.sessions = {1}
    assert isinstance(here.ask(4, "a"), Standing)
    assert here.called == [first.number, second.number]


def test_who_stands_behind_one_that_waits_elsewhere_waits_too(here: Line) -> None:
    """Catches one that is passed by for ever because it wants two things that are never free at once."""
    held = here.ask(1, "b")
    both = here.ask(2, "a", "b")
    assert isinstance(here.ask(3, "a"), Standing)
    here.give_back(held.number)
    assert here.called == [both.number]
    assert isinstance(here.ask(2, "a", "b", number=both.number), Granted)


def test_a_sweep_takes_out_who_is_gone_and_calls_each_that_is_next_once(here: Line) -> None:
    """Catches a dead holder that holds up those who are parked, and a herd that is called for one place."""
    here.ask(1, "a")
    waits = [here.ask(session, "a").number for session in (2, 3, 4)]
    assert here.sweep() == 0
    here.gone.sessions = {1}
    assert here.sweep() == 1
    assert here.called == waits[:1]
    assert here.sweep() == 0
    assert here.called == waits[:1]


def test_places_of_a_semaphore_are_called_one_by_one(here: Line) -> None:
    """Catches a place that stays empty, and one that two are called for."""
    held = [here.ask(session, "a", places=2).number for session in (1, 2)]
    waits = [here.ask(session, "a", places=2).number for session in (3, 4, 5)]
    here.give_back(held[0])
    assert here.called == waits[:1]
    here.give_back(held[1])
    assert here.called == waits[:2]


def test_turns() -> None:
    """Catches a newcomer that passes those who wait, and one that waits for those behind it."""
    holds, early, late = InLine(5, is_holding=True), InLine(1, is_holding=False), InLine(9, is_holding=False)
    assert is_turn([], None, 1)
    assert not is_turn([early], None, 1)
    assert is_turn([early, late], 1, 1)
    assert not is_turn([early, late], 9, 1)
    assert not is_turn([early, holds], 1, 1), "a holder counts, whatever its number"
    assert is_turn([early, holds], 1, 2)


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_events_leaves_one_holder_and_nobody_forgotten(url: str, seed: int) -> None:
    """Catches two holders, a token that falls, a lost place, and one that waits at the front of all its lines uncalled."""
    draws = random.Random(seed)
    with _open(url) as store:
        here, asks, tokens = Line(store), dict[int, tuple[int, tuple[str, ...]]](), defaultdict[str, int](int)
        for session in range(1, 120):
            event = draws.random()
            if event < 0.5 or not asks:
                wanted = tuple(sorted(draws.sample("abcd", draws.randrange(1, 4))))
                _note(here.ask(session, *wanted), session, wanted, asks, tokens)
            elif event < 0.7:
                number = draws.choice(sorted(asks))
                owner, wanted = asks[number]
                if number in {row.number for row in here.rows() if not row.is_held}:
                    _note(here.ask(owner, *wanted, number=number), owner, wanted, asks, tokens)
            elif event < 0.9:
                number = draws.choice(sorted(asks))
                del asks[number]
                here.give_back(number)
            else:
                number = draws.choice(sorted(asks))
                here.gone.sessions.add(asks.pop(number)[0])
                if draws.random() < 0.5:
                    here.sweep()
            _check(here, asks)
        _drain(here)


def _note(
    taken: Granted | Standing, session: int, wanted: tuple[str, ...], asks: dict[int, Any], tokens: dict[str, int]
) -> None:
    asks[taken.number] = (session, wanted)
    if isinstance(taken, Granted):
        for resource in wanted:
            assert taken.token > tokens[resource]
            tokens[resource] = taken.token


def _check(here: Line, asks: dict[int, tuple[int, tuple[str, ...]]]) -> None:
    rows = [row for row in here.rows() if row.session not in here.gone.sessions]
    places: defaultdict[int, list[str]] = defaultdict(list)
    for row in rows:
        places[row.number].append(row.resource)
    assert {number: tuple(found) for number, found in places.items()} == {n: wanted for n, (_, wanted) in asks.items()}
    for resource in "abcd":
        assert sum(row.is_held for row in rows if row.resource == resource) <= 1


def _drain(here: Line) -> None:
    """Let everybody have its turn: among those who wait the first can always go on once the holders have given back."""
    here.sweep()
    while rows := here.rows():
        held = {row.number for row in rows if row.is_held}
        for number in held:
            here.give_back(number)
        if not held:
            first = min(row.number for row in rows)
            wanted = [row for row in rows if row.number == first]
            granted = here.ask(wanted[0].session, *(row.resource for row in wanted), number=first)
            assert isinstance(granted, Granted)
