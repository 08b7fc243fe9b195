"""The shapes of looking after a store, and the weights beside it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class GcDocument(Struct, frozen=True):
    """`surefoot gc`."""

    is_dry_run: Annotated[bool, Meta(description="whether it was only counted")]
    before: Annotated[str, Meta(description="what ended before this was swept")]
    runs: Annotated[int, Meta(description="runs whose records were deleted")]
    effects: Annotated[int, Meta(description="effects whose arguments and values were deleted; their keys stay")]
    records: Annotated[int, Meta(description="records that were deleted")]
    events: Annotated[int, Meta(description="events that say nothing any more; their ids stay")]
    bytes_before: Annotated[int, Meta(description="the database's size before")]
    bytes_after: Annotated[int, Meta(description="its size after; the file has it after the next checkpoint")]


class BackupDocument(Struct, frozen=True):
    """`surefoot backup`."""

    path: Annotated[str, Meta(description="the backup")]
    bytes: Annotated[int, Meta(description="its size")]
    taken_at: Annotated[str, Meta(description="all that was acknowledged before is in it")]


class RestoreDocument(Struct, frozen=True):
    """`surefoot restore`."""

    store: Annotated[str, Meta(description="the URL of the restored store")]
    incarnation: Annotated[
        int, Meta(description="its number; tokens begin with it, and so are above those of the old store")
    ]
    lost_since: Annotated[str, Meta(description="what was done from here on, the store doesn't know")]
    open_runs: Annotated[int, Meta(description="runs that go on as soon as a worker has them")]
    unknown_effects: Annotated[int, Meta(description="effects that are in doubt now")]


class TrustDocument(Struct, frozen=True):
    """`surefoot trust`."""

    restores: Annotated[int, Meta(description="how many restores it was said of; 0 if there was nothing to say")]


class RotateDocument(Struct, frozen=True):
    """`surefoot rotate-keys`."""

    rows: Annotated[int, Meta(description="rows that were written anew under the current key")]


class ModelDocument(Struct, frozen=True):
    """`surefoot model pull`."""

    path: Annotated[str, Meta(description="the file with the weights")]
