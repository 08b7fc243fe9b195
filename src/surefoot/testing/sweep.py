"""Kill a user's agent at every boundary, let it recover, and see whether the world is as it should be.

undisturbed   two whole runs: which points there are, and what they have in common
once          a kill at each point, each in a world and a store of its own
again         a kill in the recovery from a kill, one for each pair of kinds of points
smallest      the first failure in that order is the smallest: fewest kills, earliest; it is executed again to see
              whether it fails each time

What holds: a run recovers in a process that has nothing of the killed one but the store and the world.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from surefoot.app import Surefoot
from surefoot.problem import SurefootError
from surefoot.runs import Run
from surefoot.store import SystemClock
from surefoot.testing.laws import LawBroken, StoreLaws
from surefoot.testing.life import ENDED, Hangs, LifeSeen, Person, Scenario, Strayed, import_late, live
from surefoot.testing.points import Point, Schedule, earliest_first, parse
from surefoot.testing.report import CrashPointFailed, CrashReport, Failure
from surefoot.testing.world import Host

AGAIN = 2
"""How often a failing schedule is executed again."""


class NothingToSweep(SurefootError):
    """The undisturbed run is wrong already, so that kills could show nothing."""


@dataclass
class Story:
    """What became of one schedule."""

    schedule: Schedule
    lives: list[LifeSeen] = field(default_factory=list)
    wrong: str = ""
    books: Any = None

    @property
    def end(self) -> LifeSeen:
        """The last life."""
        return self.lives[-1]

    @property
    def is_reached(self) -> bool:
        """Whether each kill came where it was to come."""
        return all(life.killed_at == kill for life, kill in zip(self.lives, self.schedule.kills, strict=False))


@dataclass(frozen=True)
class Bench:
    """All that is needed to execute one schedule."""

    scenario: Scenario
    world: Callable[[], Any] | None
    check: Callable[..., object] | None
    books: Callable[[Any], Any] | None
    person: Person | None
    straggles_s: float | None

    async def play(self, schedule: Schedule) -> Story:
        """Execute a schedule in a store and a world of its own."""
        story = Story(schedule)
        with tempfile.TemporaryDirectory(prefix="surefoot-crash-points-") as folder:
            path = Path(folder) / "agents.db"
            async with contextlib.AsyncExitStack() as stack:
                host = Host(await self._made(stack), self.books, self.straggles_s or 0.0)
                try:
                    await self._play(story, host, path)
                except (Hangs, Strayed) as error:
                    story.wrong = error.message
                except LawBroken as error:
                    story.wrong = f"a law was broken: {error}"
        return story

    async def _made(self, stack: contextlib.AsyncExitStack) -> Any:
        """Return a new world; one that is to be entered is, and is left at the end."""
        if self.world is None:
            return None
        world = self.world()
        if hasattr(world, "__aenter__"):
            return await stack.enter_async_context(world)
        return stack.enter_context(world) if hasattr(world, "__enter__") else world

    async def _play(self, story: Story, host: Host, path: Path) -> None:
        laws: StoreLaws | None = None
        targets: list[Point | None] = [*story.schedule.kills, None]
        try:
            for target in targets:
                seen = await live(self.scenario, f"sqlite:///{path}", host, target, self.person)
                story.lives.append(seen)
                if path.exists():  # noqa: ASYNC240  a look at a local file
                    laws = laws or StoreLaws(path)
                    laws.look()
                if seen.ended is not None:
                    break
            await host.quiet()
            if laws is not None:
                laws.check_journal()
        finally:
            if laws is not None:
                laws.close()
        story.books = host.books()
        story.wrong = "; ".join(host.wrongs) or await self._checked(host)

    async def _checked(self, host: Host) -> str:
        """Return what the user's own invariant says is wrong."""
        if self.check is None:
            return ""
        try:
            said = self.check(host.world) if inspect.signature(self.check).parameters else self.check()
            if inspect.isawaitable(said):
                said = await said
        except AssertionError as error:
            return f"check: {str(error) or 'an assertion failed'}"
        return "check returned False" if said is False else ""


