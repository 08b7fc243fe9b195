"""Who may do what: names, their roles, and the role that each kind of decision needs. Pure.

What holds: without rules anybody who can open the store may decide, and a name is a claim that is recorded; with rules a
name that is not listed may decide nothing. The rules are data in the store, so that the command line keeps to them without
the app's code. What protects them is the file's permission: whoever can write the file can write other rules.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from surefoot.journal.texts import require_text
from surefoot.problem import SurefootError

PROGRAM = "api"
"""Who decides where a program calls and names nobody: the app's own code, which no rule binds."""

ACTS = (
    "approve",
    "deny",
    "resolve",
    "cancel",
    "signal",
    "undo",
    "fork",
    "redeliver",
    "discard",
    "drop group",
    "show secrets",
)
"""What people do that the rules can bind to a role. Data on disk: the trail names them so."""


class Proven(str):
    """A name that the app's own hook has authenticated, in this process."""

    __slots__ = ()


class NotAllowed(SurefootError):
    """This person may not decide this. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class People:
    """The people who decide, and their roles.

    Args:
        roles: For each name its roles: {"anna": ["finance"], "bob": []}. Who is not listed may decide nothing.
        may: For each kind of decision the role, or the name, that it needs: {"resolve": "operator"}. The kinds: approve,
            deny, resolve, cancel, signal, undo, fork, redeliver, discard, drop group, show secrets. One that is not named
            is open to all who are listed; an approval besides needs what its `sf.Approve(by=...)` says.
        authenticate: Called with the name that somebody gives, in the process in which they decide; returns the name
            that it has proven, or raises `sf.NotAllowed`. Async or sync. With it, a decision under a name that was not
            proven is refused, also by a command line that doesn't have the app's code. None: a name is a claim.

    Raises:
        SurefootError: A kind of decision that does not exist, or nobody has the role it needs; or a name or a role is none.
    """

    roles: Mapping[str, Sequence[str]]
    may: Mapping[str, str] = field(default_factory=dict)
    authenticate: Callable[[str], Awaitable[str] | str] | None = None

    def __post_init__(self) -> None:
        for act, needed in self.may.items():
            if act not in ACTS:
                raise SurefootError(f"people: {act!r} is no kind of decision", hint=f"use some of: {', '.join(ACTS)}")
            if not self.who(needed):
                raise SurefootError(
                    f"people: nobody has the role {needed!r}, which {act!r} needs", hint="give it to somebody"
                )
        for name, roles in self.roles.items():
            if isinstance(roles, str) or not isinstance(name, str) or not name.strip() or name == PROGRAM:
                raise SurefootError(
                    f"people: {name!r}: {roles!r}", hint='{"anna": ["finance"]}: a name, and a list of roles'
                )
            for text in (name, *roles):
                require_text("people", text)

    def has(self, name: str, needed: str) -> bool:
        """Whether a person has a role, or is the one that is named."""
        return name in self.roles and (name == needed or needed in self.roles[name])

    def who(self, needed: str | None) -> list[str]:
        """Return who has a role; all for None."""
        return sorted(name for name in self.roles if needed is None or self.has(name, needed))

    def to_json(self) -> bytes:
        """Return the rules as they are kept."""
        roles = {name: list(held) for name, held in sorted(self.roles.items())}
        kept = _Kept(roles, dict(sorted(self.may.items())), is_authenticated=self.authenticate is not None)
        return msgspec.json.encode(kept)


def from_json(body: bytes) -> People:
    """Return rules as they were kept.

    Raises:
        SurefootError: They are not as an app has written them.
    """
    try:
        kept = msgspec.json.decode(body, type=_Kept)
        return People(kept.roles, kept.may, _elsewhere if kept.is_authenticated else None)
    except (msgspec.MsgspecError, SurefootError) as error:
        raise SurefootError(
            f"the store's rules of who may do what can't be read ({error}), so nobody may decide",
            hint="open an app with people=sf.People(...) on it: that sets them anew; and look at surefoot audit --verify",
        ) from error


class _Kept(msgspec.Struct, omit_defaults=True):
    roles: dict[str, list[str]]
    may: dict[str, str]
    is_authenticated: bool = False


def _elsewhere(name: str) -> str:
    """Stand for the hook of an app whose code is not here."""
    raise NotAllowed(
        f"this store's people are authenticated by its app, and its code is not here to do that for {name}",
        hint="name the module with the app: --module MODULE; or decide in the app itself",
    )


def refusal(people: People | None, act: str, who: str, needed: Sequence[str] = ()) -> NotAllowed | None:
    """Return why a person may not decide, or None.

    Args:
        people: The rules; None where there are none.
        act: What is decided; see `ACTS`.
        who: The person.
        needed: Roles or names of which one is needed besides, such as those of an approval; none for no more.
    """
    if people is None or who == PROGRAM:
        return None
    if people.authenticate is not None and not isinstance(who, Proven):
        return NotAllowed(
            f"{who} may not {act}: this store's people are authenticated by its app, and this name was not",
            hint="name the module with the app: --module MODULE; in a program, by=await app.identify(name)",
        )
    if who not in people.roles:
        listed = ", ".join(people.who(None)) or "nobody"
        return NotAllowed(f"{who} may not {act}: not among the people of this store", hint=f"those are: {listed}")
    general = people.may.get(act)
    for wanted in ([general] if general is not None else [], list(needed)):
        if wanted and not any(people.has(who, one) for one in wanted):
            able = sorted({name for one in wanted for name in people.who(one)})
            return NotAllowed(
                f"{who} may not {act} this: it needs {' or '.join(wanted)}",
                hint=f"ask {', '.join(able)}" if able else "nobody has that role: add it to the app's sf.People(...)",
            )
    return None
