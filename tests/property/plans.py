"""Plans: what happens in a schedule, drawn from one seed, and how a plan that breaks a law is made smaller."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.property.effects import EFFECTS, UNDOABLE
from tests.property.programs import Operation

SHARED = ("A", "B", "C")
"""Few items, so that runs meet at one key."""

TOTALS = (1, 2)
"""Few amounts, so that a key is met with another one."""

ACCOUNTS = (("A", "B:C"), ("A:B", "C"), ("A:B", "C%3A"))
"""Parts of keys that run into each other where they are not kept apart."""


@dataclass(frozen=True)
class Fault:
    """Something that is done to a process, some steps after the one before.

    Attributes:
        gap: Steps since the last fault.
        kind: See `schedule.Schedule`.
        who: Which of the two workers.
        amount: How long or how far, where that means something, in seconds.
        after: "" for just these steps; "act" or "send": then, once an effect's code begins or its request leaves, it is
            done to the process whose it is.
    """

    gap: int
    kind: str
    who: int
    amount: float = 0.0
    after: str = ""


@dataclass(frozen=True)
class Plan:
    """All that is drawn of a schedule but the order of its steps, which `seed` draws as it goes."""

    seed: int
    programs: tuple[tuple[Any, ...], ...]
    faults: tuple[Fault, ...]
    is_bad: float = 0.0
    checks: str = "token"
    is_watched: bool = False
    """Whether a person looks into doubts all the time, and signals come by themselves, not only when a fault says so."""
    connecting: tuple[float, ...] = (0.0, 0.01, 0.5, 0.9)
    """Seconds between the beginning of an effect's code and its request; one of them is drawn for each."""
    callers: tuple[Any, ...] = ()
    """Effects with a business key that are called outside any run, each again until its outcome is known."""
    is_recoded: bool = False
    """Whether the completed runs are replayed by other code in the end, which must not go on, instead of by the same."""


KINDS = ("kill", "kill", "kill", "stop", "stop", "stop", "stop", "close", "full", "full late", "lost", "slow", "slow",
         "jump", "reboot", "cancel", "person", "person", "change")  # fmt: skip
"""Who is stopped for longer than its lease, and wakes up, can do most harm."""


BARRED = {"token": (), "expiry": ("jump",), "neither": ("stop",)}
"""By what the look-up service checks, the faults that its class of doubt assumes away: an expiry is by the wall clock; and
where nothing is checked, no holder may pause for longer than a request lives."""


_usual_effects = sorted(EFFECTS)
"""What the plan that is being drawn makes its programs of."""


def plan_of(seed: int) -> Plan:
    """Return the plan of a seed. Each seed draws its own mix (swarm testing: Groce et al., ISSTA 2012)."""
    draw = random.Random(seed)
    checks = draw.choice(("token", "expiry", "neither"))
    usual = [kind for kind in sorted(set(KINDS)) if draw.random() < 0.6]
    kinds = [kind for kind in KINDS if kind in usual and kind not in BARRED[checks]] or ["kill"]
    _usual_effects[:] = draw.sample(sorted(EFFECTS), draw.choice((1, 2, 3, len(EFFECTS))))
    is_scene = draw.random() < 0.6
    programs = draw.choices(list(SCENES), list(SCENES.values()))[0](draw) if is_scene else _programs(draw)
    faults = tuple(
        _fault(draw, kinds, is_scene) for _ in range(draw.choice((1, 1, 2) if is_scene else (0, 1, 2, 3, 5, 8)))
    )
    connecting = draw.choice(((0.0,), (0.5,), (0.9,), (0.0, 0.01, 0.5, 0.9)))
    if is_scene and "stop" not in BARRED[checks] and draw.random() < 0.25:
        faults, connecting = (_straggling(draw), *faults[1:]), (0.9,)
    return Plan(seed, programs, faults, draw.choice((0.0, 0.2, 0.5, 0.8)), checks, draw.random() < 0.5, connecting,
                _callers(random.Random(f"callers {seed}")), draw.random() < 0.15)  # fmt: skip


def _callers(draw: random.Random) -> tuple[Any, ...]:
    """Return calls outside runs; drawn apart, so that what a seed draws of everything else stays as it is."""
    keyed = [what for what in sorted(EFFECTS) if EFFECTS[what].key_words]
    usual = [what for what in keyed if what in _usual_effects] or keyed
    return tuple(_caller(draw, usual, number) for number in range(draw.choice((0, 0, 0, 1, 2))))


