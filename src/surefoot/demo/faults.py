"""What the shop does wrong, as data: each fault is a row of steps, each request draws its fault from a seeded deck.

Always holds: what a request meets depends on the seed, its endpoint and how many cards that endpoint has dealt, never
on the wall clock. Cards are dealt in hands of four, two of them calm and two of them faults, and the endpoints that act
begin at different places of one drawn order. So four requests to each of four endpoints meet every fault, as do sixteen
requests to one. The contract of each fault:

| fault          | the request       | the client sees                        | honest conclusion      |
|----------------|-------------------|----------------------------------------|------------------------|
| calm           | acts              | the answer                             | as answered            |
| late           | acts half way     | the answer, after 0.3 to 1.5 s         | as answered            |
| acts_and_cuts  | acts              | a cut connection                       | unknown (it happened)  |
| acts_and_hangs | acts              | nothing, until it gives up             | unknown (it happened)  |
| cuts           | does nothing      | a cut connection                       | unknown (it did not)   |
| refuses        | does nothing      | 503, `"acted": false`                  | not done               |
| straggles      | acts 0.3 s later  | a cut connection, at once              | unknown (it will)      |
| closes         | does nothing      | 503; so do the next 2 to 4 requests    | not done               |
| vanishes       | does nothing      | a cut; then refused connections        | unknown; then not done |
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from surefoot.demo.draws import between, fraction, whole


class FaultKind(StrEnum):
    """What is done to one request; the module's table says what each means."""

    CALM = "calm"
    LATE = "late"
    ACTS_AND_CUTS = "acts_and_cuts"
    ACTS_AND_HANGS = "acts_and_hangs"
    CUTS = "cuts"
    REFUSES = "refuses"
    STRAGGLES = "straggles"
    CLOSES = "closes"
    VANISHES = "vanishes"


class Step(StrEnum):
    """One thing the shop does with a request."""

    TAKE_IN = "take_in"  # the request's key counts as in flight from here until it acted
    WAIT = "wait"
    ACT = "act"
    ANSWER = "answer"
    CUT = "cut"
    HANG = "hang"
    SAY_BUSY = "say_busy"
    CLOSE = "close"
    VANISH = "vanish"


STEPS: dict[FaultKind, tuple[Step, ...]] = {
    FaultKind.CALM: (Step.ACT, Step.ANSWER),
    FaultKind.LATE: (Step.TAKE_IN, Step.WAIT, Step.ACT, Step.WAIT, Step.ANSWER),
    FaultKind.ACTS_AND_CUTS: (Step.ACT, Step.CUT),
    FaultKind.ACTS_AND_HANGS: (Step.ACT, Step.HANG),
    FaultKind.CUTS: (Step.CUT,),
    FaultKind.REFUSES: (Step.SAY_BUSY,),
    FaultKind.STRAGGLES: (Step.CUT, Step.WAIT, Step.ACT),
    FaultKind.CLOSES: (Step.CLOSE, Step.SAY_BUSY),
    FaultKind.VANISHES: (Step.VANISH, Step.CUT),
}
LAST_WORDS = frozenset({Step.ANSWER, Step.CUT, Step.HANG, Step.SAY_BUSY})
"""After one of these steps the client has heard all it will ever hear about its request."""

STRAGGLE_S = 0.3  # the figure the fence in the probe protocol was measured against
_LATE_S = (0.3, 1.5)  # all below the 2 s a client of this shop waits by default
_DARK_S = (0.4, 1.0)
_CLOSED_REQUESTS = (2, 4)


@dataclass(frozen=True, slots=True)
class Deck:
    """The cards of an endpoint: all its faults once a round, in hands that mix them with calm cards.

    Attributes:
        faults: What may go wrong; their number is a multiple of `faults_a_hand`.
        faults_a_hand: How many cards of a hand are faults.
        calm_a_hand: How many are not.
    """

    faults: tuple[FaultKind, ...]
    faults_a_hand: int
    calm_a_hand: int


EFFECT_DECK = Deck(tuple(kind for kind in FaultKind if kind is not FaultKind.CALM), faults_a_hand=2, calm_a_hand=2)
"""For an endpoint that acts. Half of its answers are faults, so that a short demo meets them all."""

