"""How opinions become a choice, with a model whose opinions are written down."""

import math
from collections import Counter
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.models import choice
from surefoot.models.choice import drawn, name_logprobs, probabilities, softmax
from surefoot.models.completion import Completion
from surefoot.models.conversation import Conversation, Step, Task
from surefoot.models.engine import Engine, Session
from surefoot.models.prompt import Action, fit_prompt

ACTIONS = (
    Action("lookup", "Look up an order.", {}, "lookup"),
    Action("refund", "Pay money back.", {}, "refund"),
    Action("finish", "End the task.", {}, is_final=True),
)


class Opinions:
    """A session that answers from tables.

    Args:
        first: The first tokens after a prompt that ends in a key.
        fits: How likely each promise is after a message.
    """

    def __init__(self, first: dict[str, dict[str, float]], fits: dict[str, dict[str, float]] | None = None) -> None:
        self.first = first
        self.fits = fits or {}
        self.asked: list[str] = []

    def complete(self, prompt: str, **_: Any) -> Completion:
        self.asked.append(prompt)
        end = max((key for key in self.first if prompt.endswith(key)), key=len)
        tokens = tuple((token, math.log(share)) for token, share in self.first[end].items())
        return Completion("", 1, 0, 1, True, first=tokens)

    def logprob(self, prompt: str, text: str) -> float:
        self.asked.append(prompt)
        return self.fits.get(prompt, {}).get(text.strip(), -10.0)

    @property
    def session(self) -> Session:
        return cast(Session, self)


class Memory:
    def __init__(self) -> None:
        self.memory: dict[tuple[str, ...], tuple[float, ...]] = {}


def engine() -> Engine:
    return cast(Engine, Memory())


@given(st.dictionaries(st.text(min_size=1), st.floats(-50, 50), min_size=1), st.floats(0, 3))
def test_softmax_is_a_distribution_that_keeps_the_order(scores: dict[str, float], temperature: float) -> None:
    """Catches chances that don't add up, or a worse action that is likelier."""
    chances = softmax(scores, temperature)
    assert sum(chances.values()) == pytest.approx(1.0)
    best = max(scores, key=scores.__getitem__)
    assert chances[best] == pytest.approx(max(chances.values()))


def test_draws_follow_the_chances_and_repeat_with_the_seed() -> None:
    """Catches seeds that all choose the same, and one seed that chooses differently."""
    chances = {"a": 0.7, "b": 0.2, "c": 0.1}
    counts = Counter(drawn(chances, seed, "log") for seed in range(4000))
    assert counts["a"] == pytest.approx(2800, abs=150)
    assert counts["c"] == pytest.approx(400, abs=80)
    assert [drawn(chances, 7, "log") for _ in range(5)] == [drawn(chances, 7, "log")] * 5
    assert len({drawn(chances, 7, f"log {n}") for n in range(50)}) > 1
    assert drawn({"a": 1.0, "b": 0.0}, 1, "x") == "a"


def test_names_are_told_apart_by_their_first_token() -> None:
    """Catches one name's share that is counted for another."""
    found = name_logprobs(
        Opinions({'"': {"re": 0.5, "lo": 0.3, "l": 0.1, "x": 0.1}}).session, '"', ["refund", "lookup"]
    )
    assert math.exp(found["refund"]) == pytest.approx(0.6)  # its own and the floor
    assert math.exp(found["lookup"]) == pytest.approx(0.5)


def test_names_with_a_common_beginning_are_told_apart_by_what_follows() -> None:
    """Catches `send_email` chosen as often as `send_parcel` because both begin with "send"."""
    model = Opinions({'"': {"send": 0.9, "x": 0.001}, '"send': {"_email": 0.2, "_parcel": 0.6, "x": 0.001}})
    found = name_logprobs(model.session, '"', ["send_email", "send_parcel"])
    assert math.exp(found["send_parcel"] - found["send_email"]) == pytest.approx(3, rel=0.02)


def test_a_name_that_begins_another_is_told_apart_by_its_end() -> None:
    """Catches `refund` that can't be chosen beside `refund_all`."""
    model = Opinions({'"': {"refund": 1.0}, '"refund': {'"': 0.8, "_all": 0.2}})
    found = name_logprobs(model.session, '"', ["refund", "refund_all"])
    assert math.exp(found["refund"] - found["refund_all"]) == pytest.approx(4, rel=0.7)


def log_says(**shares: float) -> dict[str, dict[str, float]]:
    return {'Tool: "': {**shares, "x": 1e-6}}


def test_what_fits_the_task_outweighs_the_usual_order() -> None:
    """Catches a clerk that does the second tool at the second step, whatever was asked."""
    task = Task("Where is my order?", [Step("lookup", "{}", "on its way")])
    same = {"look up an order": -5.0, "pay money back": -5.0}
    model = Opinions(
        log_says(lookup=0.01, refund=0.6, finish=0.3),
        {
            fit_prompt(task.text): {"look up an order": -1.0, "pay money back": -9.0},
            fit_prompt(choice.NOTHING_ASKED): same,
        },
    )
    chances = probabilities(model.session, engine(), Conversation("", (task,)), ACTIONS, 1.0)
    assert max(chances, key=chances.__getitem__) == "finish"
    assert all(chance > 0 for chance in chances.values())


def test_what_was_done_is_rarely_done_again() -> None:
    """Catches a clerk that refunds for ever."""
    model = Opinions(log_says(lookup=0.1, refund=0.6, finish=0.3))
    before = Task("Refund it.", [Step("lookup", "{}", "ok")])
    after = Task("Refund it.", [Step("lookup", "{}", "ok"), Step("refund", "{}", "ok")])
    now, later = (
        probabilities(model.session, engine(), Conversation("", (task,)), ACTIONS, 1.0) for task in (before, after)
    )
    assert later["refund"] < now["refund"] / 3


def test_fits_are_asked_once_per_task() -> None:
    """Catches half a second spent on each step instead of once."""
    model, memory = Opinions(log_says(lookup=0.5, refund=0.3, finish=0.2)), engine()
    for _ in range(3):
        probabilities(model.session, memory, Conversation("", (Task("Refund it."),)), ACTIONS, 1.0)
    assert model.asked.count(fit_prompt("Refund it.")) == 2  # one per tool
    for n in range(300):
        probabilities(model.session, memory, Conversation("", (Task(f"Task {n}"),)), ACTIONS, 1.0)
    assert len(memory.memory) <= 256


def test_one_tool_and_no_task_need_no_fit() -> None:
    """Catches questions whose answers can't matter."""
    model = Opinions(log_says(lookup=0.5, finish=0.5))
    probabilities(model.session, engine(), Conversation("", (Task("Look."),)), (ACTIONS[0], ACTIONS[2]), 1.0)
    probabilities(model.session, engine(), Conversation("", ()), ACTIONS, 1.0)
    assert all(prompt.endswith('Tool: "') for prompt in model.asked)
