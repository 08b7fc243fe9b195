"""Runs the examples of Pydantic AI's own documentation, unchanged, inside durable runs, and compares what they print.

    git clone https://github.com/pydantic/pydantic-ai && .venv/bin/python tools/pydantic_ai_examples.py pydantic-ai

The documentation is in no package, so a checkout is needed; its tag should be that of the installed version. Each example
runs in three ways, each in a process of its own: plainly; with its agents durable, in a run; and that run once more, from
its record, in a second app. Models are replaced by Pydantic AI's `TestModel`, which calls every tool, so no example needs a
network. What can't be run at all (a package that is not installed, a service, code that is marked as no test) is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import contextvars
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^( *)```python(?: *\{([^}]*)\})? *\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
CHANGING = (
    (re.compile(r"datetime\.datetime\([^)]*\)+"), "<time>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}"), "<id>"),
    (re.compile(r"0x[0-9a-f]+"), "<address>"),
)
"""What differs between any two runs of an example."""

TIMEOUT_S = 60.0

LOOPS: list[asyncio.AbstractEventLoop] = []
"""The loop of the run that an example is in."""


def examples(docs: Path) -> list[tuple[str, str, str, str]]:
    """Return each example as its place, its code, the file it says it is, and why it is no test, if it says so."""
    found = []
    for page in sorted(docs.rglob("*.md")):
        text = page.read_text()
        for match in FENCE.finditer(text):
            indent, options, code = match.group(1), match.group(2) or "", match.group(3)
            line = text.count("\n", 0, match.start()) + 1
            code = "\n".join(row.removeprefix(indent) for row in code.splitlines())
            title = re.search(r'title="([^"]+)"', options)
            skipped = "marked as no test" if re.search(r'test="(skip|ci_only)"', options) else ""
            if 'upgrade="skip"' in options or (re.search(r'py="([^"]+)"', options) and not code.strip()):
                skipped = skipped or "marked as no test"
            found.append((f"{page.relative_to(docs)}:{line}", code, title.group(1) if title else "", skipped))
    return found


def run_one(path: str, mode: str) -> None:
    """Run one example in this process, and print as JSON what it printed."""
    import pydantic_ai.durable_exec._base as base
    from pydantic_ai import durable_exec, models
    from pydantic_ai.models.test import TestModel

    models.ALLOW_MODEL_REQUESTS = False

    def stand_in(model: Any, *args: Any, **kwargs: Any) -> Any:
        return TestModel() if isinstance(model, str) else model

    models.infer_model = stand_in
    base.infer_model = stand_in
    assert durable_exec
    if mode != "plain":
        make_durable()
    rounds = asyncio.run(in_rounds(path)) if mode != "plain" else [plain(path)]
    print(json.dumps(rounds), file=sys.__stdout__)


def load(path: str) -> dict[str, Any]:
    """Run an example's module, and return what it defines."""
    space: dict[str, Any] = {"__name__": "example", "__file__": path}
    sys.modules["example"] = type(sys)("example")
    sys.modules["example"].__dict__.update(space)
    exec(compile(Path(path).read_text(), path, "exec"), sys.modules["example"].__dict__)
    return sys.modules["example"].__dict__


def plain(path: str) -> str:
    """Run an example as it is."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        main = load(path).get("main")
        if inspect.iscoroutinefunction(main) and not inspect.signature(main).parameters:
            asyncio.run(main())
    return out.getvalue()


async def in_rounds(path: str) -> list[str]:
    """Run an example in a run, and once more from the record."""
    import surefoot as sf

    rounds: list[str] = []

    @sf.durable(name="example")
    async def example() -> None:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            try:
                LOOPS[:] = [asyncio.get_running_loop()]
                main = (await asyncio.to_thread(load, path)).get("main")
                if inspect.iscoroutinefunction(main) and not inspect.signature(main).parameters:
                    await main()
            finally:
                rounds.append(out.getvalue())
        if len(rounds) == 1:
            await asyncio.Event().wait()

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/agents.db"
        async with sf.Surefoot(url) as app:
            run = await app.start(example, id="example")
            while not rounds:
                state = await run.status()
                if state.waiting_for in ("blocked", "doubt") or state.state == "failed":
                    raise RuntimeError(state.reason)
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            if (state := await run.status()).state == "failed":
                raise RuntimeError(state.reason)
        async with sf.Surefoot(url) as app:
            await (await app.run("example")).result(timeout_s=TIMEOUT_S / 2)
    return rounds


def make_durable() -> None:
    """Give every agent the capability, and let `run_sync` run on the loop that is there."""
    from pydantic_ai import Agent

    from surefoot.adapters.pydantic_ai import Durable

    init, made = Agent.__init__, collections.Counter[str]()

    def durable_init(self: Any, model: Any = None, **options: Any) -> None:
        made["agents"] += 1
        if options.get("name") is None:
            options["name"] = f"agent {made['agents']}"
        capabilities = options.pop("capabilities", None) or []
        if model is not None:
            capabilities = [*capabilities, Durable()]
        init(self, model, capabilities=capabilities, **options)

    def run_sync(self: Any, *args: Any, **options: Any) -> Any:
        # The example's module is loaded in a thread, so that the loop is free for the run it is in.
        loop, context = LOOPS[0], contextvars.copy_context()

        async def inside() -> Any:
            return await loop.create_task(self.run(*args, **options), context=context)

        return asyncio.run_coroutine_threadsafe(inside(), loop).result()

    Agent.__init__ = durable_init  # type: ignore[method-assign]
    Agent.run_sync = run_sync  # type: ignore[method-assign]


def attempt(path: Path, mode: str, home: Path) -> tuple[list[str] | None, str]:
    """Run an example in a process of its own; return what it printed in each round, or why it could not run."""
    keys = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GROQ_API_KEY"), "none")
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(path), "--mode", mode],
            capture_output=True, text=True, timeout=TIMEOUT_S, cwd=home, check=False,
            env={**os.environ, **keys, "PYTHONPATH": str(home), "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, "took too long"
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["?"])[-1][:200]
    return [settled(text) for text in json.loads(done.stdout.splitlines()[-1])], ""


def settled(text: str) -> str:
    """Return output without what differs between any two runs."""
    for pattern, word in CHANGING:
        text = pattern.sub(word, text)
    return text


def main() -> int:
    """Run all examples of a checkout; the exit code says whether one differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("checkout", nargs="?", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--mode", choices=["plain", "durable"], help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="part of the page's name")
    options = parser.parse_args()
    if options.one:
        run_one(options.one, options.mode)
        return 0
    counts, differing = collections.Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for place, code, title, skipped in examples(options.checkout / "docs"):
            if options.only not in place:
                continue
            path = home / (title if title.endswith(".py") and "/" not in title else "example_code.py")
            path.write_text(code)
            if skipped or "Agent" not in code:
                counts[skipped or "has no agent"] += 1
                continue
            bare, why = attempt(path, "plain", home)
            if bare is None:
                counts["does not run without Surefoot either here"] += 1
                continue
            rounds, why = attempt(path, "durable", home)
            is_same = rounds is not None and rounds == [bare[0]] * 2
            counts["the same" if is_same else "differs"] += 1
            if not is_same:
                differing.append(place)
                shown = why or "\n".join(f"--- {text!r}"[:400] for text in [bare[0], *(rounds or [])])
                print(f"{place}: {shown}", flush=True)
    for what, count in counts.most_common():
        print(f"{count:5} {what}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
