import sys
from pathlib import Path

from bench.plan import Work
from bench.processes import arguments_of, kill_and_resume


def test_a_killed_process_is_resumed_with_every_run_and_no_act_repeated() -> None:
    """Would catch a harness that loses runs, or that measures a resume of work that was never recorded."""
    figures = kill_and_resume(Path(sys.executable), "bench.peers.bare", arguments_of(Work(runs=3, cycles=0), "default"))
    assert figures["runs"] == 3
    assert figures["acts_repeated"] == 0
    assert 0 < figures["opened_s"] <= figures["resumed_s"] <= figures["done_s"]
