"""The table at the end, made to be believed at a glance: two sides, what was asked against what is in the shop's books.

Always holds: the counts and the clerk's judgement stand apart and are named for what they are; each figure that is not
as it should be is marked with a sign as well as a colour; text from models and files is shown without markup and without
characters that steer a terminal.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from surefoot.demo.books import Comparison, Count
from surefoot.demo.clerk import Judgement, Verdict

MAX_WITNESSES = 8  # per side: enough to check by hand, short enough to stay on a screen
_NO_COUNT = "·"
_COLUMNS = ("asked", "books", "twice", "lost", "lied", "waits")
_LEGEND = (
    "books: rows in the shop's own books. twice: more often than asked. lost: should be in the books and is not. "
    "lied: reported as not done, and it happened. waits: admitted as unknown, a person will say."
)


@dataclass(frozen=True, slots=True)
class Side:
    """One half of the table.

    Attributes:
        name: e.g. `"Surefoot"`.
        comparison: Its figures.
        facts: Short facts for its head line, e.g. `{"workers killed": "10", "requests": "31"}`.
    """

    name: str
    comparison: Comparison
    facts: Mapping[str, str]


def report(left: Side, right: Side, judgements: Sequence[Judgement], hints: Iterable[str] = ()) -> RenderableType:
    """Make the whole page: the two sides, the witnesses, the clerk, and how to look further.

    Args:
        left: Ours.
        right: The plain loop.
        judgements: One for each ticket.
        hints: What to type next, e.g. the command that shows a run.
    """
    parts: list[RenderableType] = [
        Text("What was asked for, and what the shop's own books say happened", style="bold"),
        _two_sides(left, right),
        _verdict(left),
        _verdict(right),
        Text(),
        Text(_LEGEND, style="dim"),
        *(_witnesses(side) for side in (left, right) if not side.comparison.is_exact),
        Text(),
        _clerk(judgements),
    ]
    said = [_indented(hint) for hint in hints]
    if said:
        parts += [Text(), Text("Look at it yourself", style="bold"), *said]
    return Group(*parts)


def _two_sides(left: Side, right: Side) -> Table:
    # One pair of tables over the same kinds: the eye compares along a row.
    kinds = list(dict.fromkeys(count.kind for side in (left, right) for count in side.comparison.counts))
    grid = Table.grid(padding=(0, 2))
    grid.add_row(_side(left, kinds, with_names=True), _side(right, kinds, with_names=False))
    return grid


def _side(side: Side, kinds: Sequence[str], *, with_names: bool) -> Table:
    facts = ", ".join(f"{escape(name)}: {escape(value)}" for name, value in side.facts.items())
    title = f"[bold]{escape(side.name)}[/bold]" + (f"\n[dim]{facts}[/dim]" if facts else "\n")
    # No padding: two sides of six figures each just fit on eighty columns.
    table = Table(
        title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, show_footer=True, padding=(0, 0)
    )
    total = side.comparison.total
    if with_names:
        table.add_column("", footer="all")
    for name, figure in zip(_COLUMNS, _figures(total), strict=True):
        table.add_column(name, footer=figure, justify="right")
    by_kind = {count.kind: count for count in side.comparison.counts}
    for kind in kinds:
        names = [Text(kind)] if with_names else []
        table.add_row(*names, *_figures(by_kind.get(kind, Count(kind))))
    return table


def _figures(count: Count) -> list[Text]:
    return [
        Text(str(count.asked)),
        Text(str(count.happened), style="" if count.is_exact else "bold"),
        _fault(count.twice),
        _fault(count.missing),
        _fault(count.false_no),
        Text(str(count.parked) if count.parked else _NO_COUNT, style="yellow" if count.parked else "dim"),
    ]


def _fault(number: int) -> Text:
    return Text(f"{number} !", style="bold red") if number else Text(_NO_COUNT, style="dim")


def _verdict(side: Side) -> Text:
    total = side.comparison.total
    said = []
    if total.twice:
        said.append(f"{total.twice} happened more often than asked")
    if total.missing:
        said.append(f"{total.missing} lost without a word")
    if total.false_no:
        said.append(f"{total.false_no} reported as not done, and happened")
    if said:
        return Text.assemble(f"{side.name}: ", (f"NOT EXACT: {'; '.join(said)}", "bold red"))
    said = ["nothing twice, nothing lost"]
    if total.refused:
        said.append(f"{total.refused} reported as not done, and not in the books")
    if total.parked:
        said.append(f"{total.parked} admitted as unknown, waiting for a person")
    return Text.assemble(f"{side.name}: ", (f"EXACT: {'; '.join(said)}", "bold green"))


def _witnesses(side: Side) -> RenderableType:
    differences = side.comparison.differences
    lines = [str(difference) for difference in differences[:MAX_WITNESSES]]
    if len(differences) > MAX_WITNESSES:
        lines.append(f"and {len(differences) - MAX_WITNESSES} more")
    return Group(Text(f"\n{side.name}, one by one", style="bold"), *(_indented(line) for line in lines))


def _clerk(judgements: Sequence[Judgement]) -> RenderableType:
    judged = [judgement for judgement in judgements if judgement.verdict is not Verdict.NOT_JUDGED]
    good = sum(judgement.verdict is Verdict.GOOD for judgement in judged)
    title = Text(f"The clerk's judgement: {good} of {len(judged)} tickets decided well", style="bold")
    words = Text("This says how good the model's decisions were. The counts above do not depend on it.", style="dim")
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("ticket", "judgement", "why"):
        table.add_column(name)
    for judgement in judgements:
        reasons = shown("; ".join(_reasons(judgement)))
        table.add_row(Text(shown(judgement.ticket_id)), _word(judgement.verdict), Text(reasons))
    return Group(title, words, table)


def _indented(line: str) -> RenderableType:
    return Padding(Text(shown(line)), (0, 0, 0, 2))


def shown(text: str) -> str:
    """Return text on one line, without characters that steer a terminal or turn the direction of writing."""
    return "".join(char if char.isprintable() else "·" for char in " ".join(text.split()))


def _word(verdict: Verdict) -> Text:
    return Text(verdict, style={Verdict.GOOD: "green", Verdict.NOT_GOOD: "yellow"}.get(verdict, "dim"))


def _reasons(judgement: Judgement) -> list[str]:
    missed = [f"should have: {sentence}" for sentence in judgement.missed]
    return missed + [f"should not have: {sentence}" for sentence in judgement.needless]
