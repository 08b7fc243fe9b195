"""Models that are given as objects for one run: `agent.run(model=...)`, `agent.override(model=...)`.

Pydantic AI lets only registered models through to a durable request, since other engines make the request in another
process. Ours is made where the agent runs, so the object itself is at hand: a registered stand-in passes the request on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.models.wrapper import WrapperModel

from surefoot.problem import SurefootError

GIVEN = "surefoot:given"
"""The stand-in's name among an agent's models."""

_given: ContextVar[Model | None] = ContextVar("surefoot_given_model", default=None)


class GivenModel(WrapperModel):
    """Stands for the model that the present request was given."""

    def __init__(self) -> None:
        Model.__init__(self)
        self.last: Model | None = None

    @property
    def wrapped(self) -> Model:  # type: ignore[override]  # which one it is depends on the request
        """The model of the present request; after it, the last one's, whom newer versions ask about its answer."""
        model = _given.get() or self.last
        if model is None:
            raise SurefootError(
                "no request was given a model of its own", hint="pass the model to agent.run(model=...)"
            )
        return model


@contextmanager
def standing_in(request: ModelRequestContext, known: Iterable[object], stand_in: GivenModel) -> Iterator[None]:
    """Put the stand-in in place of a model that the agent was not built with."""
    model: Any = request.model
    if getattr(request, "model_id", None) is not None or _is_known(model, tuple(known)):
        yield
        return
    token = _given.set(model)
    request.model, stand_in.last = stand_in, model
    try:
        yield
    finally:
        _given.reset(token)


def _is_known(model: Any, known: tuple[object, ...]) -> bool:
    while True:
        if any(model is one for one in known):
            return True
        if not isinstance(model, WrapperModel) or isinstance(model, GivenModel):
            return isinstance(model, GivenModel)
        model = model.wrapped