async def crash_points(
    app: Callable[..., Surefoot],
    *,
    start: Callable[[Surefoot], Awaitable[Run]],
    world: Callable[[], Any] | None = None,
    check: Callable[..., object] | None = None,
    books: Callable[[Any], Any] | None = None,
    person: Person | None = None,
    straggles_s: float | None = None,
    recoveries: int | None = 40,
    limit_s: float = 30.0,
    at_once: int | None = None,
    only: str | None = None,
    command: str = "pytest",
    progress: Callable[[str], object] = print,
) -> CrashReport:
    """Kill an agent or a durable function at every boundary, in real processes, and check what it comes to.

    Each process is a fork of the test, killed with SIGKILL; the next one opens the same store and goes on. The world lives
    in the test, so it survives.

    Args:
        app: Called in each process with the URL of a fresh store and the world; returns the `Surefoot`, not yet open. Put
            the world in the place of your client, and a scripted model in that of the model, here.
        start: Called in each process with the open app; starts the run under a fixed id, and returns it.
        world: Makes the service, or all services, that the agent acts on, anew for each schedule: any object. None: the
            code acts on something else, which `check` looks at.
        check: Your invariant, called with the world at the end of each schedule; asserts, or returns False.
        books: What counts of the world, such as `lambda shop: shop.refunds`: it must end as it does without kills, and
            change only inside of effects. None: not compared.
        person: Called with the world and a doubt (`name`, `key`, `arguments`) that only a person can end; returns whether
            it was done, or None to leave it. None: doubts are left.
        straggles_s: Also kill with each call on its way, and let it land up to this many seconds later, at the worst
            moment: right after the recovery has asked about it, if it asks in that time. None: not done.
        recoveries: How many kills in the recovery from a kill, evenly over all pairs of kinds; None for all, 0 for none.
        limit_s: Seconds that one process has to open the app and start the run, and again to come to an end.
        at_once: Schedules at the same time; None for one for each processor, and one under pytest-xdist.
        only: One schedule, as printed, instead of all.
        command: What repeats this test, for the message.
        progress: Called with lines that say how far it has come.

    Returns:
        What was examined, with coverage.

    Raises:
        CrashPointFailed: Something was wrong; the smallest schedule is named, with a command to see it again.
        NothingToSweep: It is wrong without a kill too.
    """
    scenario = Scenario(app, start, limit_s, person is not None)
    bench = Bench(scenario, world, check, books, person, straggles_s)
    sweep = _Sweep(bench, progress, command, at_once or _processors())
    await sweep.run_undisturbed()
    if only is not None:
        await sweep.run([parse(only)])
    else:
        await sweep.run(sweep.once())
        if sweep.failure is None:
            await sweep.run(sweep.again(recoveries))
    return await sweep.report()


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _processors() -> int:
    return 1 if "PYTEST_XDIST_WORKER" in os.environ else (os.cpu_count() or 1)


