"""What a lease, the register written under it, and a service that checks tokens may do, one operation at a time."""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.testing import Operation

LeaseState = tuple[int, int, str | None]
"""The holder's token (0: nobody), the highest token so far, and the register's value."""


class LeasedRegister:
    """A register that only the holder of a lease writes.

    `expire` is the end of a lease that its holder did not give back: the holder was killed, or not heard of for the lease's
    own time. It may come at any moment from then on, or never.
    """

    initial: LeaseState = (0, 0, None)

    def step(self, state: LeaseState, operation: Operation) -> Iterator[LeaseState]:
        holder, highest, value = state
        match operation.action, operation.result:
            case "acquire", int() as token:
                if not holder and token > highest:
                    yield token, token, value
            case "write", "lost":
                if holder != operation.argument[0]:
                    yield state
            case "write", _:
                if holder == operation.argument[0]:
                    yield holder, highest, operation.argument[1]
            case "read", seen:
                if seen == value:
                    yield state
            case "release", "lost":
                if holder != operation.argument:
                    yield state
            case (("release" | "expire"), _):
                if holder == operation.argument:
                    yield 0, highest, value


class TokenService:
    """A service that refuses whoever comes with a lower token than it has seen."""

    initial = 0

    def step(self, state: int, operation: Operation) -> Iterator[int]:
        token = int(operation.argument)
        is_late = token < state
        if operation.returned is None or (operation.result == "refused") == is_late:
            yield max(state, token)
