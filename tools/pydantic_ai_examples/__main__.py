"""Runs the examples of Pydantic AI's own documentation, unchanged, with their agents durable, and compares what they print.

    python tools/pydantic_ai_examples CHECKOUT --python VENV/bin/python [-k EXPRESSION]

CHECKOUT is of pydantic-ai: its documentation and its test of it are in no package. VENV has Surefoot, the version of
Pydantic AI to try with its extras, and what their test needs: see `requirements.txt`. `plugin` says how each is run.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

CHANGING = (
    (re.compile(r"datetime\.datetime\([^)]*\)+"), "<time>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b(?:pyd_ai_)?[0-9a-f]{32}"), "<id>"),
    (re.compile(r"0x[0-9a-f]+"), "<address>"),
    (re.compile(r"timedelta\(microseconds=\d+\)"), "<span>"),
    (re.compile(r"model_id='\w+:"), "model_id='<provider>:"),  # the stand-in's, or the one it stands for
)
"""What differs between any two executions of an example."""

SAME = "same: plainly, with `Durable()` outside a run, in a run, and on replay"
QUIETER = "same, and the replay leaves out what tools and models printed"
IN_REPLAY = "same in a run; the replay can't follow"
OTHER = "prints something else in a run"
OUTSIDE = "prints something else outside a run"
REFUSED = "is refused"
STOPS = "stops in a run, for a person"
NO_AGENT = "same: makes no agent"
NOT_HERE = "fails without Surefoot too"
GOOD = (SAME, QUIETER, NO_AGENT, NOT_HERE)


def settled(lines: list[str]) -> list[str]:
    """Return what was printed without what differs between any two executions."""
    for pattern, word in CHANGING:
        lines = [pattern.sub(word, line) for line in lines]
    return lines


def is_raised(lines: list[str]) -> bool:
    """Whether an execution ended in an error."""
    return bool(lines) and lines[-1].startswith("raised ")


def is_part(some: list[str], lines: list[str]) -> bool:
    """Whether some lines are among others, in the same order."""
    rest = iter(lines)
    return all(line in rest for line in some)


def verdict(found: dict[str, Any]) -> tuple[str, str]:
    """Return what became of an example, and why, in words."""
    plain = settled(found["plain"])
    if is_raised(plain):
        return NOT_HERE, plain[-1].splitlines()[0]
    if not found["agents"]:
        return NO_AGENT, ""
    if plain != (outside := settled(found["outside"])):
        return REFUSED if is_raised(outside) else OUTSIDE, difference(plain, outside)
    if "first" not in found:
        return STOPS, found["reason"]
    first, replay = settled(found["first"]), settled(found.get("replay", []))
    if first != plain:
        return REFUSED if is_raised(first) else OTHER, difference(plain, first)
    if replay == first and not found["reason"]:
        return SAME, ""
    if is_part(replay, first) and not found["reason"]:
        return QUIETER, ""
    return IN_REPLAY, found["reason"] or difference(first, replay)


def difference(expected: list[str], given: list[str]) -> str:
    """Return the first line that differs, from where it does."""
    for one, other in zip([*expected, ""], [*given, ""], strict=False):
        if one != other:
            at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
            at = max(at - 20, 0)
            return f"{one[at:][:160]!r} became {other[at:][:160]!r}"
    return f"{len(expected)} lines became {len(given)}"


def run(checkout: Path, python: str, out: Path, options: list[str]) -> str:
    """Let their test run, with the plugin; return what pytest said."""
    command = [python, "-m", "pytest", "tests/test_examples.py", "-q", "-p", "plugin", "-p", "no:cacheprovider",
               "-o", "filterwarnings=ignore", "--tb=line", "-rs", *options]  # fmt: skip
    path = os.pathsep.join([str(checkout / "examples"), str(HERE)])
    done = subprocess.run(
        command, cwd=checkout, env={**os.environ, "PYTHONPATH": path, "SUREFOOT_EXAMPLES_OUT": str(out)},
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    return done.stdout


def report(found: list[dict[str, Any]]) -> bool:
    """Print the counts, and each example that isn't the same; return whether all that runs here is the same."""
    told = [(one["place"], *verdict(one)) for one in found]
    for place, what, why in sorted(told):
        if what not in (SAME, QUIETER, NO_AGENT):
            print(f"{place}: {what}: {why}")
    for what, count in collections.Counter(what for _, what, _ in told).most_common():
        print(f"{count:5} {what}")
    return all(what in GOOD for _, what, _ in told)


def main() -> int:
    """Run all examples of a checkout; the exit code says whether one wasn't the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--python", default=sys.executable, help="of the environment that has Pydantic AI")
    parser.add_argument("--keep", type=Path, help="a file for what was found, or with what was found before")
    options, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        out = options.keep or Path(folder) / "found.jsonl"
        if not out.exists():
            print(run(options.checkout.resolve(), options.python, out.resolve(), others), file=sys.stderr)
        found = [json.loads(line) for line in out.read_text().splitlines()]
    return 0 if found and report(found) else 1


if __name__ == "__main__":
    sys.exit(main())
