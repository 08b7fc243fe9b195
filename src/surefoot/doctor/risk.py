"""How a tool behaves when nobody knows what became of it, as a rank and in words. Pure.

The rank says how much must be true outside of our reach for the tool to be safe; the worst come first.
"""

from __future__ import annotations

from dataclasses import dataclass

from surefoot.doctor.found import Tool
from surefoot.effects import AskPerson, Overwrite, Probe, Read, Resend, Transactional

RANKS: tuple[tuple[str, str], ...] = (
    ("undeclared", "nobody has said what it is: a person ends each doubt, and a second run acts again"),
    ("no key", "a second run, or another agent, acts again"),
    ("person", "a person ends each doubt; until then its run waits"),
    ("fence", "right if no request lands later than its longest life, and the look-up is truthful"),
    ("writer", "right if nobody else writes in between"),
    ("keys", "right if the service dedupes on our key"),
    ("database", "right if the database keeps its word"),
    ("read", "changes nothing"),
)
"""Rank and words, worst first."""

_BY_CLASS: dict[type, str] = {AskPerson: "person", Probe: "fence", Overwrite: "writer", Resend: "keys",
                              Transactional: "database", Read: "read"}  # fmt: skip


@dataclass(frozen=True)
class ToolLine:
    """A tool as the list has it.

    Attributes:
        name: Its name.
        agents: Who may ask for it.
        doubt: Its class of doubt, as declared; "undeclared" without one.
        key: Its key; None without one.
        match: The parameters that must agree.
        scope: Where its key is unique: "app", "run", or "call" without a key.
        risk: Its rank.
        words: What that means.
    """

    name: str
    agents: tuple[str, ...]
    doubt: str
    key: str | None
    match: tuple[str, ...]
    scope: str
    risk: str
    words: str


def rank_of(tool: Tool) -> str:
    """Return a tool's rank."""
    if not tool.is_declared:
        return "undeclared"
    if tool.is_read or tool.spec is None:
        return "read"
    found = _BY_CLASS[type(tool.spec.in_doubt)]
    return "no key" if tool.spec.template is None and found != "database" else found


def lines(tools: tuple[Tool, ...]) -> list[ToolLine]:
    """Return all tools, the worst first."""
    order = [rank for rank, _ in RANKS]
    found = [_line(tool) for tool in tools]
    return sorted(found, key=lambda one: (order.index(one.risk), one.name))


def _line(tool: Tool) -> ToolLine:
    spec, risk = tool.spec, rank_of(tool)
    words = dict(RANKS)[risk]
    if spec is None or spec.is_read:
        doubt = "read" if tool.is_read else "undeclared"
        return ToolLine(tool.name, tool.agents, doubt, None, (), "call", risk, words)
    key = None if spec.template is None else spec.template.text
    scope = "call" if key is None else spec.once_for
    return ToolLine(tool.name, tool.agents, spec.in_doubt.name, key, spec.matched, scope, risk, words)