def _caller(draw: random.Random, usual: list[str], number: int) -> Operation:
    if draw.random() < 0.2:  # nobody else asks for what is done under its lease
        return ["held", draw.choice(SHARED), ["charge", f"held {number}"]]
    call = _call(draw, draw.choice(usual), f"caller {number}")
    return ["hurried", draw.choice((0.03, 0.5)), call] if draw.random() < 0.3 else call


def _programs(draw: random.Random) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(_operations(draw, f"{number}", 3)) for number in range(draw.choice((1, 1, 2, 2, 3))))


# -- scenes: little happens, so that it matters what happens to it at the wrong moment -----------------------------------


def _one_effect(draw: random.Random) -> tuple[tuple[Any, ...], ...]:
    operation = _effect(draw, "0.0")
    return ((operation,),) * draw.choice((1, 2)) if EFFECTS[operation[0]].key_words else ((operation,),)


def _one_in_a_hurry(draw: random.Random) -> tuple[tuple[Any, ...], ...]:
    return ((["hurried", draw.choice((0.001, 0.03, 0.5)), _effect(draw, "0")],),)


def _signals(draw: random.Random) -> tuple[tuple[Any, ...], ...]:
    return (tuple(["signal"] for _ in range(draw.choice((2, 3)))),)


def _questions(draw: random.Random) -> tuple[tuple[Any, ...], ...]:
    item = draw.choice(SHARED)
    return tuple((["pay", item, draw.choice(TOTALS)],) * draw.choice((1, 1, 2)) for _ in range(draw.choice((1, 2, 3))))


def _one_saga(draw: random.Random) -> tuple[tuple[Any, ...], ...]:
    return tuple((_saga(draw, f"{number}"),) for number in range(draw.choice((1, 1, 2))))


def _one_desk(draw: random.Random) -> tuple[tuple[Any, ...], ...]:
    return tuple((_desk(draw, "A", f"{number}"),) for number in range(draw.choice((2, 3))))


def _one_shelf(draw: random.Random) -> tuple[tuple[Any, ...], ...]:
    return tuple((["order", f"{number}", "A"],) for number in range(draw.choice((1, 2))))


def _one_board(draw: random.Random) -> tuple[tuple[Any, ...], ...]:
    return tuple((["share", "A", f"{number}"],) for number in range(draw.choice((2, 3))))


def _news(draw: random.Random) -> tuple[tuple[Any, ...], ...]:
    """Return one that publishes now and then, mostly of one key, what those who act on it wait for people with."""
    told: list[Operation] = []
    for event in range(draw.choice((1, 2, 3))):
        waits = draw.choice((["signal"], ["pay", draw.choice(SHARED), 1], _effect(draw, f"0.{event}")))
        told += [["tell", draw.choice(("A", "A", "A", None)), [waits]], ["sleep", draw.choice((0.01, 1.0, 8.0))]]
    return (tuple(told),)


SCENES: dict[Callable[[random.Random], tuple[tuple[Any, ...], ...]], int] = {
    _one_effect: 9,
    _one_in_a_hurry: 1,
    _signals: 1,
    _questions: 3,
    _one_saga: 3,
    _one_desk: 3,
    _one_shelf: 1,
    _one_board: 1,
    _news: 2,
}
"""How often each is drawn."""


def _fault(draw: random.Random, kinds: list[str], is_scene: bool) -> Fault:
    kind = draw.choice(kinds)
    amounts = {"stop": (0.5, 3.0, 10.3, 10.7, 10.7, 25.0), "slow": (0.2, 3.0, 12.0), "jump": (-90.0, -20.0, 20.0, 90.0)}
    amount = draw.choice(amounts.get(kind, (0.0,)))
    after = draw.choice(("act", "send") if is_scene and draw.random() < 0.8 else ("", "act", "send"))
    return Fault(round(2 ** draw.uniform(0, 4 if after else 8)), kind, draw.randrange(2), amount, after)


def _straggling(draw: random.Random) -> Fault:
    """Return what makes a straggler: stopped in the act until all others take it for gone, then it goes on."""
    return Fault(draw.choice((1, 1, 4, 16)), "stop", 0, draw.choice((10.7, 25.0)), draw.choice(("act", "act", "send")))


# -- operations --------------------------------------------------------------------------------------------------------


def _operations(draw: random.Random, place: str, depth: int) -> list[Operation]:
    return [_operation(draw, f"{place}.{number}", depth) for number in range(draw.choice((1, 2, 3)))]


