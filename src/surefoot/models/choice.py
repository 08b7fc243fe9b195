"""Which action comes next: the small model's opinion, weighed.

Owns: the score of an action. Two opinions of the same model are added, because each alone is near chance on a task it
has not seen: what comes next in the *log* (knows the order of work: look first, finish last; hardly reads the task) and
what *fits* the task (how much likelier "Ok, I will <description>" is after the task than after a message that asks for
nothing). Fit is the noisy-channel idea (Min et al. 2022) with its domain correction (Holtzman et al. 2021, PMI):

    score(a) = log P(name of a | log) + weight * (fit(a) - best fit) - REPEATED * how often a was done for this task
    P(a) = softmax(score / temperature)

A way to finish has no fit of its own; it is as good as the best tool once that is done.

What always holds: the same seed, log and probabilities give the same choice; every offered action has a chance above zero
unless the temperature is next to 0. The constants are the best of a grid over the demo's tickets and an office-booking
set, where about four of five decisions are sensible.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

from surefoot.models.conversation import Conversation
from surefoot.models.engine import Engine, Session
from surefoot.models.prompt import Action, choice_prompt, fit_prompt

FIRST_FIT = 0.3  # at the first step a look before acting is worth more than the perfect tool
LATER_FIT = 1.2
WORST_FIT = -8.0  # nats
FINISH_BEFORE_START = -3.0
FINISH_BEFORE_BEST = -2.0
REPEATED = 3.0  # nats per earlier call of the same action for this task
TOP_TOKENS = 256
NOTHING_ASKED = "I wrote to you last week about it, and nothing has happened since then."
_WORTH_A_LOOK = 0.02  # share of probability below which a token that begins several names is split evenly
_REMEMBERED = 256  # tasks and tool lists whose fit is kept


def probabilities(
    session: Session, engine: Engine, conversation: Conversation, actions: Sequence[Action], temperature: float
) -> dict[str, float]:
    """Return how likely each action is to be next, by its shown name.

    Args:
        session: The model.
        engine: Where fits are remembered.
        conversation: The log so far.
        actions: What can be done next; at least one.
        temperature: Above 1 flatter, below 1 sharper; 0: all on the best.
    """
    log = name_logprobs(session, choice_prompt(conversation, actions), [action.shown for action in actions])
    done = [step.action for step in conversation.current.steps]
    fit = _fits(session, engine, conversation.current.text, actions, done)
    weight = LATER_FIT if done else FIRST_FIT
    scores = {
        action.shown: log[action.shown] + weight * fit[action.shown] - REPEATED * _times_done(action, done)
        for action in actions
    }
    return softmax(scores, temperature)


def _times_done(action: Action, done: Sequence[str]) -> int:
    return 0 if action.is_final else done.count(action.shown)


def softmax(scores: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Return probabilities that grow with the scores.

    Args:
        scores: Natural log-weights.
        temperature: What they are divided by; 0 gives the best all of it.
    """
    best = max(scores.values())
    if temperature <= 0:
        winner = next(name for name, score in scores.items() if score == best)
        return {name: float(name == winner) for name in scores}
    weights = {name: math.exp((score - best) / temperature) for name, score in scores.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def drawn(chances: Mapping[str, float], seed: int, context: str) -> str:
    """Return one name, drawn with these chances; the seed and the context decide which."""
    digest = hashlib.blake2b(f"{seed}\n{context}".encode(), digest_size=8).digest()
    point = int.from_bytes(digest, "big") / 2**64
    for name, chance in chances.items():
        point -= chance
        if point < 0:
            return name
    return max(chances, key=chances.__getitem__)  # rounding left a rest


def name_logprobs(session: Session, prompt: str, names: Sequence[str], depth: int = 0) -> dict[str, float]:
    """Return the log-probability of each name as the continuation of a prompt that ends in an open quote.

    Looks at first tokens only; where one begins several names (`send_email`, `send_parcel`), at what follows it. A name
    whose tokens are not among the `TOP_TOKENS` likeliest gets the probability of the last of them.
    """
    targets = {name: f'{name}"' for name in names}
    tokens = session.complete(prompt, max_tokens=1, top=TOP_TOKENS).first
    floor = min((logprob for _, logprob in tokens), default=-20.0)
    shares = dict.fromkeys(names, math.exp(floor))
    total = sum(math.exp(p) for token, p in tokens if any(t.startswith(token) for t in targets.values()))
    for token, logprob in tokens:
        begun = [name for name in names if token and targets[name].startswith(token)]
        share = math.exp(logprob)
        if len(begun) < 2 or share < _WORTH_A_LOOK * total or depth > 4:
            for name in begun:
                shares[name] += share / len(begun)
            continue
        rest = {name: targets[name][len(token) : -1] for name in begun}
        deeper = softmax(name_logprobs(session, prompt + token, list(rest.values()), depth + 1), 1.0)
        for name in begun:
            shares[name] += share * deeper[rest[name]]
    return {name: math.log(share) for name, share in shares.items()}


def _fits(
    session: Session, engine: Engine, task: str, actions: Sequence[Action], done: Sequence[str]
) -> dict[str, float]:
    """How much worse than the best tool each action fits the task, in nats; what was done already counts as good."""
    fits = dict.fromkeys((action.shown for action in actions), 0.0)
    tools = [action for action in actions if not action.is_final]
    if len(tools) < 2 or not task:
        return fits
    promises = tuple(f" {tool.promise}" for tool in tools)
    told = _likelihoods(session, engine, task, promises)
    neutral = _likelihoods(session, engine, NOTHING_ASKED, promises)
    gains = {tool.shown: one - other for tool, one, other in zip(tools, told, neutral, strict=True)}
    best = max(gains, key=gains.__getitem__)
    finish = FINISH_BEFORE_START if not done else 0.0 if best in done else FINISH_BEFORE_BEST
    for action in actions:
        if action.is_final:
            fits[action.shown] = finish
        elif action.shown not in done:
            fits[action.shown] = max(WORST_FIT, gains[action.shown] - gains[best])
    return fits


def _likelihoods(session: Session, engine: Engine, task: str, promises: tuple[str, ...]) -> tuple[float, ...]:
    key = (task, *promises)
    known = engine.memory.get(key)
    if known is None:
        prompt = fit_prompt(task)
        known = tuple(session.logprob(prompt, promise) for promise in promises)
        if len(engine.memory) >= _REMEMBERED:
            del engine.memory[next(iter(engine.memory))]
        engine.memory[key] = known
    return known
