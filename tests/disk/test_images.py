"""The power fails: images of the disk are rebuilt from what was written and synced, and opened; see `images`."""

from __future__ import annotations

import pytest
from tests.disk import lanes
from tests.disk.recording import GARBAGE, KEPT, LOST, TORN, Event, Machine


def happened(*events: Event) -> Machine:
    machine = Machine()
    for event in events:
        machine.happen(event)
    return machine


def test_the_model_loses_what_was_not_synced_and_nothing_else() -> None:
    """Would catch a model of disks that forgives a missing sync, or loses what a sync has made sure."""
    path = "a.db-wal"
    machine = happened(
        Event("make", path),
        Event("write", path, 0, b"sure"),
        Event("sync", path, number=1),
        Event("write", path, 4, b"late"),  # while the sync is under way: it may be there, or not
        Event("synced", path, number=1, offset=1),
        Event("write", path, 600, b"more"),
    )
    assert len(machine.unsure()) == 2
    assert machine.image([LOST, LOST], []) == {path: b"sure"}
    assert machine.image([KEPT, LOST], []) == {path: b"surelate"}
    assert machine.image([LOST, KEPT], []) == {path: b"sure" + bytes(596) + b"more"}
    assert machine.image([LOST, LOST], [], grows=True) == {path: b"sure" + bytes(600)}
    assert machine.image([GARBAGE, KEPT], [])[path][:4] == b"sure"


def test_the_model_tears_sectors_and_reorders_them() -> None:
    """Would catch a model in which sectors reach the disk whole, or in the order of the writes only."""
    path = "a.db"
    events = [Event("make", path), Event("write", path, 0, b"a" * 1_024), Event("write", path, 0, b"b" * 1_024)]
    machine = happened(*events)
    torn = machine.image([KEPT, KEPT, TORN, LOST], [True])[path]
    assert torn == b"b" * 100 + b"a" * 924
    assert {machine.image([KEPT] * 4, [True], order)[path][:1] for order in range(20)} == {b"a", b"b"}


def test_the_model_forgets_names_until_their_directory_is_synced() -> None:
    """Would catch a model in which a new file is there though nothing has made its name sure, or a removed one is gone."""
    machine = happened(Event("make", "a.db"), Event("make", "a.db-journal"))
    assert machine.image([], [False, True]) == {"a.db-journal": b""}
    machine.happen(Event("sync", "a.db-journal", number=1))
    machine.happen(Event("synced", "a.db-journal", number=1, offset=1))
    machine.happen(Event("remove", "a.db-journal"))
    assert machine.image([], [False]) == {"a.db": b"", "a.db-journal": b""}
    assert machine.image([], [True]) == {"a.db": b""}


def test_a_sample_of_images() -> None:
    """Would catch an acknowledgement before its sync, a send before its claim is on disk, and damage that is none; and a
    recording without what the store itself writes to the log."""
    (row,) = lanes.run("images", "--stride", "24", "--ways", "3", "--every", "16", "--seed", "3")
    assert row["wrong"] == []
    assert row["images"] > 80
    assert row["lengthened"] >= 2
    assert row["finished"] >= 2


@pytest.mark.slow
def test_images_of_every_point() -> None:
    """Would catch the same at any point of the work, in 5,000 images and more."""
    (row,) = lanes.run("images", "--ways", "9", "--seed", "11")
    assert row["wrong"] == []
    assert row["images"] >= 5_000
    assert row["finished"] >= 40