class _Sweep:
    """One call of `crash_points`."""

    def __init__(self, bench: Bench, progress: Callable[[str], object], command: str, at_once: int) -> None:
        self._bench = bench
        self._progress = progress
        self._command = command
        self._at_once = at_once
        self._clock = SystemClock()
        self._started_s = self._clock.monotonic_s()
        self._stories: list[Story] = []
        self._unlike: tuple[str, ...] = ()
        self._base: Story
        self.failure: Failure | None = None

    async def run_undisturbed(self) -> None:
        """Execute it twice without a kill; whatever differs is not compared later."""
        stories = []
        for _ in range(2):
            story = await self._bench.play(Schedule())
            ended = None if not story.lives else story.end.ended
            if story.wrong or ended is None or ended.state not in ENDED:
                waits = "" if ended is None else f"the run is {ended.state} for {ended.waiting_for}: {ended.reason}"
                raise NothingToSweep(
                    f"without any kill: {story.wrong or waits}",
                    hint="make one whole run pass first; signals that it waits for can be sent in start=",
                )
            import_late(story.end)
            stories.append(story)
        first, second = stories
        self._base = first
        ends = [story.end.ended for story in (first, second)]
        pairs = {"result": [end.result if end else "" for end in ends], "books": [first.books, second.books]}
        self._unlike = tuple(name for name, (one, other) in pairs.items() if one != other)
        self._stories = [first, second]
        self._progress(f"crash points: {len(self.points)}, undisturbed twice")

    @property
    def points(self) -> list[Point]:
        """The points of the undisturbed run."""
        return earliest_first(self._base.end.crossed)

    def once(self) -> list[Schedule]:
        """Return a schedule for each point, earliest first."""
        straggling = [] if self._bench.straggles_s is None else [
            replace(point, side="on-its-way") for point in self.points if point.side == "before-call"
        ]  # fmt: skip
        return [Schedule((point,)) for point in (*self.points, *straggling)]

    def again(self, limit: int | None) -> list[Schedule]:
        """Return schedules with a second kill in the recovery, one for each pair of kinds of points."""
        pairs: dict[Any, Schedule] = {}
        for story in self._stories:
            if len(story.schedule.kills) == 1 and story.is_reached:
                (first,) = story.schedule.kills
                for second in earliest_first(story.end.crossed):
                    pairs.setdefault((first.sort, second.sort), Schedule((first, second)))
        found = list(pairs.values())
        if limit is None or len(found) <= limit:
            return found
        return [found[place * len(found) // limit] for place in range(limit)]

    async def run(self, schedules: Sequence[Schedule]) -> None:
        """Execute schedules, some at a time, until one fails; the earliest that fails counts."""
        failing: list[int] = []
        waiting = iter(enumerate(schedules))

        async def work() -> None:
            for place, schedule in waiting:
                if failing and place > min(failing):
                    return
                story = await self._bench.play(schedule)
                story.wrong = story.wrong or self._differs(story)
                self._stories.append(story)
                if story.wrong:
                    failing.append(place)
                    found[place] = story
                if place % 20 == 19:
                    self._progress(f"crash points: {place + 1} of {len(schedules)} schedules")

        found: dict[int, Story] = {}
        await asyncio.gather(*(work() for _ in range(self._at_once)))
        if failing:
            await self._confirm(found[min(failing)])

    def _differs(self, story: Story) -> str:
        """Return in what a story ends otherwise than the undisturbed one, where both may be compared."""
        ended, base = story.end.ended, self._base.end.ended
        assert base is not None
        if ended is None:
            return f"it was still being killed after {len(story.lives)} lives" if story.is_reached else ""
        if ended.state == "waiting" and ended.waiting_for == "doubt":
            return ""  # an effect that a person has to look at: named, and not guessed
        if ended.state in ENDED and any(life.has_asked for life in story.lives):
            return ""  # what a person says is another answer than the service's, and the code may go another way
        if ended.state != base.state:
            waits = f" for {ended.waiting_for}" if ended.waiting_for else ""
            return (
                f"the run is {ended.state}{waits}, and without a kill it is {base.state}: {_first_line(ended.reason)}"
            )
        if "result" not in self._unlike and ended.result != base.result:
            return f"the run's result is {ended.result}, and without a kill it is {base.result}"
        if "books" not in self._unlike and story.books != self._base.books:
            return f"the world's books end as {story.books!r}, and without a kill as {self._base.books!r}"
        return ""

    async def _confirm(self, story: Story) -> None:
        repeated = 0
        for _ in range(AGAIN):
            again = await self._bench.play(story.schedule)
            self._stories.append(again)
            repeated += bool(again.wrong or self._differs(again))
        self.failure = Failure(story.schedule, story.wrong, tuple(story.lives), repeated, AGAIN)

    async def report(self) -> CrashReport:
        """Return what was examined; raise when something was wrong."""
        killed = [story for story in self._stories if story.schedule.kills]
        ends = [story.end.ended for story in self._stories if story.lives and story.end.ended is not None]
        asked = {
            point.about.partition("/")[0] for story in self._stories for life in story.lives for point in life.crossed
        }
        declared = {name for end in ends for name in end.declared}
        report = CrashReport(
            points=tuple(self.points),
            killed=tuple(dict.fromkeys(story.schedule for story in killed)),
            missed=tuple(story.schedule for story in killed if not story.is_reached),
            doubts=tuple(
                story.schedule
                for story in killed
                if story.lives and story.end.ended is not None and story.end.ended.waiting_for == "doubt"
            ),
            never_reached=tuple(sorted(declared - asked)),
            unlike=self._unlike,
            failure=self.failure,
            lives=sum(len(story.lives) for story in self._stories),
            took_s=self._clock.monotonic_s() - self._started_s,
        )
        if report.failure is not None:
            raise CrashPointFailed(report, self._command)
        self._progress(str(report))
        return report
