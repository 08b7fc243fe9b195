"""The world itself: that its tasks, its effects and its digest are what the table takes them for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tests.worlds import dojo
from tests.worlds.dojo import World


def test_the_benchmark_has_the_tasks_and_effects_that_the_table_counts() -> None:
    """Would catch another version of the benchmark, and calls lost while loading it."""
    tasks = dojo.load().values()

    assert len(tasks) == 97
    assert sum(len(task.calls) for task in tasks) == 339
    assert sum(len(task.effects) for task in tasks) == 81
    assert sum(1 for task in tasks if task.effects) == 59
    unchanging = [call for task in tasks for call in task.calls if call.effectful and not call.changes]
    assert [call.tool for call in unchanging] == ["update_scheduled_transaction"]


def test_every_read_leaves_the_digest_alone_and_every_tool_of_the_reference_solutions_is_classed() -> None:
    """Would catch a tool that acts but counts as a read: its loss or repetition would go unseen."""
    acting = set()
    for task in dojo.load().values():
        world = World(task.name)
        for call in task.calls:
            before = dojo.digest(world.state())
            world.perform(call.tool, call.args)
            if dojo.digest(world.state()) != before:
                acting.add(call.tool)

    assert acting <= dojo.EFFECTFUL
    assert acting == {call.tool for task in dojo.load().values() for call in task.calls if call.effectful}


def test_a_second_execution_is_seen_wherever_it_changes_the_state() -> None:
    """Would catch a digest that is blind to part of the state, or that sees differences where there are none."""
    outcomes: Counter[str] = Counter()
    for task in dojo.load().values():
        undisturbed = dojo.digest(dojo.replay(task.name, task.calls))
        for effect in task.effects:
            world = World(task.name)
            for call in task.calls:
                world.perform(call.tool, call.args)
                refusal = world.perform(call.tool, call.args)[1] if call is effect else None
                outcomes["refused"] += refusal is not None
            outcomes["other state"] += dojo.digest(world.state()) != undisturbed
            without = [call for call in task.calls if call is not effect]
            outcomes["lost unseen"] += dojo.digest(dojo.replay(task.name, without)) == undisturbed

    assert outcomes == {"other state": 64, "refused": 7, "lost unseen": 0}


@pytest.mark.slow
def test_a_snapshot_as_json_would_lose_effects() -> None:
    """Would catch the day this trap is gone; until then it says why worlds are rebuilt by replay."""
    losing = 0
    for task in dojo.load().values():
        world = World(task.name)
        for call in task.calls:
            world.perform(call.tool, call.args)
        after = world.state()
        world._environment = type(world._environment).model_validate_json(world._environment.model_dump_json())
        losing += world.state() != after

    assert losing == 24


def test_wall_clock_stamps_read_now_and_the_dates_of_the_fixture_stay() -> None:
    """Would catch digests that differ from one run to the next, and ones that ignore every date."""
    call = next(call for task in dojo.load().values() for call in task.calls if call.tool == "send_email")
    world = World("workspace/user_task_0")
    world.perform(call.tool, call.args)
    emails = world.state()["inbox"]["emails"]

    assert emails["34"]["timestamp"] == "(now)"
    assert emails["33"]["timestamp"].startswith("2024-")
    assert "read" not in emails["33"]


def test_lists_made_from_sets_are_compared_without_order_but_with_repeats() -> None:
    """Would catch digests that depend on the hash seed, and ones that hide a participant added twice."""
    canonical = dojo._canonical_state

    assert canonical({"participants": ["b", "a"]}) == canonical({"participants": ["a", "b"]})
    assert canonical({"participants": ["a", "a"]}) != canonical({"participants": ["a"]})
    assert canonical({"messages": ["b", "a"]}) != canonical({"messages": ["a", "b"]})


@pytest.mark.slow
def test_digests_do_not_depend_on_the_hash_seed() -> None:
    """Would catch set orders that leak into the state where the canonical form does not expect them."""
    script = (
        "from tests.worlds import dojo\n"
        "print([dojo.digest(dojo.replay(name, task.calls)) for name, task in dojo.load().items()])"
    )
    root = Path(__file__).parents[2]
    seen = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=root,
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(seen) == 1


def test_a_difference_names_the_place_and_both_values() -> None:
    """Would catch failure messages that send the reader to a debugger."""
    expected = {"inbox": {"sent": [1], "kept": True}, "balance": 10}
    found = {"inbox": {"sent": [1, 2], "new": "x"}, "balance": 9}

    assert dojo.diff(expected, found) == [
        "balance: expected 10, found 9",
        "inbox.kept: missing, expected true",
        'inbox.new: not expected, found "x"',
        "inbox.sent[1]: not expected, found 2",
    ]
    assert dojo.diff(expected, found, limit=1) == ["balance: expected 10, found 9", "... and 3 more"]


def test_business_keys_tell_the_calls_of_a_task_apart_and_survive_other_words() -> None:
    """Would catch a key that is too coarse (a legitimate second act is refused) or that includes the wording."""
    for task in dojo.load().values():
        effects = [call for call in task.calls if call.effectful]
        assert len({call.business_key for call in effects}) == len(effects)
        for call in effects:
            again = call.reworded()
            assert (again.business_key, again.origin) == (call.business_key, call.label)
            assert again.label != call.label
            assert (again.args != call.args) == any(name in call.args for name in dojo.FREE_TEXT.get(call.tool, ()))


def test_every_effectful_tool_and_free_parameter_exists() -> None:
    """Would catch a misspelt name in the tables, which would silently class an effect as a read."""
    parameters = {
        name: set(function.parameters.model_fields)
        for suite in dojo._suites()
        for name, function in dojo._runtime(suite).functions.items()
    }

    assert parameters.keys() >= dojo.EFFECTFUL
    assert dojo.FREE_TEXT.keys() <= dojo.EFFECTFUL
    assert all(set(free) <= parameters[tool] for tool, free in dojo.FREE_TEXT.items())


def test_a_world_is_not_changed_by_what_happens_in_another() -> None:
    """Would catch tasks that share an environment: the second one would start where the first ended."""
    name, task = next((name, task) for name, task in dojo.load().items() if task.effects)
    fresh = dojo.digest(World(name).state())
    dojo.replay(name, [replace(call) for call in task.calls])

    assert dojo.digest(World(name).state()) == fresh