def _operation(draw: random.Random, place: str, depth: int) -> Operation:
    if depth == 0 or draw.random() < 0.6:
        return _effect(draw, place)
    match draw.choice(("both", "hurried", "sleep", "signal", "signal", "look", "child", "twice", "saga", "held", "share",
                       "tell")):  # fmt: skip
        case "both":
            return ["both", place, *(_operation(draw, f"{place}.{side}", depth - 1) for side in range(2))]
        case "hurried":
            return ["hurried", draw.choice((0.001, 0.03, 0.5, 3.0)), _hurried(draw, place)]
        case "sleep":
            return ["sleep", draw.choice((0.01, 1.0, 8.0))]
        case "child":
            return ["child", _operations(draw, place, depth - 2 if depth > 2 else 0)]
        case "twice":
            return ["twice", _effect(draw, place)]
        case "saga":
            return _saga(draw, place)
        case "held":
            return _desk(draw, draw.choice(SHARED), place)
        case "share":
            return ["share", draw.choice(SHARED), place]
        case "tell":
            return _tell(draw, place, depth - 2 if depth > 2 else 0)
        case other:
            return [other]


def _effect(draw: random.Random, place: str) -> Operation:
    return _call(draw, draw.choice(_usual_effects), place)


def _call(draw: random.Random, what: str, place: str) -> Operation:
    """Return a call of an effect: about what others ask for too where it has a key, else about a thing of its own."""
    if what == "transfer":
        return [what, *draw.choice(ACCOUNTS), draw.choice(TOTALS)]
    item = draw.choice(SHARED) if EFFECTS[what].key_words else place
    others = {"total": TOTALS, "desk": SHARED, "shelf": SHARED}
    return [what, *(item if name == "item" else draw.choice(others[name]) for name in EFFECTS[what].parameters)]


def _hurried(draw: random.Random, place: str) -> Operation:
    if draw.random() < 0.3:
        return draw.choice((["look"], ["signal"], ["sleep", 0.4]))
    return _saga(draw, place) if draw.random() < 0.2 else _effect(draw, place)


def _saga(draw: random.Random, place: str) -> Operation:
    end = draw.choice(("well", "fail", "fail", "break"))
    calls = [_call(draw, draw.choice(UNDOABLE), f"{place}.{number}") for number in range(draw.choice((1, 2, 3)))]
    return ["saga", place, end, *calls]


def _desk(draw: random.Random, desk: str, place: str) -> Operation:
    """Return work at a desk, or something that is done while the desk is held."""
    work = ["work", desk, place]
    if draw.random() < 0.5:
        return work
    twice = ["twice", ["post", place]]
    return ["held", desk, draw.choice((work, twice, twice, ["sleep", 1.0], ["signal"], _effect(draw, place)))]


def _tell(draw: random.Random, place: str, depth: int) -> Operation:
    operations = [["signal"]] if draw.random() < 0.2 else _operations(draw, f"{place}.told", depth)
    return ["tell", draw.choice((*SHARED[:2], None)), operations]


def smallest(plan: Plan, is_failing: Callable[[Plan], bool], tries: int = 300) -> Plan:
    """Return a plan that still fails, with as little in it as can be found by leaving things out one by one."""
    for _ in range(tries):
        smaller = next((one for one in _smaller(plan) if is_failing(one)), None)
        if smaller is None:
            return plan
        plan = smaller
    return plan


def _smaller(plan: Plan) -> Iterator[Plan]:
    for number in range(len(plan.faults)):
        yield replace(plan, faults=plan.faults[:number] + plan.faults[number + 1 :])
    if plan.is_bad:
        yield replace(plan, is_bad=0.0)
    for number in range(len(plan.callers)):
        yield replace(plan, callers=plan.callers[:number] + plan.callers[number + 1 :])
    for number, operations in enumerate(plan.programs):
        rest = plan.programs[:number], plan.programs[number + 1 :]
        if len(plan.programs) > 1:
            yield replace(plan, programs=rest[0] + rest[1])
        for place in range(len(operations)):
            fewer = operations[:place] + operations[place + 1 :]
            if fewer:
                yield replace(plan, programs=(*rest[0], fewer, *rest[1]))
            for inner in [part for part in operations[place][1:] if isinstance(part, list) and part]:
                if isinstance(inner[0], str):
                    unwrapped = (*operations[:place], inner, *operations[place + 1 :])
                    yield replace(plan, programs=(*rest[0], unwrapped, *rest[1]))
