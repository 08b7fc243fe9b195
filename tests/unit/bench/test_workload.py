import pytest
from bench.workload import DECISION_BYTES, RESULT_BYTES, World, act, compact_json, decide


@pytest.mark.parametrize(("run", "cycle"), [(0, 0), (7, 19), (999, 199), (9_999_999, 9_999)])
def test_every_payload_has_the_same_size_for_every_system(run: int, cycle: int) -> None:
    """Would catch a payload whose size depends on its numbers, so that bytes per step compare different work."""
    decision = decide(run, cycle)
    assert len(compact_json(decision)) == DECISION_BYTES
    assert len(compact_json(act(decision, World()))) == RESULT_BYTES


def test_a_decision_depends_on_nothing_but_its_run_and_cycle() -> None:
    """Would catch hidden state, which would make a replayed decision differ from the recorded one."""
    first = decide(3, 4)
    decide(5, 6)
    assert decide(3, 4) == first
    assert decide(3, 5) != first


def test_every_act_reaches_the_world_once() -> None:
    """Would catch an act that is not counted: the harness proves by this count that a system did the work."""
    world = World()
    for cycle in range(5):
        act(decide(1, cycle), world)
    assert world.acts == 5
