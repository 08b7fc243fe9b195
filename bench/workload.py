"""The work every system is measured on: runs of cycles of one model decision and one act.

What always holds: `decide` is a pure function of its run and cycle; every decision is `DECISION_BYTES` of compact JSON
and every result `RESULT_BYTES`, whatever the numbers in it, so that all systems carry the same payload; `act` has one
side effect, in memory, which the harness counts to know that the work was really done.

Nothing here waits: whatever a run takes longer than this is the overhead of the system that carries it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

DECISION_BYTES = 965  # about the size of a model's answer: some thinking in words, one tool call, usage
RESULT_BYTES = 198  # about the size of a tool's receipt
STEPS_PER_CYCLE = 2  # one decision, one act

_WORDS = " ".join(hashlib.sha256(str(n).encode()).hexdigest()[n % 7 : n % 7 + 8] for n in range(600))
"""5 KB of text that no compression makes much smaller, cut at a place that depends on run and cycle."""


class World:
    """The world outside, in memory: it counts the acts that reach it.

    Attributes:
        acts: How many acts have landed since the start of this process.
    """

    def __init__(self) -> None:
        self.acts = 0

    def refund(self, reference: str) -> int:
        """Land one act and return its number; the reference is only looked at."""
        assert reference
        self.acts += 1
        return self.acts


def compact_json(value: Any) -> bytes:
    """Encode a value as JSON without spaces: the form in which payload sizes are counted here."""
    return json.dumps(value, separators=(",", ":")).encode()


def decide(run: int, cycle: int) -> dict[str, Any]:
    """Return the decision of one cycle, as a model would: words, one tool call with its arguments, usage.

    Args:
        run: Number of the run, 0 to 9,999,999.
        cycle: Number of the cycle in its run, 0 to 9,999.
    """
    at = (run * 31 + cycle * 17) % (len(_WORDS) - _DECISION_TEXT)
    return _decision(run, cycle, _WORDS[at : at + _DECISION_TEXT])


def act(decision: dict[str, Any], world: World) -> dict[str, Any]:
    """Do what the decision says (one side effect in `world`) and return the receipt."""
    arguments = decision["tool_call"]["arguments"]
    world.refund(arguments["order_id"])
    return _result(arguments["order_id"], arguments["amount"], _WORDS[:_RESULT_TEXT])


def _decision(run: int, cycle: int, text: str) -> dict[str, Any]:
    return {
        "model": "scripted-1",
        "text": text,
        "tool_call": {
            "id": f"call-{run:07d}-{cycle:04d}",
            "name": "refund",
            "arguments": {"order_id": f"A-{run:07d}-{cycle:04d}", "amount": "12.50", "reason": "arrived broken"},
        },
        "usage": {"prompt_tokens": 1840, "completion_tokens": 212},
        "finish_reason": "tool_call",
    }


def _result(order_id: str, amount: str, text: str) -> dict[str, Any]:
    return {"status": "refunded", "receipt": f"R-{order_id}", "amount": amount, "currency": "EUR", "note": text}


_DECISION_TEXT = DECISION_BYTES - len(compact_json(_decision(0, 0, "")))
_RESULT_TEXT = RESULT_BYTES - len(compact_json(_result("A-0000000-0000", "12.50", "")))
