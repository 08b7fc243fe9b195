"""What is part of many shapes: who holds a thing, and what to do next."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class Advice(Struct, frozen=True):
    """What to do next."""

    words: Annotated[str, Meta(description="what, and why")]
    command: Annotated[str | None, Meta(description="what to type, quoted for a shell; capitals stand for your words")]


class HolderShape(Struct, frozen=True):
    """The process that holds a run or a claim."""

    name: Annotated[str, Meta(description="host and process id, or the name it was given")]
    pid: Annotated[int, Meta(description="its process id; 0 when it ended long ago")]
    life: Annotated[str, Meta(description="alive; expired: stopped, and may wake up; dead: proven gone")]
