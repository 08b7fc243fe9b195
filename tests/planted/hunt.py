"""Run schedules against the engine that is imported until one breaks a law: `python -m tests.planted.hunt 300`.

Prints how many schedules it took, and ends with 1, if one did.
"""

from __future__ import annotations

import sys

from tests.property.plans import plan_of
from tests.property.schedule import run


def main() -> None:
    """Hunt."""
    for number in range(1, int(sys.argv[1]) + 1):
        try:
            run(plan_of(number))
        except Exception as error:  # a broken law, or an engine that breaks down
            print(f"caught after {number}: {' '.join(str(error).split())[:300] or type(error).__name__}")
            sys.exit(1)
    print(f"nothing in {sys.argv[1]}")


if __name__ == "__main__":
    main()
