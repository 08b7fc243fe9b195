"""The warm parent: imports everything once, and sweeps."""

from __future__ import annotations

import argparse

from tests.mcp.scenarios import SCENARIOS
from tests.mcp.sweep import POINTS, as_line, sweep

parser = argparse.ArgumentParser(prog="python -m tests.mcp")
parser.add_argument("scenarios", nargs="+", choices=SCENARIOS)
parser.add_argument("--at", action="append", help="only at these points; 'A then B' kills the next worker too")
parser.add_argument("--call", action="append", help="only at the calls with these labels")
parser.add_argument("--deepens", action="store_true", help="kill the recovery too, at each of its crossings")
asked = parser.parse_args()
for title in asked.scenarios:
    for result in sweep(SCENARIOS[title], asked.at or POINTS, asked.call, deepens=asked.deepens):
        print(as_line(result), flush=True)
