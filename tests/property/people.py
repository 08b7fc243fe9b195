"""The person of a schedule: ends doubts, approves and denies, and sends the signals that runs wait for.

They see what anybody sees: the lists of the store and the services' own books. They may ask again of another worker where
they got no answer, so each of their words may count twice.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tests.property.programs import flat, root_of

import surefoot as sf
from surefoot.effects.rows import desk
from surefoot.leases import Sessions
from surefoot.runs.life import ENDED
from surefoot.runs.rows.desk import wake
from surefoot.store import Tx

if TYPE_CHECKING:
    from tests.property.schedule import Asked, Schedule

YES = 0.75
"""How often they approve."""

TAKES_BACK = 0.05
"""How often they deny what they have approved before."""


ANN = "ann has seen"
"""How what they say is told apart from what a service says."""


class Person:
    """One person, who acts through the workers as any client does.

    Attributes:
        yes: The approvals that they have said yes to.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._draw = random.Random(f"person {schedule.plan.seed}")
        self._signals: dict[str, int] = {}
        self._resolving: Asked | None = None
        self._deciding: Asked | None = None
        self.yes: set[int] = set()

    def look_in(self) -> None:
        """Do one thing of each kind."""
        self._resolve()
        self._decide()
        runs = [run.run_id for run in self._schedule.watch.runs.values() if run.state not in ENDED]
        if runs:
            self._signal(self._draw.choice(runs))

    def do_all(self) -> None:
        """Do what everybody waits for."""
        self._resolve()
        self._decide()
        for run in list(self._schedule.watch.runs.values()):
            if run.state not in ENDED:
                self._signal(run.run_id)

    # -- signals -----------------------------------------------------------------------------------------------------

    def _signal(self, run_id: str) -> None:
        """Send the next signal to a run; more than it waits for hurt nobody."""
        program = self._schedule.programs.get(root_of(run_id), ())
        wanted = sum(operation[0] == "signal" for operation in flat(list(program)))
        number = self._signals.get(run_id, 0)
        if number < wanted:
            self._signals[run_id] = number + 1

            async def send(handle: sf.Run) -> None:
                with contextlib.suppress(sf.SignalRefused):  # it has ended, which is an answer
                    await handle.signal("go", number, dedupe=str(number))

            self._schedule.ask_run(run_id, "signal", send)

    # -- approvals ---------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Decide a question, any of them: some nobody waits for any more. Or take back a yes."""
        if self._deciding is not None and not self._deciding.is_answered:
            return
        open_ones = self._schedule.watch.rows("SELECT id, state FROM approvals WHERE state <= 2 ORDER BY id")
        wanted = [number for number, state in open_ones if state == 1 or self._draw.random() < TAKES_BACK]
        if wanted:
            number = self._draw.choice(wanted)
            is_yes = (number, 1) in open_ones and self._draw.random() < YES
            self._deciding = self._schedule.ask(f"decide {number}", self._decision(number, is_yes=is_yes))

    def _decision(self, approval: int, *, is_yes: bool) -> Callable[[sf.Surefoot], Coroutine[Any, Any, Any]]:
        async def decide(app: sf.Surefoot) -> None:
            if is_yes:
                self.yes.add(approval)
            with contextlib.suppress(sf.CannotDecide):  # nobody waits any more, or it was decided when no answer came
                await (app.approve if is_yes else app.deny)(approval, by="ann", reason="looked at it")

        return decide

    # -- doubts ------------------------------------------------------------------------------------------------------

    def _resolve(self) -> None:
        """Look into the world and end the first doubt it shows the end of."""
        if self._resolving is not None and not self._resolving.is_answered:
            return
        for effect, service, item, key in self._schedule.watch.unknowns():
            if service == "bookings":
                continue
            is_done = self._has_landed(service, item, key)
            if not is_done and self._schedule.network.on_way.get((service, item), 0):
                continue
            resolution = self._resolution(effect, service, item, key, is_done=is_done)
            self._resolving = self._schedule.ask(f"resolve {effect}", resolution)
            return

    def _has_landed(self, service: str, item: str, key: str) -> bool:
        return key in self._schedule.outside.services[service].landed.get(item, [])

    def _resolution(
        self, effect: int, service: str, item: str, key: str, *, is_done: bool
    ) -> Callable[[sf.Surefoot], Coroutine[Any, Any, Any]]:
        schedule = self._schedule

        def look_again(tx: Tx, run: int | None, by: str, row: int) -> None:
            """They look as they speak: who might have sent it is known to be gone by now, or they would be refused."""
            is_landed = self._has_landed(service, item, key)
            if is_landed != is_done or (not is_done and schedule.network.on_way.get((service, item), 0)):
                raise desk.CannotResolve("the books say something else by now")
            wake(tx, run, by, row)

        async def resolve(app: sf.Surefoot) -> None:
            # Once all are healed nobody is stopped, so what is not on its way and not being done never will be.
            is_acting = any(one.is_open and effect in one.app.guard.acting for one in schedule.processes)
            with contextlib.suppress(desk.CannotResolve):
                await desk.resolve_by_person(
                    app.store, Sessions(app.store), effect, is_done=is_done, who="ann", reason="looked into the books",
                    value=f"{ANN} {service} {item}" if is_done else None, wake=look_again,
                    is_fence_passed=schedule.is_healed and not is_acting,
                )  # fmt: skip

        return resolve
