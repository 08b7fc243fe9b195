"""Run schedules against the engine that is imported until one breaks a law: `python -m tests.planted.hunt 300 [SEED ...]`.

Prints how many schedules it took, and ends with 1, if one did. Seeds that are named are left out; `--all` goes on to the
end, and prints each seed that breaks a law.
"""

from __future__ import annotations

import sys

from tests.property.plans import plan_of
from tests.property.schedule import run


def broken(seed: int) -> str:
    """Return what a seed's schedule breaks: a law, or the engine itself; empty for nothing."""
    try:
        run(plan_of(seed))
    except Exception as error:
        return " ".join(str(error).split())[:300] or type(error).__name__
    return ""


def main() -> None:
    """Hunt."""
    is_all = "--all" in sys.argv
    number, *left_out = [int(word) for word in sys.argv[1:] if word != "--all"]
    for seed in range(1, number + 1):
        found = "" if seed in left_out else broken(seed)
        if found:
            print(f"caught after {seed}: {found}", flush=True)
            if not is_all:
                sys.exit(1)
    print(f"searched {number}")


if __name__ == "__main__":
    main()
