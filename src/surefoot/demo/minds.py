"""Who decides: the local model in its own process, a scripted clerk, or any model that Pydantic AI knows.

Always holds: the local model is one process for all workers, started by the demo and not killed by it.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings

from surefoot.demo.scripted import scripted_model
from surefoot.models import resolve_model
from surefoot.problem import SurefootError

LOCAL = "local"
SCRIPTED = "scripted"

TEMPERATURE = 0.4
"""Of the local model: erratic enough that clerks differ, orderly enough that every kind of act occurs."""

READY_WITHIN_S = 60.0  # it loads 93 MB; a slow disk gets its time
STOP_WITHIN_S = 5.0


class ModelDidNotStart(SurefootError):
    """The local model's process ended, or said nothing, before it was ready."""


def mind(model: str, model_url: str | None) -> Model | str:
    """Return the model that a worker's clerk asks.

    Args:
        model: `local`, `scripted`, or a name such as `openai:gpt-5`.
        model_url: Where the local model's process answers.
    """
    if model == SCRIPTED:
        return scripted_model()
    return resolve_model(model if model_url is None else f"local+{model_url}")


def settings_for(model: str, seed: int) -> ModelSettings:
    """Return how a model is asked; only the local one's choices follow the demo's seed."""
    if model == LOCAL:
        return ModelSettings(seed=seed, temperature=TEMPERATURE)
    return ModelSettings(parallel_tool_calls=False)


def require_weights(say: Callable[[str], None]) -> None:
    """Bring the local model's weights into the cache unless they are there."""
    from surefoot.models import weights

    if weights.find() is None:
        weights.pull(say)


@asynccontextmanager
async def model_process(model: str, log: Path) -> AsyncIterator[str | None]:
    """Keep the local model's process running; for other models, do nothing.

    Args:
        model: As typed after `--model`.
        log: Where its stderr goes.

    Yields:
        Where it answers; None for other models.

    Raises:
        ModelDidNotStart: It was not ready in time.
    """
    if model != LOCAL:
        yield None
        return
    command = [sys.executable, "-m", "surefoot.models.server", "--port", "0"]
    with log.open("ab") as errors:
        # A session of its own: Ctrl-C in the terminal is for the demo, which stops it when the workers have stopped.
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        yield await _ready_url(process, log)
    finally:
        await _stop(process)


async def _ready_url(process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None, "its stdout is a pipe"
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            line = await process.stdout.readline()
        return str(json.loads(line)["url"])
    except (TimeoutError, ValueError, KeyError) as error:
        raise ModelDidNotStart("the local model's process said nothing usable", hint=f"see {log}") from error


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