READ_DECK = Deck((FaultKind.LATE, FaultKind.CUTS, FaultKind.REFUSES), faults_a_hand=1, calm_a_hand=3)
"""For an endpoint that only reads."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A drawn fault with its drawn figures.

    Attributes:
        kind: Which row of `STEPS` is followed.
        wait_s: How long each `Step.WAIT` takes, in seconds.
        for_requests: How many further requests a `Step.CLOSE` turns away.
        for_s: How long a `Step.VANISH` refuses connections, in seconds.
    """

    kind: FaultKind
    wait_s: float = 0.0
    for_requests: int = 0
    for_s: float = 0.0


def drawn_fault(seed: int, endpoint: str, card: int, deck: Deck, *, turn: int = 0) -> Fault:
    """Draw what happens to one request.

    Args:
        seed: The shop's seed.
        endpoint: Name of the endpoint, e.g. `"POST /refunds"`.
        card: How many cards the endpoint has dealt, with this one, from 1.
        deck: Its cards.
        turn: The endpoint's place among those with the same deck, from 0: where in the drawn order it begins.

    Returns:
        The fault with all its figures.
    """
    hands_a_round = len(deck.faults) // deck.faults_a_hand
    hand, place = divmod(card - 1, deck.faults_a_hand + deck.calm_a_hand)
    this_round, hand_of_round = divmod(hand, hands_a_round)
    order = sorted(deck.faults, key=lambda kind: fraction(seed, "order", this_round, kind))
    start = (hand_of_round + turn) % hands_a_round * deck.faults_a_hand
    cards = [*order[start : start + deck.faults_a_hand], *(FaultKind.CALM,) * deck.calm_a_hand]
    shuffled = sorted(range(len(cards)), key=lambda index: fraction(seed, endpoint, "hand", hand, index))
    return with_figures(cards[shuffled[place]], seed, endpoint, card)


def with_figures(kind: FaultKind, seed: int, *name: str | int) -> Fault:
    """Draw how long, and for how many requests, a fault of this kind lasts, under the given name."""
    match kind:
        case FaultKind.LATE:  # two waits, before and after acting
            return Fault(kind, wait_s=between(seed, *_LATE_S, *name, "late") / 2)
        case FaultKind.STRAGGLES:
            return Fault(kind, wait_s=STRAGGLE_S)
        case FaultKind.CLOSES:
            return Fault(kind, for_requests=whole(seed, *_CLOSED_REQUESTS, *name, "closed"))
        case FaultKind.VANISHES:
            return Fault(kind, for_s=between(seed, *_DARK_S, *name, "dark"))
    return Fault(kind)


class Script:
    """Hands every request its fault: first an open closure, then what was ordered by hand, then the deck.

    Only a card from the deck counts towards the deck, so neither orders nor closures shift what the seed has drawn.

    Args:
        seed: The shop's seed.
        effects: Names of the endpoints that act; any other endpoint reads.
        is_nasty: Whether anything is drawn at all.
    """

    def __init__(self, seed: int, effects: Sequence[str], *, is_nasty: bool) -> None:
        self._seed = seed
        self._effects = tuple(effects)
        self._is_nasty = is_nasty
        self._ordered: dict[str, deque[Fault]] = {}
        self._dealt: Counter[str] = Counter()
        self._closed_for = 0

    def order(self, endpoint: str, kinds: list[FaultKind]) -> None:
        """Fix the faults of the next requests to one endpoint, ahead of all drawing."""
        queue = self._ordered.setdefault(endpoint, deque())
        queue.extend(with_figures(kind, self._seed, endpoint, "ordered", place) for place, kind in enumerate(kinds))

    def close_for(self, requests: int) -> None:
        """Turn the next requests away, whatever they ask for."""
        self._closed_for = max(self._closed_for, requests)

    def next_fault(self, endpoint: str) -> Fault:
        """Say what happens to the request that has just come to this endpoint."""
        if self._closed_for:
            self._closed_for -= 1
            return Fault(FaultKind.REFUSES)
        if ordered := self._ordered.get(endpoint):
            return ordered.popleft()
        if not self._is_nasty:
            return Fault(FaultKind.CALM)
        self._dealt[endpoint] += 1
        card = self._dealt[endpoint]
        if endpoint in self._effects:
            return drawn_fault(self._seed, endpoint, card, EFFECT_DECK, turn=self._effects.index(endpoint))
        return drawn_fault(self._seed, endpoint, card, READ_DECK)
