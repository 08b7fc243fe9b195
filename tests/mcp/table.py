"""The page of the sweep: every server, killed at every point of every effect.

python -m tests.mcp.table RESULTS... > docs/mcp-crash-table.md      # from lines that `python -m tests.mcp` has printed
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mcp.sweep import POINTS, Result

HEAD = """# MCP crash table

One row per MCP server and what is declared about it, one column per place in the life of a tool call at which the
agent's worker is killed with SIGKILL. Each effect of a short script is killed at each place once; another worker goes on,
over stdio with a server process of its own. Afterwards the server's *whole* world (its files, its graph, its history, its
tables) is compared with that of the run in which nobody was killed.

*n/m* says that m cases were run and n of them ended in exactly the undisturbed world. *Asked*: the run stopped, named the
one call whose outcome nobody knows, and went on once a person had looked. *Doubled*: the server carried out again what it
neither dedupes nor overwrites.
"""

FOOT = """
## What the rows are

* **till**: a server of ours on the official SDK, over streamable HTTP here; the slow lane has it over stdio too. With
  *keys* it dedupes on `surefoot/idempotencyKey` from `_meta`.
* **filesystem**, **memory**: `@modelcontextprotocol/server-filesystem` and `-memory`, from npm, over stdio.
* **git**, **sqlite**: `mcp-server-git` and `mcp-server-sqlite`, from PyPI, over stdio.
* *nothing*: nothing is declared, so a person is asked. *declared*: a probe through another tool of the same server
  (`read_graph`, `git_log`, a `SELECT`), or an overwrite, with a fence of 1 s.

A relay in front of the server (over HTTP, a layer of the server) kills the worker while the call is in its hands: before
the server sees it, or after it has acted. Made by `python -m tests.mcp SCENARIO...` and `python -m tests.mcp.table`; the
slow lane (`make test-slow`) asserts it.
"""


def render(results: Sequence[Result]) -> str:
    """Return the page."""
    return "\n".join([HEAD, *_table(results), FOOT]).rstrip() + "\n"


def _table(results: Sequence[Result]) -> Iterator[str]:
    yield f"| killed when | {' | '.join(POINTS)} |"
    yield "|---" * (len(POINTS) + 1) + "|"
    for title in dict.fromkeys(result.scenario for result in results):
        own = [result for result in results if result.scenario == title]
        yield f"| **{title}** | {' | '.join(_cell([one for one in own if one.at == at]) for at in POINTS)} |"


def _cell(results: Sequence[Result]) -> str:
    counts = {"asked": sum(bool(one.parked) for one in results), "doubled": sum(one.doubled for one in results)}
    parts = [f"{sum(one.is_exact for one in results)}/{len(results)}"]
    return ", ".join(parts + [f"{number} {what}" for what, number in counts.items() if number])


if __name__ == "__main__":
    lines = [line for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]
    print(render([Result(**json.loads(line)) for line in lines]), end="")
