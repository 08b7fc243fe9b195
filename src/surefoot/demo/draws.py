"""Seeded draws: numbers that depend on a seed and a name, and on nothing else.

A stream of random numbers would make every draw depend on all draws before it, so one more request to one endpoint
would change what happens at another. Here a draw is a hash of (seed, what it is for, its number): the same in any
order, in any process, on any machine.
"""

import hashlib


def fraction(seed: int, *name: str | int) -> float:
    """Draw a number in [0, 1), always the same one for the same seed and name.

    Args:
        seed: The seed printed with a demo or a test.
        *name: What the number is for, most general part first, e.g. `"POST /refunds", 3, "wait"`.

    Returns:
        A float with 53 drawn bits, so that it is below 1 exactly.
    """
    text = "\x1f".join(str(part) for part in (seed, *name))
    drawn = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return (drawn >> 11) / (1 << 53)


def whole(seed: int, low: int, high: int, *name: str | int) -> int:
    """Draw a whole number in [low, high], both included."""
    return low + int(fraction(seed, *name) * (high - low + 1))


def between(seed: int, low: float, high: float, *name: str | int) -> float:
    """Draw a number in [low, high), rounded to a tenth of a millisecond so that logs show all of it."""
    return round(low + fraction(seed, *name) * (high - low), 4)
