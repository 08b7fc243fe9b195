from typing import Any

from bench.report import markdown, tables

_MODE = {"journal_mode": "wal", "synchronous": "2", "awaited": "every step", "sqlite_version": "3", "versions": "x 1"}


def _figures(rate: float) -> dict[str, Any]:
    return {
        "durability": _MODE,
        "steps_per_s": rate,
        "slowest_steps_per_s": rate - 100,
        "fastest_steps_per_s": rate + 100,
        "repeats": 3,
        "cycle_p50_ms": 1.0,
        "cycle_p99_ms": 2.0,
        "cpu_us_per_step": 10.0,
        "rss_bytes": 30_000_000,
        "store_bytes": 140_000,
        "steps_stored": 40,
        "work": "3 x 1 x 1 x 20",
    }


def _results(summary: dict[str, Any], failures: list[dict[str, str]]) -> dict[str, Any]:
    return {"summary": summary, "agent_step": {}, "probes": [], "failures": failures}


def test_ratios_say_how_many_times_faster_surefoot_and_the_ceiling_are() -> None:
    """Would catch a ratio turned upside down, or taken against the wrong system."""
    empty = {"durability": _MODE, "store_bytes": 100_000}
    summary = {
        name: {"empty": empty, "one": _figures(rate)}
        for name, rate in [("surefoot", 3000), ("bare", 6000), ("dbos", 200)]
    }
    page = markdown(tables(_results(summary, [])), ["header"])
    assert "| Surefoot | 3,000 (2,900 - 3,100) | - | 2.00x |" in page
    assert "| DBOS | 200 (100 - 300) | 15x | 30x |" in page
    assert "| 1,000 | 3 x 1 x 1 x 20 |" in page


def test_what_could_not_be_measured_is_named() -> None:
    """Would catch a system that silently drops out of the comparison."""
    failure = {"system": "dbos", "case": "one", "reason": "RuntimeError: a | b"}
    assert "| DBOS | one | RuntimeError: a \\| b |" in markdown(tables(_results({}, [failure])), [])
