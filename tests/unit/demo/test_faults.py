"""The script: seeded, complete, and independent of what else goes on."""

import pytest

from surefoot.demo.draws import between, fraction, whole
from surefoot.demo.faults import EFFECT_DECK, LAST_WORDS, STEPS, Fault, FaultKind, Script, Step, drawn_fault

EFFECTS = ("POST /refunds", "PUT /orders/{order_id}/address", "POST /emails", "POST /parcels")


def test_a_draw_depends_on_its_seed_and_name_only() -> None:
    """Would catch draws that share a stream, and so change when another endpoint is asked more often."""
    assert fraction(1, "a", 2) == fraction(1, "a", 2)
    assert len({fraction(1, "a", 2), fraction(2, "a", 2), fraction(1, "a", 3), fraction(1, "a2")}) == 4
    assert {whole(seed, 2, 4, "n") for seed in range(50)} == {2, 3, 4}
    assert all(0.3 <= between(seed, 0.3, 1.5, "s") <= 1.5 for seed in range(50))


def test_a_draw_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Would catch a change that makes a printed seed show another run than the one somebody reported."""
    kinds = [drawn_fault(7, "POST /refunds", card, EFFECT_DECK).kind.value for card in range(1, 9)]
    assert kinds == ["calm", "calm", "late", "straggles", "closes", "calm", "calm", "vanishes"]


@pytest.mark.parametrize("turn", range(4))
def test_sixteen_requests_to_one_endpoint_meet_every_fault(turn: int) -> None:
    """Would catch a deck in which some fault may stay away for a whole demo, or none of its answers is calm."""
    for seed in range(20):
        kinds = [drawn_fault(seed, EFFECTS[turn], card, EFFECT_DECK, turn=turn).kind for card in range(17, 33)]
        assert set(kinds) == set(FaultKind)
        assert kinds.count(FaultKind.CALM) == 8


def test_four_requests_to_each_endpoint_meet_every_fault() -> None:
    """Would catch endpoints that all begin with the same faults, so that a short demo lacks some."""
    for seed in range(50):
        script = Script(seed, EFFECTS, is_nasty=True)
        assert {script.next_fault(endpoint).kind for endpoint in EFFECTS * 4} == set(FaultKind)


def test_endpoints_do_not_disturb_each_other() -> None:
    """Would catch a script whose draws depend on the order in which endpoints are asked."""
    alone, mixed = Script(3, EFFECTS, is_nasty=True), Script(3, EFFECTS, is_nasty=True)
    faults = [alone.next_fault("POST /refunds") for _ in range(20)]
    seen = []
    for _ in range(20):
        mixed.next_fault("POST /emails")
        seen.append(mixed.next_fault("POST /refunds"))
    assert seen == faults


def test_neither_closures_nor_orders_use_up_cards() -> None:
    """Would catch faults that vanish from a run because a closure swallowed their cards."""
    script = Script(3, EFFECTS, is_nasty=True)
    script.close_for(2)
    script.order("POST /emails", [FaultKind.ACTS_AND_CUTS])
    kinds = [script.next_fault("POST /emails").kind for _ in range(3)]
    assert kinds == [FaultKind.REFUSES, FaultKind.REFUSES, FaultKind.ACTS_AND_CUTS]
    assert script.next_fault("POST /emails") == drawn_fault(3, "POST /emails", 1, EFFECT_DECK, turn=2)


def test_a_calm_script_is_calm_and_reads_never_act_up_badly() -> None:
    """Would catch faults in the calm script, and reads that take the shop down."""
    calm = Script(1, EFFECTS, is_nasty=False)
    assert {calm.next_fault("POST /emails") for _ in range(40)} == {Fault(FaultKind.CALM)}
    nasty = Script(1, EFFECTS, is_nasty=True)
    reads = {nasty.next_fault("GET /emails").kind for _ in range(40)}
    assert reads == {FaultKind.CALM, FaultKind.LATE, FaultKind.CUTS, FaultKind.REFUSES}


def test_every_fault_says_one_last_word_and_acts_before_it_answers() -> None:
    """Would catch a row of the table that answers twice, or answers what it has not done."""
    for steps in STEPS.values():
        assert sum(step in LAST_WORDS for step in steps) == 1
        assert Step.ANSWER not in steps or steps.index(Step.ACT) < steps.index(Step.ANSWER)
