"""The write-ahead log as bytes."""

from __future__ import annotations

from surefoot.store.log import FRAME_HEADER_BYTES, HEADER_BYTES, PAGE_BYTES

FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES


def without_room(log: bytes) -> bytes:
    """Return a log as far as frames were ever written, without the zeros behind them."""
    end = HEADER_BYTES
    while any(log[end : end + FRAME_HEADER_BYTES]):
        end += FRAME_BYTES
    return log[:end]
